"""Cancelling anything anywhere: it ends at once, nothing is left of it, and the session goes on working."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, TypeAlias

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, field

from aiocopyai import CopyAISession, RetryPolicy
from aiocopyai.emulator import Emulator, Fault
from tests.conftest import AT_ONCE
from tests.support.leftovers import leaving_nothing, other_tasks
from tests.support.raw_api import wait_until
from tests.support.storm import key_of


LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
Verb: TypeAlias = Callable[[CopyAISession, str], Awaitable[object]]


async def walk(session: CopyAISession, workflow_id: str) -> None:
    async for _ in session.runs(workflow_id, page_size=5):
        pass


async def start(session: CopyAISession, workflow_id: str) -> None:
    await session.start_run(workflow_id, {}, idempotency_key="key-1")


async def run_many(session: CopyAISession, workflow_id: str) -> None:
    async for _ in session.run_many(workflow_id, [{"row": row} for row in range(3)], max_poll_interval=0.01):
        pass


async def watch(session: CopyAISession, workflow_id: str) -> None:
    async for _ in session.watch(workflow_id, interval=0.01):
        pass


async def wait(session: CopyAISession, workflow_id: str) -> None:
    await session.wait_run(workflow_id, "WRUN-1", max_poll_interval=0.01)


async def ensure_webhook(session: CopyAISession, workflow_id: str) -> None:
    await session.ensure_webhook("http://127.0.0.1:9/hook", "workflowRun.completed", workflow_id)


VERBS: Final = (walk, start, run_many, watch, wait, ensure_webhook)


@define
class Names(AbstractResolver):
    """A resolver that knows one name, and takes its time where told so."""

    asked: int = 0
    hangs: asyncio.Event | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Find any name on this machine."""
        self.asked += 1
        if self.hangs is not None:
            await self.hangs.wait()
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Do nothing."""


@define
class Scene:
    """A session on an emulator, with what tests need to see of both."""

    emulator: Emulator
    session: CopyAISession
    connector: aiohttp.TCPConnector
    names: Names
    before: int = field(factory=other_tasks)

    async def calm(self) -> None:
        """Hold that nothing is under way, as soon as the loop has had some turns for what was cancelled."""
        async with asyncio.timeout(5):
            await wait_until(lambda: not self.session._tasks and not self.connector._acquired)
            await wait_until(lambda: other_tasks() <= self.before)


@asynccontextmanager
async def scene(retry: RetryPolicy = AT_ONCE, max_rate: float | None = None) -> AsyncIterator[Scene]:
    """Set one up."""
    names = Names()
    connector = aiohttp.TCPConnector(resolver=names, use_dns_cache=False, force_close=True)
    async with Emulator(20, workflow_id="W") as emulator, aiohttp.ClientSession(connector=connector) as http:
        emulator.add_runs(1, id="WRUN-1", workflowRunId="WRUN-1", status="NEW")
        url = emulator.url.replace("127.0.0.1", "localhost")
        async with CopyAISession(
            emulator.api_key, base_url=url, http_session=http, retry=retry, max_rate=max_rate
        ) as session:
            yield Scene(emulator, session, connector, names)


async def cut_off(verb: Verb, scene: Scene, phase: Callable[[], bool]) -> None:
    """Cancel a verb once it is in a phase, and hold that this leaves nothing and breaks nothing."""
    task = asyncio.ensure_future(verb(scene.session, "W"))
    async with asyncio.timeout(5):
        await wait_until(lambda: phase() or task.done())
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await scene.calm()


@pytest.mark.parametrize("verb", VERBS)
async def test_while_it_connects(verb: Verb) -> None:
    """Cancelled while a connection is made, nothing was sent, and the session works."""
    async with leaving_nothing(), scene() as at:
        at.names.hangs = asyncio.Event()
        await cut_off(verb, at, lambda: at.names.asked > 0)
        at.names.hangs = None

        assert at.emulator.requests == []
        assert await at.session.count_runs("W") == 21


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", [Fault(delay=9), Fault(drip=9)], ids=["headers", "body"])
async def test_while_it_waits_for_an_answer(verb: Verb, fault: Fault) -> None:
    """Cancelled while it waits for an answer's head or reads its body, the connection is given up, and no other."""
    async with leaving_nothing(), scene() as at:
        at.emulator.inject(fault, times=None)
        await cut_off(verb, at, lambda: len(at.emulator.requests) > 0)
        at.emulator.clear_faults()

        assert await at.session.count_runs("W") >= 21


@pytest.mark.parametrize("verb", VERBS)
async def test_while_it_backs_off(verb: Verb) -> None:
    """Cancelled while it waits for its next attempt, it makes none."""
    async with leaving_nothing(), scene(RetryPolicy(wait_initial=9, wait_jitter=0)) as at:
        at.emulator.inject(Fault(status=503), times=8)
        await cut_off(verb, at, lambda: len(at.emulator.requests) > 0 and not at.connector._acquired)
        asked = len(at.emulator.requests)
        at.emulator.clear_faults()

        assert await at.session.count_runs("W") >= 21
        assert len(at.emulator.requests) == asked + 1


@pytest.mark.parametrize("verb", VERBS)
async def test_while_it_stands_in_line(verb: Verb) -> None:
    """Cancelled in line for the session's rate, it takes nobody's turn."""
    async with leaving_nothing(), scene(max_rate=0.1) as at:
        limiter = at.session._transport._rate_limiter._limiter
        assert limiter is not None
        await at.session.count_runs("W")
        await cut_off(verb, at, lambda: bool(limiter._waiters))
        limiter._level = 0  # or the next one waited for ten seconds

        assert len(at.emulator.requests) == 1
        assert await at.session.count_runs("W") == 21


@pytest.mark.parametrize("verb", [walk, start, run_many, ensure_webhook])
async def test_after_any_number_of_turns(verb: Verb) -> None:
    """Cancelled after any number of the loop's turns, it leaves nothing, and the session works."""
    async with leaving_nothing(), scene() as at:
        for turns in range(60):
            task = asyncio.ensure_future(verb(at.session, "W"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await at.calm()

        assert await at.session.count_runs("W") >= 21


async def test_a_start_cut_off_anywhere_is_made_once() -> None:
    """A start that is cancelled anywhere, and asked for again with its key, is made once."""
    cut_off = 0
    async with leaving_nothing(), scene() as at:
        for turns in range(60):
            task = asyncio.ensure_future(at.session.start_run("W", {}, idempotency_key=f"key-{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(result, asyncio.CancelledError):
                cut_off += 1
                await at.session.start_run("W", {}, idempotency_key=f"key-{turns}")

        assert cut_off > 5
        assert Counter(map(key_of, at.emulator.runs()))["key-0"] == 1
        assert len(at.emulator.runs()) == 21 + 60


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_a_walk_cut_off_anywhere_goes_on(prefetch: int) -> None:
    """A walk of which each step is cancelled after more turns than the one before gives each run once all the same."""
    async with leaving_nothing(), scene() as at:
        runs = aiter(at.session.runs("W", page_size=2, prefetch=prefetch))
        got = await taken_by_force(lambda: anext(runs))

        assert got == [run["id"] for run in at.emulator.runs()]


async def test_a_watch_cut_off_anywhere_goes_on() -> None:
    """A watch of which each step is cancelled after more turns than the one before tells of each run once."""
    async with leaving_nothing(), scene() as at:
        news = at.session.watch("W", interval=0.001, since=LONG_AGO)
        got = await taken_by_force(lambda: anext(news), count=21)

        assert Counter(got) == Counter(str(run["id"]) for run in at.emulator.runs())


async def taken_by_force(step: Callable[[], Awaitable[object]], count: int = 1_000) -> list[object]:
    """Take up to so many items, giving each step first too few turns, and then some more."""
    got: list[object] = []
    turns = 0
    while len(got) < count:
        task = asyncio.ensure_future(step())
        for _ in range(turns % 40):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, StopAsyncIteration):
            return got
        if isinstance(result, asyncio.CancelledError):
            turns += 1
            await asyncio.sleep(0.001 * (turns % 40 == 0))
        else:
            got.append(result.id)  # type: ignore[union-attr]  # a run
    return got
