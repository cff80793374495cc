"""Statistics of runs, in one pass and in bounded memory.

Statuses, metadata and errors can have any number of different values. A limited number of them is counted separately,
and the others are counted together.
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

MAX_COSTLIEST: Final = 10
OTHERS: Final = "(others)"
"""The name under which values beyond a limit are counted."""
_MAX_STATUSES: Final = 20
_MAX_WORKFLOWS: Final = 1_000
_MAX_KEYS: Final = 50
_MAX_VALUES: Final = 1_000
_MAX_ERRORS: Final = 500
_MAX_DAYS: Final = 20_000
_TEXT_LENGTH: Final = 300
"""Texts are truncated to this many characters. Texts that differ only after them are counted together."""
_EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""Copy.ai's Workflows API did not exist before."""
_MAX_CLOCK_DIFFERENCE: Final = timedelta(days=1)
"""A creation time may be in the future by at most this much, because clocks differ."""
_IDEMPOTENCY_KEY: Final = "idempotencyKey"
"""The metadata key that is ignored, because each run has a different value."""
_ID_OR_NUMBER: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]+", re.IGNORECASE)
"""Errors that differ only in matches of this pattern are counted together."""


@define
class Totals:
    """The number of runs, their credits and their failures."""

    runs: int = 0
    credits: int = 0
    failed: int = 0
    """The number of runs with the status ``FAILED``."""

    def add(self, run: Run) -> None:
        """Count a run."""
        self.runs += 1
        self.credits += run.credits or 0
        self.failed += run.status == RunStatus.FAILED

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.runs + other.runs, self.credits + other.credits, self.failed + other.failed)

    @classmethod
    def sum(cls, totals: Iterable[Totals]) -> Totals:
        """Return the sum of totals."""
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
        """Return the `count` most frequent keys with their totals, and the totals of all other keys."""
        ranked = self.ranked
        return ranked[:count], Totals.sum([self.others, *(totals for _, totals in ranked[count:])])


@define
class KeySummary:
    """The runs that have a metadata key."""

    total: Totals = field(factory=Totals)
    values: Groups[str] = field(factory=lambda: Groups[str](_MAX_VALUES))
    """The totals by value, as text."""

    @property
    def distinct(self) -> str:
        """The number of different values as text, or ``1,000+`` if there are more."""
        return f"{len(self.values.totals):,}{'+' if self.values.others.runs else ''}"


@define
class ErrorSummary:
    """Failed runs whose errors differ only in numbers and ids."""

    text: str
    """The error of the first of the runs."""
    run_id: str
    """The id of the run with the latest creation time."""
    latest: datetime | None = None
    total: Totals = field(factory=Totals)

    def add(self, run: Run) -> None:
        """Count a run."""
        self.total.add(run)
        if run.created_at is not None and (self.latest is None or run.created_at > self.latest):
            self.latest, self.run_id = run.created_at, run.id[:_TEXT_LENGTH]


@frozen
class CostlyRun:
    """One of the most expensive runs."""

    id: str
    status: str
    created_at: datetime | None
    credits: int
    preview: str
    """The beginning of the first output, or of the error."""


def summarize(runs: Iterable[Run], *, zone: tzinfo | None = None) -> Summary:
    """Return statistics of runs by day, status, workflow, metadata and error, and the most expensive runs.

    Args:
        runs: any number of runs, such as ``read_export("runs.jsonl")``. For an asynchronous iterator, call
            `Summary.add` with each run instead.
        zone: the time zone of the days; by default the local time zone.
    """
    summary = Summary(zone)
    for run in runs:
        summary.add(run)
    return summary


@define
class Summary:
    """Statistics of the runs that were passed to `add`."""

    zone: tzinfo | None = None
    """The time zone of the days; None for the local time zone."""
    now: datetime = field(factory=lambda: datetime.now(UTC), kw_only=True)
    """The current time, to know which creation times are in the future and whether the last day is complete."""
    total: Totals = field(factory=Totals, init=False)
    """The totals of all runs."""
    unpriced: int = field(default=0, init=False)
    """The number of runs without credits, which are counted as 0."""
    undated: int = field(default=0, init=False)
    """The number of runs without a creation time, which are not counted on any day."""
    misdated: int = field(default=0, init=False)
    """The number of runs with a creation time before 2020 or in the future, which are not counted on any day."""
    first: datetime | None = field(default=None, init=False)
    """The earliest creation time."""
    last: datetime | None = field(default=None, init=False)
    """The latest creation time."""
    zones: dict[str, None] = field(factory=dict[str, None], init=False)
    """The names of the time zone on the days, such as CET and CEST."""
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
    """The failed runs by error, without its numbers and ids."""
    other_errors: Totals = field(factory=Totals, init=False)
    """The totals of failed runs whose errors are not counted separately."""
    _costliest: list[tuple[int, int, CostlyRun]] = field(factory=list[tuple[int, int, CostlyRun]], init=False)

    def add(self, run: Run) -> None:
        """Count a run."""
        self.total.add(run)
        self.unpriced += run.credits is None
        status = str(run.status or "no status")[:_TEXT_LENGTH]
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
        return [run for *_, run in sorted(self._costliest, reverse=True)]

    @property
    def ranked_keys(self) -> list[tuple[str, KeySummary]]:
        """The metadata keys and their summaries, the most frequent first, and ``(others)`` last."""
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
        """Notes on missing and invalid data, one sentence each."""
        return [
            f"{plural(runs, 'run')} {remark}"
            for runs, remark in (
                (self.undated, "without a creation time: not counted on any day."),
                (self.misdated, "with a creation time before 2020 or in the future: not counted on any day."),
                (self.unpriced, "without credits: counted as 0 credits."),
                (self.days.others.runs, f"beyond {_MAX_DAYS:,} days and statuses: not counted on any day."),
            )
            if runs
        ]

    def _add_to_day(self, run: Run, status: str) -> None:
        created = run.created_at
        if created is None:
            self.undated += 1
            return
        if not _EARLIEST <= created <= self.now + _MAX_CLOCK_DIFFERENCE:
            self.misdated += 1
            return
        self.first = created if self.first is None else min(self.first, created)
        self.last = created if self.last is None else max(self.last, created)
        local = local_time(created, self.zone)
        day_count = len(self.days.totals)
        self.days.add((local.date(), status), run)
        if len(self.days.totals) > day_count:
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
        pattern = _ID_OR_NUMBER.sub("#", text)
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
        if cost <= 0 or (len(heap) >= MAX_COSTLIEST and cost <= heap[0][0]):
            return
        costly_run = CostlyRun(run.id[:_TEXT_LENGTH], status, run.created_at, cost, preview(run)[:_TEXT_LENGTH])
        # Of equally expensive runs, the first is kept. The number of runs differs, so that runs are never compared.
        entry = (cost, -self.total.runs, costly_run)
        heappush(heap, entry) if len(heap) < MAX_COSTLIEST else heappushpop(heap, entry)


def error_text(error: JSON) -> str:
    """Return an error as text, regardless of its type."""
    if error is None:
        return "(no error)"
    if isinstance(error, dict) and error:
        return " · ".join(f"{name}: {value_text(value)}" for name, value in error.items())[:_TEXT_LENGTH]
    return value_text(error)[:_TEXT_LENGTH] or "(empty error)"


@frozen
class Period:
    """The totals of one day, week, month or year."""

    start: date
    """The first day."""
    is_partial: bool
    """Whether the runs cover only a part of the period, as is usual for the first and the last period."""
    by_status: Mapping[str, Totals]

    @property
    def total(self) -> Totals:
        """The totals of all statuses."""
        return Totals.sum(self.by_status.values())


@frozen
class Periods:
    """Totals by days, weeks, months or years."""

    unit: str
    """``day``, ``week``, ``month`` or ``year``."""
    periods: Sequence[Period]
    """The periods that have runs, the earliest first. Weeks begin on Monday."""


def group_by_period(summary: Summary, limit: int) -> Periods:
    """Group the days of a summary by the shortest unit with at most `limit` periods, or else by year."""
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
    first_incomplete = period_start(min(last + timedelta(days=1), today), unit)
    periods = [
        Period(start, is_partial=start < first or start >= first_incomplete, by_status=by_status)
        for start, by_status in grouped.items()
    ]
    return Periods(unit, periods)


def period_start(day: date, unit: str) -> date:
    """Return the first day of the week, month or year that contains a day, or the day itself."""
    if unit == "week":
        return day - timedelta(days=min(day.weekday(), day.toordinal() - 1))
    if unit == "month":
        return day.replace(day=1)
    return day.replace(month=1, day=1) if unit == "year" else day
