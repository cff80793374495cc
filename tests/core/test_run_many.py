"""Many runs at a time over the emulator's socket: bounded, each reported once, and never a second bill."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiocopyai import (
    JSON,
    CopyAISession,
    CreditLimitReachedError,
    RetryPolicy,
    RunFailedError,
    RunResult,
    RunTimeoutError,
)
from aiocopyai.emulator import Emulator, Fault, Request, Script


SOON = 0.01


def rows(count: int) -> list[dict[str, JSON]]:
    return [{"n": number} for number in range(count)]


async def collect(session: CopyAISession, emulator: Emulator, count: int, **arguments: Any) -> list[RunResult]:  # noqa: ANN401 (any argument of run_many)
    many = session.run_many(emulator.workflow_id, rows(count), max_poll_interval=SOON, **arguments)
    return [result async for result in many]


async def test_each_row_once(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Each row gives one result, with its input and its finished run."""
    results = await collect(session, copyai_emulator, 25)

    assert sorted(result.index for result in results) == list(range(25))
    assert all(result.inputs == {"n": result.index} and result.ok for result in results)
    assert all(result.run is not None and result.run.input == result.inputs for result in results)
    assert len(copyai_emulator.runs()) == 25


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_are_open_than_asked_for(
    session: CopyAISession, copyai_emulator: Emulator, concurrency: int
) -> None:
    """At any time at most `concurrency` runs are under way."""
    most = 0

    def count(emulator: Emulator, _request: Request) -> None:
        nonlocal most
        most = max(most, sum(run["status"] not in {"COMPLETE", "FAILED"} for run in emulator.runs()))

    copyai_emulator.on_request = count
    results = await collect(session, copyai_emulator, 10, concurrency=concurrency)

    assert len(results) == 10
    assert most == concurrency


async def test_starts_without_waiting(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """With `wait=False` a result is a started run, which nobody looks at again, and none counts as under way."""
    copyai_emulator.run_time = 60
    copyai_emulator.credits = 30
    many = session.run_many(copyai_emulator.workflow_id, rows(25), wait=False)
    results = [result async for result in many]
    started = [result.run.id for result in results if result.ok and result.run]

    assert sorted(started) == sorted(str(run["id"]) for run in copyai_emulator.runs())
    assert len(started) == 10
    assert isinstance(many.stopped_by, CreditLimitReachedError)
    assert {request.method for request in copyai_emulator.requests} == {"POST"}
    assert many.in_progress == ()


@pytest.mark.parametrize(
    "arguments",
    [{"concurrency": 0}, {"metadata": {"idempotencyKey": "mine"}}, {"timeout": 0}, {"max_poll_interval": -1}],
)
async def test_bad_arguments(session: CopyAISession, copyai_emulator: Emulator, arguments: Any) -> None:  # noqa: ANN401 (bad on purpose)
    """A bad argument is a ValueError at the call, and a key for all rows is one."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        session.run_many(copyai_emulator.workflow_id, rows(3), **arguments)

    assert copyai_emulator.requests == []


@pytest.mark.parametrize("wrong", ["abc", b"abc", {"a": 1}])
def test_rows_are_several(wrong: Any) -> None:  # noqa: ANN401 (bad on purpose)
    """One row in the place of many is a ValueError, not a run for each of its names or letters."""
    with pytest.raises(ValueError, match="rows must be an iterable of mappings"):
        CopyAISession("key").run_many("WCFG-1", wrong)


@pytest.mark.parametrize("wait", [True, False])
async def test_what_was_paid_for_is_not_lost_with_the_loop(
    session: CopyAISession, copyai_emulator: Emulator, caplog: pytest.LogCaptureFixture, *, wait: bool
) -> None:
    """Results that were there when the loop was left are named, and come when the iteration goes on."""
    copyai_emulator.run_time = 0
    many = session.run_many(copyai_emulator.workflow_id, rows(4), concurrency=4, wait=wait, max_poll_interval=SOON)
    first = await anext(many)
    async with asyncio.timeout(5):
        while not all(task.done() for task in many._open):
            await asyncio.sleep(SOON)
    await many.aclose()
    named = {run.id for run in many.in_progress}
    rest = [result async for result in many]

    assert len(named) == 3
    assert {result.run.id for result in rest if result.run} == named
    assert {first.index, *(result.index for result in rest)} == {0, 1, 2, 3}
    assert all(run_id in caplog.text for run_id in named)


async def test_a_failure_is_a_result(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run that fails, a row that can't be sent and a run that takes too long don't end the rest."""
    copyai_emulator.script_next_runs(Script(states=("NEW", "FAILED"), error="x"))
    copyai_emulator.script_next_runs(Script(states=("NEW",)))
    many = session.run_many(
        copyai_emulator.workflow_id,
        [{"a": 1}, {"a": 2}, {"a": float("nan")}, {"a": 4}],
        concurrency=1,
        max_poll_interval=SOON,
        timeout=0.5,
    )
    results = [result async for result in many]

    assert [type(result.error) for result in results] == [RunFailedError, RunTimeoutError, ValueError, type(None)]
    assert results[0].run is not None
    assert results[0].run.error == "x"
    assert [run.input for run in many.in_progress] == [{"a": 2}]


async def test_the_credit_limit(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """At the first refusal for want of credits no more is started, and what was started is still given."""
    copyai_emulator.credits = 15
    many = session.run_many(copyai_emulator.workflow_id, rows(100), concurrency=3, max_poll_interval=SOON)
    results = [result async for result in many]
    refused = [result for result in results if not result.ok]

    assert len(copyai_emulator.runs()) == sum(result.ok for result in results) == 5
    assert 1 <= len(refused) <= 3
    assert all(isinstance(result.error, CreditLimitReachedError) for result in refused)
    assert isinstance(many.stopped_by, CreditLimitReachedError)


async def test_rows_come_one_by_one(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An endless asynchronous source is read no further than there is room for runs."""
    taken = 0

    async def source() -> AsyncIterator[dict[str, JSON]]:
        nonlocal taken
        while True:
            taken += 1
            await asyncio.sleep(0)
            yield {"n": taken}

    many = session.run_many(copyai_emulator.workflow_id, source(), concurrency=2, max_poll_interval=SOON)
    got = [await anext(many) for _ in range(4)]
    await many.aclose()

    assert len(got) == 4
    assert taken <= 8


async def test_results_come_while_the_source_waits(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A source that is slow to give the next row holds up no result."""
    gate = asyncio.Event()

    async def source() -> AsyncIterator[dict[str, JSON]]:
        yield {"n": 0}
        await gate.wait()
        yield {"n": 1}

    many = session.run_many(copyai_emulator.workflow_id, source(), max_poll_interval=SOON)
    assert (await anext(many)).index == 0
    gate.set()

    assert [result.index async for result in many] == [1]


async def test_cancelling_says_what_is_under_way(
    session: CopyAISession, copyai_emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A bulk that is cancelled ends at once, leaves no task, and names the runs that go on."""
    copyai_emulator.run_time = 60
    many = session.run_many(copyai_emulator.workflow_id, rows(9), concurrency=3, max_poll_interval=SOON)
    waiting = asyncio.ensure_future(anext(many))
    while len(many.in_progress) < 3:
        await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    ids = {str(run["id"]) for run in copyai_emulator.runs()}
    assert {run.id for run in many.in_progress} == ids
    assert all(run_id in caplog.text for run_id in ids)
    assert [result async for result in many] == []
    await asyncio.sleep(0)
    assert not session._tasks


async def test_leaving_the_loop(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A loop that is left starts nothing more, and `aclose` leaves nothing behind."""
    many = session.run_many(copyai_emulator.workflow_id, rows(50), concurrency=2, max_poll_interval=SOON)
    async for _ in many:
        break
    await many.aclose()
    started = len(copyai_emulator.runs())
    await asyncio.sleep(0.03)

    assert started <= 4
    assert len(copyai_emulator.runs()) == started
    assert not session._tasks


async def test_the_sessions_end(copyai_emulator: Emulator) -> None:
    """A session that is closed in the middle says so, instead of waiting for ever."""
    copyai_emulator.run_time = 60
    session = CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url)
    many = session.run_many(copyai_emulator.workflow_id, rows(3), max_poll_interval=SOON)
    waiting = asyncio.ensure_future(anext(many))
    while len(many.in_progress) < 3:
        await asyncio.sleep(0.001)
    await session.close()

    with pytest.raises(RuntimeError, match="closed in the middle"):
        await waiting


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**9),
    count=st.integers(0, 12),
    concurrency=st.integers(1, 6),
    rate=st.sampled_from([0.1, 0.4]),
)
def test_runs_started_are_runs_asked_for(seed: int, count: int, concurrency: int, rate: float) -> None:
    """Through random faults on every call: as many runs as rows, none waited for without end, none reported twice."""
    dice = random.Random(seed)  # noqa: S311 (a repeatable test)
    faults = [Fault(reset="after"), Fault(reset="before"), Fault(truncate=9), Fault(status=503), Fault(status=429)]

    def break_some(emulator: Emulator, request: Request) -> None:
        if dice.random() < rate:
            emulator.inject(dice.choice(faults), method=request.method)

    async def check() -> None:
        async with Emulator(run_time=0.01) as emulator:
            emulator.on_request = break_some
            for _ in range(count // 3):
                emulator.script_next_runs(Script(states=("NEW", "FAILED")))
            retry = RetryPolicy(attempts=None, timeout=20, wait_initial=0, wait_max=0)
            async with CopyAISession(emulator.api_key, base_url=emulator.url, retry=retry) as session:
                results = await collect(session, emulator, count, concurrency=concurrency)
            assert sorted(result.index for result in results) == list(range(count))
            reported = [result.run.id for result in results if result.run is not None]
            assert sorted(reported) == sorted(str(run["id"]) for run in emulator.runs())
            assert all(result.ok or isinstance(result.error, RunFailedError) for result in results)

    asyncio.run(asyncio.wait_for(check(), 30))
