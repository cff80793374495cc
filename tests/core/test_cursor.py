"""Tests of `Cursor`: the `since` of the next reading."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import Run, RunStatus
from aiocopyai._cursor import Cursor


NOW = datetime.now(UTC)
DAY = timedelta(days=1)
TIMES = st.datetimes(timezones=st.just(UTC))
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
    """It starts a day before the newest run, or at the oldest unfinished one, at most ten days before the newest."""
    cursor = Cursor()
    cursor.add(runs)

    assert cursor.since(DAY, 10 * DAY) == (None if days_ago is None else NOW - days_ago * DAY)


@given(st.builds(Cursor, st.none() | TIMES, st.none() | TIMES, st.booleans()), SPANS, SPANS)
def test_cursor_is_loaded_as_it_was_dumped(cursor: Cursor, look_back: timedelta, open_for: timedelta) -> None:
    """A cursor survives a round trip through JSON; near the first datetime of Python everything is read."""
    again = Cursor.load(json.loads(json.dumps(cursor.dump())))
    since = again.since(look_back, open_for)

    assert again == cursor
    assert since is None or (cursor.newest is not None and since <= cursor.newest - look_back)


def test_empty_cursor_reads_everything() -> None:
    """Without a stored cursor the whole list is read."""
    assert Cursor.load({}) == Cursor()
    assert Cursor().since(DAY, DAY) is None


@given(
    st.lists(st.builds(run, st.none() | st.floats(-3, 40), st.sampled_from(["COMPLETE", "NEW", None]))),
    st.integers(0, 10),
)
def test_merged_cursors_are_one(runs: list[Run], cut: int) -> None:
    """Cursors of parts of some runs, merged, are the cursor of all."""
    together, first, second = Cursor(), Cursor(), Cursor()
    together.add(runs)
    first.add(runs[:cut])
    second.add(runs[cut:])

    assert Cursor.merge([first, second]) == together
