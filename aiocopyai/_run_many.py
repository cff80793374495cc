"""Many runs of one workflow, a bounded number of them open at a time, each result as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from attrs import field, frozen

from aiocopyai._tasks import TaskSet
from aiocopyai._text import escape
from aiocopyai.errors import (
    AuthenticationError,
    CopyAIError,
    CreditLimitReachedError,
    PermissionDeniedError,
    RunFailedError,
)
from aiocopyai.models import JSON, Run


logger = logging.getLogger("aiocopyai")

_T = TypeVar("_T")
Inputs: TypeAlias = Mapping[str, JSON]
_HOPELESS = (CreditLimitReachedError, AuthenticationError, PermissionDeniedError)


@frozen
class RunResult:
    """What became of one row of `run_many`: a finished run, or an error."""

    index: int
    """Which row it was, from 0 on."""
    inputs: Inputs
    """The row."""
    run: Run | None = None
    """The run as it was last seen; None where it was not started, or that is in doubt."""
    error: CopyAIError | ValueError | None = None
    """Why there is no finished run, or with ``wait=False`` no started one; None where there is."""

    @property
    def ok(self) -> bool:
        """Whether the run is complete, or with ``wait=False`` started."""
        return self.error is None


@frozen
class BulkPlan:
    """What many runs are to be made of; checked by whoever makes it."""

    name: str
    concurrency: int
    start: Callable[[int, Inputs], Awaitable[Run]]
    wait: Callable[[Run], Awaitable[Run]] | None
    """None where a run that was started is result enough."""
    tasks: TaskSet = field(factory=TaskSet, repr=False)
    """Where tasks under way are kept, for their owner to end."""


class RunResults(AsyncIterator[RunResult]):
    """The results of `run_many`, in the order in which the runs end.

    Nothing is started before it is iterated, and nothing while nobody waits for the next result. Leaving the loop, or
    `aclose`, ends the waiting; what was started goes on at Copy.ai, and stands in `in_progress`.
    """

    def __init__(self, plan: BulkPlan, rows: Iterable[Inputs] | AsyncIterable[Inputs]) -> None:
        self._plan = plan
        self._rows = _each(rows)
        self._index = 0
        self._pull: asyncio.Task[tuple[Inputs, ...]] | None = None
        self._open: dict[asyncio.Task[RunResult], int] = {}
        self._started: dict[int, Run] = {}
        self._starting: set[int] = set()
        self._done: deque[RunResult] = deque()
        self._stopped_by: CopyAIError | None = None
        self._over = False
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<RunResults: {self._plan.name}, {len(self._open)} open>"

    def __del__(self) -> None:
        if getattr(self, "_open", None) or getattr(self, "_done", None):
            self._let_go()

    @property
    def in_progress(self) -> Sequence[Run]:
        """The runs that were started and whose result was not given; `CopyAISession.wait_run` waits for one further."""
        held = [result.run for result in self._done if result.run is not None and result.index not in self._started]
        return (*self._started.values(), *held)

    @property
    def unconfirmed(self) -> Sequence[int]:
        """The rows whose start was under way when the iteration was ended, so that it may have been taken or not."""
        return tuple(sorted(self._starting))

    @property
    def stopped_by(self) -> CopyAIError | None:
        """The error that no later start would have escaped, such as the credit limit; rows after it are not started."""
        return self._stopped_by

    async def aclose(self) -> None:
        """End the waiting, say what is under way, and wait until the tasks are gone."""
        tasks: list[asyncio.Task[RunResult] | asyncio.Task[tuple[Inputs, ...]]] = [*self._open]
        if self._pull is not None:
            tasks.append(self._pull)
        self._let_go()
        if tasks:
            await asyncio.wait(tasks)

    async def __anext__(self) -> RunResult:
        async with self._turn:
            try:
                while not self._done and not self._is_exhausted():
                    await self._wait_for_one()
            except BaseException:
                self._let_go()
                raise
            if not self._done:
                raise StopAsyncIteration
            return self._done.popleft()

    def _is_exhausted(self) -> bool:
        """Ask for the next row where there is room for its run; tell whether nothing is left to come."""
        room = len(self._open) < self._plan.concurrency
        if room and self._pull is None and not self._over and self._stopped_by is None:
            self._pull = self._plan.tasks.spawn(_next(self._rows))
        return not self._open and self._pull is None

    async def _wait_for_one(self) -> None:
        """Wait until a row or a result is there."""
        waiting: set[asyncio.Task[RunResult] | asyncio.Task[tuple[Inputs, ...]]] = {*self._open}
        if self._pull is not None:
            waiting.add(self._pull)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        self._collect()
        if self._pull is not None and self._pull.done():
            pull, self._pull = self._pull, None
            self._take_row(_result(pull))

    def _collect(self) -> None:
        for task in [task for task in self._open if task.done()]:
            del self._open[task]
            self._done.append(_result(task))

    def _take_row(self, pulled: tuple[Inputs, ...]) -> None:
        if not pulled:
            self._over = True
            return
        (row,) = pulled
        index, self._index = self._index, self._index + 1
        if self._stopped_by is None:
            self._open[self._plan.tasks.spawn(self._one(index, row))] = index

    async def _one(self, index: int, row: Inputs) -> RunResult:
        """Start a row's run and wait for its end."""
        self._starting.add(index)
        try:
            run = await self._plan.start(index, row)
        except (CopyAIError, ValueError) as error:
            self._starting.discard(index)
            if isinstance(error, _HOPELESS):
                self._stop(error)
            return RunResult(index, row, None, error)
        self._starting.discard(index)
        if self._plan.wait is None:
            return RunResult(index, row, run)
        self._started[index] = run
        return await self._end(index, row, self._plan.wait(run))

    async def _end(self, index: int, row: Inputs, waiting: Awaitable[Run]) -> RunResult:
        try:
            ended = await waiting
        except RunFailedError as error:
            del self._started[index]
            return RunResult(index, row, error.run, error)
        except (CopyAIError, ValueError) as error:  # the latter for an id that no path can hold
            # Its end is not known, so it stays among those under way.
            return RunResult(index, row, self._started[index], error)
        del self._started[index]
        return RunResult(index, row, ended)

    def _stop(self, error: CopyAIError) -> None:
        if self._stopped_by is None:
            self._stopped_by = error
            logger.warning("%s: no more runs are started: %s", self._plan.name, error)

    def _let_go(self) -> None:
        """End what is open, and say which runs go on without us; results that are there stay to be given."""
        for ended in [task for task in self._open if task.done() and not task.cancelled() and not task.exception()]:
            del self._open[ended]
            self._done.append(ended.result())
        if self._open or self._done:
            ids = ", ".join(escape(run.id) for run in self.in_progress) or "none"
            doubt = (
                f"; in doubt are the rows with index {', '.join(map(str, self.unconfirmed))}" if self._starting else ""
            )
            logger.warning(
                "%s: ended early, with these runs under way or not given yet: %s%s", self._plan.name, ids, doubt
            )
        for task in [*self._open, *([self._pull] if self._pull else [])]:
            if not task.get_loop().is_closed():
                task.cancel()
        self._open.clear()
        self._pull, self._over = None, True


async def _each(rows: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


async def _next(rows: AsyncIterator[Inputs]) -> tuple[Inputs, ...]:
    """Give the next row, or nothing at the end."""
    try:
        return (await anext(rows),)
    except StopAsyncIteration:
        return ()


def _result(task: asyncio.Task[_T]) -> _T:
    if task.cancelled():
        # Not whoever waits was cancelled but the task, by the session's end.
        raise RuntimeError("this CopyAISession was closed in the middle of run_many")
    return task.result()
