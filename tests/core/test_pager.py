"""Tests of the pager with a fake `fetch`: prefetching, errors, and the end of an iteration."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiohttp import web
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    CopyAIError,
    CopyAISession,
    NotFoundError,
    Page,
    Pager,
    PaginationError,
    RequestInvalidError,
    Run,
    _pager,
)
from aiocopyai._pager import Plan
from tests.conftest import AT_ONCE
from tests.support.strategies import AT_THE_END, ChangingList, changing_lists


PLAN = Plan("runs of W", page_size=10)


class Server:
    """A server of the pages of a list, which counts the requests in progress, and can hang or fail."""

    def __init__(self, changing: ChangingList, turns: int = 1) -> None:
        self.changing = changing
        self.turns = turns  # of the event loop until a response is made
        self.requested: list[int] = []
        self.open = asyncio.Event()
        self.open.set()
        self.in_progress = 0
        self.most_in_progress = 0
        self.failures: dict[int, list[CopyAIError]] = {}

    async def fetch(self, number: int, size: int) -> Page[Run]:
        self.requested.append(number)
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        try:
            for _ in range(self.turns):
                await asyncio.sleep(0)
            await self.open.wait()
        finally:
            self.in_progress -= 1
        if self.failures.get(number):
            raise self.failures[number].pop(0)
        return self.changing.page(number, size)


async def assert_no_task_is_left() -> None:
    """Let cancelled tasks end in two iterations of the loop, then check that none is left."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == {asyncio.current_task()}


@given(changing_lists("unchanged"), st.integers(1, 12), st.integers(0, 9), st.none() | st.integers(0, 130))
def test_unchanged_list(changing: ChangingList, size: int, prefetch: int, limit: int | None) -> None:
    """An unchanged list is yielded in order up to the limit, with only the requests that the limit needs."""

    async def check() -> None:
        server = Server(changing)
        plan = Plan("runs", size, limit=limit, prefetch=prefetch)
        ids = [run.id async for run in Pager(server.fetch, plan)]

        assert ids == changing.ids[:limit]
        if limit is not None and limit <= len(changing.ids):
            assert sorted(server.requested) == list(range(1, -(-limit // plan.size) + 1 if limit else 1))
        await assert_no_task_is_left()

    asyncio.run(check())


@pytest.mark.parametrize("kind", ["any", "capped"])
@given(data=st.data(), size=st.integers(1, 12), prefetch=st.integers(0, 9), limit=st.none() | st.integers(100, 200))
def test_changing_list(kind: str, data: st.DataObject, size: int, prefetch: int, limit: int | None) -> None:
    """With any prefetch, no run of a changing list is yielded twice, and none that stays is missing."""
    changing = data.draw(changing_lists(kind))

    async def check() -> None:
        pager = Pager(Server(changing).fetch, Plan("runs", size, limit=limit, prefetch=prefetch))
        ids = [run.id async for run in pager]

        assert len(set(ids)) == len(ids)
        assert changing.stayed <= set(ids) or len(ids) == limit
        # On smaller pages, added runs cannot be distinguished from runs that changed places.
        assert pager.changes.missing == 0 or size < 5

    asyncio.run(check())


@asynccontextmanager
async def listing_server(changing: ChangingList, delays: Callable[[], float]) -> AsyncIterator[str]:
    """Serve a list of runs on a free port, each response after its own delay; yield the base URL."""

    async def runs(request: web.Request) -> web.Response:
        await asyncio.sleep(delays())
        page = changing.page(int(request.query["page"]), int(request.query["size"]))
        items = [{"id": run.id} for run in page.items]
        return web.json_response({"status": "success", "data": {"total": page.total, "data": items}})

    app = web.Application()
    app.router.add_get("/api/workflow/W/run", runs)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/api"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("prefetch", [0, 1, 4, 16])
async def test_capped_list_over_a_socket(prefetch: int) -> None:
    """No run of a list of constant length is missing, even if its responses are out of order."""
    count = 0

    def delay() -> float:
        nonlocal count
        count += 1
        return 0.001 * (count * 7 % 5)

    changing = ChangingList.of(300, ((1, [AT_THE_END]) if number % 5 == 4 else (0, []) for number in range(10_000)))
    async with listing_server(changing, delay) as url, CopyAISession("key", base_url=url, retry=AT_ONCE) as session:
        pager = session.runs("W", page_size=10, prefetch=prefetch)
        async with asyncio.timeout(20):
            ids = [run.id async for run in pager]

    assert len(set(ids)) == len(ids)
    assert changing.stayed <= set(ids)
    assert pager.changes.missing == 0
    assert changing.requests <= 3 * 30


async def test_nothing_is_requested_before_iteration() -> None:
    """A pager requests nothing until it is iterated, and each iteration starts from the beginning."""
    server = Server(ChangingList.of(12))
    pager = Pager(server.fetch, PLAN)
    pager.pages()
    await asyncio.sleep(0)

    assert server.requested == []
    assert pager.total is None
    assert not pager.changes

    first = [run async for run in pager]
    second = [run async for run in pager]

    assert first == second
    assert pager.total == 12
    assert server.requested == [1, 2, 1, 2]
    assert repr(pager) == "<Pager: runs of W, total 12>"


async def test_prefetch_limits_the_requests_in_progress() -> None:
    """At most `prefetch` pages are requested at a time, and no further pages while the caller works."""
    server = Server(ChangingList.of(200))
    iterator = aiter(Pager(server.fetch, evolve(PLAN, prefetch=3)))
    await anext(iterator)
    for _ in range(5):
        await asyncio.sleep(0)

    assert server.requested == [1, 2, 3, 4]
    assert server.most_in_progress == 3

    for _ in range(10):
        await anext(iterator)
    for _ in range(5):
        await asyncio.sleep(0)

    assert server.requested == [1, 2, 3, 4, 5]
    await iterator.aclose()


@pytest.mark.parametrize(("pause", "most"), [(0, 16), (100, 4)])
async def test_window_grows_while_the_caller_waits(pause: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, up to 16 pages are requested at a time if the caller waits for them, and otherwise 4."""
    monkeypatch.setattr(_pager, "_LONG_WAIT", 0)
    server = Server(ChangingList.of(600), turns=20)
    async for _ in Pager(server.fetch, PLAN).pages():
        for _ in range(pause):
            await asyncio.sleep(0)

    assert server.most_in_progress == most


async def test_window_shrinks_after_a_429(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, fewer pages are requested at a time after a 429."""
    monkeypatch.setattr(_pager, "_LONG_WAIT", 0)
    server = Server(ChangingList.of(1_000), turns=20)
    plan = evolve(PLAN, slowdowns=lambda: max(0, len(server.requested) - 50))
    async for page in Pager(server.fetch, plan).pages():
        if page.number == 50:
            assert server.most_in_progress == 16
        if page.number == 70:
            server.most_in_progress = 0

    assert server.most_in_progress == 4


async def test_older_page_is_requested_again() -> None:
    """A page that is older than the page before it is requested again, and the pages after it are not."""
    before = ChangingList.of(58)
    old = {number: before.page(number, 10) for number in (3, 4)}
    changing = ChangingList(["new", *before.ids])
    requested: list[int] = []

    async def fetch(number: int, size: int) -> Page[Run]:
        requested.append(number)
        return old.pop(number) if number in old else changing.page(number, size)

    ids = [run.id async for run in Pager(fetch, PLAN)]

    assert sorted(ids) == sorted(changing.ids)
    assert sorted(requested) == [1, 1, 2, 3, 3, 4, 4, 5, 6]


async def test_pages() -> None:
    """Each page is yielded with its new items and the number that was requested."""
    server = Server(ChangingList.of(25))
    pages = [page async for page in Pager(server.fetch, PLAN).pages()]

    assert [(page.number, page.size, page.total, len(page.items)) for page in pages] == [
        (1, 10, 25, 10),
        (2, 10, 25, 10),
        (3, 10, 25, 5),
    ]


async def test_verified_pages() -> None:
    """The iterator over pages has the position up to which no run is missing, and the server's page length."""
    changing = ChangingList.of(45)

    async def fetch(number: int, _size: int) -> Page[Run]:
        return changing.page(number, 5)

    pages = Pager(fetch, PLAN).pages()
    verified = [(page.number, pages.verified.position, pages.page_length) async for page in pages]

    assert verified[:2] == [(1, 5, 5), (2, 10, 5)]
    assert {position for number, position, _ in verified if number > 2} == {10}
    assert pages.verified.position == 50


@pytest.mark.parametrize("prefetch", [0, 1, 4])
async def test_break(prefetch: int) -> None:
    """No task is left after `break`."""
    server = Server(ChangingList.of(100))
    async for _ in Pager(server.fetch, evolve(PLAN, prefetch=prefetch)):
        server.open.clear()
        break
    await assert_no_task_is_left()

    assert server.in_progress == 0


async def test_exception_in_the_loop_body() -> None:
    """An exception in the body of the loop is raised, and no task is left."""
    server = Server(ChangingList.of(100))
    with pytest.raises(ZeroDivisionError):
        async for _ in Pager(server.fetch, PLAN):
            server.open.clear()
            raise ZeroDivisionError
    await assert_no_task_is_left()


@pytest.mark.parametrize("turns", range(0, 45, 4))
async def test_cancellation(turns: int) -> None:
    """An iteration that is cancelled at any time ends at once, and no task is left."""
    server = Server(ChangingList.of(100))

    async def consume() -> None:
        async for _ in Pager(server.fetch, PLAN):
            await asyncio.sleep(0)

    task = asyncio.create_task(consume())
    for _ in range(turns):
        await asyncio.sleep(0)
    server.open.clear()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await assert_no_task_is_left()


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_continue_after_a_timeout(prefetch: int) -> None:
    """An iteration continues after a time-out of the caller, and yields each run once."""
    server = Server(ChangingList.of(25))
    iterator = aiter(Pager(server.fetch, evolve(PLAN, prefetch=prefetch)))
    got = [await anext(iterator) for _ in range(10)]
    server.open.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(iterator)
    await assert_no_task_is_left()
    server.open.set()
    got += [run async for run in iterator]

    assert [run.id for run in got] == server.changing.ids


async def test_failed_page_is_requested_again() -> None:
    """A failed page raises with its number, the next step requests it again, and nothing is missing."""
    server = Server(ChangingList.of(49))
    server.failures[3] = [APIConnectionError("gone"), APIConnectionError("gone again")]
    iterator = aiter(Pager(server.fetch, PLAN))
    got: list[Run] = []
    failed: list[int | None] = []
    while True:
        try:
            got.append(await anext(iterator))
        except APIConnectionError as error:
            failed.append(error.page)
            await assert_no_task_is_left()
        except StopAsyncIteration:
            break

    assert failed == [3, 3]
    assert [run.id for run in got] == server.changing.ids


async def test_failed_verification_is_requested_again() -> None:
    """An error of the request that verifies prefetched pages is raised, and the next step sends the request again."""
    server = Server(ChangingList.of(49))
    iterator = aiter(Pager(server.fetch, PLAN))
    got: list[Run] = [await anext(iterator)]
    server.failures[1] = [APIConnectionError("gone")]
    with pytest.raises(APIConnectionError):
        async for run in iterator:
            got.append(run)  # noqa: PERF401 (kept although the iteration raises)

    assert [run.id for run in got] == server.changing.ids
    assert [run async for run in iterator] == []
    assert server.requested == [1, 2, 3, 4, 5, 1, 1]


async def test_page_of_an_error_counts_full_pages() -> None:
    """The page of an error is counted in pages of `page_size`, even if a limit makes the requested pages smaller."""
    server = Server(ChangingList.of(50))
    server.failures[2] = [APIConnectionError("gone")]

    async def always_the_same(number: int, size: int) -> Page[Run]:
        return evolve(await server.fetch(number, size), items=[Run("always")])

    iterator = aiter(Pager(always_the_same, evolve(PLAN, limit=5, prefetch=0)))
    await anext(iterator)
    with pytest.raises(APIConnectionError, match="page 1: gone"):
        await anext(iterator)


@pytest.mark.parametrize("error", [BadRequestError(400), NotFoundError(404), RequestInvalidError(422)])
@pytest.mark.parametrize(("count", "total"), [(20, None), (20, 20), (15, 40)])
@pytest.mark.parametrize("prefetch", [0, 4])
async def test_status_that_ends_the_list(error: APIStatusError, count: int, total: int | None, prefetch: int) -> None:
    """A response of 400, 404 or 422 after the last page ends the list without an error."""
    server = Server(ChangingList.of(count))
    server.failures = {number: [error] * 2 for number in (3, 4, 5, 6)}

    async def fetch(number: int, size: int) -> Page[Run]:
        return evolve(await server.fetch(number, size), total=total)

    pager = Pager(fetch, evolve(PLAN, prefetch=prefetch))

    assert len([run async for run in pager]) == count
    assert pager.changes.missing == (total or count) - count


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_status_that_does_not_end_the_list(prefetch: int) -> None:
    """A response of 404 after a full page raises an error if the total is higher than the number of runs read."""
    server = Server(ChangingList.of(50))
    server.failures[3] = [NotFoundError(404)] * 2
    with pytest.raises(NotFoundError) as caught:
        _ = [run async for run in Pager(server.fetch, evolve(PLAN, prefetch=prefetch))]

    assert caught.value.page == 3


async def test_list_that_does_not_advance() -> None:
    """A list that does not advance raises a `PaginationError` with a page to continue from."""
    changing = ChangingList.of(100)

    async def always_the_first(number: int, size: int) -> Page[Run]:
        return evolve(changing.page(1, size), number=number)

    with pytest.raises(PaginationError, match="does not advance") as caught:
        _ = [run async for run in Pager(always_the_first, evolve(PLAN, prefetch=0))]

    assert caught.value.page is not None
    assert changing.requests <= 25


async def test_two_consumers() -> None:
    """Two tasks that use the same iterator receive different pages."""
    server = Server(ChangingList.of(29))
    iterator = aiter(Pager(server.fetch, evolve(PLAN, prefetch=0)).pages())
    pages = await asyncio.gather(anext(iterator), anext(iterator), anext(iterator))

    assert [page.number for page in pages] == [1, 2, 3]
    assert server.requested == [1, 2, 3]


async def test_aclose() -> None:
    """After `aclose`, the iteration yields nothing, and none of its requests is in progress."""
    server = Server(ChangingList.of(100))
    iterator = aiter(Pager(server.fetch, PLAN))
    await anext(iterator)
    await iterator.aclose()

    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)


async def test_aclose_while_another_task_waits() -> None:
    """If another task waits for the next item, `aclose` ends its iteration."""
    server = Server(ChangingList.of(100))
    server.open.clear()
    iterator = aiter(Pager(server.fetch, PLAN))
    waiting = asyncio.create_task(anext(iterator, None))
    await asyncio.sleep(0)
    await iterator.aclose()

    async with asyncio.timeout(30):
        assert await waiting is None


@pytest.mark.parametrize("what", ["pager", "items", "pages"])
async def test_aclosing(what: str) -> None:
    """`contextlib.aclosing` works with a pager and its iterators, and no request is left."""
    server = Server(ChangingList.of(100))
    pager = Pager(server.fetch, PLAN)
    if what == "pager":
        async with aclosing(pager) as closing:
            async for _ in closing:
                break
            iterator = aiter(closing)
            await anext(iterator)
    elif what == "items":
        async with aclosing(aiter(pager)) as items:
            await anext(items)
    else:
        async with aclosing(pager.pages()) as pages:
            await anext(pages)

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_unclaimed_failure_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """The error of a prefetched page is not logged if the iterator is dropped."""
    server = Server(ChangingList.of(100))
    server.failures[2] = [APIConnectionError("gone")]
    iterator = aiter(Pager(server.fetch, PLAN))
    await anext(iterator)
    for _ in range(4):
        await asyncio.sleep(0)
    del iterator
    gc.collect()
    await assert_no_task_is_left()

    assert caplog.records == []


async def test_last_reference_dropped_in_another_thread() -> None:
    """No task is left after an iterator is dropped in another thread."""
    server = Server(ChangingList.of(100))
    holder = [aiter(Pager(server.fetch, PLAN))]
    await anext(holder[0])
    server.open.clear()
    await asyncio.sleep(0)

    assert server.in_progress > 0

    thread = threading.Thread(target=holder.clear)
    thread.start()
    await asyncio.to_thread(thread.join, 1)
    await assert_no_task_is_left()

    assert server.in_progress == 0


def test_iterator_outlives_its_loop() -> None:
    """An iterator that is dropped after its event loop was closed causes no warning."""
    iterator = aiter(Pager(Server(ChangingList.of(100)).fetch, PLAN))
    asyncio.run(_step(iterator.__anext__))
    del iterator
    gc.collect()


async def _step(step: Callable[[], Awaitable[Run]]) -> None:
    await step()


async def test_changes_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Changes of a list during an iteration are counted in `pager.changes`, and logged in one line."""
    caplog.set_level(logging.INFO, "aiocopyai")
    changing = ChangingList.of(30, [(0, []), (3, []), (0, [0.9])])
    pager = Pager(Server(changing).fetch, evolve(PLAN, prefetch=0))
    _ = [run async for run in pager]

    assert (pager.changes.repeated > 0, pager.changes.first_total, pager.changes.last_total) == (True, 30, 32)
    assert [record.name for record in caplog.records] == ["aiocopyai"]
    assert "the list changed while it was read" in caplog.text


async def test_invalid_fields_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The fields with invalid values are logged in one line per iteration, regardless of their number."""
    changing = ChangingList.of(30)

    async def fetch(number: int, size: int) -> Page[Run]:
        return evolve(changing.page(number, size), invalid_fields=frozenset({"credits"}))

    _ = [run async for run in Pager(fetch, PLAN)]

    assert len(caplog.records) == 1
    assert "credits" in caplog.text


async def test_since_ends_early() -> None:
    """With `since`, a list that is newest first is read only up to the first older run."""
    requested: list[int] = []

    async def newest_first(number: int, size: int) -> Page[Run]:
        requested.append(number)
        first = (number - 1) * size
        times = [datetime.fromtimestamp(10_000 - place, UTC) for place in range(first, first + size)]
        return Page(number, size, 1000, [Run(str(time), created_at=time) for time in times])

    plan = Plan("runs", 10, since=datetime.fromtimestamp(10_000 - 14, UTC), prefetch=0)

    assert len([run async for run in Pager(newest_first, plan)]) == 15
    assert requested == [1, 2]
