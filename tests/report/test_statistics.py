"""What a report counts: every run once, in whatever order, and no more groups than it has room for."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta, timezone
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import JSON, Run, RunStatus
from aiocopyai.report._statistics import TOP, Amount, Figures, Groups, error_text, periods, start_of
from tests.support.exporting import ODDITIES


def figures_of(runs: list[Run], zone: timezone | None = UTC) -> Figures:
    figures = Figures(zone)
    for run in runs:
        figures.add(run)
    return figures


def total(amounts: list[Amount]) -> Amount:
    return sum(amounts, Amount())


@given(ODDITIES)
def test_every_group_adds_up(runs: list[Run]) -> None:
    """By status, by workflow and by day together with the undated, the amounts are those of all runs."""
    figures = figures_of(runs)
    undated = total([Amount(1, run.credits or 0, run.status == "FAILED") for run in runs if run.created_at is None])

    assert figures.total == Amount(
        len(runs), sum(run.credits or 0 for run in runs), sum(run.status == "FAILED" for run in runs)
    )
    for groups in (figures.statuses, figures.workflows):
        assert total([*groups.amounts.values(), groups.rest]) == figures.total
    assert total([*figures.days.amounts.values(), undated]) == figures.total
    assert figures.undated == undated.runs
    assert total([error.amount for error in figures.ranked_errors]).runs == figures.total.failed


@given(ODDITIES)
def test_a_key_counts_the_runs_that_have_it(runs: list[Run]) -> None:
    """A run counts once under each of its metadata keys, once under its value there, or else as one without any."""
    figures = figures_of(runs)

    for name, key in figures.keys.items():
        assert key.total.runs == sum(name in run.metadata for run in runs)
        assert total(list(key.values.amounts.values())) == key.total
    assert set(figures.keys) == {name for run in runs for name in run.metadata}
    assert figures.without_metadata.runs == sum(not run.metadata for run in runs)


@given(st.lists(st.none() | st.integers(-5, 30), max_size=60))
def test_the_costliest_are_those_of_a_sort(spent: list[int | None]) -> None:
    """The ten that cost most, most first; of equals the first that came; a run that cost nothing is none of them."""
    runs = [Run(id=str(number), credits=price) for number, price in enumerate(spent)]
    expected = sorted((run for run in runs if (run.credits or 0) > 0), key=lambda run: -(run.credits or 0))[:TOP]

    assert [run.id for run in figures_of(runs).costliest] == [run.id for run in expected]


@given(
    st.lists(st.tuples(st.dates(), st.integers(0, 9)), min_size=1, max_size=30),
    st.integers(10, 100),
)
def test_periods_lose_nothing(days: list[tuple[date, int]], most: int) -> None:
    """Whatever the stretches are, they hold the same amounts; and there are no more than asked for, but for years."""
    runs = [
        Run(id=str(number), credits=price, created_at=datetime(day.year, day.month, day.day, 12, tzinfo=UTC))
        for number, (day, price) in enumerate(days)
    ]
    figures = figures_of(runs)
    grouped = periods(figures, most)
    starts = list(grouped.by_start)

    assert total([amount for by in grouped.by_start.values() for amount in by.values()]) == figures.total
    assert starts == sorted({start_of(day, grouped.name) for day, _ in days})
    if grouped.name == "day":
        assert (starts[-1] - starts[0]).days < most
    elif grouped.name != "year":
        assert len(starts) <= most


def test_the_finest_stretch_that_fits_is_taken() -> None:
    """Days as long as there are no more of them than asked for, then weeks, months and years."""
    first = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def name(days: int) -> str:
        runs = [Run(id="a", created_at=first), Run(id="b", created_at=first + timedelta(days=days - 1))]
        return periods(figures_of(runs), 20).name

    assert [name(days) for days in (1, 20, 21, 100, 200, 600, 700)] == [
        *("day", "day", "week", "week", "month", "month", "year")
    ]


def test_a_day_begins_in_the_zone_asked_for() -> None:
    """A run at 23:30 in UTC is on the next day an hour to the east, and the zone is named."""
    run = Run(id="a", created_at=datetime(2026, 1, 31, 23, 30, tzinfo=UTC))
    east = timezone(timedelta(hours=1), "EAST")

    assert list(figures_of([run]).days.amounts) == [(date(2026, 1, 31), "no status")]
    assert list(figures_of([run], east).days.amounts) == [(date(2026, 2, 1), "no status")]
    assert list(figures_of([run], east).zones) == ["EAST"]


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)])
def test_the_ends_of_the_calendar_are_no_error(moment: datetime) -> None:
    """A time that has no equal in the zone stays as it is."""
    run = Run(id="a", created_at=moment)
    for zone in (timezone(timedelta(hours=12)), timezone(-timedelta(hours=12))):
        figures = figures_of([run], zone)

        assert figures.total.runs == total([*figures.days.amounts.values()]).runs == 1
        for most in (1, 2, 10**9):
            assert periods(figures, most).by_start


@given(st.lists(st.integers(0, 9)), st.integers(1, 12))
def test_what_is_not_told_apart_is_still_counted(keys: list[int], most: int) -> None:
    """The first keys that come have an amount each, and the rest holds all other runs."""
    groups = Groups[int](most)
    for key in keys:
        groups.add(key, Run(id="a"))
    known = set(dict.fromkeys(keys).keys() if len(set(keys)) <= most else list(dict.fromkeys(keys))[:most])
    counts = Counter(key for key in keys if key in known)

    assert {key: amount.runs for key, amount in groups.amounts.items()} == dict(counts)
    assert groups.rest.runs == len(keys) - counts.total()
    top, rest = groups.top(2)
    assert [amount.runs for _, amount in top] == sorted(counts.values(), reverse=True)[:2]
    assert sum(amount.runs for _, amount in top) + rest.runs == len(keys)


def test_a_server_that_makes_everything_up_can_not_fill_the_memory() -> None:
    """However many statuses, keys, values, workflows, errors and days there are, only so many are held apart."""
    random = Random(0)  # noqa: S311 (made-up words)
    word = "x" * 10_000
    figures = Figures(UTC)
    for number in range(30_000):
        text = "".join(random.choices("abcdefgh", k=12))
        figures.add(
            Run(
                id=text + word,
                workflow_id=text,
                status=RunStatus("FAILED" if number % 2 else text),
                metadata={text: text + word, "same": text},
                error=text + word,
                credits=number,
                created_at=datetime(1, 1, 1, tzinfo=UTC) + timedelta(days=number),
                output={"text": word},
            )
        )

    held = [figures.statuses, figures.workflows, figures.days, *(key.values for key in figures.keys.values())]
    assert all(len(groups.amounts) <= groups.most for groups in held)
    assert len(figures.keys) <= 51
    assert len(figures.errors) <= 500
    assert max(len(error.text) for error in figures.errors.values()) <= 300
    assert max(len(run.id) + len(run.gist) for run in figures.costliest) <= 600
    assert figures.keys["(others)"].distinct == "1,000+"
    assert total([error.amount for error in figures.ranked_errors]) + figures.other_errors == Amount(
        15_000, sum(range(1, 30_000, 2)), 15_000
    )
    assert "on one of the days that are not told apart" in figures.remarks[-1]


def test_errors_that_differ_in_numbers_and_ids_are_one() -> None:
    """The first one's text stands for all, with the id and time of the latest."""
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
    first, second = figures_of(runs).ranked_errors

    assert (first.text, first.amount) == (f"message: {texts[0]}", Amount(4, 8, 4))
    assert (first.run_id, first.latest) == ("4", datetime(2026, 1, 7, tzinfo=UTC))
    assert (second.text, second.amount.runs) == ("message: no credits", 2)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, "(no error given)"),
        ("", "(an empty error)"),
        ("it broke", "it broke"),
        ({"message": "it broke", "at": [1, None]}, "message: it broke · at: [1, null]"),
        ({}, "{}"),
        (["a"], '["a"]'),
        (False, "false"),
    ],
)
def test_an_error_is_one_text_whatever_its_shape(error: JSON, text: str) -> None:
    """Nothing is taken for granted of it."""
    assert error_text(error) == text


def test_what_is_not_known_is_remarked() -> None:
    """Runs without a time or credits are told, as the figures lack them."""
    figures = figures_of([Run(id="a"), Run(id="b", credits=1)])

    assert figures.remarks == [
        "2 runs on no day: the API tells no time for them",
        "1 run counted as free: the API tells no credits for them",
    ]
