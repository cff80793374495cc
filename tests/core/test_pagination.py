"""The stop rule, without a loop: which page comes next, what is new, when the list is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import Changes, Page, PaginationError, Run
from aiocopyai._pagination import PATIENCE, REMEMBERED, RecentIds, Since, Walk
from tests.support.strategies import MovingList, moving_lists


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ids(*numbers: int) -> list[Run]:
    return [Run(str(number)) for number in numbers]


def walk_through(moving: MovingList, size: int, start_page: int = 1) -> tuple[Walk[Run], list[str]]:
    """Walk page by page over a list until it is over."""
    walk: Walk[Run] = Walk(size, start_page)
    given_out: list[str] = []
    while not walk.is_done:
        walk.check()
        given_out += [run.id for run in walk.take(moving.page(walk.next_page, size))]
    return walk, given_out


@given(moving_lists(), st.integers(1, 12))
def test_each_run_once_and_none_lost(moving: MovingList, size: int) -> None:
    """However the list moves between requests, no run comes twice and none that stayed is lost."""
    _, given_out = walk_through(moving, size)

    assert len(set(given_out)) == len(given_out)
    assert moving.stayed <= set(given_out)


@given(moving_lists(moves=False), st.integers(1, 12))
def test_no_wasted_request(moving: MovingList, size: int) -> None:
    """A list of N pages that stands still costs N requests, an empty one costs one."""
    walk, given_out = walk_through(moving, size)

    assert moving.ids == given_out
    assert max(1, ceil(len(moving.ids) / size)) == moving.requests
    assert not walk.changes


def test_start_page() -> None:
    """A walk that starts at page 3 gives what lies from there on."""
    _, given_out = walk_through(MovingList([str(n) for n in range(45)], iter([])), 10, start_page=3)

    assert [str(n) for n in range(20, 45)] == given_out


@pytest.mark.parametrize("start_page", [1, 4, 10])
def test_clamped_size(start_page: int) -> None:
    """A server that gives 5 where 10 are asked for is walked whole, from any page."""
    moving = MovingList([str(n) for n in range(47)], iter([]))
    walk: Walk[Run] = Walk(10, start_page)
    given_out: list[str] = []
    while not walk.is_done:
        given_out += [run.id for run in walk.take(moving.page(walk.next_page, 5))]

    assert moving.ids[(start_page - 1) * 5 :] == given_out


def test_vendors_example() -> None:
    """A total of 3 with two items ends after the page behind them turns out empty."""
    walk: Walk[Run] = Walk(100)

    assert walk.take(Page(1, 100, 3, ids(1, 2))) == ids(1, 2)
    assert not walk.is_done
    assert walk.next_page == 2

    walk.take(Page(2, 100, 3, []))

    assert walk.is_done
    assert walk.changes == Changes(missing=1, first_total=3, last_total=3)


def test_no_total_ends_at_an_empty_page() -> None:
    """Without a total the walk goes on to the first empty page."""
    walk: Walk[Run] = Walk(2)
    walk.take(Page(1, 2, None, ids(1, 2)))
    walk.take(Page(2, 2, None, ids(3)))

    assert not walk.is_done

    walk.take(Page(3, 2, None, []))

    assert walk.is_done


def test_total_too_small() -> None:
    """A total that the pages themselves prove too small doesn't end the walk."""
    walk: Walk[Run] = Walk(2)
    for number in range(1, 4):
        walk.take(Page(number, 2, 1, ids(number * 2, number * 2 + 1)))

        assert not walk.is_done

    walk.take(Page(4, 2, 1, []))

    assert walk.is_done


def test_total_too_large() -> None:
    """Where a total promises pages that are empty, one more is tried and the walk ends."""
    walk: Walk[Run] = Walk(2)
    walk.take(Page(1, 2, 1000, ids(1, 2)))
    walk.take(Page(2, 2, 1000, []))

    assert not walk.is_done

    walk.take(Page(3, 2, 1000, []))

    assert walk.is_done
    assert walk.changes.missing == 998


def test_a_hole_is_walked_over() -> None:
    """An empty page in the middle of the list doesn't end the walk."""
    walk: Walk[Run] = Walk(2)
    walk.take(Page(1, 2, 6, ids(1, 2)))
    walk.take(Page(2, 2, 6, []))

    assert walk.take(Page(walk.next_page, 2, 6, ids(5, 6))) == ids(5, 6)
    assert walk.is_done


def test_page_ignored() -> None:
    """A server that always answers with its first page ends in an error after a few pages, again and again."""
    walk: Walk[Run] = Walk(10)
    first = ids(*range(10))
    for _ in range(2):
        taken = 0
        with pytest.raises(PaginationError, match="does not advance"):
            while True:
                walk.check()
                walk.take(Page(walk.next_page, 10, 640, first))
                taken += 1

        assert taken <= 4


@pytest.mark.parametrize("total", [15, None])
def test_page_ignored_with_little_promised(total: int | None) -> None:
    """One full page, for ever the same, is an error even where less than another page is promised."""
    walk: Walk[Run] = Walk(10)
    with pytest.raises(PaginationError):
        for _ in range(6):
            walk.check()
            walk.take(Page(walk.next_page, 10, total, ids(*range(10))))


def test_last_page_for_ever() -> None:
    """A server that answers past the end with its last page is walked whole, and ends quietly."""
    walk: Walk[Run] = Walk(10)
    walk.take(Page(1, 10, None, ids(*range(10))))
    while not walk.is_done:
        walk.check()
        walk.take(Page(walk.next_page, 10, None, ids(10, 11, 12, 13, 14, 15, 16)))

    assert walk.changes.repeated > 0


def test_growth_explains_repeats() -> None:
    """Pages of repeats are no sign of a stuck list while as many runs were added."""
    walk: Walk[Run] = Walk(10)
    walk.take(Page(1, 10, 100, ids(*range(10))))
    for number in range(2, 8):
        walk.take(Page(number, 10, 100 + 10 * (number - 1), ids(*range(10))))
        walk.check()

    assert walk.take(Page(8, 10, 160, ids(*range(10, 20)))) == ids(*range(10, 20))
    assert walk.changes == Changes(repeated=60, first_total=100, last_total=160)


def test_ever_other_repeats() -> None:
    """Repeats in an ever other order are borne for long, but not for ever."""
    walk: Walk[Run] = Walk(2)
    walk.take(Page(1, 2, None, ids(1, 2)))
    walk.take(Page(2, 2, None, ids(3, 4)))
    taken = 0
    while not walk.is_done:
        walk.check()
        walk.take(Page(walk.next_page, 2, None, ids(1, 2) if taken % 2 else ids(3, 4)))
        taken += 1

    assert taken == PATIENCE


def test_shrinking_for_ever() -> None:
    """A list that loses a run at each request is given up on after a bounded number of them."""
    walk: Walk[Run] = Walk(10)
    total = 10_000
    with pytest.raises(PaginationError, match="shrank"):
        for _ in range(3 * PATIENCE):
            walk.check()
            number = walk.next_page
            walk.take(Page(number, 10, total, ids(*range(number * 10, number * 10 + 10))))
            total -= 1

    assert walk.changes.reread == PATIENCE


def test_refused_page() -> None:
    """A refusal past the last page is the end; one where runs are surely left, or of page 1, is not."""
    walk: Walk[Run] = Walk(2)

    assert not walk.refuse(1)

    walk.take(Page(1, 2, 5, ids(1, 2)))

    assert not walk.refuse(2)

    walk.take(Page(2, 2, 5, ids(3)))

    assert walk.refuse(3)
    assert walk.is_done


def test_refused_start_page() -> None:
    """A refusal of the very first page asked for is an error, whatever its number."""
    walk: Walk[Run] = Walk(2, start_page=7)

    assert not walk.refuse(7)


def test_memory_is_bounded() -> None:
    """Ids are remembered for tens of thousands of runs, and no longer."""
    recent = RecentIds()
    for number in range(4 * REMEMBERED):
        recent.filter(ids(number))

    assert recent.filter(ids(3 * REMEMBERED)) == []
    assert recent.filter(ids(0)) == ids(0)


def test_repeats_within_a_page() -> None:
    """A run that stands twice on one page comes once."""
    assert RecentIds().filter(ids(1, 1, 2)) == ids(1, 2)


def run_at(minutes: int | None) -> Run:
    created = None if minutes is None else NOON + timedelta(minutes=minutes)
    return Run(str(minutes), created_at=created)


@pytest.mark.parametrize(
    ("minutes", "kept", "over"),
    [
        ([3, 2, 1], [3, 2, 1], False),
        ([2, 0, -1], [2, 0], True),
        ([-1], [], False),
        ([-2, -1, 5], [5], False),
        ([2, None, -1], [2, None], False),
    ],
)
def test_since(minutes: list[int | None], kept: list[int | None], over: bool) -> None:  # noqa: FBT001
    """`since` keeps what is new enough or of unknown time, and is over only where newest first is proven."""
    since = Since(NOON)

    assert [run_at(minute) for minute in kept] == since.filter([run_at(minute) for minute in minutes])
    assert over == since.is_over


@given(st.lists(st.none() | st.integers(-3, 3), max_size=40), st.integers(1, 5), st.booleans())
def test_since_loses_nothing(minutes: list[int | None], size: int, newest_first: bool) -> None:  # noqa: FBT001
    """On a list in newest-first order, stopping early leaves out nothing that is new enough."""
    if newest_first:
        minutes = sorted((minute for minute in minutes if minute is not None), reverse=True)
    runs = [Run(str(place), created_at=run_at(minute).created_at) for place, minute in enumerate(minutes)]
    since, kept = Since(NOON), list[Run]()
    for start in range(0, len(runs), size):
        kept += since.filter(runs[start : start + size])
        if newest_first and since.is_over:
            break

    assert [run for run in runs if run.created_at is None or run.created_at >= NOON] == kept


def test_repr() -> None:
    """A walk's repr tells how far it is."""
    walk: Walk[Run] = Walk(2)
    walk.take(Page(1, 2, 2, ids(1, 2)))

    assert repr(walk) == "<Walk: 2 of 2 positions read, done>"
