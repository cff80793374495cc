"""The pager over a fake `fetch`: what is asked for ahead, and what is left behind when the walk is left."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    CopyAIError,
    NotFoundError,
    Page,
    Pager,
    PaginationError,
    RequestInvalidError,
    Run,
)
from aiocopyai._pager import Plan
from tests.support.strategies import MovingList, moving_lists


PLAN = Plan("runs of W", page_size=10)


def still_list(count: int) -> MovingList:
    return MovingList([f"run-{number}" for number in range(count)], iter([]))


class Server:
    """Answers from a list, keeps count of who asks at once, and can be held or made to fail."""

    def __init__(self, moving: MovingList) -> None:
        self.moving = moving
        self.asked: list[int] = []
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0
        self.most_at_once = 0
        self.failures: dict[int, list[CopyAIError]] = {}

    async def fetch(self, number: int, size: int) -> Page[Run]:
        self.asked.append(number)
        self.waiting += 1
        self.most_at_once = max(self.most_at_once, self.waiting)
        try:
            await asyncio.sleep(0)
            await self.open.wait()
        finally:
            self.waiting -= 1
        if self.failures.get(number):
            raise self.failures[number].pop(0)
        return self.moving.page(number, size)


async def no_task_left() -> None:
    """Give cancelled tasks the two turns of the loop that they need, then see that none is left."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == {asyncio.current_task()}


@given(moving_lists(moves=False), st.integers(1, 12), st.integers(0, 9), st.none() | st.integers(0, 130))
def test_still_list(moving: MovingList, size: int, prefetch: int, limit: int | None) -> None:
    """A list that stands still comes in order, whole or up to the limit, with no page asked for twice or in vain."""

    async def check() -> None:
        server = Server(moving)
        plan = Plan("runs", size, limit=limit, prefetch=prefetch)
        given_out = [run.id async for run in Pager(server.fetch, plan)]

        assert moving.ids[:limit] == given_out
        pages = max(1, -(-len(moving.ids[:limit]) // plan.size)) if limit != 0 else 0
        assert list(range(1, pages + 1)) == sorted(server.asked)
        await no_task_left()

    asyncio.run(check())


@given(moving_lists(), st.integers(1, 12))
def test_moving_list_without_prefetch(moving: MovingList, size: int) -> None:
    """With ``prefetch=0`` no run comes twice and none that stayed is lost, however the list moves."""

    async def check() -> None:
        server = Server(moving)
        pager = Pager(server.fetch, Plan("runs", size, prefetch=0))
        given_out = [run.id async for run in pager]

        assert len(set(given_out)) == len(given_out)
        assert moving.stayed <= set(given_out)
        assert pager.changes.missing == 0

    asyncio.run(check())


@given(moving_lists(), st.integers(1, 12), st.integers(1, 9), st.booleans())
def test_moving_list_with_prefetch(moving: MovingList, size: int, prefetch: int, grows: bool) -> None:  # noqa: FBT001
    """With any prefetch no run comes twice; and none is lost while the list either grows or shrinks.

    Adds and removals that cancel out within one window are the coincidence that prefetching can't see.
    """
    moving.moves = iter([(added, []) if grows else (0, removed) for added, removed in moving.moves])

    async def check() -> None:
        given_out = [run.id async for run in Pager(Server(moving).fetch, Plan("runs", size, prefetch=prefetch))]

        assert len(set(given_out)) == len(given_out)
        assert moving.stayed <= set(given_out)

    asyncio.run(check())


async def test_nothing_before_iteration() -> None:
    """A pager asks for nothing until it is iterated, and each iteration starts afresh."""
    server = Server(still_list(12))
    pager = Pager(server.fetch, PLAN)
    pager.pages()
    await asyncio.sleep(0)

    assert server.asked == []
    assert pager.total is None

    first = [run async for run in pager]
    second = [run async for run in pager]

    assert first == second
    assert pager.total == 12
    assert server.asked == [1, 2, 1, 2]
    assert repr(pager) == "<Pager: runs of W, total 12>"


async def test_prefetch_is_the_window() -> None:
    """No more than `prefetch` pages are asked for at once, and none beyond while the consumer takes its time."""
    server = Server(still_list(200))
    walk = aiter(Pager(server.fetch, evolve(PLAN, prefetch=3)))
    await anext(walk)
    for _ in range(5):
        await asyncio.sleep(0)

    assert server.asked == [1, 2, 3, 4]
    assert server.most_at_once == 3

    for _ in range(10):
        await anext(walk)
    for _ in range(5):
        await asyncio.sleep(0)

    assert server.asked == [1, 2, 3, 4, 5]
    await walk.aclose()


async def test_pages() -> None:
    """Pages come with what is new in them, under the number that was asked for."""
    server = Server(still_list(25))
    pages = [page async for page in Pager(server.fetch, PLAN).pages()]

    assert [(page.number, page.size, page.total, len(page.items)) for page in pages] == [
        (1, 10, 25, 10),
        (2, 10, 25, 10),
        (3, 10, 25, 5),
    ]


@pytest.mark.parametrize("prefetch", [0, 1, 4])
async def test_break(prefetch: int) -> None:
    """`break` leaves no task behind."""
    server = Server(still_list(100))
    async for _ in Pager(server.fetch, evolve(PLAN, prefetch=prefetch)):
        server.open.clear()
        break
    await no_task_left()

    assert server.waiting == 0


async def test_exception_in_the_body() -> None:
    """An exception in the loop's body comes through and leaves no task behind."""
    server = Server(still_list(100))
    with pytest.raises(ZeroDivisionError):
        async for _ in Pager(server.fetch, PLAN):
            server.open.clear()
            raise ZeroDivisionError
    await no_task_left()


@pytest.mark.parametrize("after", range(0, 45, 4))
async def test_cancel_anywhere(after: int) -> None:
    """A walk that is cancelled at any turn of the loop ends at once and leaves no task behind."""
    server = Server(still_list(100))

    async def consume() -> None:
        async for _ in Pager(server.fetch, PLAN):
            await asyncio.sleep(0)

    task = asyncio.create_task(consume())
    for _ in range(after):
        await asyncio.sleep(0)
    server.open.clear()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await no_task_left()


async def test_timeout_then_go_on() -> None:
    """A walk that ran into a caller's time-out goes on where it was."""
    server = Server(still_list(30))
    walk = aiter(Pager(server.fetch, PLAN))
    got = [await anext(walk) for _ in range(10)]
    await walk._pages._ahead[2]
    server.open.clear()
    walk._pages._drop_ahead()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(walk)
    await no_task_left()
    server.open.set()
    got += [run async for run in walk]

    assert [run.id for run in got] == server.moving.ids


async def test_failed_page_is_asked_for_again() -> None:
    """A failed page raises with its number; the next step asks for it again, and nothing is lost."""
    server = Server(still_list(50))
    server.failures[3] = [APIConnectionError("gone"), APIConnectionError("gone again")]
    walk = aiter(Pager(server.fetch, PLAN))
    got: list[Run] = []
    failed: list[int | None] = []
    while True:
        try:
            got.append(await anext(walk))
        except APIConnectionError as error:
            failed.append(error.page)
            await no_task_left()
        except StopAsyncIteration:
            break

    assert failed == [3, 3]
    assert [run.id for run in got] == server.moving.ids


async def test_failed_page_in_a_limited_walk() -> None:
    """An error's page counts pages of `page_size`, also where a small limit made the real ones smaller."""
    server = Server(still_list(50))
    server.failures[2] = [APIConnectionError("gone")]

    async def always_the_same(number: int, size: int) -> Page[Run]:
        return evolve(await server.fetch(number, size), items=[Run("always")])

    walk = aiter(Pager(always_the_same, evolve(PLAN, limit=5, prefetch=0)))
    await anext(walk)
    with pytest.raises(APIConnectionError, match="page 1: gone"):
        await anext(walk)


@pytest.mark.parametrize("error", [BadRequestError(400), NotFoundError(404), RequestInvalidError(422)])
async def test_refusal_past_the_end(error: APIStatusError) -> None:
    """An answer of 400, 404 or 422 past the last page ends the walk without an error."""
    server = Server(still_list(20))
    server.failures[3] = [error]
    real = server.fetch

    async def without_total(number: int, size: int) -> Page[Run]:
        return evolve(await real(number, size), total=None)

    assert len([run async for run in Pager(without_total, PLAN)]) == 20
    assert server.asked == [1, 2, 3]


async def test_refusal_in_the_middle() -> None:
    """The same answer where runs are surely left is an error."""
    server = Server(still_list(50))
    server.failures[3] = [NotFoundError(404)]
    with pytest.raises(NotFoundError) as caught:
        _ = [run async for run in Pager(server.fetch, PLAN)]

    assert caught.value.page == 3


async def test_page_ignored() -> None:
    """A list that does not advance raises `PaginationError` with a page."""
    real = Server(still_list(100)).fetch
    asked: list[int] = []

    async def always_the_first(number: int, size: int) -> Page[Run]:
        asked.append(number)
        return evolve(await real(1, size), number=number)

    with pytest.raises(PaginationError, match="does not advance") as caught:
        _ = [run async for run in Pager(always_the_first, evolve(PLAN, prefetch=0))]

    assert caught.value.page is not None
    assert len(asked) <= 5


async def test_two_consumers() -> None:
    """Two tasks that step one walk share it: each run goes to one of them."""
    server = Server(still_list(30))
    walk = aiter(Pager(server.fetch, evolve(PLAN, prefetch=0)).pages())
    pages = await asyncio.gather(anext(walk), anext(walk), anext(walk))

    assert [page.number for page in pages] == [1, 2, 3]
    assert server.asked == [1, 2, 3]


async def test_aclose() -> None:
    """A closed walk is over, and what it had asked for is gone when `aclose` returns."""
    server = Server(still_list(100))
    walk = aiter(Pager(server.fetch, PLAN))
    await anext(walk)
    await walk.aclose()

    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(StopAsyncIteration):
        await anext(walk)


async def test_unclaimed_failure_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A page asked for ahead that fails after the walk was left makes no noise."""
    server = Server(still_list(100))
    server.failures[2] = [APIConnectionError("gone")]
    walk = aiter(Pager(server.fetch, PLAN))
    await anext(walk)
    for _ in range(4):
        await asyncio.sleep(0)
    del walk
    gc.collect()
    await no_task_left()

    assert caplog.records == []


def test_left_behind_by_its_loop() -> None:
    """A walk that outlives its event loop is let go of without a complaint."""
    walk = aiter(Pager(Server(still_list(100)).fetch, PLAN))
    asyncio.run(_step(walk.__anext__))
    del walk
    gc.collect()


async def _step(step: Callable[[], Awaitable[Run]]) -> None:
    await step()


async def test_drift_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """What moved is on `pager.changes`, and in one line of the log."""
    caplog.set_level(logging.INFO, "aiocopyai")
    moving = MovingList([f"run-{n}" for n in range(30)], iter([(0, []), (3, []), (0, [0.9])]))
    pager = Pager(Server(moving).fetch, evolve(PLAN, prefetch=0))
    _ = [run async for run in pager]

    assert (pager.changes.repeated > 0, pager.changes.first_total, pager.changes.last_total) == (True, 30, 32)
    assert [record.name for record in caplog.records] == ["aiocopyai"]
    assert "the list moved" in caplog.text


async def test_odd_fields_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Values that didn't fit are named in one line a walk, however many there were."""
    real = Server(still_list(30)).fetch

    async def odd(number: int, size: int) -> Page[Run]:
        return evolve(await real(number, size), invalid_fields=frozenset({"credits"}))

    _ = [run async for run in Pager(odd, PLAN)]

    assert len(caplog.records) == 1
    assert "credits" in caplog.text


async def test_since_stops_early() -> None:
    """With `since`, a newest-first list is read no further than the first older run; one without times, whole."""
    asked: list[int] = []

    async def newest_first(number: int, size: int) -> Page[Run]:
        asked.append(number)
        first = (number - 1) * size
        moments = [datetime.fromtimestamp(10_000 - place, UTC) for place in range(first, first + size)]
        return Page(number, size, 1000, [Run(str(moment), created_at=moment) for moment in moments])

    plan = Plan("runs", 10, since=datetime.fromtimestamp(10_000 - 14, UTC), prefetch=0)

    assert len([run async for run in Pager(newest_first, plan)]) == 15
    assert asked == [1, 2]
