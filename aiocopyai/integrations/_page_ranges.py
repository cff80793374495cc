"""A list in stretches that are read apart, at any time and in any order, and that still leave nothing out between them.

Places are counted from the end of a list. A list that grows in front moves every place that is counted from there;
counted from the end, a run keeps its number, and only removals behind it lower that. So a stretch is what stood between
two such numbers when the list was counted, and whenever it is read, the total of that moment tells its pages.

What is read at a time is a chain: pages one after the other, the total of none lower than that of the one before.
Whatever was added in front and removed, no run behind a page can then have come in front of it (docs/pagination.md), so
a chain leaves nothing out between its first run and its last. And where two chains of a list have a run in common,
nothing is left out between the first of the one and the last of the other, since the order of runs doesn't change.
That alone, and no count, tells what is joined.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from attrs import evolve, field, frozen

from aiocopyai import BadRequestError, CopyAISession, NotFoundError, PaginationError, RequestInvalidError, Run


PAGE_SIZE: Final = 100
"""Runs on a page: the most that the API's reference lets one have."""
MARGIN: Final = PAGE_SIZE
"""Runs that a stretch reads beyond its end."""
_PATIENCE: Final = 100
_SHRINKS: Final = f"the list shrank {_PATIENCE} times without getting any further; try again when it is calmer"
_MAYBE_PAST_END: Final = (BadRequestError, NotFoundError, RequestInvalidError)


@frozen
class Stretch:
    """A part of a list: its runs with numbers, counted from the list's end, above `lower` and up to `upper`."""

    partition: int
    workflow_id: str
    upper: int | None
    """None: up to the head, wherever that is by now."""
    lower: int
    """0: down to the end."""


@frozen
class Read:
    """A page that was read."""

    number: int
    total: int
    """How many runs the list had then."""
    runs: Sequence[Run]
    at: int = field(factory=time.time_ns)
    """Nanoseconds since 1970, by the clock of whoever read it."""


async def read_stretch(session: CopyAISession, stretch: Stretch) -> list[Read]:
    """Read a stretch, and `MARGIN` runs more."""
    start = 1 if stretch.upper is None else await _page_of(session, stretch.workflow_id, stretch.upper)

    def is_enough(read: Read) -> bool:
        return stretch.lower > 0 and read.number * PAGE_SIZE >= read.total - stretch.lower + MARGIN

    return await _walk(session, stretch.workflow_id, start, is_enough)


async def read_between(
    session: CopyAISession, stretches: Sequence[Stretch], ids: Mapping[int, Collection[int]]
) -> list[Read]:
    """Read what a list has before its first stretch and between two, where they have no run in common.

    Args:
        session: where to read from.
        stretches: all stretches of one list, in its order.
        ids: for each partition the `hash_id` of what was read of it; nothing for an empty one.
    """
    read: list[Read] = []
    above: set[int] | None = None
    for stretch in stretches:
        below = set(ids.get(stretch.partition, ()))
        if not below and stretch.lower:
            continue
        if above is None or above.isdisjoint(below):
            read += await _bridge(session, stretch, above, below)
        above = below
    return read


def hash_id(run_id: str) -> int:
    """Make 64 bits of an id."""
    return int.from_bytes(blake2b(run_id.encode("utf-8", "backslashreplace"), digest_size=8).digest())


async def _bridge(session: CopyAISession, stretch: Stretch, above: set[int] | None, below: set[int]) -> list[Read]:
    """Read from the stretch above, or from the head, to this one."""
    start, back = 1, 1
    if above is not None and stretch.upper is not None:
        start = await _page_of(session, stretch.workflow_id, stretch.upper)
    read: list[Read] = []
    for _ in range(_PATIENCE):
        start = max(1, start - back)
        pages = await _walk(session, stretch.workflow_id, start, lambda page: not _hashes(page).isdisjoint(below))
        read += pages
        if any(page.number == 1 or (above and not _hashes(page).isdisjoint(above)) for page in pages):
            return read
        back *= 2
    raise PaginationError(_SHRINKS)


async def _page_of(session: CopyAISession, workflow_id: str, number: int) -> int:
    """Tell the page where the run with this number stands now, or one before it."""
    return max(0, await session.count_runs(workflow_id) - number) // PAGE_SIZE + 1


async def _walk(session: CopyAISession, workflow_id: str, start: int, is_enough: Callable[[Read], bool]) -> list[Read]:
    """Read from a page on until it is enough, or to the end; what is returned leaves nothing out between.

    Where the list shrinks, the chain ends, and another begins before it.
    """
    chains: list[list[Read]] = []
    furthest = falls = 0
    while falls < _PATIENCE:
        chain, again = await _read_chain(session, workflow_id, start, is_enough)
        chains.append(chain)
        if again is None:
            return _joined(chains)
        falls = falls + 1 if again <= furthest else 0
        start, furthest = again, max(again, furthest)
    raise PaginationError(_SHRINKS)


async def _read_chain(
    session: CopyAISession, workflow_id: str, start: int, is_enough: Callable[[Read], bool]
) -> tuple[list[Read], int | None]:
    """Read a chain; return also where the next one is to begin, if the list shrank."""
    pager = session.runs(workflow_id, page_size=PAGE_SIZE, start_page=start, prefetch=0)
    chain: list[Read] = []
    try:
        async for page in pager.pages():
            total = pager.total or 0
            if pager.changes.reread:  # so the pager has noticed a fall
                # What was read last moved forward by that at the most. It may itself be gone: so one page more.
                fallen = max(0, chain[-1].total - total) if chain else 0
                return chain, max(1, ((chain[-1].number if chain else start) * PAGE_SIZE - 1 - fallen) // PAGE_SIZE)
            runs = [run if run.workflow_id else evolve(run, workflow_id=workflow_id) for run in page.items]
            chain.append(Read(page.number, total, runs))
            if is_enough(chain[-1]):
                break
    except _MAYBE_PAST_END:
        if start == 1 or chain:
            raise
    if not chain and start == 1:
        chain.append(Read(1, 0, ()))  # an empty list, read from its head to its end
    return chain, None


def _joined(chains: Sequence[list[Read]]) -> list[Read]:
    """Keep the last chain, and those before it that have a run in common with what is kept."""
    kept, *others = reversed(chains)
    for chain in others:
        if not _hashes(*chain).isdisjoint(_hashes(*kept)):
            kept = [*chain, *kept]
    return kept


def _hashes(*pages: Read) -> set[int]:
    return {hash_id(run.id) for page in pages for run in page.runs}
