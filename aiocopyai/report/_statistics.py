"""What a report says: runs counted in one pass, in memory that doesn't grow with their number.

What the server makes up (statuses, metadata, errors) is told apart only so far; what goes beyond is counted as `rest`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta, tzinfo
from heapq import heappush, heappushpop
from typing import Final, Generic, TypeVar

from attrs import define, field, frozen

from aiocopyai import JSON, Run, RunStatus
from aiocopyai._display import local_time, plural, preview, value_text


K = TypeVar("K")

TOP: Final = 10
"""How many of the costliest runs are kept."""
REST: Final = "(others)"
"""The name of what is not told apart."""
NO_STATUS: Final = "no status"
_STATUSES: Final = 20
_WORKFLOWS: Final = 1_000
_KEYS: Final = 50
_VALUES: Final = 1_000
_ERRORS: Final = 500
_DAYS: Final = 20_000
_TEXT: Final = 300
"""Characters that are kept of a text from the server; those that begin alike count as one."""
_IDEMPOTENCY_KEY: Final = "idempotencyKey"
"""Where `CopyAISession.start_run` puts its key among a run's metadata: another for each run, it tells nothing here."""
_VARYING: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]+", re.IGNORECASE)


@define
class Amount:
    """How many runs, and what they cost."""

    runs: int = 0
    credits: int = 0
    failed: int = 0
    """Those of the runs whose status is ``FAILED``."""

    def add(self, run: Run) -> None:
        """Count one run."""
        self.runs += 1
        self.credits += run.credits or 0
        self.failed += run.status == RunStatus.FAILED

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.runs + other.runs, self.credits + other.credits, self.failed + other.failed)


@define
class Groups(Generic[K]):
    """Amounts by key: the first `most` keys that come are told apart."""

    most: int
    amounts: dict[K, Amount] = field(factory=dict[K, Amount], init=False)
    rest: Amount = field(factory=Amount, init=False)
    """What the other keys come to."""

    def add(self, key: K, run: Run) -> None:
        """Count one run to its key."""
        amount = self.amounts.get(key)
        if amount is None:
            amount = self.rest if len(self.amounts) >= self.most else self.amounts.setdefault(key, Amount())
        amount.add(run)

    @property
    def largest(self) -> list[tuple[K, Amount]]:
        """The keys with most runs first."""
        return sorted(self.amounts.items(), key=lambda item: (-item[1].runs, -item[1].credits, str(item[0])))

    def top(self, count: int) -> tuple[list[tuple[K, Amount]], Amount]:
        """Give the keys with most runs, and all else in one."""
        ranked = self.largest
        return ranked[:count], sum((amount for _, amount in ranked[count:]), self.rest)


@define
class KeyFigures:
    """What one metadata key comes to."""

    total: Amount = field(factory=Amount)
    values: Groups[str] = field(factory=lambda: Groups[str](_VALUES))

    @property
    def distinct(self) -> str:
        """How many values there are, as a text: a lower bound where not all were told apart."""
        return f"{len(self.values.amounts):,}{'+' if self.values.rest.runs else ''}"


@define
class ErrorFigures:
    """Failed runs whose errors differ in numbers and ids at most."""

    text: str
    """The first one's error."""
    run_id: str
    """The latest run's id, as far as the times tell."""
    latest: datetime | None = None
    amount: Amount = field(factory=Amount)

    def add(self, run: Run) -> None:
        """Count one run."""
        self.amount.add(run)
        if run.created_at is not None and (self.latest is None or run.created_at > self.latest):
            self.latest, self.run_id = run.created_at, run.id[:_TEXT]


@frozen
class CostlyRun:
    """What is kept of a run that cost much."""

    id: str
    status: str
    created_at: datetime | None
    credits: int
    gist: str


@define
class Figures:
    """What a report says; `add` takes run after run."""

    zone: tzinfo | None = None
    """Where the days begin; None is the user's zone."""
    total: Amount = field(factory=Amount, init=False)
    unpriced: int = field(default=0, init=False)
    """Runs without credits: their cost is counted as 0."""
    undated: int = field(default=0, init=False)
    """Runs without a time: they are on no day."""
    first: datetime | None = field(default=None, init=False)
    last: datetime | None = field(default=None, init=False)
    zones: dict[str, None] = field(factory=dict[str, None], init=False)
    """The names of the zone, such as CET and CEST."""
    statuses: Groups[str] = field(factory=lambda: Groups[str](_STATUSES), init=False)
    workflows: Groups[str] = field(factory=lambda: Groups[str](_WORKFLOWS), init=False)
    days: Groups[tuple[date, str]] = field(factory=lambda: Groups[tuple[date, str]](_DAYS), init=False)
    """By day and status."""
    keys: dict[str, KeyFigures] = field(factory=dict[str, KeyFigures], init=False)
    """By metadata key; a run with two keys counts in both."""
    without_metadata: Amount = field(factory=Amount, init=False)
    errors: dict[str, ErrorFigures] = field(factory=dict[str, ErrorFigures], init=False)
    other_errors: Amount = field(factory=Amount, init=False)
    _costliest: list[tuple[int, int, CostlyRun]] = field(factory=list[tuple[int, int, CostlyRun]], init=False)

    def add(self, run: Run) -> None:
        """Count one run."""
        self.total.add(run)
        self.unpriced += run.credits is None
        status = str(run.status or NO_STATUS)[:_TEXT]
        self.statuses.add(status, run)
        self.workflows.add((run.workflow_id or "-")[:_TEXT], run)
        self._add_day(run, status if status in self.statuses.amounts else REST)
        self._add_metadata(run)
        if run.status == RunStatus.FAILED:
            self._add_error(run)
        self._rank(run, status)

    @property
    def costliest(self) -> list[CostlyRun]:
        """The runs that cost most; of those that cost the same, the ones that came first."""
        return [costly for *_, costly in sorted(self._costliest, reverse=True)]

    @property
    def ranked_keys(self) -> list[tuple[str, KeyFigures]]:
        """The metadata keys that most runs have first."""
        return sorted(self.keys.items(), key=lambda item: (-item[1].total.runs, item[0]))

    @property
    def ranked_errors(self) -> list[ErrorFigures]:
        """The errors that most runs have first."""
        return sorted(self.errors.values(), key=lambda error: (-error.amount.runs, error.text))

    def errors_beyond(self, count: int) -> Amount:
        """Give what all but the most frequent errors come to."""
        return sum((error.amount for error in self.ranked_errors[count:]), self.other_errors)

    @property
    def remarks(self) -> list[str]:
        """What a reader has to know to take the figures for no more than they are."""
        found = {
            "on no day: the API tells no time for them": self.undated,
            "counted as free: the API tells no credits for them": self.unpriced,
            "on one of the days that are not told apart": self.days.rest.runs,
        }
        return [f"{plural(runs, 'run')} {what}" for what, runs in found.items() if runs]

    def _add_day(self, run: Run, status: str) -> None:
        created = run.created_at
        if created is None:
            self.undated += 1
            return
        self.first = created if self.first is None else min(self.first, created)
        self.last = created if self.last is None else max(self.last, created)
        moment = local_time(created, self.zone)
        known = len(self.days.amounts)
        self.days.add((moment.date(), status), run)
        if len(self.days.amounts) > known:
            self.zones[moment.tzname() or "?"] = None

    def _add_metadata(self, run: Run) -> None:
        metadata = {key: value for key, value in run.metadata.items() if key != _IDEMPOTENCY_KEY}
        if not metadata:
            self.without_metadata.add(run)
        for key, value in metadata.items():
            name = key[:_TEXT]
            if name not in self.keys and len(self.keys) >= _KEYS:
                name = REST
            figures = self.keys.setdefault(name, KeyFigures())
            figures.total.add(run)
            figures.values.add(value_text(value)[:_TEXT], run)

    def _add_error(self, run: Run) -> None:
        text = error_text(run.error)
        like = _VARYING.sub("#", text)
        error = self.errors.get(like)
        if error is None:
            if len(self.errors) >= _ERRORS:
                self.other_errors.add(run)
                return
            error = self.errors[like] = ErrorFigures(text, run.id[:_TEXT])
        error.add(run)

    def _rank(self, run: Run, status: str) -> None:
        spent = run.credits or 0
        held = self._costliest
        if spent <= 0 or (len(held) >= TOP and spent <= held[0][0]):
            return
        costly = CostlyRun(run.id[:_TEXT], status, run.created_at, spent, preview(run)[:_TEXT])
        # The count makes every entry differ before the runs are compared, and prefers the earlier one.
        entry = (spent, -self.total.runs, costly)
        heappush(held, entry) if len(held) < TOP else heappushpop(held, entry)


def error_text(error: JSON) -> str:
    """Put an error in one line, whatever its shape."""
    if error is None:
        return "(no error given)"
    if isinstance(error, dict) and error:
        return " · ".join(f"{name}: {value_text(value)}" for name, value in error.items())[:_TEXT]
    return value_text(error)[:_TEXT] or "(an empty error)"


@frozen
class Periods:
    """Amounts by equal stretches of time, and by status in each."""

    name: str
    """What one is called: day, week, month or year."""
    by_start: Mapping[date, Mapping[str, Amount]]
    """The stretches that have runs, the earliest first, under their first day; weeks begin on Monday."""


def periods(figures: Figures, most: int) -> Periods:
    """Group the days so that no more than `most` stretches lie between the first and the last one."""
    days = sorted({day for day, _ in figures.days.amounts})
    name = _fitting(days[0], days[-1], most) if days else "day"
    grouped: dict[date, dict[str, Amount]] = {start_of(day, name): {} for day in days}
    for (day, status), amount in figures.days.amounts.items():
        by_status = grouped[start_of(day, name)]
        by_status[status] = by_status.get(status, Amount()) + amount
    return Periods(name, grouped)


def start_of(day: date, name: str) -> date:
    """Return the first day of the day, week, month or year that a day is in."""
    if name == "week":
        return day - timedelta(days=min(day.weekday(), day.toordinal() - 1))
    if name == "month":
        return day.replace(day=1)
    return day.replace(month=1, day=1) if name == "year" else day


def _fitting(first: date, last: date, most: int) -> str:
    days = (last - first).days + 1
    months = 12 * (last.year - first.year) + last.month - first.month + 1
    for name, count in (("day", days), ("week", days // 7 + 2), ("month", months)):
        if count <= most:
            return name
    return "year"
