"""Statistics over runs, counted in one pass and in bounded memory.

The server chooses statuses, metadata and errors freely. Only a limited number of each is counted separately; the rest
is counted together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from heapq import heappush, heappushpop
from typing import Final, Generic, TypeVar

from attrs import define, field, frozen

from aiocopyai import JSON, Run, RunStatus
from aiocopyai._display import local_time, plural, preview, value_text


K = TypeVar("K")

COSTLIEST: Final = 10
"""The number of the most expensive runs that are kept."""
OTHERS: Final = "(others)"
"""The name of what is not counted separately."""
NO_STATUS: Final = "no status"
_MAX_STATUSES: Final = 20
_MAX_WORKFLOWS: Final = 1_000
_MAX_KEYS: Final = 50
_MAX_VALUES: Final = 1_000
_MAX_ERRORS: Final = 500
_MAX_DAYS: Final = 20_000
_TEXT_LENGTH: Final = 300
"""Characters that are kept of a text from the server; texts that begin with the same ones are counted together."""
_EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""Copy.ai did not exist before."""
_CLOCK_DIFFERENCE: Final = timedelta(days=1)
"""How far a run may be in the future, as clocks differ."""
_IDEMPOTENCY_KEY: Final = "idempotencyKey"
"""The metadata key under which a run carries its idempotency key; its values are all different, so it is left out."""
_VARYING: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]+", re.IGNORECASE)
"""The parts of an error that may differ between errors that are counted together: ids and numbers."""


@define
class Totals:
    """The number of some runs, their credits and their failures."""

    runs: int = 0
    credits: int = 0
    failed: int = 0
    """The number of the runs with the status ``FAILED``."""

    def add(self, run: Run) -> None:
        """Count a run."""
        self.runs += 1
        self.credits += run.credits or 0
        self.failed += run.status == RunStatus.FAILED

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.runs + other.runs, self.credits + other.credits, self.failed + other.failed)

    @classmethod
    def sum(cls, totals: Iterable[Totals]) -> Totals:
        """Add up totals."""
        return sum(totals, cls())


@define
class Groups(Generic[K]):
    """Totals by key. The first `limit` keys are counted separately."""

    limit: int
    totals: dict[K, Totals] = field(factory=dict[K, Totals], init=False)
    others: Totals = field(factory=Totals, init=False)
    """The totals of all other keys."""

    def add(self, key: K, run: Run) -> None:
        """Count a run under its key."""
        totals = self.totals.get(key)
        if totals is None:
            totals = self.others if len(self.totals) >= self.limit else self.totals.setdefault(key, Totals())
        totals.add(run)

    @property
    def ranked(self) -> list[tuple[K, Totals]]:
        """The keys and their totals, the most frequent first."""
        return sorted(self.totals.items(), key=lambda item: (-item[1].runs, -item[1].credits, str(item[0])))

    def top(self, count: int) -> tuple[list[tuple[K, Totals]], Totals]:
        """Return the `count` most frequent keys with their totals, and the totals of all others."""
        ranked = self.ranked
        return ranked[:count], Totals.sum([self.others, *(totals for _, totals in ranked[count:])])


@define
class KeySummary:
    """The runs that have a metadata key."""

    total: Totals = field(factory=Totals)
    values: Groups[str] = field(factory=lambda: Groups[str](_MAX_VALUES))
    """The totals by the key's value, as text."""

    @property
    def distinct(self) -> str:
        """The number of different values, as text; ``1,000+`` if there are more than were counted separately."""
        return f"{len(self.values.totals):,}{'+' if self.values.others.runs else ''}"


@define
class ErrorSummary:
    """Failed runs whose errors differ at most in numbers and ids."""

    text: str
    """The error of the first of the runs."""
    run_id: str
    """The id of the latest of the runs, as far as their times are known."""
    latest: datetime | None = None
    total: Totals = field(factory=Totals)

    def add(self, run: Run) -> None:
        """Count a run."""
        self.total.add(run)
        if run.created_at is not None and (self.latest is None or run.created_at > self.latest):
            self.latest, self.run_id = run.created_at, run.id[:_TEXT_LENGTH]


@frozen
class CostlyRun:
    """The data of an expensive run."""

    id: str
    status: str
    created_at: datetime | None
    credits: int
    preview: str
    """The beginning of its first output, or of its error."""


def summarize(runs: Iterable[Run], *, zone: tzinfo | None = None) -> Summary:
    """Count runs by day, status, workflow and metadata, and collect their errors and the most expensive runs.

    Args:
        runs: any number of runs, such as ``read_export("runs.jsonl")``. In an asynchronous iteration, call
            `Summary.add` for each run instead.
        zone: the time zone of the days; by default the local one.
    """
    summary = Summary(zone)
    for run in runs:
        summary.add(run)
    return summary


@define
class Summary:
    """Statistics over the runs that were passed to `add`."""

    zone: tzinfo | None = None
    """The time zone of the days; None for the local one."""
    now: datetime = field(factory=lambda: datetime.now(UTC), kw_only=True)
    """The current time: it decides whether a run's date is in the future, and whether the last day is complete."""
    total: Totals = field(factory=Totals, init=False)
    """The totals of all runs."""
    unpriced: int = field(default=0, init=False)
    """The number of runs without credits, which are counted as free."""
    undated: int = field(default=0, init=False)
    """The number of runs without a creation time, which are counted on no day."""
    misdated: int = field(default=0, init=False)
    """The number of runs with an impossible time, before 2020 or in the future, which are counted on no day."""
    first: datetime | None = field(default=None, init=False)
    """The earliest time of a run."""
    last: datetime | None = field(default=None, init=False)
    """The latest time of a run."""
    zones: dict[str, None] = field(factory=dict[str, None], init=False)
    """The names of the time zone, such as CET and CEST."""
    statuses: Groups[str] = field(factory=lambda: Groups[str](_MAX_STATUSES), init=False)
    """The totals by status."""
    workflows: Groups[str] = field(factory=lambda: Groups[str](_MAX_WORKFLOWS), init=False)
    """The totals by workflow id."""
    days: Groups[tuple[date, str]] = field(factory=lambda: Groups[tuple[date, str]](_MAX_DAYS), init=False)
    """The totals by day and status."""
    keys: dict[str, KeySummary] = field(factory=dict[str, KeySummary], init=False)
    """The totals by metadata key; a run with two keys is counted under both."""
    without_metadata: Totals = field(factory=Totals, init=False)
    """The totals of the runs without metadata."""
    errors: dict[str, ErrorSummary] = field(factory=dict[str, ErrorSummary], init=False)
    """The failed runs by their error, without the numbers and ids in it."""
    other_errors: Totals = field(factory=Totals, init=False)
    """The totals of the failed runs whose errors were not counted separately."""
    _costliest: list[tuple[int, int, CostlyRun]] = field(factory=list[tuple[int, int, CostlyRun]], init=False)

    def add(self, run: Run) -> None:
        """Count a run."""
        self.total.add(run)
        self.unpriced += run.credits is None
        status = str(run.status or NO_STATUS)[:_TEXT_LENGTH]
        self.statuses.add(status, run)
        self.workflows.add((run.workflow_id or "-")[:_TEXT_LENGTH], run)
        self._add_to_day(run, status if status in self.statuses.totals else OTHERS)
        self._add_to_keys(run)
        if run.status == RunStatus.FAILED:
            self._add_to_errors(run)
        self._add_to_costliest(run, status)

    @property
    def costliest(self) -> list[CostlyRun]:
        """The ten most expensive runs, the most expensive first."""
        return [costly for *_, costly in sorted(self._costliest, reverse=True)]

    @property
    def ranked_keys(self) -> list[tuple[str, KeySummary]]:
        """The metadata keys, the most frequent first, and the group of all others last."""
        return sorted(self.keys.items(), key=lambda item: (item[0] == OTHERS, -item[1].total.runs, item[0]))

    @property
    def ranked_errors(self) -> list[ErrorSummary]:
        """The errors, the most frequent first."""
        return sorted(self.errors.values(), key=lambda error: (-error.total.runs, error.text))

    def errors_after(self, count: int) -> Totals:
        """Return the totals of all errors except the `count` most frequent."""
        return Totals.sum([self.other_errors, *(error.total for error in self.ranked_errors[count:])])

    @property
    def remarks(self) -> list[str]:
        """The limits of the statistics, one sentence each."""
        return [
            f"{plural(runs, 'run')} {remark}"
            for runs, remark in (
                (self.undated, "without a creation time: counted on no day."),
                (self.misdated, "created before 2020 or in the future, by the API's account: counted on no day."),
                (self.unpriced, "without credits: counted as free."),
                (self.days.others.runs, f"beyond {_MAX_DAYS:,} days and statuses: counted on no day."),
            )
            if runs
        ]

    def _add_to_day(self, run: Run, status: str) -> None:
        created = run.created_at
        if created is None:
            self.undated += 1
            return
        if not _EARLIEST <= created <= self.now + _CLOCK_DIFFERENCE:
            self.misdated += 1
            return
        self.first = created if self.first is None else min(self.first, created)
        self.last = created if self.last is None else max(self.last, created)
        local = local_time(created, self.zone)
        known = len(self.days.totals)
        self.days.add((local.date(), status), run)
        if len(self.days.totals) > known:
            self.zones[local.tzname() or "?"] = None

    def _add_to_keys(self, run: Run) -> None:
        metadata = {key: value for key, value in run.metadata.items() if key != _IDEMPOTENCY_KEY}
        if not metadata:
            self.without_metadata.add(run)
        for key, value in metadata.items():
            name = key[:_TEXT_LENGTH]
            if name not in self.keys and len(self.keys) >= _MAX_KEYS:
                name = OTHERS
            summary = self.keys.setdefault(name, KeySummary())
            summary.total.add(run)
            summary.values.add(value_text(value)[:_TEXT_LENGTH], run)

    def _add_to_errors(self, run: Run) -> None:
        text = error_text(run.error)
        pattern = _VARYING.sub("#", text)
        error = self.errors.get(pattern)
        if error is None:
            if len(self.errors) >= _MAX_ERRORS:
                self.other_errors.add(run)
                return
            error = self.errors[pattern] = ErrorSummary(text, run.id[:_TEXT_LENGTH])
        error.add(run)

    def _add_to_costliest(self, run: Run, status: str) -> None:
        cost = run.credits or 0
        heap = self._costliest
        if cost <= 0 or (len(heap) >= COSTLIEST and cost <= heap[0][0]):
            return
        costly = CostlyRun(run.id[:_TEXT_LENGTH], status, run.created_at, cost, preview(run)[:_TEXT_LENGTH])
        # The count prefers the earlier run, and keeps the comparison from reaching the runs themselves.
        entry = (cost, -self.total.runs, costly)
        heappush(heap, entry) if len(heap) < COSTLIEST else heappushpop(heap, entry)


def error_text(error: JSON) -> str:
    """Return an error of any shape as one text."""
    if error is None:
        return "(no error given)"
    if isinstance(error, dict) and error:
        return " · ".join(f"{name}: {value_text(value)}" for name, value in error.items())[:_TEXT_LENGTH]
    return value_text(error)[:_TEXT_LENGTH] or "(an empty error)"


@frozen
class Period:
    """One day, week, month or year of a report."""

    start: date
    """The first day."""
    is_partial: bool
    """Whether the runs cover only a part of it: the first and last period usually, and today."""
    by_status: Mapping[str, Totals]

    @property
    def total(self) -> Totals:
        """The totals of all statuses."""
        return Totals.sum(self.by_status.values())


@frozen
class Periods:
    """Totals by days, weeks, months or years."""

    unit: str
    """The length: day, week, month or year."""
    periods: Sequence[Period]
    """The periods that have runs, the earliest first; weeks begin on Monday."""


def group_by_period(summary: Summary, limit: int) -> Periods:
    """Group the days of a summary into days, weeks, months or years: the shortest with at most `limit` periods."""
    days = sorted({day for day, _ in summary.days.totals})
    if not days:
        return Periods("day", [])
    first, last = days[0], days[-1]
    months = 12 * (last.year - first.year) + last.month - first.month + 1
    counts = {"day": (last - first).days + 1, "week": (last - first).days // 7 + 2, "month": months}
    unit = next((unit for unit, count in counts.items() if count <= limit), "year")
    grouped: dict[date, dict[str, Totals]] = {period_start(day, unit): {} for day in days}
    for (day, status), totals in summary.days.totals.items():
        by_status = grouped[period_start(day, unit)]
        by_status[status] = by_status.get(status, Totals()) + totals
    today = local_time(summary.now, summary.zone).date()
    periods = [
        Period(start, _is_partial(start, unit, first, min(last, today - timedelta(days=1))), by_status)
        for start, by_status in grouped.items()
    ]
    return Periods(unit, periods)


def _is_partial(start: date, unit: str, first: date, last: date) -> bool:
    """Return whether a period begins before the first day, or ends after the last complete one."""
    longest = {"day": 1, "week": 7, "month": 31, "year": 366}[unit]
    ends_later = start > last or (longest > 1 and period_start(last + timedelta(days=1), unit) == start)
    return start < first or ends_later


def period_start(day: date, unit: str) -> date:
    """Return the first day of the day, week, month or year that a day is in."""
    if unit == "week":
        return day - timedelta(days=min(day.weekday(), day.toordinal() - 1))
    if unit == "month":
        return day.replace(day=1)
    return day.replace(month=1, day=1) if unit == "year" else day
