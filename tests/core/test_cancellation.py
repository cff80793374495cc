"""Tests of cancellation: a cancelled method ends at once and leaves nothing open, and the session keeps working."""

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

from aiocopyai import CopyAISession, RetryPolicy, Run
from aiocopyai.emulator import Emulator, Fault
from tests.conftest import AT_ONCE
from tests.support.leftovers import leaving_nothing, other_tasks
from tests.support.raw_api import wait_until
from tests.support.storm import key_of


LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
Method: TypeAlias = Callable[[CopyAISession, str], Awaitable[object]]


async def runs(session: CopyAISession, workflow_id: str) -> None:
    async for _ in session.runs(workflow_id, page_size=5):
        pass


async def start_run(session: CopyAISession, workflow_id: str) -> None:
    await session.start_run(workflow_id, {}, idempotency_key="key-1")


async def run_many(session: CopyAISession, workflow_id: str) -> None:
    async for _ in session.run_many(workflow_id, [{"row": row} for row in range(3)], max_poll_interval=0.01):
        pass


async def watch(session: CopyAISession, workflow_id: str) -> None:
    async for _ in session.watch(workflow_id, interval=0.01):
        pass


async def wait_run(session: CopyAISession, workflow_id: str) -> None:
    await session.wait_run(workflow_id, "WRUN-1", max_poll_interval=0.01)


async def ensure_webhook(session: CopyAISession, workflow_id: str) -> None:
    await session.ensure_webhook("http://127.0.0.1:9/hook", "workflowRun.completed", workflow_id)


async def watch_run(session: CopyAISession, workflow_id: str) -> None:
    async for _ in session.watch_run(workflow_id, "WRUN-1", max_poll_interval=0.01):
        pass


METHODS: Final = (runs, start_run, run_many, watch, wait_run, watch_run, ensure_webhook)


@define
class Resolver(AbstractResolver):
    """A resolver that resolves every name to this machine, and hangs while it is blocked."""

    requests: int = 0
    blocked: asyncio.Event | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name."""
        self.requests += 1
        if self.blocked is not None:
            await self.blocked.wait()
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Do nothing."""


@define
class Setup:
    """A session with an emulator, and the parts that the tests inspect."""

    emulator: Emulator
    session: CopyAISession
    connector: aiohttp.TCPConnector
    resolver: Resolver
    _tasks_before: int = field(factory=other_tasks)

    async def wait_until_idle(self) -> None:
        """Check that nothing is in progress any more, after some iterations of the event loop."""
        async with asyncio.timeout(30):
            await wait_until(lambda: not self.session._tasks and not self.connector._acquired)
            await wait_until(lambda: other_tasks() <= self._tasks_before)


@asynccontextmanager
async def connected(retry: RetryPolicy = AT_ONCE, max_rate: float | None = None) -> AsyncIterator[Setup]:
    """Open a session with its own connector and resolver, and check at the end that nothing is left."""
    async with leaving_nothing():
        resolver = Resolver()
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
        async with Emulator(20, workflow_id="W") as emulator, aiohttp.ClientSession(connector=connector) as http:
            emulator.add_runs(1, id="WRUN-1", workflowRunId="WRUN-1", status="NEW")
            url = emulator.url.replace("127.0.0.1", "localhost")
            async with CopyAISession(
                emulator.api_key, base_url=url, http_session=http, retry=retry, max_rate=max_rate
            ) as session:
                yield Setup(emulator, session, connector, resolver)


async def cancel_in_phase(method: Method, setup: Setup, phase: Callable[[], bool]) -> None:
    """Cancel a method once it is in a phase, and check that nothing is in progress afterwards."""
    task = asyncio.ensure_future(method(setup.session, "W"))
    async with asyncio.timeout(30):
        await wait_until(lambda: phase() or task.done())
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await setup.wait_until_idle()


@pytest.mark.parametrize("method", METHODS)
async def test_connecting(method: Method) -> None:
    """A method that is cancelled while a connection is opened sends nothing, and the session keeps working."""
    async with connected() as setup:
        setup.resolver.blocked = asyncio.Event()
        await cancel_in_phase(method, setup, lambda: setup.resolver.requests > 0)
        setup.resolver.blocked = None

        assert setup.emulator.requests == []
        assert await setup.session.count_runs("W") == 21


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fault", [Fault(delay=9), Fault(drip=9)], ids=["headers", "body"])
async def test_receiving(method: Method, fault: Fault) -> None:
    """A method that is cancelled while it receives a response closes its connection; the session keeps working."""
    async with connected() as setup:
        setup.emulator.inject(fault, times=None)
        await cancel_in_phase(method, setup, lambda: len(setup.emulator.requests) > 0)
        setup.emulator.clear_faults()

        assert await setup.session.count_runs("W") >= 21


@pytest.mark.parametrize("method", METHODS)
async def test_waiting_to_retry(method: Method) -> None:
    """A method that is cancelled while it waits for the next attempt does not send another request."""
    async with connected(RetryPolicy(wait_initial=9, wait_jitter=0)) as setup:
        setup.emulator.inject(Fault(status=503), times=8)
        await cancel_in_phase(method, setup, lambda: len(setup.emulator.requests) > 0 and not setup.connector._acquired)
        requests = len(setup.emulator.requests)
        setup.emulator.clear_faults()

        assert await setup.session.count_runs("W") >= 21
        assert len(setup.emulator.requests) == requests + 1


@pytest.mark.parametrize("method", METHODS)
async def test_waiting_for_the_rate_limit(method: Method) -> None:
    """A method that is cancelled while it waits for `max_rate` sends no request."""
    async with connected(max_rate=0.1) as setup:
        limiter = setup.session._transport._rate_limiter._limiter
        assert limiter is not None
        await setup.session.count_runs("W")
        await cancel_in_phase(method, setup, lambda: bool(limiter._waiters))
        limiter._level = 0  # otherwise the next request waits for 10 s

        assert len(setup.emulator.requests) == 1
        assert await setup.session.count_runs("W") == 21


@pytest.mark.parametrize("method", [runs, start_run, run_many, ensure_webhook])
async def test_after_any_number_of_loop_iterations(method: Method) -> None:
    """A method that is cancelled after any number of loop iterations leaves nothing open."""
    async with connected() as setup:
        for turns in range(60):
            task = asyncio.ensure_future(method(setup.session, "W"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await setup.wait_until_idle()

        assert await setup.session.count_runs("W") >= 21


async def test_repeated_cancelled_start_creates_one_run() -> None:
    """A start that is cancelled at any time and repeated with its key creates one run."""
    cancelled = 0
    async with connected() as setup:
        for turns in range(60):
            task = asyncio.ensure_future(setup.session.start_run("W", {}, idempotency_key=f"key-{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            cancelled += isinstance(result, asyncio.CancelledError)
            await setup.session.start_run("W", {}, idempotency_key=f"key-{turns}")

        assert cancelled > 5
        assert Counter(map(key_of, setup.emulator.runs()))["key-0"] == 1
        assert len(setup.emulator.runs()) == 21 + 60


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_cancelled_iteration_continues(prefetch: int) -> None:
    """An iteration whose steps are cancelled repeatedly yields each run once."""
    async with connected() as setup:
        iterator = aiter(setup.session.runs("W", page_size=2, prefetch=prefetch))
        ids = await collect_with_cancellations(lambda: anext(iterator))

        assert ids == [run["id"] for run in setup.emulator.runs()]


async def test_cancelled_watch_continues() -> None:
    """A watch whose steps are cancelled repeatedly reports each run once."""
    async with connected() as setup:
        events = setup.session.watch("W", interval=0.001, since=LONG_AGO)

        async def next_run() -> Run:
            return (await anext(events)).run

        ids = await collect_with_cancellations(next_run, count=21)

        assert Counter(ids) == Counter(str(run["id"]) for run in setup.emulator.runs())


async def collect_with_cancellations(step: Callable[[], Awaitable[Run]], count: int = 1_000) -> list[str]:
    """Collect the ids of up to `count` runs, and cancel each step after a growing number of loop iterations."""
    ids: list[str] = []
    turns = 0
    while len(ids) < count:
        task = asyncio.ensure_future(step())
        for _ in range(turns % 40):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, StopAsyncIteration):
            return ids
        if isinstance(result, asyncio.CancelledError):
            turns += 1
            await asyncio.sleep(0.001 * (turns % 40 == 0))
        else:
            assert isinstance(result, Run)
            ids.append(result.id)
    return ids
