"""Watching a workflow: each new run once, and each later change of its status once.

The list has no cursor and tells no time of change, so each round reads again the runs of the last while; runs that are
older and still open are read one by one, a few each round. What is remembered is bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from attrs import define, frozen

from aiocopyai._pager import ItemIterator, Pager
from aiocopyai._text import escape
from aiocopyai.errors import CopyAIError, NotFoundError, PaginationError
from aiocopyai.models import Run, RunStatus


logger = logging.getLogger("aiocopyai")

LOOK_BACK: Final = timedelta(minutes=10)
"""How late a run may turn up on the list, by its own time against the newest one's."""
REMEMBERED: Final = 20_000
"""At the most so many runs are remembered that are over or have no time, and so many open ones."""
_TIDY_EACH: Final = 1_000
_READS_A_ROUND: Final = 20
"""How many open runs older than `LOOK_BACK` are read one by one in a round."""
_LONGEST_PAUSE: Final = 300.0
"""Seconds between two tries in a long outage, where the interval is no longer."""


@frozen
class WatchPlan:
    """What is watched; checked by whoever makes it."""

    workflow_id: str
    interval: float
    since: datetime | None
    runs: Callable[[datetime | None, int | None], Pager[Run]]
    """Lists runs created since a moment, no more than a limit, without asking ahead."""
    get: Callable[[str], Awaitable[Run]]


@define
class _Seen:
    """What is known of a run."""

    status: RunStatus | None
    created_at: datetime | None

    @property
    def is_open(self) -> bool:
        return self.status is None or not self.status.is_final


class Watch(AsyncIterator[Run]):
    """An endless iterator over new runs and changes; nothing is under way but while its next item is awaited."""

    def __init__(self, plan: WatchPlan) -> None:
        self._plan = plan
        self._news: deque[Run] = deque()
        self._memory = _Memory()
        self._walk: ItemIterator[Run] | None = None
        self._met: set[str] = set()
        self._is_first_round = True
        self._wait = 0.0
        self._failures = 0
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Watch: {self._plan.workflow_id}>"

    async def __anext__(self) -> Run:
        async with self._turn:
            while not self._news:
                if self._wait:
                    await asyncio.sleep(self._wait)
                    self._wait = 0.0
                try:
                    await self._step()
                except CopyAIError as error:
                    self._bear(error)
                else:
                    self._failures = 0
            return self._news.popleft()

    def _bear(self, error: CopyAIError) -> None:
        """Go on after what may pass, later and later; raise what won't."""
        if isinstance(error, PaginationError):
            self._walk = None
        elif not error.retryable:
            raise error
        self._failures += 1
        longest = max(_LONGEST_PAUSE, self._plan.interval)
        self._wait = min(self._plan.interval * 2.0 ** min(self._failures - 1, 30), longest)
        name = escape(self._plan.workflow_id)
        logger.warning("watch of %s: %s; again in %.1f s", name, error, self._wait)

    async def _step(self) -> None:
        """Read one run of the round's list, or end the round."""
        if self._walk is None:
            self._walk, self._met = await self._begin(), set()
        # A walk that failed goes on at the page that it failed at.
        try:
            run = await anext(self._walk)
        except StopAsyncIteration:
            await self._read_others()
            self._walk, self._is_first_round = None, False
            self._memory.tidy()
            self._wait = self._plan.interval
            return
        if run.status is not None:
            self._met.add(run.id)
        self._notice(run, is_told=not self._is_first_round or self._plan.since is not None)

    async def _begin(self) -> ItemIterator[Run]:
        """List what may be new. A watch without a time begins by learning the latest runs, and tells of none."""
        if self._is_first_round and self._plan.since is None:
            async for newest in self._plan.runs(None, 1):
                self._memory.follow(newest.created_at)
        horizon = self._plan.since if self._is_first_round else None
        return aiter(self._plan.runs(horizon or self._memory.horizon(self._plan.since), None))

    def _notice(self, run: Run, *, is_told: bool) -> None:
        if self._memory.update(run) and is_told:
            self._news.append(run)

    async def _read_others(self) -> None:
        """Read some of the open runs that the round's list did not hold."""
        for run_id in self._memory.longest_unread(self._met, _READS_A_ROUND):
            try:
                run = await self._plan.get(run_id)
            except NotFoundError:
                self._memory.forget(run_id)
                continue
            except ValueError:
                # An id that no path can hold: what the list says of such a run is all there is to know.
                self._memory.put_off(run_id)
                continue
            self._met.add(run_id)
            self._notice(run, is_told=True)


class _Memory:
    """Which runs were seen, and where they stood: all of the last while, and older ones only while they are open."""

    def __init__(self) -> None:
        self._newest: datetime | None = None
        self._runs: OrderedDict[str, _Seen] = OrderedDict()
        self._tidy_at = _TIDY_EACH

    def horizon(self, earliest: datetime | None) -> datetime | None:
        """From when on the list is read again; None for all of it, where no run has shown a time yet."""
        if self._newest is None:
            return earliest
        moment = self._newest - LOOK_BACK
        return moment if earliest is None else max(moment, earliest)

    def follow(self, created_at: datetime | None) -> None:
        """Learn of a run's time."""
        if created_at is not None and (self._newest is None or created_at > self._newest):
            self._newest = created_at

    def update(self, run: Run) -> bool:
        """Remember a run, as the one read last; return whether it is new or its status is."""
        self.follow(run.created_at)
        known = self._runs.get(run.id)
        if known is None:
            self._runs[run.id] = _Seen(run.status, run.created_at)
            if len(self._runs) >= self._tidy_at:
                self.tidy()
            return True
        self._runs.move_to_end(run.id)
        # Lists may leave the status out, which is no change.
        if run.status is None or run.status == known.status:
            return False
        known.status = run.status
        return True

    def forget(self, run_id: str) -> None:
        """Drop a run that is gone."""
        self._runs.pop(run_id, None)

    def put_off(self, run_id: str) -> None:
        """Have the others read before it."""
        self._runs.move_to_end(run_id)

    def longest_unread(self, met: set[str], count: int) -> list[str]:
        """Name some open runs that were not met, those first that were read the longest ago."""
        unmet = (run_id for run_id, seen in self._runs.items() if seen.is_open and run_id not in met)
        return [run_id for run_id, _ in zip(unmet, range(count), strict=False)]

    def tidy(self) -> None:
        """Drop what is over and can't be listed again, and the oldest of what is too much."""
        horizon = self.horizon(None)
        over: list[str] = []
        open_: list[str] = []
        for run_id, seen in list(self._runs.items()):
            is_past = horizon is not None and seen.created_at is not None and seen.created_at < horizon
            if seen.is_open:
                open_.append(run_id)
            elif is_past:
                del self._runs[run_id]
            else:
                over.append(run_id)
        for run_id in [*over[:-REMEMBERED], *open_[:-REMEMBERED]]:
            del self._runs[run_id]
        self._tidy_at = len(self._runs) + _TIDY_EACH
