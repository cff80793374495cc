"""Watch a run until it is finished, or a workflow for new runs and changes of their status.

The list of a workflow's runs has no cursor and no modification times. Therefore, each round reads the runs of the last
minutes again. Older unfinished runs are read one by one, some of them in each round. The number of remembered runs is
limited.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final, Self, TypeVar

from attrs import define, frozen

from aiocopyai._pager import ItemIterator, Pager
from aiocopyai._tasks import TaskSet, cancel_and_wait
from aiocopyai._text import escape
from aiocopyai._validation import MAX_PAGE_SIZE
from aiocopyai._waiting import RunPoller, progress
from aiocopyai.errors import (
    AuthenticationError,
    CopyAIError,
    InvalidResponseError,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    is_gateway_page,
)
from aiocopyai.models import Run, RunEvent, RunStatus


logger = logging.getLogger("aiocopyai")

LOOK_BACK: Final = timedelta(minutes=10)
"""The maximum age of a new run in the list, relative to the newest run."""
MAX_REMEMBERED: Final = 20_000
"""The maximum number of unfinished runs, and of finished runs without a creation time, to remember."""
_PRUNE_EVERY: Final = 1_000
_READS_PER_ROUND: Final = 20
"""The maximum number of unfinished runs to read one by one in a round, if the list did not have their status."""
_MAX_BACKOFF: Final = 300.0
"""The maximum number of seconds between two attempts, unless the interval is longer."""
_MAX_UNEXPECTED: Final = 4
"""The number of consecutive unexpected errors, such as a 404, to tolerate after a first successful request."""
_MAX_SKIPPED_ROUNDS: Final = 64
"""The maximum number of rounds between two attempts to read an unreadable run."""
_CONSUMER_GRACE: Final = 0.2
"""Seconds after which a request is cancelled if its consumer was cancelled and did not continue."""
_BASELINE_RUNS: Final = 10
"""The number of runs to read at the start, to find the creation time of the newest one."""

T = TypeVar("T")


@frozen
class WatchPlan:
    """The validated arguments of a watch.

    Attributes:
        workflow_id: the workflow's id.
        interval: seconds between two rounds.
        since: the earliest creation time of the runs to report; None to report only new runs.
        statuses: the statuses of the events to yield, in upper case; None for all.
        list_runs: lists runs without prefetch, given `since`, `limit`, `page_size` and `start_page`.
        get_run: reads one run.
    """

    workflow_id: str
    interval: float
    since: datetime | None
    statuses: frozenset[str] | None
    list_runs: Callable[[datetime | None, int | None, int, int], Pager[Run]]
    get_run: Callable[[str], Awaitable[Run]]


class _Polling(AsyncIterator[T]):
    """An iterator whose items come from polls.

    A poll runs in a task of the session. It continues if the consumer is cancelled and soon awaits the next item, as in
    repeated calls of ``asyncio.wait_for(anext(watch), 1)``, because a request may take longer than the consumer waits.
    """

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._items: deque[T] = deque()
        self._due = 0.0  # the time of the next poll, by the monotonic clock
        self._is_finished = False
        self._closed = asyncio.Event()
        self._poll_task: asyncio.Task[None] | None = None
        self._abandoned_task: asyncio.Task[None] | None = None
        self._abandoning: asyncio.TimerHandle | None = None
        self._consumer_lock = asyncio.Lock()

    async def aclose(self) -> None:
        """End the iteration, cancel its request, and wait until it has ended."""
        self._is_finished = True
        self._closed.set()
        self._items.clear()
        if self._poll_task is not None:
            await cancel_and_wait(self._poll_task)

    async def __anext__(self) -> T:
        async with self._consumer_lock:
            while not self._items:
                if self._is_finished:
                    raise StopAsyncIteration
                if self._poll_task is None:
                    if (delay := self._due - time.monotonic()) > 0:
                        with suppress(TimeoutError):
                            async with asyncio.timeout(delay):
                                await self._closed.wait()
                        continue
                    self._poll_task = self._tasks.spawn(self._poll())
                task = self._poll_task
                await self._wait_for(task)
                self._poll_task = None
                if not task.cancelled():
                    task.result()
                elif not self._is_finished and task is not self._abandoned_task:
                    msg = "this CopyAISession was closed while it was watching"
                    raise RuntimeError(msg)
            return self._items.popleft()

    async def _wait_for(self, task: asyncio.Task[None]) -> None:
        """Wait until a poll is done. Cancel it if the consumer is cancelled and does not continue soon."""
        if self._abandoning is not None:
            self._abandoning.cancel()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            self._abandoning = asyncio.get_running_loop().call_later(_CONSUMER_GRACE, self._abandon, task)
            raise

    def _abandon(self, task: asyncio.Task[None]) -> None:
        # `_poll_task` remains set until the task has ended, so that no second poll runs at the same time.
        self._abandoned_task = task
        task.cancel()

    async def _poll(self) -> None:
        """Poll, add the new items, and set the time of the next poll."""
        raise NotImplementedError


class RunWatch(_Polling[Run]):
    """The changes of one run until it is finished; returned by `CopyAISession.watch_run`."""

    def __init__(self, poller: RunPoller, tasks: TaskSet) -> None:
        super().__init__(tasks)
        self._poller = poller

    def __repr__(self) -> str:
        return f"<RunWatch: {self._poller.run_id}>"

    async def _poll(self) -> None:
        try:
            run = await self._poller.poll()
        finally:
            self._due = self._poller.due
        if run is not None:
            self._items.append(run)
        self._is_finished = self._poller.is_done


class Watch(_Polling[RunEvent]):
    """An endless iterator of new runs and changes of their status; returned by `CopyAISession.watch`."""

    def __init__(self, plan: WatchPlan, tasks: TaskSet) -> None:
        super().__init__(tasks)
        self._plan = plan
        self._known_runs = _KnownRuns()
        self._is_first_round = True
        self._first_runs: list[Run] = []
        # With `since`, existing runs are reported, too.
        self._baseline = None if plan.since is None else _Baseline.of([])
        self._listing: _TolerantListing | None = None
        self._failures = 0  # in a row
        self._has_read = False  # whether any request succeeded

    def __repr__(self) -> str:
        return f"<Watch: {self._plan.workflow_id}>"

    async def _poll(self) -> None:
        """Read until there is an event, an error, or the end of a round."""
        try:
            while not self._items and self._due <= time.monotonic():
                if self._baseline is None:
                    await self._read_first_runs()
                else:
                    await self._read_next_run(self._baseline)
                self._has_read = True
        except CopyAIError as error:
            self._back_off(error)
        else:
            self._failures = 0

    def _back_off(self, error: CopyAIError) -> None:
        """Schedule the next attempt with exponential backoff; raise the error if it is not temporary."""
        if isinstance(error, PaginationError):
            self._listing = None
        elif isinstance(error, InvalidResponseError):
            if self._failures and self._listing is not None and error.page is not None:
                self._listing.skip_unreadable(error.page)
        elif not (error.retryable or is_gateway_page(error)):
            # If an earlier request succeeded, the error may be temporary, unless the key is rejected.
            is_rejected = isinstance(error, AuthenticationError | PermissionDeniedError)
            if is_rejected or not self._has_read or self._failures >= _MAX_UNEXPECTED:
                raise error
        self._failures += 1
        longest = max(_MAX_BACKOFF, self._plan.interval)
        seconds = min(self._plan.interval * 2.0 ** min(self._failures - 1, 30), longest)
        self._due = time.monotonic() + seconds
        logger.warning("watch of %s: %s; trying again in %.1f s", escape(self._plan.workflow_id), error, seconds)

    async def _read_first_runs(self) -> None:
        """Read one of the newest runs that exist when the watch starts; set the baseline after the last one."""
        if self._listing is None:
            self._first_runs = []
            self._listing = _TolerantListing(self._plan, None, _BASELINE_RUNS)
        run = await self._listing.next_run()
        if run is not None:
            self._first_runs.append(run)
        if run is None or len(self._first_runs) == _BASELINE_RUNS:
            self._baseline = _Baseline.of(self._first_runs)
            self._known_runs.newest = self._baseline.newest
            self._listing = None

    async def _read_next_run(self, baseline: _Baseline) -> None:
        """Read the next run of the listing; after its last run, read unfinished runs that it did not have."""
        if self._listing is None:
            lists_all = self._is_first_round and self._plan.since is not None
            since = self._plan.since if lists_all else self._known_runs.horizon(self._plan.since)
            self._listing = _TolerantListing(self._plan, since)
        run = await self._listing.next_run()
        if run is not None:
            self._report_change(run, is_baseline=self._is_first_round and baseline.includes(run))
            return
        await self._read_unlisted()
        self._listing, self._is_first_round = None, False
        self._known_runs.end_round()
        self._due = time.monotonic() + self._plan.interval

    async def _read_unlisted(self) -> None:
        """Read some of the unfinished runs whose status was not in the listing of this round."""
        for run_id in self._known_runs.least_recently_read(_READS_PER_ROUND):
            try:
                run = await self._plan.get_run(run_id)
            except AuthenticationError:
                raise
            except (CopyAIError, ValueError) as error:  # a ValueError if the id is not valid in a path
                self._known_runs.record_failed_read(run_id, error)
                if isinstance(error, NotFoundError):
                    continue
                name = escape(self._plan.workflow_id)
                logger.warning("watch of %s: run %s cannot be read: %s", name, escape(run_id), error)
                if isinstance(error, CopyAIError) and error.retryable:
                    break  # in an outage, each read would take long
            else:
                self._report_change(run)
                self._known_runs.record_read(run_id)

    def _report_change(self, run: Run, *, is_baseline: bool = False) -> None:
        """Remember a run, and yield an event if it is new or has changed, and has a wanted status."""
        event = self._known_runs.update(run, is_baseline=is_baseline)
        if event is not None and (self._plan.statuses is None or (run.status or "").upper() in self._plan.statuses):
            self._items.append(event)


class _TolerantListing:
    """The runs of one listing.

    If a page repeatedly cannot be read, its runs are read one by one, and unreadable runs are skipped.
    """

    def __init__(self, plan: WatchPlan, since: datetime | None, limit: int | None = None) -> None:
        self._plan = plan
        self._since = since
        self._runs: ItemIterator[Run] = aiter(plan.list_runs(since, limit, MAX_PAGE_SIZE, 1))
        self._isolated_page: int | None = None  # the page whose runs are read one by one

    async def next_run(self) -> Run | None:
        """Return the next run, or None at the end. After an error, the next call reads the failed page again."""
        run = await anext(self._runs, None)
        if run is not None or self._isolated_page is None:
            return run
        next_page, self._isolated_page = self._isolated_page + 1, None
        self._runs = aiter(self._plan.list_runs(self._since, None, MAX_PAGE_SIZE, next_page))
        return await anext(self._runs, None)

    def skip_unreadable(self, page: int) -> None:
        """Read the runs of an unreadable page one by one. If this is done already, skip the unreadable run."""
        if self._isolated_page is None:
            self._isolated_page = page
            position = (page - 1) * MAX_PAGE_SIZE + 1
        else:
            name = escape(self._plan.workflow_id)
            logger.warning("watch of %s: run %d of the list cannot be read, and is skipped", name, page)
            position = page + 1
        remaining = self._isolated_page * MAX_PAGE_SIZE - position + 1
        self._runs = aiter(self._plan.list_runs(self._since, max(0, remaining), 1, position))


@frozen
class _Baseline:
    """The runs that exist when a watch starts, and are not reported as new.

    Attributes:
        newest: the creation time of the newest run; None if unknown.
        ids: the ids of the runs that were read.
        is_newest_first: whether the runs were listed newest first, so that runs created after `newest` are new.
    """

    newest: datetime | None
    ids: frozenset[str]
    is_newest_first: bool

    @classmethod
    def of(cls, first_runs: Sequence[Run]) -> Self:
        """Create the baseline from the first runs of the list."""
        now = datetime.now(UTC)
        # Ignore creation times in the future.
        times = [run.created_at for run in first_runs if run.created_at is None or run.created_at <= now]
        known = [time for time in times if time is not None]
        is_newest_first = len(known) == len(times) and all(a >= b for a, b in pairwise(known))
        newest = max(known, default=None)
        return cls(newest, frozenset(run.id for run in first_runs), is_newest_first)

    def includes(self, run: Run) -> bool:
        """Return whether a run existed, or may have existed, when the watch started."""
        if not self.ids:
            return False
        if run.id in self.ids or not self.is_newest_first or self.newest is None or run.created_at is None:
            return True
        return not self.newest < run.created_at <= datetime.now(UTC)


@define
class _KnownRun:
    """The remembered state of a run.

    Attributes:
        status: the latest status; None if unknown.
        created_at: the creation time; None if unknown.
        last_read: the round in which the status was last read; -1 if it was not read.
        failures: the number of consecutive failed reads.
        next_read: the earliest round in which to read the run.
        is_unknown: whether the last read raised a `NotFoundError`.
        is_baseline: whether the run existed when the watch started.
    """

    status: RunStatus | None
    created_at: datetime | None
    last_read: int = -1
    failures: int = 0
    next_read: int = 0
    is_unknown: bool = False
    is_baseline: bool = False

    @property
    def is_open(self) -> bool:
        return self.status is None or not self.status.is_final


class _KnownRuns:
    """The remembered runs: all recent ones, and older ones until they are finished."""

    def __init__(self) -> None:
        self.newest: datetime | None = None
        self.runs: OrderedDict[str, _KnownRun] = OrderedDict()  # the most recently seen last
        self._round = 0
        self._prune_at = _PRUNE_EVERY

    def horizon(self, earliest: datetime | None) -> datetime | None:
        """Return the creation time of the oldest runs to list again; None to list all runs."""
        if self.newest is None:
            return earliest
        time = self.newest - LOOK_BACK
        return time if earliest is None else max(time, earliest)

    def update(self, run: Run, *, is_baseline: bool = False) -> RunEvent | None:
        """Remember a run, and return an event if it is new or its status has changed.

        A run that existed when the watch started is not new, and its first known status is not a change.
        """
        # Ignore a creation time in the future, which would hide later runs.
        if run.created_at is not None and run.created_at <= datetime.now(UTC):
            self.newest = run.created_at if self.newest is None else max(self.newest, run.created_at)
        known = self.runs.get(run.id)
        if known is None:
            last_read = -1 if run.status is None else self._round
            self.runs[run.id] = _KnownRun(run.status, run.created_at, last_read, is_baseline=is_baseline)
            if len(self.runs) >= self._prune_at:
                self.prune()
            return None if is_baseline else RunEvent("new", run, None)
        self.runs.move_to_end(run.id)
        if run.status is None:  # omitted by the list
            return None
        self.record_read(run.id)
        # An earlier status is from a replica that lags behind.
        if run.status == known.status or progress(run.status) < progress(known.status):
            return None
        previous_status, known.status = known.status, run.status
        is_first_status = previous_status is None and known.is_baseline
        return None if is_first_status else RunEvent("changed", run, previous_status)

    def record_read(self, run_id: str) -> None:
        """Record that a run was read."""
        if (known := self.runs.get(run_id)) is not None:
            known.last_read, known.failures, known.next_read, known.is_unknown = self._round, 0, 0, False

    def record_failed_read(self, run_id: str, error: Exception) -> None:
        """Postpone the next read of an unreadable run, for longer after each failure.

        The run is remembered, so that it is not reported as new if it is listed again.
        """
        known = self.runs[run_id]
        known.failures += 1
        known.last_read = self._round
        known.next_read = self._round + min(2 ** min(known.failures - 1, 30), _MAX_SKIPPED_ROUNDS)
        known.is_unknown = isinstance(error, NotFoundError)

    def least_recently_read(self, count: int) -> list[str]:
        """Return the ids of `count` unfinished runs that were not read in this round, the least recently read first."""
        candidates = (
            (known.last_read, run_id)
            for run_id, known in self.runs.items()
            if known.is_open and known.last_read < self._round and known.next_read <= self._round
        )
        return [run_id for _, run_id in heapq.nsmallest(count, candidates)]

    def end_round(self) -> None:
        """Start the next round, and forget runs that are no longer needed."""
        self._round += 1
        self.prune()

    def prune(self) -> None:
        """Forget finished or unknown runs that are too old to be listed, and the oldest runs above `MAX_REMEMBERED`."""
        horizon = self.horizon(None)
        finished: list[str] = []
        unfinished: list[str] = []
        for run_id, known in list(self.runs.items()):
            is_past = horizon is not None and known.created_at is not None and known.created_at < horizon
            if is_past and (not known.is_open or known.is_unknown):
                del self.runs[run_id]
            else:
                (unfinished if known.is_open else finished).append(run_id)
        for run_id in (*finished[:-MAX_REMEMBERED], *unfinished[:-MAX_REMEMBERED]):
            del self.runs[run_id]
        self._prune_at = len(self.runs) + _PRUNE_EVERY
