"""`run_many`: start a run for each row of inputs with limited concurrency, and yield the results as the runs finish.

One task iterates over the source of rows. One task per row starts its run and waits for it. The consumer's task decides
which rows to start.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import suppress
from http import HTTPStatus
from itertools import count
from typing import Any, Final, TypeAlias

from attrs import define, field, frozen

from aiocopyai._tasks import TaskSet
from aiocopyai._text import bounded_repr, escape
from aiocopyai.errors import (
    AmbiguousStartError,
    APIStatusError,
    AuthenticationError,
    CopyAIError,
    CreditLimitReachedError,
    PermissionDeniedError,
    RunFailedError,
    is_gateway_page,
)
from aiocopyai.models import Run


logger = logging.getLogger("aiocopyai")

Inputs: TypeAlias = Mapping[str, Any]

BATCH_SIZE: Final = 1_000
"""The maximum number of rows whose keys are searched for in one listing."""
SEARCH_VALIDITY: Final = 30.0
"""Seconds after which the result of a search is outdated, and the search is repeated before the rows are started.

This makes it unlikely that concurrent jobs start the same row twice.
"""
_SOURCE_TIMEOUT: Final = 0.05
"""Seconds to wait for another row before an incomplete batch is searched for."""


@frozen
class RunResult:
    """The result of one row of `CopyAISession.run_many`: a finished run, or an error.

    Attributes:
        index: the index of the row, from 0.
        inputs: the inputs in the row.
        run: the run as last received; None if it was not started, or if its start is unconfirmed.
        error: why the run was not started or did not finish successfully; None if there is no error.
        reused: whether an earlier call with the same idempotency key started the run.
        idempotency_key: the idempotency key of the start.
    """

    index: int
    inputs: Inputs = field(repr=bounded_repr)
    run: Run | None = None
    error: CopyAIError | ValueError | None = field(default=None, repr=bounded_repr)
    reused: bool = False
    idempotency_key: str | None = field(default=None, repr=bounded_repr)

    @property
    def ok(self) -> bool:
        """Whether the run finished without an error, or with ``wait=False`` was started."""
        return self.error is None

    def unwrap(self) -> Run:
        """Return the run, or raise `error`."""
        if self.error is not None:
            raise self.error
        assert self.run is not None  # noqa: S101 (for the type checkers: without an error there is a run)
        return self.run


@frozen
class RunManyPlan:
    """The validated arguments of `run_many`.

    Attributes:
        name: the name in log messages.
        concurrency: the maximum number of rows in progress.
        make_key: returns the idempotency key of a row.
        start: starts a run with inputs and a key; returns the run, and whether it is reused.
        on_start: called with the index of a row and its run when the run is started; None for no callback.
        wait: waits until a run is finished; None to return runs as soon as they are started.
        search: searches for the runs of several keys in one listing, so that `start` returns them. The second argument
            is the number of seconds since the previous search for these keys, or None. Returns an error for each key
            that an incomplete run may have. None to reuse no runs.
        tasks: the tasks of the session, which cancels them when it is closed.
    """

    name: str
    concurrency: int
    make_key: Callable[[int, Inputs], str]
    start: Callable[[Inputs, str], Awaitable[tuple[Run, bool]]]
    on_start: Callable[[int, Run], object] | None
    wait: Callable[[Run], Awaitable[Run]] | None
    search: Callable[[Mapping[str, Inputs], float | None], Awaitable[Mapping[str, AmbiguousStartError]]] | None
    tasks: TaskSet


@define(eq=False)
class Row:
    """A row of inputs and its run.

    Attributes:
        index: the index of the row, from 0.
        inputs: the inputs in the row.
        key: the idempotency key.
        run: the run as last received; None if it was not started.
        reused: whether another call started the run.
        error: why the run was not started or did not finish successfully.
    """

    index: int
    inputs: Inputs
    key: str
    run: Run | None = None
    reused: bool = False
    error: CopyAIError | ValueError | None = None

    @property
    def is_unconfirmed(self) -> bool:
        """Whether the start is being sent, or is unconfirmed; only valid for rows in `_Worker.rows`."""
        return self.run is None and (self.error is None or isinstance(self.error, AmbiguousStartError))


class RunResults(AsyncIterator[RunResult]):
    """The results of `CopyAISession.run_many`, in the order in which the runs finish.

    Runs are started only while the next result is awaited. Leaving the ``async for`` loop, or calling `aclose`, ends
    the polling. Started runs continue on the server, and are in `in_progress`.
    """

    def __init__(self, plan: RunManyPlan, rows: Iterable[Inputs] | AsyncIterable[Inputs]) -> None:
        # Running tasks refer to the worker and not to `self`, so that `self` is deleted when the caller drops it.
        self._worker = _Worker(plan, rows)

    def __repr__(self) -> str:
        return f"<RunResults: {self._worker.plan.name}, {len(self._worker.active)} in progress>"

    def __del__(self) -> None:
        if hasattr(self, "_worker"):
            self._worker.abandon_threadsafe()

    @property
    def in_progress(self) -> Sequence[Run]:
        """The started runs that are not finished, or whose result was not yielded yet."""
        return tuple(row.run for row in self._worker.rows.values() if row.run is not None)

    @property
    def unconfirmed(self) -> Sequence[int]:
        """The indexes of the rows whose start is being sent or is unconfirmed."""
        return tuple(self.unconfirmed_keys)

    @property
    def unconfirmed_keys(self) -> Mapping[int, str]:
        """The idempotency keys of the rows in `unconfirmed`, by index: `CopyAISession.find_runs` searches for them."""
        return {index: row.key for index, row in sorted(self._worker.rows.items()) if row.is_unconfirmed}

    @property
    def stopped_by(self) -> CopyAIError | None:
        """The error that stopped further starts, such as a `CreditLimitReachedError`; None if there is none."""
        return self._worker.stopped_by

    async def aclose(self) -> None:
        """End the polling, close the source of rows, log the runs in progress, and wait until all tasks have ended."""
        await self._worker.close()

    def __aiter__(self) -> AsyncIterator[RunResult]:  # noqa: PYI034 (deleted when a loop is left)
        return _Loop(self, self._worker)

    async def __anext__(self) -> RunResult:
        return await self._worker.next_result()


class _Loop(AsyncIterator[RunResult]):
    """The iterator of one ``async for`` loop. Its deletion is the only sign of a ``break``."""

    def __init__(self, results: RunResults, worker: _Worker) -> None:
        self._results = results
        self._worker = worker

    def __del__(self) -> None:
        self._worker.abandon_threadsafe()

    async def __anext__(self) -> RunResult:
        return await anext(self._results)

    async def aclose(self) -> None:
        """End the iteration, as `RunResults.aclose` does."""
        await self._results.aclose()


class _Worker:
    """The state of one call of `run_many`.

    Attributes:
        plan: the arguments.
        rows: the rows whose start was sent or whose result is known, by index. A row is removed when its result is
            yielded, unless its run may still be in progress.
        active: the indexes of the rows that are being started or waited for.
        stopped_by: the error that stopped further starts.
    """

    def __init__(self, plan: RunManyPlan, rows: Iterable[Inputs] | AsyncIterable[Inputs]) -> None:
        self.plan = plan
        self.rows: dict[int, Row] = {}
        self.active: set[int] = set()
        self.stopped_by: CopyAIError | None = None
        self._source = _RowSource(rows, self._add_row, self._source_failed)
        self._source_task: asyncio.Task[None] | None = None
        self._indexes = count()
        self._batch: deque[Row] = deque()  # rows to search for
        self._ready: deque[Row] = deque()  # rows to be started
        self._search_task: asyncio.Task[None] | None = None
        self._search_started = self._search_finished = 0.0  # times of the latest search, by the monotonic clock
        self._finished: deque[Row] = deque()  # rows whose result is to be yielded
        self._failure: BaseException | None = None
        self._is_ended = False  # whether the iteration is complete or abandoned
        self._changed = asyncio.Event()
        self._consumer_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()  # of the source, the search and the active rows
        self._loop: asyncio.AbstractEventLoop | None = None

    async def next_result(self) -> RunResult:
        """Start as many rows as the concurrency allows, and return the next result.

        Raises:
            StopAsyncIteration: there are no more results.
            Exception: the source of rows raised it; raised after the results of all earlier rows.
        """
        async with self._consumer_lock:
            self._loop = asyncio.get_running_loop()
            try:
                row = await self._next_finished()
            except BaseException:
                self.abandon()
                raise
            # If only waiting failed, the run is still in progress.
            if row.run is None or isinstance(row.error, RunFailedError | None):
                del self.rows[row.index]
            return RunResult(row.index, row.inputs, row.run, row.error, row.reused, row.key)

    async def close(self) -> None:
        """Cancel all tasks, wait until they have ended, and close the source of rows."""
        tasks = set(self._tasks)
        self.abandon()
        if tasks:
            await asyncio.wait(tasks)
        await self._source.close()

    def abandon(self) -> None:
        """Cancel all tasks, and log the runs in progress. Known results can still be iterated."""
        if self._is_ended:
            return
        self._is_ended = True
        self._stop_starting()
        for task in self._tasks - {self._source_task}:
            task.cancel()
        if self.rows:
            logger.warning(
                "%s: ended early; runs in progress or not yielded: %s; keys of rows that may have been started: %s",
                self.plan.name,
                ", ".join(escape(row.run.id) for row in self.rows.values() if row.run is not None) or "none",
                ", ".join(escape(row.key) for row in self.rows.values() if row.is_unconfirmed) or "none",
            )

    def abandon_threadsafe(self) -> None:
        """Call `abandon` from a finalizer, which may run in another thread, or after the event loop was closed."""
        if self._loop is None or self._loop.is_closed() or self._is_ended:
            return
        with suppress(RuntimeError):
            if asyncio.get_running_loop() is self._loop:
                self.abandon()
                return
        with suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self.abandon)

    async def _next_finished(self) -> Row:
        """Wait until a row has a result, and return it."""
        while not self._finished:
            self._changed.clear()
            is_reading = self._advance()
            if not self._tasks and not self._finished:
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
                self._is_ended = True
                raise StopAsyncIteration
            # If the source is slow, search for an incomplete batch.
            try:
                async with asyncio.timeout(_SOURCE_TIMEOUT if is_reading and self._batch else None):
                    await self._changed.wait()
            except TimeoutError:
                if self._batch:  # the iteration was not ended
                    self._begin_search(self._batch)
        return self._finished.popleft()

    def _advance(self) -> bool:
        """Start or search for as many rows as the concurrency allows; return whether another row is being read."""
        if self._is_ended:
            return False
        is_outdated = self.plan.search is not None and time.monotonic() - self._search_finished > SEARCH_VALIDITY
        if is_outdated and self._ready and len(self.active) < self.plan.concurrency:
            self._begin_search(self._ready, time.monotonic() - self._search_started)
        while self._ready and len(self.active) < self.plan.concurrency:
            row = self._ready.popleft()
            self.active.add(row.index)
            self._spawn(self._process(row))
        if len(self.active) >= self.plan.concurrency or self._search_task in self._tasks:
            return False
        if self._source_task is None:
            self._source_task = self._spawn(self._source.read())
        if len(self._batch) >= BATCH_SIZE or (self._batch and self._source_task.done()):
            self._begin_search(self._batch)
            return False
        self._source.demand()
        return True

    def _add_row(self, inputs: Inputs) -> None:
        """Queue a row from the source for its search or its start."""
        index = next(self._indexes)
        row = Row(index, inputs, self.plan.make_key(index, inputs))
        (self._ready if self.plan.search is None else self._batch).append(row)
        self._changed.set()

    def _source_failed(self, error: Exception) -> None:
        """Keep an error of the source of rows, to raise it after the results of all earlier rows."""
        if self._is_ended:
            logger.warning("%s: closing the source of rows failed: %r", self.plan.name, error)
        self._failure = self._failure or error

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self.plan.tasks.spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        """Stop further starts after an unexpected error, which is raised when all started runs have finished."""
        # This is a callback because a task that is cancelled before it starts does not execute a `finally` block.
        self._tasks.discard(task)
        error: BaseException | None = None
        if not task.cancelled():
            error = task.exception()
        elif not task.cancelling():  # raised by the caller's code, for example after `await` of a cancelled task
            error = RuntimeError("the rows, idempotency_key or on_start of run_many raised a CancelledError")
        elif task is not self._source_task or not self._source.is_ended:  # cancelled by the session
            error = RuntimeError(
                "this CopyAISession was closed in the middle of run_many: "
                "see in_progress and unconfirmed for the runs that may exist"
            )
        if error is not None and not self._is_ended:
            self._failure = self._failure or error
            self._stop_starting()
        self._changed.set()

    def _begin_search(self, rows: deque[Row], age: float | None = None) -> None:
        """Search for the runs of all rows in a queue. The previous search for them was `age` seconds ago."""
        self._search_task = self._spawn(self._search([*rows], age))
        rows.clear()

    async def _search(self, batch: Sequence[Row], age: float | None) -> None:
        """Search for the runs of a batch of rows, and queue the rows for their start."""
        self._search_started = time.monotonic()
        assert self.plan.search is not None  # noqa: S101 (for the type checkers)
        try:
            unclear = await self.plan.search({row.key: row.inputs for row in batch}, age)
        except CopyAIError as error:
            for row in batch:
                self._finish(row, error)
            self._stop_if_permanent(error)
            return
        self._search_finished = time.monotonic()
        if self._source.is_ended:  # no more rows are started
            return
        for row in batch:
            if row.key in unclear:
                self._finish(row, unclear[row.key])
            else:
                self._ready.append(row)

    async def _process(self, row: Row) -> None:
        """Start a row's run, and wait until it is finished."""
        self.rows[row.index] = row
        try:
            try:
                row.run, row.reused = await self.plan.start(row.inputs, row.key)
            except (CopyAIError, ValueError) as error:
                self._stop_if_permanent(error)
                self._finish(row, error)
                return
            if self.plan.on_start is not None:
                self.plan.on_start(row.index, row.run)
            try:
                if self.plan.wait is not None:
                    row.run = await self.plan.wait(row.run)
            except (CopyAIError, ValueError) as error:
                if isinstance(error, RunFailedError):
                    row.run = error.run
                self._finish(row, error)
            else:
                self._finish(row)
        finally:
            self.active.discard(row.index)

    def _finish(self, row: Row, error: CopyAIError | ValueError | None = None) -> None:
        """Queue the result of a row."""
        row.error = error
        self.rows[row.index] = row
        self._finished.append(row)

    def _stop_if_permanent(self, error: CopyAIError | ValueError) -> None:
        """Stop further starts after an error that all of them would raise."""
        if self.stopped_by is not None or not isinstance(error, CopyAIError):
            return
        needs_payment = isinstance(error, APIStatusError) and error.status == HTTPStatus.PAYMENT_REQUIRED
        is_rejected = isinstance(error, CreditLimitReachedError | AuthenticationError | PermissionDeniedError)
        if needs_payment or (is_rejected and not is_gateway_page(error)):
            self.stopped_by = error
            logger.warning("%s: no more runs are started: %s", self.plan.name, error)
            self._stop_starting()

    def _stop_starting(self) -> None:
        """Read no more rows, and discard the rows that were not started."""
        self._source.end()
        self._batch.clear()
        self._ready.clear()


class _RowSource:
    """The source of rows. One task iterates over it, reads a row on each demand, and closes it.

    Attributes:
        is_ended: whether `end` was called.
    """

    def __init__(
        self,
        rows: Iterable[Inputs] | AsyncIterable[Inputs],
        on_row: Callable[[Inputs], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.is_ended = False
        self._rows = rows
        self._on_row = on_row
        self._on_error = on_error
        self._demand = asyncio.Event()
        self._to_close = rows if isinstance(rows, AsyncIterator) else None
        self._reading_task: asyncio.Task[Any] | None = None  # None before, and once it closes the source

    def demand(self) -> None:
        """Request one more row."""
        self._demand.set()

    def end(self) -> None:
        """Read no more rows; the task that reads them closes the source."""
        # If the task were cancelled before it starts, or while it closes the source, the source would stay open.
        if self._reading_task is not None and not self.is_ended:
            self._reading_task.cancel()
        self.is_ended = True

    async def read(self) -> None:
        """Read a row on each demand until the end, and close the source."""
        self._reading_task = asyncio.current_task()
        try:
            iterator = aiter(self._rows) if isinstance(self._rows, AsyncIterable) else _each(self._rows)
            self._to_close = iterator
            while not self.is_ended:
                row = await self._next_row(iterator)
                self._demand.clear()
                if not self.is_ended:  # otherwise the iterator suppressed the cancellation
                    self._on_row(row)
        except StopAsyncIteration:
            pass
        except Exception as error:  # noqa: BLE001 (raised when all started runs have finished)
            self._on_error(error)
        finally:
            self._reading_task = None
            await self.close()

    async def close(self) -> None:
        """Close the source if it has an `aclose` method and was not closed before."""
        iterator, self._to_close = self._to_close, None
        try:
            if (close := getattr(iterator, "aclose", None)) is not None:
                await close()
        except Exception as error:  # noqa: BLE001 (raised when all started runs have finished)
            self._on_error(error)

    async def _next_row(self, iterator: AsyncIterator[Inputs]) -> Inputs:
        try:
            await self._demand.wait()
        except asyncio.CancelledError as error:
            if self.is_ended or not isinstance(iterator, AsyncGenerator):
                raise
            # A time-out or a cancel scope around a `yield` cancels this task: the generator has to handle it.
            row: Inputs = await iterator.athrow(error)
            return row
        return await anext(iterator)


async def _each(rows: Iterable[Inputs]) -> AsyncIterator[Inputs]:
    for row in rows:
        yield row
