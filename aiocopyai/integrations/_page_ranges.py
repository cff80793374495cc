"""Parts of a list that are read separately, at any time and in any order, without losing a run between them.

Runs are numbered from the end of a list: the oldest is 1. Where a list grows at its head, each run keeps its number;
only removals behind it lower that. A range is what was between two numbers when the list was counted. Whenever it is
read, the list's `total` at that time shows on which pages it is.

Each range is read by one iteration, which leaves out no run (docs/pagination.md). Only pages that were requested while
the list did not change, or one by one, are connected for certain: no run is missing between them. Since the order of
runs does not change, two ranges that have a run in common on such pages leave out none between the first run of the one
and the last run of the other. Only common runs show that, not the number of runs.
"""

# pyarrow is not typed: its values are unknown to the type checkers.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from hashlib import blake2b
from math import ceil
from typing import Final

import pyarrow as pa  # type: ignore[import-untyped]  # see above
from attrs import define, evolve, field, frozen

from aiocopyai import CopyAIError, CopyAISession, Page, PaginationError, Run
from aiocopyai._pagination import may_be_past_end
from aiocopyai.integrations.arrow import record_batch


PAGE_SIZE: Final = 100
"""Runs on a page: the most that the API reference allows."""
MARGIN: Final = PAGE_SIZE
"""How many runs behind its end a range is read, so that it has runs in common with the next one."""
PREFETCH: Final = 4
_MIN_PAGES: Final = 20
"""How many pages a partition has at least, if there are that many: each of its ranges takes two requests more."""
NO_RANGE: Final = -1
"""The index of a range for rows that do not show whether a run is missing between two ranges."""
_MAX_ATTEMPTS: Final = 4
"""How often to start reading a range on a list that changes; what is still missing around it is read in the end."""
_MAX_EARLY_PAGES: Final = 2
"""How many pages in front of a range are read rather than starting again at the right page."""


@frozen
class PageRange:
    """A part of a list: the runs with numbers from `upper` down to `lower` + 1."""

    index: int
    """Which range of the data frame it is."""
    workflow_id: str
    total: int
    """The length of the list when the range was planned."""
    upper: int
    lower: int
    """0: to the end of the list."""

    @property
    def is_first(self) -> bool:
        """Whether the range reaches to the head of the list, wherever that is when it is read."""
        return self.upper >= self.total

    def first_page(self, total: int, page_length: int) -> int:
        """Return the page that has the first run of the range when the list has this length."""
        return 1 if self.is_first else max(0, total - self.upper) // page_length + 1


@define
class ReadPage:
    """A page that was read."""

    range_index: int
    """The index of the range that it was read for."""
    rows: pa.RecordBatch
    """The runs, converted while the next pages are on their way."""
    hashes: Sequence[int]
    """The `hash_id` of each run."""
    is_connected: bool = False
    """Whether no run is missing between this page and the other connected ones of its range."""
    read_at: int = field(factory=time.time_ns)
    """Nanoseconds since 1970, by the clock of the process that read it."""


def plan_ranges(totals: Mapping[str, int], max_pages: int, threads: int) -> list[list[PageRange]]:
    """Divide lists into partitions that `threads` threads read in about the same time: return the ranges of each.

    All partitions have the same number of pages, except that the last one may be shorter. There are as many for each
    thread, unless that takes partitions of fewer than `_MIN_PAGES` pages.

    Args:
        totals: the number of runs of each list.
        max_pages: the maximum number of pages in a partition.
        threads: how many partitions are read at the same time.
    """
    lengths = {workflow_id: max(1, ceil(total / PAGE_SIZE)) for workflow_id, total in totals.items()}
    pages = sum(lengths.values())
    fewest = ceil(pages / max_pages)
    partition_pages = ceil(pages / max(fewest, min(ceil(fewest / threads) * threads, pages // _MIN_PAGES)))
    partitions: list[list[PageRange]] = []
    index = free = 0
    for workflow_id, length in lengths.items():
        total, start = totals[workflow_id], 0
        while start < length:
            if not free:
                partitions.append([])
                free = partition_pages
            end = min(start + free, length)
            upper, lower = total - start * PAGE_SIZE, max(0, total - end * PAGE_SIZE)
            partitions[-1].append(PageRange(index, workflow_id, total, upper, lower))
            free -= end - start
            start = end
            index += 1
    return partitions


async def read_range(session: CopyAISession, wanted: PageRange, *, is_last_pass: bool = False) -> list[ReadPage]:
    """Read a range.

    Args:
        session: the session to read with.
        wanted: the range.
        is_last_pass: whether nothing else reads the list meanwhile. The range is read page by page then. Otherwise it
            is read with prefetch and with `MARGIN` runs behind it; a range of a list that shrinks too fast for that is
            left to the last pass, and none of its pages is connected.

    Raises:
        PaginationError: the list does not advance, in the last pass.
        CopyAIError: a request failed.
    """
    end = max(0, wanted.lower - (0 if is_last_pass else MARGIN))
    start, prefetch = wanted.first_page(wanted.total, PAGE_SIZE), 0 if is_last_pass else PREFETCH
    read: list[ReadPage] = []
    for attempts_left in reversed(range(_MAX_ATTEMPTS)):
        chain = _Chain(wanted, start, end, prefetch if attempts_left else 0, is_final=not attempts_left)
        is_left = False
        try:
            next_start = await chain.read(session)
        except PaginationError:
            if is_last_pass:
                raise
            next_start, is_left = None, True
        # Nothing connects the pages of this iteration with those of an earlier one, or those of a range that is left
        # to the last pass with its end.
        for page in (*read, *chain.pages) if is_left else read:
            page.is_connected = False
        read += chain.pages
        if next_start is None:
            break
        start, prefetch = next_start, 0 if chain.has_changed else prefetch
    return read


@define
class _Chain:
    """The pages of one iteration over a range."""

    wanted: PageRange
    start: int
    end: int
    """The number of the first run that is not wanted."""
    prefetch: int
    is_final: bool
    """Whether to continue even if the range starts at another page, or the list changes."""
    pages: list[ReadPage] = field(factory=list["ReadPage"])
    rereads: int = 0
    unproven: list[ReadPage] = field(factory=list["ReadPage"])

    @property
    def has_changed(self) -> bool:
        """Whether the list changed so that pages which were requested ahead cannot be connected."""
        return self.prefetch > 0 and self.rereads > 0

    async def read(self, session: CopyAISession) -> int | None:
        """Read the pages; return the page from which to read again, or None if these are the wanted ones."""
        pager = session.runs(
            self.wanted.workflow_id, page_size=PAGE_SIZE, start_page=self.start, prefetch=self.prefetch
        )
        try:
            async with aclosing(pager.pages()) as pages:
                async for page in pages:
                    total = self.wanted.total if pager.total is None else pager.total
                    expected = self.wanted.first_page(total, pages.page_length)
                    is_near = self.start <= expected <= self.start + _MAX_EARLY_PAGES
                    if not (is_near or self.pages or self.is_final):
                        return expected
                    self._add(page, pager.changes.reread, is_joined=pages.position >= page.number * pages.page_length)
                    if self.has_changed:
                        return expected
                    if pages.proven.position >= pages.position:
                        self._connect()
                    if self.end:
                        pages.stop_at(total - self.end)
        except CopyAIError as error:
            if self.pages or self.start == 1 or not may_be_past_end(error):
                raise
        if pager.changes.reread == self.rereads:
            self._connect()
        if self.pages or self.start == 1:
            return None
        # The list has become so short that its page does not exist.
        return self.wanted.first_page(await session.count_runs(self.wanted.workflow_id), PAGE_SIZE)

    def _add(self, page: Page[Run], rereads: int, *, is_joined: bool) -> None:
        read = ReadPage(self.wanted.index, record_batch(page.items), [hash_id(run.id) for run in page.items])
        if rereads > self.rereads:
            self.rereads = rereads
            self.unproven.clear()
        # New runs of the first page, when it is read once more, are not connected with the pages read before.
        if is_joined and (not self.pages or page.number > self.start):
            self.unproven.append(read)
        self.pages.append(read)

    def _connect(self) -> None:
        for page in self.unproven:
            page.is_connected = True
        self.unproven.clear()


async def read_between(
    session: CopyAISession, ranges: Sequence[PageRange], ids: Mapping[int, Collection[int]]
) -> list[ReadPage]:
    """Read the new head of a list, and what is between two ranges that have no run in common.

    Args:
        session: the session to read with.
        ranges: all ranges of one list, in its order.
        ids: by the index of a range, the `hash_id` of each run on its connected pages; there may be none.
    """
    read: list[ReadPage] = []
    above: set[int] | None = None
    for wanted in ranges:
        below = set(ids.get(wanted.index, ()))
        if not below and wanted.lower:
            continue  # what is missing between the ranges on both sides of it is read with the next one
        if above is None or above.isdisjoint(below):
            read += await _bridge(session, wanted, above, below)
        above = below
    return read


async def _bridge(session: CopyAISession, wanted: PageRange, above: set[int] | None, below: set[int]) -> list[ReadPage]:
    """Read around the upper border of a range, until that has runs in common with what was read above and below it."""
    read: list[ReadPage] = []
    width = PAGE_SIZE // 2
    while True:
        upper = wanted.total if above is None else wanted.upper + width
        bridge = evolve(wanted, index=NO_RANGE, upper=upper, lower=max(0, wanted.upper - width))
        pages = await read_range(session, bridge, is_last_pass=True)
        read += pages
        found = {number for page in pages if page.is_connected for number in page.hashes}
        reaches_above = bridge.is_first or (above is not None and not found.isdisjoint(above))
        reaches_below = bridge.lower == 0 or not found.isdisjoint(below)
        if reaches_above and reaches_below:
            return read
        width *= 2


def hash_id(run_id: str) -> int:
    """Return 64 bits of an id."""
    return int.from_bytes(blake2b(run_id.encode("utf-8", "backslashreplace"), digest_size=8).digest())
