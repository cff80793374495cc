"""``aiocopyai runs``: walk the runs of a workflow, and say at the end what there was."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime

from attrs import Factory, frozen

from aiocopyai import CopyAISession, Pager, Run
from aiocopyai._display import plural, value_text
from aiocopyai.cli._common import open_session, perform, usage_errors
from aiocopyai.cli._formats import Format, Sink, say, sink
from aiocopyai.cli._options import read_pairs
from aiocopyai.cli._tally import Tally


@frozen
class Filter:
    """Which runs to show; an empty one lets all through."""

    statuses: frozenset[str] = frozenset()
    """In capitals; one of them is enough."""
    metadata: Mapping[str, frozenset[str]] = Factory(dict[str, frozenset[str]])
    """For each key the values that will do, as texts; each key has to have one."""

    def __bool__(self) -> bool:
        return bool(self.statuses or self.metadata)

    def lets_through(self, run: Run) -> bool:
        """Tell whether a run is wanted."""
        if self.statuses and (run.status or "").upper() not in self.statuses:
            return False
        return all(
            key in run.metadata and value_text(run.metadata[key]) in values for key, values in self.metadata.items()
        )


@frozen
class Wanted:
    """What the command was asked for."""

    workflow_id: str | None
    """None for the demo."""
    limit: int | None
    since: datetime | None
    format: Format
    filter: Filter = Filter()


def read_filter(statuses: list[str], metadata: list[str]) -> Filter:
    """Read what ``--status`` and ``--metadata`` were given."""
    pairs = read_pairs("--metadata", metadata)
    values = {key: frozenset(value for other, value in pairs if other == key) for key, _ in pairs}
    return Filter(frozenset(status.upper() for status in statuses), values)


def run(wanted: Wanted, key: str | None, *, debug: bool) -> int:
    """Walk and write; return the exit code."""
    tally = Tally()
    return perform(_list_runs(wanted, key, tally), debug=debug, so_far=tally)


async def _list_runs(wanted: Wanted, key: str | None, tally: Tally) -> None:
    chosen = [] if wanted.workflow_id is None else [wanted.workflow_id]
    async with open_session(chosen, key) as (session, [workflow_id]):
        pager = _pager(session, workflow_id, wanted)
        read = await _write(pager, sink(wanted.format), wanted, tally)
    say(str(tally), f" (of {plural(read, 'run')} read)" if wanted.filter else "")
    if pager.changes:
        say(f"the list moved meanwhile: {pager.changes}")


def _pager(session: CopyAISession, workflow_id: str, wanted: Wanted) -> Pager[Run]:
    """Ask for no more than is wanted, where that is known beforehand."""
    limit = None if wanted.filter and wanted.limit else wanted.limit
    with usage_errors():
        return session.runs(workflow_id, limit=limit, since=wanted.since)


async def _write(pager: Pager[Run], out: Sink[Run], wanted: Wanted, tally: Tally) -> int:
    """Write the runs that are wanted; return how many were read for that."""
    read, left = 0, wanted.limit
    async with aclosing(pager.pages()) as pages:
        async for page in pages:
            shown = [item for item in page.items if wanted.filter.lets_through(item)][:left]
            for item in shown:
                out.write(item)
                tally.add(item)
            out.flush()
            read += len(page.items)
            if left is not None:
                left -= len(shown)
                if not left:
                    break
    return read
