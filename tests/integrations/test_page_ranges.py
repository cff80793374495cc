"""Tests of page ranges of a changing list: no run is lost within a range or between two ranges."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import pairwise
from math import ceil
from typing import Any, cast

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from aiocopyai import CopyAISession, NotFoundError, Page, Pager, PermissionDeniedError, Run
from aiocopyai._pager import Plan
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from aiocopyai.integrations import _page_ranges
from aiocopyai.integrations._page_ranges import (
    PageRange,
    ReadPage,
    count_listed,
    hash_id,
    plan_ranges,
    read_between,
    read_range,
)
from tests.support.exporting import ids_of, raw_run
from tests.support.strategies import KINDS_OF_CHANGE, ChangingList, changing_lists


@pytest.fixture(name="_small_pages", autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages of five runs, so that short lists have many pages."""
    monkeypatch.setattr(_page_ranges, "PAGE_SIZE", 5)
    monkeypatch.setattr(_page_ranges, "MARGIN", 5)


def ids_on(page: ReadPage) -> list[str]:
    """Return the ids of the runs on a page."""
    ids: list[str] = page.rows["id"].to_pylist()
    assert page.hashes == [hash_id(run_id) for run_id in ids]
    return ids


@define
class Ranges:
    """The ranges of a list, and the runs that were read from them."""

    session: CopyAISession
    plan: list[PageRange]
    read: dict[int, list[ReadPage]] = field(factory=dict[int, "list[ReadPage]"])

    @classmethod
    async def of(cls, session: CopyAISession, workflow_id: str, pages: int) -> Ranges:
        """Plan ranges of some pages each."""
        total, divided = await count_listed(session, workflow_id)
        partitions = plan_ranges({workflow_id: total}, pages, threads=1, divided={workflow_id: divided})
        return cls(session, [page_range for partition in partitions for page_range in partition])

    async def read_in(self, order: list[PageRange]) -> None:
        """Read ranges in an order."""
        for page_range in order:
            pages = await read_range(self.session, page_range)
            self.read[page_range.index] = pages

    @property
    def ids(self) -> set[str]:
        """The ids that were read from all ranges."""
        return {run_id for pages in self.read.values() for page in pages for run_id in ids_on(page)}

    async def finish(self) -> set[str]:
        """Read the missing runs between the ranges; return all ids."""
        hashes = {
            index: {number for page in pages if page.is_connected for number in page.hashes}
            for index, pages in self.read.items()
        }
        pages = await read_between(self.session, self.plan, hashes)
        return self.ids | {run_id for page in pages for run_id in ids_on(page)}


@define
class ListSession:
    """A session without HTTP, which would take most of the time, for a list that changes before each request."""

    changing: ChangingList

    async def page(self, number: int, size: int) -> Page[Run]:
        """Serve a page."""
        await asyncio.sleep(0)
        return self.changing.page(number, size)

    async def count_runs(self, _: str) -> int:
        """Return the length of the list."""
        return (await self.page(1, 1)).total or 0

    def runs(self, workflow_id: str, *, page_size: int, start_page: int, prefetch: int) -> Pager[Run]:
        """Return a real pager over the list."""
        return Pager(self.page, Plan(workflow_id, page_size, start_page=start_page, since=None, prefetch=prefetch))


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 300), min_size=1), st.integers(1, 20), st.integers(1, 8))
def test_plan_covers_every_run_once(totals: dict[str, int], max_pages: int, threads: int) -> None:
    """The ranges cover a list from its head to its end, and all partitions except the last have the same length."""
    partitions = plan_ranges(totals, max_pages, threads)
    ranges = [page_range for partition in partitions for page_range in partition]

    assert [page_range.index for page_range in ranges] == list(range(len(ranges)))
    for workflow_id, total in totals.items():
        own = [page_range for page_range in ranges if page_range.workflow_id == workflow_id]
        assert (own[0].upper, own[-1].lower) == (total, 0)
        assert all(one.lower == other.upper for one, other in pairwise(own))
    *others, last = [
        sum(max(1, ceil((page_range.upper - page_range.lower) / 5)) for page_range in partition)
        for partition in partitions
    ]
    assert all(pages == others[0] for pages in others)
    assert 1 <= last <= max([*others[:1], last]) <= max_pages


@pytest.mark.parametrize(
    ("pages", "threads", "planned"),
    [
        (333, 4, [84, 84, 84, 81]),  # one partition for each thread
        (500, 4, [63] * 7 + [59]),  # two for each thread: one for each would be too long
        (50, 4, [25, 25]),  # not four, which would be too short
        (10, 4, [10]),
        (333, 1, [84, 84, 84, 81]),
        (10_001, 4, [97] * 103 + [10]),
    ],
)
def test_partitions_are_equal(pages: int, threads: int, planned: list[int]) -> None:
    """All threads read the same number of pages, so that none waits for the last partition."""
    partitions = plan_ranges({"WCFG-1": pages * 5}, 100, threads)

    assert [(ranges[0].upper - ranges[-1].lower) // 5 for ranges in partitions] == planned


def test_short_lists_share_a_partition() -> None:
    """Fifty short lists and the end of a long list share a partition."""
    totals = {f"WCFG-{number}": 3 for number in range(50)}

    assert len(plan_ranges(totals, 50, threads=1)) == 1
    assert [len(ranges) for ranges in plan_ranges({"WCFG-long": 503, **totals}, 50, threads=1)] == [1, 1, 1 + 13, 37]


async def test_unchanged_list_takes_few_additional_requests(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """Each range also reads a page of the next range, and its first page again. The last pass reads the first page."""
    copyai_emulator.add_runs(58)
    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 4)
    await ranges.read_in(ranges.plan)
    found = await ranges.finish()

    requested = Counter(request.page for request in copyai_emulator.requests if request.size == 5)
    assert found == set(ids_of(copyai_emulator))
    assert requested == dict.fromkeys(range(1, 13), 1) | {1: 3, 5: 3, 9: 3}


@pytest.mark.parametrize("kind", KINDS_OF_CHANGE)
@settings(max_examples=25)
@given(st.data(), st.integers(1, 3), st.randoms(use_true_random=False))
def test_runs_that_stay_in_the_list_are_read(kind: str, data: st.DataObject, pages: int, chance: random.Random) -> None:
    """Runs that stay in the list are read, for any additions at the head, removals and order of reading."""
    changing: ChangingList = data.draw(changing_lists(kind))

    async def check() -> None:
        ranges = await Ranges.of(cast("CopyAISession", ListSession(changing)), "WCFG-1", pages)
        order = list(ranges.plan)
        chance.shuffle(order)
        await ranges.read_in(order)
        before = set(changing.ids)
        found = await ranges.finish()

        assert (before & set(changing.ids)) | changing.stayed <= found

    asyncio.run(check())


async def test_readings_of_a_range_are_not_connected(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """If the reading of a range starts again at another page, only the pages of the last reading are connected."""
    lengths = iter([48, 50, 40, 40, 40, 40, 32])

    def shorten(emulator: Emulator, _: Request) -> None:
        emulator.replace_runs([raw_run(number) for number in range(next(lengths, 22), 0, -1)])

    copyai_emulator.on_request = shorten
    pages = await read_range(session, PageRange(0, copyai_emulator.workflow_id, 57, 12, 0))
    connected = {run_id for page in pages if page.is_connected for run_id in ids_on(page)}

    assert len(pages) > 2
    assert connected == {raw_run(1)["id"], raw_run(2)["id"]}


async def test_list_that_shrinks_at_every_second_request(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """If the list loses a run at every second request, every run that stays in it is read."""
    copyai_emulator.replace_runs([raw_run(number) for number in range(100, 0, -1)])

    def shrink(emulator: Emulator, request: Request) -> None:
        if request.number % 2 == 0:
            emulator.remove_runs(ids_of(emulator)[-1:])

    copyai_emulator.on_request = shrink
    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 4)
    await ranges.read_in(ranges.plan)
    found = await ranges.finish()

    assert set(ids_of(copyai_emulator)) <= found
    assert len(copyai_emulator.requests) < 200


async def test_range_of_a_list_that_shrinks_too_fast(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """If a list shrinks too fast to read a range completely, the last pass reads the rest."""
    copyai_emulator.replace_runs([raw_run(number) for number in range(300, 0, -1)])
    every = 1

    def shrink(emulator: Emulator, request: Request) -> None:
        if request.number % every == 0:
            emulator.remove_runs(ids_of(emulator)[-1:])

    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 5)
    copyai_emulator.on_request = shrink
    await ranges.read_in(ranges.plan)
    every = 2
    found = await ranges.finish()

    assert any(pages and not any(page.is_connected for page in pages) for pages in ranges.read.values())
    assert set(ids_of(copyai_emulator)) <= found


@pytest.mark.parametrize("past_end", [404, "empty", "last"])
async def test_list_that_becomes_shorter_than_a_range(
    copyai_emulator: Emulator,
    session: CopyAISession,
    past_end: Any,  # noqa: ANN401 (a quirk)
) -> None:
    """If the first page of a range no longer exists, the last pass reads to the end of the list."""
    copyai_emulator.replace_runs([raw_run(number) for number in range(40, 0, -1)])
    copyai_emulator.quirks = Quirks(past_end=past_end)
    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 4)
    copyai_emulator.remove_runs(ids_of(copyai_emulator)[3:])
    await ranges.read_in(ranges.plan[::-1])

    assert await ranges.finish() == set(ids_of(copyai_emulator))


async def test_list_that_is_emptied_and_filled_again(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """If the last range was empty when it was read, the last pass reads to the end of the new list."""
    copyai_emulator.replace_runs([raw_run(number) for number in range(40, 0, -1)])
    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 4)
    copyai_emulator.replace_runs([])
    await ranges.read_in(ranges.plan[1:])
    copyai_emulator.add_runs(30)
    await ranges.read_in(ranges.plan[:1])

    assert ranges.read[1] == []
    assert await ranges.finish() == set(ids_of(copyai_emulator))


async def test_list_that_grows_at_its_end(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """If a list is oldest first, ranges are read from the wrong pages, and the last pass closes the gaps."""
    copyai_emulator.add_runs(40)
    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 4)
    await ranges.read_in(ranges.plan[:1])
    copyai_emulator.add_runs(40, at="tail")
    await ranges.read_in(ranges.plan[1:])
    missing = set(ids_of(copyai_emulator)) - ranges.ids
    found = await ranges.finish()

    assert missing
    assert found == set(ids_of(copyai_emulator))


async def test_first_page_that_cannot_be_read(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """A 404 in the middle of the list raises an error, even for the first page of a range."""
    copyai_emulator.add_runs(40)
    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 4)
    copyai_emulator.inject(Fault(status=404), page=5, times=None)

    with pytest.raises(NotFoundError) as caught:
        await ranges.read_in(ranges.plan)

    assert caught.value.page == 5


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(total="string"),
        Quirks(total=lambda count: count + 20),
        Quirks(total=lambda count: count - 8),
        Quirks(past_end=404),
        Quirks(past_end=404, total=lambda count: count + 20),
        Quirks(max_size=3),
        Quirks(sparse=True),
    ],
)
@pytest.mark.parametrize("is_reversed", [False, True])
async def test_no_run_is_lost_with_quirks(
    copyai_emulator: Emulator, session: CopyAISession, quirks: Quirks, *, is_reversed: bool
) -> None:
    """Every run is read even if wrong totals or shorter pages lead to wrong borders."""
    copyai_emulator.add_runs(58)
    copyai_emulator.quirks = quirks
    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 2)
    await ranges.read_in(ranges.plan[::-1] if is_reversed else ranges.plan)

    assert await ranges.finish() == set(ids_of(copyai_emulator))


@pytest.mark.parametrize("total", [10**7 + 1, 10**15, 2**63 - 1])
@pytest.mark.parametrize("past_end", [404, 422, "empty"])
async def test_absurd_total(
    copyai_emulator: Emulator,
    session: CopyAISession,
    total: int,
    past_end: Any,  # noqa: ANN401 (a quirk)
) -> None:
    """An absurdly high total needs only a few more requests and ranges, and no run is lost."""
    copyai_emulator.add_runs(58)
    copyai_emulator.quirks = Quirks(total=lambda _: total, past_end=past_end)
    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 2)
    await ranges.read_in(ranges.plan)

    assert len(ranges.plan) <= 2 * 58 / 5 / 2 + 1
    assert await ranges.finish() == set(ids_of(copyai_emulator))
    assert len(copyai_emulator.requests) < 200


async def test_list_that_grows_with_an_absurd_total(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """With an absurd total, the last range has all later runs, even if the list has grown tenfold."""
    copyai_emulator.add_runs(10)
    copyai_emulator.quirks = Quirks(total=lambda _: 10**15)
    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 2)
    copyai_emulator.add_runs(100, at="tail")
    await ranges.read_in(ranges.plan)

    assert await ranges.finish() == set(ids_of(copyai_emulator))


async def test_long_list_is_divided(copyai_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long list is divided by its total if its last page exists. A list without an end is divided up to a limit."""
    monkeypatch.setattr(_page_ranges, "_LIKELY_TOTAL", 100)
    monkeypatch.setattr(_page_ranges, "_MAX_DIVIDED", 1_000)
    copyai_emulator.add_runs(300)
    async with CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url) as session:
        assert await count_listed(session, copyai_emulator.workflow_id) == (300, 300)
        copyai_emulator.quirks = Quirks(total=lambda _: 10**15, past_end="last")
        assert await count_listed(session, copyai_emulator.workflow_id) == (10**15, 1_000)
        copyai_emulator.inject(Fault(status=403), page=4)
        with pytest.raises(PermissionDeniedError):
            await count_listed(session, copyai_emulator.workflow_id)


async def test_list_that_grew_since_it_was_counted(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """If runs were added, a range is found on its new pages with two more requests, without reading earlier pages."""
    copyai_emulator.replace_runs([raw_run(number) for number in range(100, 0, -1)])
    ranges = await Ranges.of(session, copyai_emulator.workflow_id, 4)
    copyai_emulator.add_runs(500)
    copyai_emulator.requests.clear()
    await ranges.read_in(ranges.plan[-1:])

    assert ranges.ids >= {f"WRUN-{number}" for number in range(1, 21)}
    assert len(copyai_emulator.requests) <= 4 + 3
