"""Tests of `Cursor`: where the next reading starts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import Run, RunStatus
from aiocopyai._incremental import Cursor


NOW = datetime.now(UTC)
DAY = timedelta(days=1)
TIMES = st.datetimes(timezones=st.just(UTC))
CURSORS = st.builds(Cursor, st.none() | TIMES, st.none() | TIMES, st.booleans())
SPANS = st.timedeltas(timedelta(0))


def run(days_ago: float | None, status: str | None = "COMPLETE") -> Run:
    """Return a run that was created this many days ago; in the future if it is negative."""
    created = None if days_ago is None else NOW - days_ago * DAY
    return Run(f"WRUN-{days_ago}", status=None if status is None else RunStatus(status), created_at=created)


@pytest.mark.parametrize(
    ("runs", "days_ago"),
    [
        ([run(3), run(5)], 4),
        ([run(5), run(3)], 4),
        ([run(3), run(3.5, "PROCESSING")], 4),
        ([run(3), run(9, "PROCESSING"), run(20)], 9),
        ([run(3), run(9, None)], 9),
        ([run(3), run(9, "PAUSED")], 9),
        ([run(3), run(9, "FAILED")], 4),
        ([run(3), run(99, "RETRYING")], 13),
        ([run(3), run(99, "RETRYING"), run(9, "NEW")], 13),
        ([run(3), run(None)], 4),
        ([run(3), run(None, "NEW")], None),
        ([run(3), run(-30)], 4),
        ([run(3), run(-30, "NEW")], None),
        ([run(None)], None),
        ([], None),
    ],
)
def test_next_reading_covers_what_may_have_changed(runs: list[Run], days_ago: float | None) -> None:
    """`since` is a day before the newest run, or the oldest unfinished run, at most ten days before the newest."""
    cursor = Cursor()
    cursor.add(runs)

    assert cursor.since(DAY, 10 * DAY) == (None if days_ago is None else NOW - days_ago * DAY)


@given(CURSORS)
def test_cursor_is_loaded_as_it_was_dumped(cursor: Cursor) -> None:
    """A cursor survives a round trip through JSON."""
    assert Cursor.load(json.loads(json.dumps(cursor.dump()))) == cursor


@given(CURSORS, SPANS, SPANS)
def test_look_back_is_a_minimum(cursor: Cursor, look_back: timedelta, refresh_for: timedelta) -> None:
    """`since` is None, or at least `look_back` before the newest run."""
    since = cursor.since(look_back, refresh_for)

    assert since is None or (cursor.newest is not None and since <= cursor.newest - look_back)


def test_everything_is_read_near_the_first_datetime() -> None:
    """If a datetime cannot express `since`, the whole list is read."""
    assert Cursor(datetime.min.replace(tzinfo=UTC)).since(DAY, DAY) is None


def test_empty_cursor_reads_everything() -> None:
    """Without a stored cursor the whole list is read."""
    assert Cursor.load({}) == Cursor()
    assert Cursor().since(DAY, DAY) is None


@given(
    st.lists(st.builds(run, st.none() | st.floats(-3, 40), st.sampled_from(["COMPLETE", "NEW", None]))),
    st.integers(0, 10),
)
def test_merged_cursors_are_one(runs: list[Run], cut: int) -> None:
    """The merged cursors of two parts of some runs equal the cursor of all of them."""
    together, first, second = Cursor(), Cursor(), Cursor()
    together.add(runs)
    first.add(runs[:cut])
    second.add(runs[cut:])

    assert Cursor.merge([first, second]) == together
