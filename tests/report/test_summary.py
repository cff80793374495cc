"""Tests of the statistics of runs."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta, timezone
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import JSON, Run, RunStatus
from aiocopyai.report import Groups, Summary, Totals, group_by_period, summarize
from aiocopyai.report._summary import MAX_COSTLIEST, error_text, period_start
from tests.support.exporting import ANY_TEXT


NOW = datetime(2026, 2, 10, 12, tzinfo=UTC)


def summary_of(runs: list[Run], zone: timezone = UTC, now: datetime = NOW) -> Summary:
    summary = Summary(zone, now=now)
    for run in runs:
        summary.add(run)
    return summary


@given(ANY_TEXT)
def test_the_groups_add_up_to_the_total(runs: list[Run]) -> None:
    """The totals by status, by workflow, and by day and missing day, each add up to those of all runs."""
    summary = summary_of(runs)
    on_no_day = Totals.sum(
        Totals(1, run.credits or 0, run.status == "FAILED")
        for run in runs
        if run.created_at is None or not datetime(2020, 1, 1, tzinfo=UTC) <= run.created_at <= NOW + timedelta(days=1)
    )

    assert summary.total == Totals(
        len(runs), sum(run.credits or 0 for run in runs), sum(run.status == "FAILED" for run in runs)
    )
    for groups in (summary.statuses, summary.workflows):
        assert Totals.sum([*groups.totals.values(), groups.others]) == summary.total
    assert Totals.sum([*summary.days.totals.values(), on_no_day]) == summary.total
    assert summary.undated + summary.misdated == on_no_day.runs
    assert Totals.sum([error.total for error in summary.ranked_errors]).runs == summary.total.failed


@given(ANY_TEXT)
def test_a_run_is_counted_under_each_of_its_metadata_keys(runs: list[Run]) -> None:
    """A run is counted once under each of its keys and their values, or as a run without metadata."""
    summary = summary_of(runs)

    for name, key in summary.keys.items():
        assert key.total.runs == sum(name in run.metadata for run in runs)
        assert Totals.sum(list(key.values.totals.values())) == key.total
    assert set(summary.keys) == {name for run in runs for name in run.metadata}
    assert summary.without_metadata.runs == sum(not run.metadata for run in runs)


@given(st.lists(st.none() | st.integers(-5, 30), max_size=60))
def test_the_ten_most_expensive_runs_are_kept(spent: list[int | None]) -> None:
    """The summary has the ten runs with the most credits. Runs without credits are not included."""
    runs = [Run(id=str(number), credits=price) for number, price in enumerate(spent)]
    expected = sorted((run for run in runs if (run.credits or 0) > 0), key=lambda run: -(run.credits or 0))[
        :MAX_COSTLIEST
    ]

    assert [run.id for run in summary_of(runs).costliest] == [run.id for run in expected]


@given(
    st.lists(st.tuples(st.dates(date(2020, 1, 1), date(2060, 1, 1)), st.integers(0, 9)), min_size=1, max_size=30),
    st.integers(10, 100),
)
def test_periods_have_the_totals_of_their_days(days: list[tuple[date, int]], limit: int) -> None:
    """The periods have the same totals as the days, and there are at most `limit` periods, except years."""
    runs = [
        Run(id=str(number), credits=price, created_at=datetime(day.year, day.month, day.day, 12, tzinfo=UTC))
        for number, (day, price) in enumerate(days)
    ]
    summary = summary_of(runs, now=datetime(2060, 1, 1, tzinfo=UTC))
    grouped = group_by_period(summary, limit)
    starts = [period.start for period in grouped.periods]

    assert Totals.sum(period.total for period in grouped.periods) == summary.total
    assert starts == sorted({period_start(day, grouped.unit) for day, _ in days})
    if grouped.unit == "day":
        assert (starts[-1] - starts[0]).days < limit
    elif grouped.unit != "year":
        assert len(starts) <= limit


def test_the_shortest_unit_that_fits_is_used() -> None:
    """Runs are grouped by day if there are at most `limit` days, otherwise by week, month or year."""
    first = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def unit(days: int) -> str:
        runs = [Run(id="a", created_at=first), Run(id="b", created_at=first + timedelta(days=days - 1))]
        return group_by_period(summary_of(runs, now=first + timedelta(days=800)), 20).unit

    assert [unit(days) for days in (1, 20, 21, 100, 200, 600, 700)] == [
        *("day", "day", "week", "week", "month", "month", "year")
    ]


def test_days_begin_in_the_given_zone() -> None:
    """A run at 23:30 UTC is on the next day in UTC+1, and the summary has the name of the zone."""
    run = Run(id="a", created_at=datetime(2026, 1, 31, 23, 30, tzinfo=UTC))
    east = timezone(timedelta(hours=1), "EAST")

    assert list(summary_of([run]).days.totals) == [(date(2026, 1, 31), "no status")]
    assert list(summary_of([run], east).days.totals) == [(date(2026, 2, 1), "no status")]
    assert list(summary_of([run], east).zones) == ["EAST"]


@pytest.mark.parametrize(
    ("start", "last_run", "now", "limit", "partial"),
    [
        ((2026, 2, 2), (2026, 2, 10), (2026, 2, 10), 100, {(2026, 2, 10)}),
        ((2026, 2, 2), (2026, 2, 9), (2026, 2, 10), 100, set()),
        ((2026, 1, 7), (2026, 2, 8), (2026, 2, 10), 20, {(2026, 1, 5)}),
        ((2026, 1, 5), (2026, 2, 6), (2026, 2, 10), 20, {(2026, 2, 2)}),
        ((2026, 1, 5), (2026, 2, 8), (2026, 2, 8), 20, {(2026, 2, 2)}),
        ((2025, 1, 2), (2026, 2, 28), (2026, 3, 1), 20, {(2025, 1, 1)}),
        ((2020, 1, 1), (2026, 2, 28), (2026, 3, 1), 20, {(2026, 1, 1)}),
    ],
    ids=["today", "yesterday", "first week", "last week", "a week that ends today", "first month", "last year"],
)
def test_partial_periods_are_marked(
    start: tuple[int, int, int],
    last_run: tuple[int, int, int],
    now: tuple[int, int, int],
    limit: int,
    partial: set[tuple[int, int, int]],
) -> None:
    """A period is partial if the runs begin or end within it, or if it contains today."""
    days = (date(*last_run) - date(*start)).days
    first = datetime(*start, 9, tzinfo=UTC)
    runs = [Run(id=str(day), created_at=first + timedelta(days=day)) for day in range(days + 1)]
    grouped = group_by_period(summary_of(runs, now=datetime(*now, 12, tzinfo=UTC)), limit)

    assert {period.start for period in grouped.periods if period.is_partial} == {date(*day) for day in partial}


@pytest.mark.parametrize(
    "created_at",
    [datetime(1, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)],
)
def test_impossible_dates_are_not_counted_on_any_day(created_at: datetime) -> None:
    """A run with a date before 2020 or in the future adds a remark, and does not change the unit of the periods."""
    runs = [Run(id="a", created_at=created_at, credits=1), Run(id="b", created_at=NOW, credits=1)]
    for zone in (UTC, timezone(timedelta(hours=12)), timezone(-timedelta(hours=12))):
        summary = summary_of(runs, zone)

        assert (summary.total.runs, summary.first, summary.last) == (2, NOW, NOW)
        assert group_by_period(summary, 10).unit == "day"
        assert summary.remarks == ["1 run with a creation time before 2020 or in the future: not counted on any day."]


@given(st.lists(st.integers(0, 9)), st.integers(1, 12))
def test_others_are_counted_together(keys: list[int], limit: int) -> None:
    """The first keys have their own totals, and `others` has those of all other runs."""
    groups = Groups[int](limit)
    for key in keys:
        groups.add(key, Run(id="a"))
    known = set(dict.fromkeys(keys).keys() if len(set(keys)) <= limit else list(dict.fromkeys(keys))[:limit])
    counts = Counter(key for key in keys if key in known)

    assert {key: totals.runs for key, totals in groups.totals.items()} == dict(counts)
    assert groups.others.runs == len(keys) - counts.total()
    top, others = groups.top(2)
    assert [totals.runs for _, totals in top] == sorted(counts.values(), reverse=True)[:2]
    assert sum(totals.runs for _, totals in top) + others.runs == len(keys)


def test_memory_is_bounded() -> None:
    """Only a limited number of statuses, keys, values, workflows, errors and days is counted separately."""
    random = Random(0)  # noqa: S311 (repeatable words)
    word = "x" * 10_000
    summary = Summary(UTC, now=datetime(2200, 1, 1, tzinfo=UTC))
    for number in range(30_000):
        text = "".join(random.choices("abcdefgh", k=12))
        summary.add(
            Run(
                id=text + word,
                workflow_id=text,
                status=RunStatus("FAILED" if number % 2 else text),
                metadata={text: text + word, "same": text},
                error=text + word,
                credits=number,
                created_at=datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=number),
                output={"text": word},
            )
        )

    held = [summary.statuses, summary.workflows, summary.days, *(key.values for key in summary.keys.values())]
    assert all(len(groups.totals) <= groups.limit for groups in held)
    assert len(summary.keys) <= 51
    assert len(summary.errors) <= 500
    assert max(len(error.text) for error in summary.errors.values()) <= 300
    assert max(len(run.id) + len(run.preview) for run in summary.costliest) <= 600
    assert summary.keys["(others)"].distinct == "1,000+"
    assert Totals.sum([error.total for error in summary.ranked_errors]) + summary.other_errors == Totals(
        15_000, sum(range(1, 30_000, 2)), 15_000
    )
    assert summary.remarks[-1] == "10,000 runs beyond 20,000 days and statuses: not counted on any day."


def test_errors_that_differ_in_numbers_and_ids_are_counted_together() -> None:
    """Similar errors are one summary with the text of the first error, and the id and time of the latest run."""
    texts = [
        "step 1 of WRUN-6fe9e53c-945a-4aa3-a87e-d64c3cc0dcb0 took 31.5 s",
        "step 2 of WRUN-137a0cd4-7dc3-412d-8d1c-854bddbdc230 took 7.25 s",
        "no credits",
    ]
    runs = [
        Run(
            id=str(number),
            status=RunStatus.FAILED,
            error={"message": texts[number % 3]},
            credits=number,
            created_at=datetime(2026, 1, 1 + (5 * number) % 7, tzinfo=UTC),
        )
        for number in range(6)
    ]
    first, second = summary_of(runs).ranked_errors

    assert (first.text, first.total) == (f"message: {texts[0]}", Totals(4, 8, 4))
    assert (first.run_id, first.latest) == ("4", datetime(2026, 1, 7, tzinfo=UTC))
    assert (second.text, second.total.runs) == ("message: no credits", 2)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, "(no error)"),
        ("", "(empty error)"),
        ("it broke", "it broke"),
        ({"message": "it broke", "at": [1, None]}, "message: it broke · at: [1, null]"),
        ({}, "{}"),
        (["a"], '["a"]'),
        (False, "false"),
    ],
)
def test_an_error_of_any_type_is_converted_to_text(error: JSON, text: str) -> None:
    """Strings are kept, objects are listed by field, and other values are JSON."""
    assert error_text(error) == text


def test_missing_values_are_remarked() -> None:
    """The remarks count the runs without a creation time and those without credits."""
    summary = summarize([Run(id="a"), Run(id="b", credits=1)])

    assert summary.remarks == [
        "2 runs without a creation time: not counted on any day.",
        "1 run without credits: counted as 0 credits.",
    ]
