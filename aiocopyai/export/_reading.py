"""The walks of an export: pages of runs into its part, from where the last process left off."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from attrs import evolve, frozen

from aiocopyai import BadRequestError, CopyAISession, NotFoundError, RequestInvalidError
from aiocopyai.export._journal import Part
from aiocopyai.export._resume import Trail, first_page, joins
from aiocopyai.export._state import LAST, State
from aiocopyai.models import Page, Run


_AT_STAKE_RUNS: Final = 2_000
_AT_STAKE_SECONDS: Final = 0.25
"""So much at the most is read once more after the process was killed."""
_MAYBE_PAST_END: Final = (BadRequestError, NotFoundError, RequestInvalidError)


@frozen
class Progress:
    """How far an export has come."""

    runs: int
    """Runs that are in it, those of processes before this one included; with ``since="last"`` only the new ones."""
    total: int | None
    """How many it should have in the end; None where that is not known."""
    by_status: Mapping[str, int]
    """The runs by their status."""
    credits: int
    """What they have cost."""


class Reading:
    """Reads what is left to read of an export."""

    def __init__(
        self,
        session: CopyAISession,
        part: Part,
        state: State,
        encode: Callable[[Sequence[Run]], bytes],
        tell: Callable[[Progress], None] | None,
    ) -> None:
        self._session = session
        self._part = part
        self._state = state
        self._encode = encode
        self._tell = tell
        self._committed = (state.runs, time.monotonic())

    async def read(self) -> None:
        """Walk all lists that were not walked to their end; what was read stays read, however this ends."""
        since = self._state.asked.since
        moment = None if since in {None, LAST} else datetime.fromisoformat(str(since))
        self._report()
        for workflow_id, walked in self._state.walks.items():
            if walked.is_done:
                continue
            start = first_page(walked, walked.total)
            if not await self._walk(workflow_id, start, moment):
                await self._walk(workflow_id, 1, moment)
            walked.is_done = True
            self._commit()

    async def _walk(self, workflow_id: str, start: int, since: datetime | None) -> bool:
        """Read from a page on; return whether that joined up with what was read before."""
        walked = self._state.walks[workflow_id]
        before = evolve(walked)
        trail = Trail(walked)
        pager = self._session.runs(workflow_id, start_page=start, since=since)
        pages = pager.pages()
        try:
            async for page in pages:
                if not joins(before, start, pager.changes.first_total):
                    return False
                trail.follow(page, pager.changes)
                walked.total = pager.total
                self._keep(workflow_id, page)
                if trail.is_past_horizon(page):
                    break
        except _MAYBE_PAST_END:
            if start == 1 or pager.total is not None:
                raise
            return False
        finally:
            self._commit()
            await pages.aclose()
        return joins(before, start, pager.changes.first_total)

    def _keep(self, workflow_id: str, page: Page[Run]) -> None:
        """Take a page's runs; a run that doesn't name its workflow gets the id it was asked for by."""
        runs = [run if run.workflow_id else evolve(run, workflow_id=workflow_id) for run in page.items]
        self._part.add(runs, self._encode)
        count, moment = self._committed
        if self._state.runs - count >= _AT_STAKE_RUNS or time.monotonic() - moment >= _AT_STAKE_SECONDS:
            self._commit()

    def _commit(self) -> None:
        self._part.commit()
        self._committed = (self._state.runs, time.monotonic())
        self._report()

    def _report(self) -> None:
        if self._tell is not None:
            state = self._state
            self._tell(Progress(state.runs, _total(state), dict(state.by_status), state.credits))


async def look(session: CopyAISession, workflow_id: str) -> tuple[int | None, str | None]:
    """Ask how many runs a workflow has, and which id its newest run calls it by; None for what the server doesn't say.

    Raises:
        ValueError: the id can't be one.
        CopyAIError: no answer, or an error: better now than after hours.
    """
    page = await session.runs_page(workflow_id, size=1)
    return page.total, page.items[0].workflow_id if page.items else None


def _total(state: State) -> int | None:
    """Return how many runs there are to be; that can be told only where all of every list is read."""
    totals = [walked.total for walked in state.walks.values() if walked.total is not None]
    everything = state.base is None and state.asked.since in {None, LAST}
    return sum(totals) if everything and len(totals) == len(state.walks) else None
