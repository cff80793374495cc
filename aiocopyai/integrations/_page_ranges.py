"""Ranges of a list that are read separately, at any time and in any order, without missing a run between them.

Runs are numbered from the end of a list: the oldest is 1. If a list grows at its head, each run keeps its number; only
the removal of an older run decreases it. A range consists of the runs between two numbers when the list was counted.
When a range is read, the current `total` of the list shows which pages have it.

Each range is read by one iteration, which does not skip a run (docs/pagination.md). Pages are connected, so that no run
is missing between them, only if they were requested one by one, or while the list did not change. The order of runs
does not change. So if two ranges have a run in common on connected pages, no run is missing between the first run of
one range and the last run of the other. Only common runs prove this; the number of runs does not.
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
"""The number of runs on a page: the maximum in the API reference."""
MARGIN: Final = PAGE_SIZE
"""The number of runs after its end that a range also reads, so that it has runs in common with the next range."""
PREFETCH: Final = 4
_MIN_PAGES: Final = 20
"""The minimum number of pages in a partition, if there are that many: each range takes two additional requests."""
NO_RANGE: Final = -1
"""The range index of rows that do not show whether a run is missing between two ranges."""
_MAX_ATTEMPTS: Final = 4
"""The maximum number of attempts to read a range of a list that changes. The last pass reads missing runs."""
_LIKELY_TOTAL: Final = 10_000_000
"""If a `total` is larger, the length of the list is checked."""
_MAX_DIVIDED: Final = 1_000_000_000
"""The maximum number of runs to divide into ranges. The last range has all later runs."""
_MAX_EARLY_PAGES: Final = 2
"""The maximum number of pages to read before a range. If there are more, reading starts again at the right page."""


@frozen
class PageRange:
    """A part of a list: the runs with numbers from `upper` down to `lower` + 1."""

    index: int
    """The index of the range in the data frame."""
    workflow_id: str
    total: int
    """The length of the list when the range was planned."""
    upper: int
    lower: int
    """0 if the range ends at the end of the list."""

    @property
    def is_first(self) -> bool:
        """Whether the range starts at the head of the list, including runs that were added after planning."""
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
    """The runs. They are converted while the next pages are requested."""
    hashes: Sequence[int]
    """The `hash_id` of each run."""
    is_connected: bool = False
    """Whether no run is missing between this page and the other connected pages of its range."""
    read_at: int = field(factory=time.time_ns)
    """The time in nanoseconds since 1970, by the clock of the process that read the page."""


async def count_listed(session: CopyAISession, workflow_id: str) -> tuple[int, int]:
    """Return the `total` of a list, and the number of its leading runs to divide into ranges.

    If the total is unlikely, the second number is at most about twice the number of runs on the list. A total of 10**15
    would otherwise require more ranges than fit into memory.
    """
    total = await session.count_runs(workflow_id)
    if total <= _LIKELY_TOTAL:
        return total, total
    pages = 1
    while pages * PAGE_SIZE < min(total, _MAX_DIVIDED) and await _has_runs(session, workflow_id, pages):
        pages *= 2
    return total, min(total, _MAX_DIVIDED, pages * PAGE_SIZE)


async def _has_runs(session: CopyAISession, workflow_id: str, page: int) -> bool:
    try:
        return bool((await session.runs_page(workflow_id, page, size=PAGE_SIZE)).items)
    except CopyAIError as error:
        if may_be_past_end(error):
            return False
        raise


def plan_ranges(
    totals: Mapping[str, int], max_pages: int, threads: int, divided: Mapping[str, int] | None = None
) -> list[list[PageRange]]:
    """Divide lists into partitions that `threads` threads read in about the same time, and return their ranges.

    All partitions have the same number of pages, except that the last one may be shorter. Each thread reads the same
    number of partitions, unless these would have fewer than `_MIN_PAGES` pages.

    Args:
        totals: the number of runs of each list.
        max_pages: the maximum number of pages in a partition.
        threads: the number of partitions that are read at the same time.
        divided: the number of leading runs of each list to divide; by default, all. The last range of a list has all
            later runs, too.
    """
    divided = totals if divided is None else divided
    lengths = {workflow_id: max(1, ceil(runs / PAGE_SIZE)) for workflow_id, runs in divided.items()}
    pages = sum(lengths.values())
    min_partitions = ceil(pages / max_pages)
    partition_pages = ceil(
        pages / max(min_partitions, min(ceil(min_partitions / threads) * threads, pages // _MIN_PAGES))
    )
    partitions: list[list[PageRange]] = []
    index = free_pages = 0
    for workflow_id, length in lengths.items():
        total, start = totals[workflow_id], 0
        while start < length:
            if not free_pages:
                partitions.append([])
                free_pages = partition_pages
            end = min(start + free_pages, length)
            upper = total - start * PAGE_SIZE
            lower = max(0, total - end * PAGE_SIZE) if end < length else 0
            partitions[-1].append(PageRange(index, workflow_id, total, upper, lower))
            free_pages -= end - start
            start = end
            index += 1
    return partitions


async def read_range(session: CopyAISession, page_range: PageRange, *, is_last_pass: bool = False) -> list[ReadPage]:
    """Read a range.

    Args:
        session: the session to read with.
        page_range: the range.
        is_last_pass: whether to read the range page by page, because nothing else reads the list. Otherwise, it is read
            with prefetch and with `MARGIN` runs after its end. If the list shrinks too fast for that, the range is left
            to the last pass, and none of its pages is connected.

    Raises:
        PaginationError: the list does not advance, in the last pass.
        CopyAIError: a request failed.
    """
    end = max(0, page_range.lower - (0 if is_last_pass else MARGIN))
    start, prefetch = page_range.first_page(page_range.total, PAGE_SIZE), 0 if is_last_pass else PREFETCH
    read: list[ReadPage] = []
    for attempts_left in reversed(range(_MAX_ATTEMPTS)):
        attempt = _RangeIteration(page_range, start, end, prefetch if attempts_left else 0, is_last=not attempts_left)
        is_postponed = False
        try:
            next_start = await attempt.read(session)
        except PaginationError:
            if is_last_pass:
                raise
            next_start, is_postponed = None, True
        # The pages of different attempts are not connected. If the range is left to the last pass, no page is connected
        # with the end of the range.
        for page in (*read, *attempt.pages) if is_postponed else read:
            page.is_connected = False
        read += attempt.pages
        if next_start is None:
            break
        start, prefetch = next_start, 0 if attempt.has_changed else prefetch
    return read


@define
class _RangeIteration:
    """One iteration over the pages of a range. It may have to be repeated."""

    page_range: PageRange
    start: int
    end: int
    """The number of the first run after the range."""
    prefetch: int
    is_last: bool
    """Whether to continue even if the range starts at another page, or the list changes."""
    pages: list[ReadPage] = field(factory=list["ReadPage"])
    rereads: int = 0
    unverified: list[ReadPage] = field(factory=list["ReadPage"])

    @property
    def has_changed(self) -> bool:
        """Whether the list changed, so that prefetched pages cannot be connected."""
        return self.prefetch > 0 and self.rereads > 0

    async def read(self, session: CopyAISession) -> int | None:
        """Read the pages. Return the page to start again from, or None if the range was read."""
        pager = session.runs(
            self.page_range.workflow_id, page_size=PAGE_SIZE, start_page=self.start, prefetch=self.prefetch
        )
        try:
            async with aclosing(pager.pages()) as pages:
                async for page in pages:
                    total = self.page_range.total if pager.total is None else pager.total
                    expected = self.page_range.first_page(total, pages.page_length)
                    is_near = self.start <= expected <= self.start + _MAX_EARLY_PAGES
                    if not (is_near or self.pages or self.is_last):
                        return expected
                    self._add(page, pager.changes.reread, is_joined=pages.position >= page.number * pages.page_length)
                    if self.has_changed:
                        return expected
                    if pages.verified.position >= pages.position:
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
        # The list is now so short that the first page of the range does not exist.
        return self.page_range.first_page(await session.count_runs(self.page_range.workflow_id), PAGE_SIZE)

    def _add(self, page: Page[Run], rereads: int, *, is_joined: bool) -> None:
        read = ReadPage(self.page_range.index, record_batch(page.items), [hash_id(run.id) for run in page.items])
        if rereads > self.rereads:
            self.rereads = rereads
            self.unverified.clear()
        # If the first page is read again, its new runs are not connected with the pages that were read before.
        if is_joined and (not self.pages or page.number > self.start):
            self.unverified.append(read)
        self.pages.append(read)

    def _connect(self) -> None:
        for page in self.unverified:
            page.is_connected = True
        self.unverified.clear()


async def read_between(
    session: CopyAISession, ranges: Sequence[PageRange], ids: Mapping[int, Collection[int]]
) -> list[ReadPage]:
    """Read the new head of a list, and the runs between ranges that have no run in common.

    Args:
        session: the session to read with.
        ranges: all ranges of one list, in its order.
        ids: by the index of a range, the `hash_id` of each run on its connected pages; there may be none.
    """
    read: list[ReadPage] = []
    above: set[int] | None = None
    for page_range in ranges:
        below = set(ids.get(page_range.index, ()))
        if not below and page_range.lower:
            continue  # the runs between the previous and the next range are read with the next range
        if above is None or above.isdisjoint(below):
            read += await _bridge(session, page_range, above, below)
        above = below
    return read


async def _bridge(
    session: CopyAISession, page_range: PageRange, above: set[int] | None, below: set[int]
) -> list[ReadPage]:
    """Read around the upper border of a range, until the pages have runs in common with those above and below it."""
    read: list[ReadPage] = []
    width = PAGE_SIZE // 2
    while True:
        upper = page_range.total if above is None else page_range.upper + width
        # If no run below the border is known, read to the end of the list.
        lower = max(0, page_range.upper - width) if below else 0
        bridge = evolve(page_range, index=NO_RANGE, upper=upper, lower=lower)
        pages = await read_range(session, bridge, is_last_pass=True)
        read += pages
        found = {id_hash for page in pages if page.is_connected for id_hash in page.hashes}
        reaches_above = bridge.is_first or (above is not None and not found.isdisjoint(above))
        reaches_below = bridge.lower == 0 or not found.isdisjoint(below)
        if reaches_above and reaches_below:
            return read
        width *= 2


def hash_id(run_id: str) -> int:
    """Return a hash of an id with 64 bits."""
    return int.from_bytes(blake2b(run_id.encode("utf-8", "backslashreplace"), digest_size=8).digest())
