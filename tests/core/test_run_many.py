"""Tests of `run_many`: bounded concurrency, one result per row, and no run started twice."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiocopyai import (
    JSON,
    AmbiguousStartError,
    CopyAISession,
    CreditLimitReachedError,
    PermissionDeniedError,
    RetryPolicy,
    Run,
    RunFailedError,
    RunResult,
    RunResults,
    RunTimeoutError,
)
from aiocopyai._run_many import SEARCH_VALIDITY
from aiocopyai.emulator import Emulator, Fault, Quirks, Request, Script
from tests.support.clock import Clock, skip_time
from tests.support.leftovers import leaving_nothing


SOON = 0.01


def rows(count: int) -> list[dict[str, JSON]]:
    return [{"n": number} for number in range(count)]


async def collect(session: CopyAISession, emulator: Emulator, count: int, **arguments: Any) -> list[RunResult]:  # noqa: ANN401 (any argument of run_many)
    results = session.run_many(emulator.workflow_id, rows(count), max_poll_interval=SOON, **arguments)
    return [result async for result in results]


def posts(emulator: Emulator) -> int:
    return sum(request.method == "POST" for request in emulator.requests)


async def raised_by(awaitable: Awaitable[object]) -> type[BaseException] | None:
    try:
        await awaitable
    except (StopAsyncIteration, RuntimeError) as error:
        return type(error)
    return None


async def test_one_result_per_row(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Each row has one result with its inputs, its key and its finished run."""
    results = await collect(session, copyai_emulator, 25, idempotency_key=lambda index, _row: f"key-{index}")

    assert sorted(result.index for result in results) == list(range(25))
    assert all(result.inputs == {"n": result.index} and result.ok and not result.reused for result in results)
    assert all(result.idempotency_key == f"key-{result.index}" for result in results)
    assert all(result.run is not None and result.run.input == result.inputs for result in results)
    assert len(copyai_emulator.runs()) == 25


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_concurrency(session: CopyAISession, copyai_emulator: Emulator, concurrency: int) -> None:
    """At any time at most `concurrency` runs are in progress."""
    most = finished = 0
    copyai_emulator.run_time = 3600

    def finish_one(emulator: Emulator, _request: Request) -> None:
        nonlocal most, finished
        runs = emulator.runs()
        in_progress = [run for run in runs if run["status"] != "COMPLETE"]
        most = max(most, len(in_progress))
        if in_progress and len(in_progress) >= min(concurrency, 10 - finished):
            finished += 1
            in_progress[0]["status"] = "COMPLETE"
            emulator.replace_runs(runs)

    copyai_emulator.on_request = finish_one
    results = await collect(session, copyai_emulator, 10, concurrency=concurrency)

    assert len(results) == 10
    assert most == concurrency


async def test_without_waiting(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """With `wait=False`, each result has a started run, which is not polled and not counted as in progress."""
    copyai_emulator.run_time = 60
    copyai_emulator.credits = 30
    results = session.run_many(copyai_emulator.workflow_id, rows(25), wait=False)
    started = [result.run.id async for result in results if result.ok and result.run]

    assert sorted(started) == sorted(str(run["id"]) for run in copyai_emulator.runs())
    assert len(started) == 10
    assert isinstance(results.stopped_by, CreditLimitReachedError)
    assert {request.method for request in copyai_emulator.requests} == {"POST"}
    assert results.in_progress == ()


async def test_callback_after_each_start(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """`on_start` is called with each row's index and run before the run is polled."""
    polled_before: list[set[str]] = []
    starts: dict[int, str] = {}

    def on_start(index: int, run: Run) -> None:
        starts[index] = run.id
        polled_before.append({request.path.rpartition("/")[2] for request in copyai_emulator.requests} & {run.id})

    results = await collect(session, copyai_emulator, 5, on_start=on_start)

    assert starts == {result.index: result.unwrap().id for result in results}
    assert polled_before == [set()] * 5


@pytest.mark.parametrize("error", [OSError("disk is full"), ValueError("no such order")])
async def test_callback_that_fails(session: CopyAISession, copyai_emulator: Emulator, error: Exception) -> None:
    """After an exception in `on_start`, no more runs are started. It is raised after the results of the other runs."""

    def on_start(index: int, _run: Run) -> None:
        if index == 1:
            raise error

    results = session.run_many(
        copyai_emulator.workflow_id, rows(9), concurrency=2, max_poll_interval=SOON, on_start=on_start
    )
    done: list[RunResult] = []
    with pytest.raises(type(error), match=str(error)):
        async for result in results:
            done.append(result)  # noqa: PERF401 (the results before the exception)

    assert [result.index for result in done] == [0]
    assert posts(copyai_emulator) == 2
    assert {run.id for run in results.in_progress} == {
        str(run["id"]) for run in copyai_emulator.runs() if run["input"] == {"n": 1}
    }


@pytest.mark.parametrize(
    "arguments",
    [
        {"concurrency": 0},
        {"metadata": {"idempotencyKey": "mine"}},
        {"timeout": 0},
        {"max_poll_interval": -1},
        {"reuse_within": timedelta(days=1)},
        {"idempotency_key": "order-17"},
        {"on_start": 3},
        {"on_start": asyncio.sleep},
        {"reuse_within": timedelta(0), "idempotency_key": str},
        {"final_statuses": "CANCELLED"},
    ],
)
async def test_invalid_arguments(session: CopyAISession, copyai_emulator: Emulator, arguments: Any) -> None:  # noqa: ANN401 (invalid on purpose)
    """An invalid argument, such as one key for all rows, raises ValueError at the call."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        session.run_many(copyai_emulator.workflow_id, rows(3), **arguments)

    assert copyai_emulator.requests == []


@pytest.mark.parametrize("wrong", ["abc", b"abc", {"a": 1}, None, 3])
def test_invalid_rows(wrong: Any) -> None:  # noqa: ANN401 (invalid on purpose)
    """Rows that are a string, a mapping or not iterable raise ValueError at the call."""
    with pytest.raises(ValueError, match="rows must be an iterable of mappings"):
        CopyAISession("key").run_many("WCFG-1", wrong)


async def test_failures_are_results(
    monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator
) -> None:
    """A failed run, a time-out and invalid inputs are results, and the other rows are run."""
    copyai_emulator.script_next_runs(Script(states=("NEW", "FAILED"), error="x"))
    copyai_emulator.script_next_runs(Script(states=("NEW",)))

    def expire(emulator: Emulator, request: Request) -> None:
        if any(run["input"] == {"a": 2} and request.path.endswith(str(run["id"])) for run in emulator.runs()):
            skip_time(monkeypatch, 20)

    copyai_emulator.on_request = expire
    many = session.run_many(
        copyai_emulator.workflow_id,
        [{"a": 1}, {"a": 2}, {"a": float("nan")}, {"a": 4}],
        concurrency=1,
        max_poll_interval=SOON,
        timeout=20,
    )
    results = [result async for result in many]

    assert [type(result.error) for result in results] == [RunFailedError, RunTimeoutError, ValueError, type(None)]
    assert results[0].run is not None
    assert results[0].run.error == "x"
    assert results[3].unwrap() == results[3].run
    with pytest.raises(RunFailedError, match="failed: 'x'"):
        results[0].unwrap()
    assert [run.input for run in many.in_progress] == [{"a": 2}]


async def test_same_key_twice(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Rows with the same key and inputs share a run. A row with the same key and other inputs has an error."""
    many = session.run_many(
        copyai_emulator.workflow_id,
        [{"a": 1}, {"a": 1}, {"a": 2}],
        idempotency_key=lambda _index, _row: "key",
        max_poll_interval=SOON,
    )
    results = sorted([result async for result in many], key=lambda result: result.index)

    assert [result.reused for result in results] == [False, True, False]
    assert [type(result.error) for result in results] == [type(None), type(None), ValueError]
    assert results[0].run == results[1].run
    assert len(copyai_emulator.runs()) == 1


class TestStopping:
    """After an error that every later start would raise, no more runs are started."""

    async def test_credit_limit(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """At the credit limit, no more runs are started, and the results of the started runs are yielded."""
        copyai_emulator.credits = 15
        many = session.run_many(copyai_emulator.workflow_id, rows(100), concurrency=3, max_poll_interval=SOON)
        results = [result async for result in many]
        failed = [result for result in results if not result.ok]

        assert len(copyai_emulator.runs()) == sum(result.ok for result in results) == 5
        assert 1 <= len(failed) <= 3
        assert all(isinstance(result.error, CreditLimitReachedError) for result in failed)
        assert isinstance(many.stopped_by, CreditLimitReachedError)

    @pytest.mark.parametrize("status", [401, 402, 403])
    async def test_rejected_key(self, session: CopyAISession, copyai_emulator: Emulator, status: int) -> None:
        """After a 401, 402 or 403, no more rows are started."""
        copyai_emulator.inject(Fault(status=status), method="POST", times=None)
        many = session.run_many(copyai_emulator.workflow_id, rows(50), concurrency=2)
        results = [result async for result in many]

        assert 1 <= len(results) <= 2
        assert many.stopped_by is not None

    async def test_page_of_a_gateway(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A 403 with an HTML page, as from a firewall, affects only its row."""
        copyai_emulator.inject(Fault(status=403, body=b"<html>Blocked</html>"), method="POST")
        many = session.run_many(copyai_emulator.workflow_id, rows(4), concurrency=1, max_poll_interval=SOON)
        results = [result async for result in many]

        assert [type(result.error) for result in results] == [PermissionDeniedError, *[type(None)] * 3]
        assert many.stopped_by is None

    async def test_idle_source(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """After a stop, the iteration closes its source and does not wait for the next row."""
        closed = asyncio.Event()
        copyai_emulator.credits = 0

        async def source() -> AsyncIterator[dict[str, JSON]]:
            try:
                yield {"n": 0}
                await asyncio.sleep(60)
            finally:
                closed.set()

        async with asyncio.timeout(30):
            results = [result async for result in session.run_many(copyai_emulator.workflow_id, source())]

        assert [type(result.error) for result in results] == [CreditLimitReachedError]
        assert closed.is_set()

    async def test_source_that_swallows_its_cancellation(
        self, session: CopyAISession, copyai_emulator: Emulator
    ) -> None:
        """After a stop, a source that suppresses its cancellation is closed, and its further rows are not started."""
        copyai_emulator.credits = 0
        closed = asyncio.Event()

        async def source() -> AsyncIterator[dict[str, JSON]]:
            try:
                yield {"n": 0}
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
                yield {"n": 1}
            finally:
                closed.set()

        async with asyncio.timeout(30):
            results = [result async for result in session.run_many(copyai_emulator.workflow_id, source())]

        assert [result.index for result in results] == [0]
        assert closed.is_set()
        assert posts(copyai_emulator) == 1


class TestSource:
    """Tests of the source of rows."""

    async def test_read_on_demand(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """No more rows of an infinite asynchronous source are read than the concurrency allows."""
        taken = 0

        async def source() -> AsyncIterator[dict[str, JSON]]:
            nonlocal taken
            while True:
                taken += 1
                await asyncio.sleep(0)
                yield {"n": taken}

        many = session.run_many(copyai_emulator.workflow_id, source(), concurrency=2, max_poll_interval=SOON)
        for _ in range(4):
            await anext(many)
        await many.aclose()

        assert taken <= 8

    async def test_slow_source(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A result is yielded while the source waits for its next row."""
        proceed = asyncio.Event()

        async def source() -> AsyncIterator[dict[str, JSON]]:
            yield {"n": 0}
            await proceed.wait()
            yield {"n": 1}

        many = session.run_many(copyai_emulator.workflow_id, source(), max_poll_interval=SOON)
        assert (await anext(many)).index == 0
        proceed.set()

        assert [result.index async for result in many] == [1]

    async def test_one_task(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """An asynchronous source runs in one task, so that context variables and time-outs work across its yields."""
        variable: ContextVar[int] = ContextVar("variable")
        tasks: set[asyncio.Task[Any] | None] = set()

        async def source() -> AsyncIterator[dict[str, JSON]]:
            token = variable.set(7)
            async with asyncio.timeout(10):
                for number in range(3):
                    tasks.add(asyncio.current_task())
                    yield {"n": number}
                    assert variable.get() == 7
            variable.reset(token)

        many = session.run_many(copyai_emulator.workflow_id, source(), max_poll_interval=SOON)

        assert sorted([result.index async for result in many]) == [0, 1, 2]
        assert len(tasks) == 1

    async def test_timeout_across_a_yield(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A time-out in the source that expires between two rows is raised in the source, which may continue."""
        caught: list[BaseException] = []

        async def source() -> AsyncIterator[dict[str, JSON]]:
            try:
                async with asyncio.timeout(0.01):
                    yield {"n": 0}
                    yield {"n": 1}
            except TimeoutError as error:
                caught.append(error)
            yield {"n": 2}

        copyai_emulator.run_time = 0.05
        many = session.run_many(copyai_emulator.workflow_id, source(), concurrency=1, max_poll_interval=SOON)
        results = [result async for result in many]

        assert [result.inputs for result in results] == [{"n": 0}, {"n": 2}]
        assert len(caught) == 1

    @pytest.mark.parametrize("ending", ["aclose", "break", "drop", "cancel"])
    async def test_closed(self, session: CopyAISession, copyai_emulator: Emulator, ending: str) -> None:
        """An asynchronous source is closed in its task at any end of the iteration."""
        tasks: list[asyncio.Task[Any] | None] = []
        closed = asyncio.Event()
        copyai_emulator.run_time = 60
        copyai_emulator.script_next_runs(Script(states=("COMPLETE",)))

        async def source() -> AsyncIterator[dict[str, JSON]]:
            try:
                while True:
                    tasks.append(asyncio.current_task())
                    yield {}
            finally:
                await asyncio.sleep(0)
                tasks.append(asyncio.current_task())
                closed.set()

        many = session.run_many(copyai_emulator.workflow_id, source(), concurrency=2, max_poll_interval=SOON)
        if ending == "break":
            async for _ in many:
                break
        else:
            await anext(many)
        if ending == "aclose":
            await many.aclose()
            assert closed.is_set()
        elif ending == "drop":
            del many
        elif ending == "cancel":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(many), 0.02)
        await asyncio.wait_for(closed.wait(), 30)

        assert len(set(tasks)) == 1

    @pytest.mark.parametrize("reason", ["end", "credit limit"])
    async def test_closing_is_not_interrupted(
        self, session: CopyAISession, copyai_emulator: Emulator, reason: str
    ) -> None:
        """A source that closes slowly is not cancelled if the iteration is closed in the meantime."""
        closing, proceed, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        copyai_emulator.credits = 0 if reason == "credit limit" else None

        class Source(AsyncIterator[dict[str, JSON]]):
            count = 0

            async def __anext__(self) -> dict[str, JSON]:
                self.count += 1
                if self.count == 2 and reason == "end":
                    raise StopAsyncIteration
                return {"n": self.count}

            async def aclose(self) -> None:
                closing.set()
                await proceed.wait()
                closed.set()

        many = session.run_many(copyai_emulator.workflow_id, Source(), concurrency=2, max_poll_interval=SOON)
        async with asyncio.timeout(30):
            await anext(many)
            await closing.wait()
            ending = asyncio.create_task(many.aclose())
            await asyncio.sleep(0)
            proceed.set()
            await ending

        assert closed.is_set()

    async def test_closed_before_the_first_row(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A source that was never read is closed."""

        class Source(AsyncIterator[dict[str, JSON]]):
            is_closed = False

            async def __anext__(self) -> dict[str, JSON]:
                raise StopAsyncIteration

            async def aclose(self) -> None:
                self.is_closed = True

        source = Source()
        await session.run_many(copyai_emulator.workflow_id, source).aclose()

        assert source.is_closed

    @pytest.mark.parametrize("kind", ["iterable", "async iterable", "key"])
    async def test_error(self, session: CopyAISession, copyai_emulator: Emulator, kind: str) -> None:
        """An exception from the rows or a key is raised after the results of the rows before it were yielded."""

        def read() -> Iterator[dict[str, JSON]]:
            yield from rows(2)
            if kind != "key":
                raise LookupError("row 3")
            yield {"n": 2}

        async def read_async() -> AsyncIterator[dict[str, JSON]]:
            for row in read():
                yield row

        def key(index: int, _row: object) -> str:
            if index == 2:
                raise LookupError("row 3")
            return f"key-{index}"

        source = read_async() if kind == "async iterable" else read()
        many = session.run_many(copyai_emulator.workflow_id, source, idempotency_key=key, max_poll_interval=SOON)
        results: list[RunResult] = []
        with pytest.raises(LookupError, match="row 3"):
            async for result in many:
                results.append(result)  # noqa: PERF401 (kept where the loop raises)

        assert sorted(result.index for result in results) == [0, 1]
        assert all(result.ok for result in results)
        assert len(copyai_emulator.runs()) == 2
        assert [result async for result in many] == []

    @pytest.mark.parametrize("kind", ["rows", "key", "on_start"])
    async def test_cancelled_error(self, session: CopyAISession, copyai_emulator: Emulator, kind: str) -> None:
        """A CancelledError from the rows or a callback is reported as such, and not as the end of the session."""

        def fail_if(code: str, index: int) -> None:
            if (code, index) == (kind, 1):
                raise asyncio.CancelledError

        async def read() -> AsyncIterator[dict[str, JSON]]:
            yield {"n": 0}
            fail_if("rows", 1)
            yield {"n": 1}

        def key(index: int, _row: object) -> str:
            fail_if("key", index)
            return f"key-{index}"

        many = session.run_many(
            copyai_emulator.workflow_id,
            read(),
            idempotency_key=key,
            max_poll_interval=SOON,
            on_start=lambda index, _run: fail_if("on_start", index),
        )
        with pytest.raises(RuntimeError, match="the rows, idempotency_key or on_start of run_many raised"):
            async for result in many:
                assert result.index == 0


class TestEnding:
    """An iteration that ends early stops polling, and reports the runs that continue or may exist."""

    @pytest.mark.parametrize("wait", [True, False])
    async def test_known_results_are_kept(
        self, session: CopyAISession, copyai_emulator: Emulator, caplog: pytest.LogCaptureFixture, *, wait: bool
    ) -> None:
        """If the iteration ends early, the runs of unyielded results are logged, and these results can be iterated."""
        copyai_emulator.run_time = 0
        many = session.run_many(copyai_emulator.workflow_id, rows(4), concurrency=4, wait=wait, max_poll_interval=SOON)
        first = await anext(many)
        async with asyncio.timeout(30):
            while many._worker.active:
                await asyncio.sleep(SOON)
        await many.aclose()
        in_progress = {run.id for run in many.in_progress}
        rest = [result async for result in many]

        assert len(in_progress) == 3
        assert {result.run.id for result in rest if result.run} == in_progress
        assert {first.index, *(result.index for result in rest)} == {0, 1, 2, 3}
        assert all(run_id in caplog.text for run_id in in_progress)

    async def test_cancelling(
        self, session: CopyAISession, copyai_emulator: Emulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Cancelling ends the iteration at once, leaves no task, and logs the runs that continue."""
        copyai_emulator.run_time = 60
        many = session.run_many(copyai_emulator.workflow_id, rows(9), concurrency=3, max_poll_interval=SOON)
        waiting = asyncio.ensure_future(anext(many))
        async with asyncio.timeout(30):
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

    @pytest.mark.parametrize("ending", ["break", "raise", "drop", "drop in a thread", "return"])
    async def test_leaving_the_loop(self, session: CopyAISession, copyai_emulator: Emulator, ending: str) -> None:
        """Leaving the loop ends the polling without `aclose`, even if the results are still referenced."""
        copyai_emulator.run_time = 60
        copyai_emulator.script_next_runs(Script(states=("COMPLETE",)))
        many = session.run_many(copyai_emulator.workflow_id, rows(50), concurrency=3, max_poll_interval=SOON)

        async def consume(results: RunResults) -> None:
            async for _ in results:
                if ending == "raise":
                    raise LookupError
                return

        if ending == "break":
            async for _ in many:
                break
        elif ending == "raise":
            with pytest.raises(LookupError):
                await consume(many)
        elif ending == "return":
            await consume(many)
        else:
            await anext(many)
            if ending == "drop":
                del many
            else:
                held = [many]
                del many
                thread = threading.Thread(target=held.clear)
                thread.start()
                thread.join()
        gc.collect()
        async with asyncio.timeout(30):
            while session._tasks:
                await asyncio.sleep(0.001)
        await session.count_runs(copyai_emulator.workflow_id)  # all earlier requests have arrived
        polls = len(copyai_emulator.requests)
        await asyncio.sleep(0.03)

        assert len(copyai_emulator.requests) == polls
        assert len(copyai_emulator.runs()) <= 4

    async def test_unconfirmed_keys(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """If a start is interrupted, its run can be found with the key in `unconfirmed_keys`."""
        copyai_emulator.inject(Fault(delay=60), method="POST", times=None)
        many = session.run_many(copyai_emulator.workflow_id, rows(9), concurrency=3)
        waiting = asyncio.ensure_future(anext(many))
        async with asyncio.timeout(30):
            while len(copyai_emulator.runs()) < 3:
                await asyncio.sleep(0.001)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        assert many.unconfirmed == (0, 1, 2)
        inputs = {key: {"n": index} for index, key in many.unconfirmed_keys.items()}
        found = await session.find_runs(copyai_emulator.workflow_id, inputs)
        assert found.keys() == inputs.keys()

    async def test_unconfirmed_row(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A row whose start remains unconfirmed has a result with its key."""
        copyai_emulator.inject(Fault(status=503), method="POST", times=None)
        results = await collect(session, copyai_emulator, 1)

        assert isinstance(results[0].error, AmbiguousStartError)
        assert results[0].idempotency_key == results[0].error.idempotency_key

    async def test_closing_the_session(self, copyai_emulator: Emulator) -> None:
        """Closing the session raises a RuntimeError in the iteration, and `in_progress` has the runs that continue."""
        copyai_emulator.run_time = 60
        session = CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url)
        many = session.run_many(copyai_emulator.workflow_id, rows(3), max_poll_interval=SOON)
        waiting = asyncio.ensure_future(anext(many))
        async with asyncio.timeout(30):
            while len(many.in_progress) < 3:
                await asyncio.sleep(0.001)
        await session.close()

        with pytest.raises(RuntimeError, match="closed in the middle of run_many"):
            await waiting
        assert len(many.in_progress) == 3

    @pytest.mark.parametrize("turns", range(8))
    @pytest.mark.parametrize("reuse_within", [None, timedelta(hours=1)], ids=["start", "search"])
    async def test_closing_at_any_turn(
        self, copyai_emulator: Emulator, turns: int, reuse_within: timedelta | None
    ) -> None:
        """Closing the results or the session ends an iteration at any time, even before its tasks start."""
        for closed, expected in (("results", StopAsyncIteration), ("session", RuntimeError)):
            session = CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url)
            many = session.run_many(
                copyai_emulator.workflow_id,
                rows(3),
                idempotency_key=lambda index, _row: f"key-{index}",
                reuse_within=reuse_within,
            )
            waiting = asyncio.create_task(raised_by(anext(many)))
            for _ in range(turns + 1):
                await asyncio.sleep(0)
            await (many.aclose() if closed == "results" else session.close())
            async with asyncio.timeout(30):
                assert await waiting is expected
            await session.close()

    async def test_nothing_is_left(self, copyai_emulator: Emulator) -> None:
        """No task or socket is left after a complete iteration, or by one that was never started."""
        async with leaving_nothing(), CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url) as session:
            assert len(await collect(session, copyai_emulator, 3)) == 3
            await session.run_many(copyai_emulator.workflow_id, rows(3)).aclose()


class TestReuseWithin:
    """Runs that other processes started with the same keys are found, and not started again."""

    @staticmethod
    async def start_elsewhere(emulator: Emulator, count: int) -> list[str]:
        async with CopyAISession(emulator.api_key, base_url=emulator.url) as other:
            return [
                (await other.start_run(emulator.workflow_id, {"n": n}, idempotency_key=f"key-{n}")).id
                for n in range(count)
            ]

    async def test_reused(
        self, monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator
    ) -> None:
        """All rows are searched for in one listing, the runs found are reused and reported, and the others started."""
        monkeypatch.setattr("aiocopyai._run_many._SOURCE_TIMEOUT", 30)
        ids = await self.start_elsewhere(copyai_emulator, 5)
        copyai_emulator.requests.clear()
        reported: dict[int, str] = {}
        results = await collect(
            session,
            copyai_emulator,
            8,
            idempotency_key=lambda index, _row: f"key-{index}",
            reuse_within=timedelta(hours=1),
            on_start=lambda index, run: reported.update({index: run.id}),
        )

        assert reported == {result.index: result.unwrap().id for result in results}
        assert {result.index for result in results if result.reused} == set(range(5))
        assert {result.run.id for result in results if result.reused and result.run} == set(ids)
        assert all(result.ok and result.run and result.run.status == "COMPLETE" for result in results)
        assert posts(copyai_emulator) == 3
        assert sum(request.method == "GET" and "/run/" not in request.path for request in copyai_emulator.requests) == 1

    async def test_batches(
        self, monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator
    ) -> None:
        """More rows than `BATCH_SIZE` are searched for in several listings."""
        monkeypatch.setattr("aiocopyai._run_many.BATCH_SIZE", 4)
        monkeypatch.setattr("aiocopyai._run_many._SOURCE_TIMEOUT", 30)
        await self.start_elsewhere(copyai_emulator, 10)
        copyai_emulator.requests.clear()
        results = await collect(
            session,
            copyai_emulator,
            10,
            idempotency_key=lambda index, _row: f"key-{index}",
            reuse_within=timedelta(hours=1),
            wait=False,
        )

        assert [result.reused for result in results] == [True] * 10
        assert [request.method for request in copyai_emulator.requests] == ["GET"] * 3

    async def test_closed_before_the_search(
        self, monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator
    ) -> None:
        """After `aclose` the rows that were read are not searched for, even if their source closes slowly."""
        monkeypatch.setattr("aiocopyai._run_many._SOURCE_TIMEOUT", 300)
        was_read, proceed = asyncio.Event(), asyncio.Event()

        async def source() -> AsyncIterator[dict[str, JSON]]:
            try:
                yield {"n": 0}
                was_read.set()
                await asyncio.sleep(3600)
            finally:
                await proceed.wait()

        many = session.run_many(
            copyai_emulator.workflow_id,
            source(),
            idempotency_key=lambda index, _row: f"key-{index}",
            reuse_within=timedelta(hours=1),
        )
        consumer = asyncio.create_task(anext(many, None))
        await asyncio.wait_for(was_read.wait(), 30)
        ending = asyncio.create_task(many.aclose())
        await asyncio.sleep(0)
        skip_time(monkeypatch, 301)
        for _ in range(10):
            await asyncio.sleep(0)
        proceed.set()

        assert await consumer is None
        await ending
        assert copyai_emulator.requests == []

    async def test_slow_source(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A row is searched for while its source waits for the next one."""
        (run_id,) = await self.start_elsewhere(copyai_emulator, 1)
        proceed = asyncio.Event()

        async def source() -> AsyncIterator[dict[str, JSON]]:
            yield {"n": 0}
            await proceed.wait()
            yield {"n": 1}

        many = session.run_many(
            copyai_emulator.workflow_id,
            source(),
            idempotency_key=lambda index, _row: f"key-{index}",
            reuse_within=timedelta(hours=1),
            max_poll_interval=SOON,
        )
        async with asyncio.timeout(30):
            first = await anext(many)
        proceed.set()
        rest = [result async for result in many]

        assert (first.reused, first.run and first.run.id) == (True, run_id)
        assert [(result.index, result.reused) for result in rest] == [(1, False)]

    async def test_overlapping_jobs(
        self, monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator
    ) -> None:
        """A row that has waited is searched for again, and is not started if another process has started it."""
        clock = Clock(monkeypatch, "aiocopyai._run_many")
        many = session.run_many(
            copyai_emulator.workflow_id,
            rows(3),
            concurrency=1,
            idempotency_key=lambda index, _row: f"key-{index}",
            reuse_within=timedelta(hours=1),
            max_poll_interval=SOON,
        )
        first = await anext(many)
        async with CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url) as other:
            run = await other.start_run(copyai_emulator.workflow_id, {"n": 1}, idempotency_key="key-1")
        clock.now += SEARCH_VALIDITY + 1
        rest = [result async for result in many]

        assert [(result.index, result.reused) for result in (first, *rest)] == [(0, False), (1, True), (2, False)]
        assert rest[0].run is not None
        assert rest[0].run.id == run.id

    async def test_unconfirmed_search(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A row whose run may exist without showing its key has an AmbiguousStartError, and is not started."""
        copyai_emulator.add_runs(1, input={"n": 0}, metadata=None, createdAt=datetime.now(UTC).isoformat())
        results = await collect(
            session,
            copyai_emulator,
            2,
            idempotency_key=lambda index, _row: f"key-{index}",
            reuse_within=timedelta(hours=1),
        )
        errors = {result.index: type(result.error) for result in results}

        assert errors == {0: AmbiguousStartError, 1: type(None)}
        assert posts(copyai_emulator) == 1

    async def test_invalid_row(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A row with invalid inputs does not affect other rows."""
        many = session.run_many(
            copyai_emulator.workflow_id,
            [{"n": float("nan")}, {"n": 1}],
            idempotency_key=lambda index, _row: f"key-{index}",
            reuse_within=timedelta(hours=1),
            max_poll_interval=SOON,
        )

        assert {result.index: type(result.error) async for result in many} == {0: ValueError, 1: type(None)}

    async def test_search_fails(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """If the search fails, each row has a result with the error, and none is started."""
        copyai_emulator.inject(Fault(status=403), method="GET")
        many = session.run_many(
            copyai_emulator.workflow_id,
            rows(3),
            idempotency_key=lambda index, _row: f"key-{index}",
            reuse_within=timedelta(hours=1),
        )

        assert [type(result.error) async for result in many] == [PermissionDeniedError] * 3
        assert isinstance(many.stopped_by, PermissionDeniedError)
        assert posts(copyai_emulator) == 0

    async def test_leaving_during_the_search(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """Cancelling an iteration while it searches cancels the listing, and starts nothing."""
        copyai_emulator.inject(Fault(delay=60), method="GET")
        many = session.run_many(
            copyai_emulator.workflow_id,
            rows(3),
            idempotency_key=lambda index, _row: f"key-{index}",
            reuse_within=timedelta(hours=1),
        )
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(many), 0.05)
        await many.aclose()

        async with asyncio.timeout(30):
            while session._tasks:  # of the listing
                await asyncio.sleep(0.001)
        assert (many.unconfirmed, many.in_progress) == ((), ())
        assert posts(copyai_emulator) == 0


@pytest.mark.parametrize("quirks", [Quirks(sparse=True, lists_metadata=False), Quirks(late_runs=0.02)], ids=repr)
async def test_lists_that_omit_fields(
    monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator, quirks: Quirks
) -> None:
    """A lost response does not cause a second run if lists omit fields or show runs late."""
    monkeypatch.setattr("aiocopyai._idempotency.SEARCH_DELAYS", (0.0, 0.04, 0.08))
    copyai_emulator.quirks = quirks
    dice = random.Random(3)  # noqa: S311 (a repeatable test)

    def lose(emulator: Emulator, request: Request) -> None:
        if request.method == "POST" and dice.random() < 0.3:
            emulator.inject(Fault(reset="after"), method="POST")

    copyai_emulator.on_request = lose
    results = await collect(session, copyai_emulator, 12)

    assert len(copyai_emulator.runs()) == len(results) == 12
    assert all(result.ok for result in results)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**9),
    count=st.integers(0, 12),
    concurrency=st.integers(1, 6),
    rate=st.sampled_from([0.1, 0.4]),
)
def test_runs_through_faults(seed: int, count: int, concurrency: int, rate: float) -> None:
    """With random faults in every call, each row has one run and one result."""
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
