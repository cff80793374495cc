"""Runs as a Dask data frame: in this process, and on a cluster of several."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import cloudpickle
import dask
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st

from aiocopyai import (
    ConfigurationError,
    CopyAISession,
    InvalidResponseError,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RetryPolicy,
    Run,
)
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from aiocopyai.integrations import _page_ranges
from aiocopyai.integrations import dask as ours
from aiocopyai.integrations.arrow import SCHEMA, record_batch
from aiocopyai.integrations.dask import read_runs
from tests.conftest import AT_ONCE
from tests.support.exporting import ids_of, raw_run
from tests.support.strategies import ChangingList, changing_lists


KEY = "emulator-key"
SCHEDULERS = ("sync", "threads")

pytestmark = pytest.mark.xdist_group("dask")  # one cluster serves all tests of this module


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch, _no_environment: None) -> None:
    monkeypatch.setenv("COPYAI_API_KEY", KEY)


@pytest.fixture(name="small_pages")
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a page have five runs, in this process: short lists are long ones then."""
    monkeypatch.setattr(ours, "PAGE_SIZE", 5)
    monkeypatch.setattr(_page_ranges, "PAGE_SIZE", 5)
    monkeypatch.setattr(_page_ranges, "MARGIN", 5)


@pytest.fixture(name="client", scope="module")
def _client() -> Iterator[Client]:
    """Connect to a cluster of two processes with two threads each, which has the key in its own environment."""
    with (
        dask.config.set({"distributed.admin.log-length": 0}),
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", env={"COPYAI_API_KEY": KEY}) as cluster,
        Client(cluster) as client,
    ):
        yield client


async def compute(
    emulator: Emulator,
    workflow_ids: str | Sequence[str] | None = None,
    *,
    scheduler: str | None = None,
    **options: Any,  # noqa: ANN401 (any option of `read_runs`)
) -> pd.DataFrame:
    """Read a frame and compute it, in a thread, so that the emulator can answer."""

    def work() -> pd.DataFrame:
        frame = read_runs(workflow_ids or emulator.workflow_id, base_url=emulator.url, **{"retry": AT_ONCE, **options})
        with dask.config.set(scheduler=scheduler):
            computed: pd.DataFrame = frame.compute()
        assert list(computed.dtypes) == list(frame.dtypes)
        return computed

    return await asyncio.to_thread(work)


def on_page(emulator: Emulator, moves: dict[int, Callable[[], object]]) -> None:
    """Let the list move when a page is asked for the first time."""

    def move(_: Emulator, request: Request) -> None:
        if request.size != 1 and request.page in moves:
            moves.pop(request.page)()

    emulator.on_request = move


async def read_partitions(
    reader: Any,  # noqa: ANN401 (private there)
    emulator: Emulator,
    pages: int,
    arrange: Callable[[list[Any]], object],
) -> tuple[list[Any], list[pd.DataFrame]]:
    """Plan, and read the partitions one after the other in some order."""
    [total] = await reader.count([emulator.workflow_id])
    plan = ours._plan({emulator.workflow_id: total}, pages * ours.PAGE_SIZE)
    order = list(plan)
    arrange(order)
    return plan, [ours._frame(part.partition, await reader._read(part, None)) for part in order]


async def read_last(reader: Any, plan: list[Any], frames: list[pd.DataFrame]) -> list[str]:  # noqa: ANN401 (private there)
    """Do the last pass, and give all ids as they stand in the frame."""
    hashes = pd.concat([ours._hashes(frame) for frame in frames])
    mended = await asyncio.to_thread(reader.mend, hashes, plan)
    return list(ours._latest(pd.concat([*frames, mended]))["id"])


# --- arguments


@pytest.mark.parametrize(
    ("workflow_ids", "options"),
    [
        ([], {}),
        ("", {}),
        (["WCFG-1", ""], {}),
        ("WCFG-1", {"partition_pages": 0}),
        ("WCFG-1", {"partition_pages": True}),
        ("WCFG-1", {"partition_pages": 2.5}),
        ("WCFG-1", {"max_rate": 0}),
        ("WCFG-1", {"base_url": "http://copyai.example/api"}),
    ],
)
async def test_bad_arguments_send_nothing(
    copyai_emulator: Emulator, workflow_ids: str | list[str], options: dict[str, Any]
) -> None:
    """What can't be read is refused before anything is sent."""
    with pytest.raises(ValueError):  # noqa: PT011 (each has words of its own)
        await asyncio.to_thread(read_runs, workflow_ids, **{"base_url": copyai_emulator.url, **options})

    assert copyai_emulator.requests == []


def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key in the environment nothing is planned."""
    monkeypatch.delenv("COPYAI_API_KEY")

    with pytest.raises(ConfigurationError, match="COPYAI_API_KEY"):
        read_runs("WCFG-1", base_url="http://127.0.0.1:9/api")


async def test_no_total(copyai_emulator: Emulator) -> None:
    """A server that doesn't say how many runs there are can't be read in parts."""
    copyai_emulator.quirks = Quirks(total="absent")

    with pytest.raises(InvalidResponseError, match="no count"):
        await compute(copyai_emulator)


# --- what a frame holds


@pytest.mark.parametrize("scheduler", SCHEDULERS)
async def test_a_frame_holds_what_a_walk_gives(
    copyai_emulator: Emulator, session: CopyAISession, scheduler: str
) -> None:
    """Each run of the list is a row, with the columns, types and values of the one schema."""
    copyai_emulator.add_runs(450)
    runs = [run async for run in session.runs(copyai_emulator.workflow_id)]

    frame = await compute(copyai_emulator, partition_pages=2, scheduler=scheduler)

    rows = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False).to_pylist()
    assert sorted(rows, key=lambda row: row["id"]) == record_batch(sorted(runs, key=lambda run: run.id)).to_pylist()
    assert [dtype.pyarrow_dtype for dtype in frame.dtypes] == SCHEMA.types


@pytest.mark.parametrize("convert", [True, False])
async def test_an_empty_workflow_is_an_empty_frame(copyai_emulator: Emulator, convert: bool) -> None:  # noqa: FBT001 (a parameter)
    """No run is no row, and the columns are those of the schema, whatever Dask is told to do with texts."""
    with dask.config.set({"dataframe.convert-string": convert}):
        frame = await compute(copyai_emulator, scheduler="sync")

    assert frame.empty
    assert list(frame.columns) == SCHEMA.names
    assert [dtype.pyarrow_dtype for dtype in frame.dtypes] == SCHEMA.types


async def test_several_workflows(copyai_emulator: Emulator) -> None:
    """Each workflow is read once, even if it is named twice; a run that names none gets the id it was asked for by."""
    copyai_emulator.add_runs(3)
    copyai_emulator.replace_runs([], workflow_id="WCFG-none")
    copyai_emulator.replace_runs([{"id": "WRUN-a"}, {"id": "WRUN-\ud800"}], workflow_id="WCFG-other")

    wanted = [copyai_emulator.workflow_id, "WCFG-none", "WCFG-other", copyai_emulator.workflow_id]
    frame = await compute(copyai_emulator, wanted, scheduler="sync")

    assert sorted(frame["id"]) == sorted([*ids_of(copyai_emulator), "WRUN-a", "WRUN-\\ud800"])
    assert Counter(frame["workflow_id"]) == {copyai_emulator.workflow_id: 3, "WCFG-other": 2}


@pytest.mark.usefixtures("small_pages")
async def test_a_still_list_costs_little_more_than_its_pages(copyai_emulator: Emulator) -> None:
    """Beside the pages themselves: the margins, and a count for each partition and the head once more."""
    copyai_emulator.add_runs(60)  # 12 pages in 3 partitions of 4

    await compute(copyai_emulator, partition_pages=4, scheduler="sync")

    asked = Counter((request.size, request.page) for request in copyai_emulator.requests)
    twice = {1: 2, 5: 2, 9: 2}  # the head, and the page behind each border; page 13 is behind a full last page
    assert asked == {(1, 1): 3} | {(5, page): twice.get(page, 1) for page in range(1, 14)}


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(total="string"),
        Quirks(total=lambda count: count + 20),
        Quirks(past_end=404),
        Quirks(max_size=3),
        Quirks(sparse=True),
    ],
)
async def test_quirks_lose_no_more_than_a_walk(
    copyai_emulator: Emulator, session: CopyAISession, quirks: Quirks
) -> None:
    """Wrong totals and shorter pages put borders in wrong places, and what a walk finds is there all the same."""
    copyai_emulator.add_runs(58)
    copyai_emulator.quirks = quirks
    walked = [run.id async for run in session.runs(copyai_emulator.workflow_id, page_size=5)]

    frame = await compute(copyai_emulator, partition_pages=2, scheduler="sync")

    assert sorted(frame["id"]) == sorted(walked)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("past_end", [404, "empty"])
async def test_a_list_that_shrinks_past_a_partition(copyai_emulator: Emulator, past_end: Any) -> None:  # noqa: ANN401 (a quirk)
    """A partition that is gone between its count and its pages is empty, and the last pass reads to the end."""
    copyai_emulator.replace_runs([raw_run(number) for number in range(40, 0, -1)])
    copyai_emulator.quirks = Quirks(past_end=past_end)
    reader = ours._Reader(copyai_emulator.url, AT_ONCE, None)

    def shrink(emulator: Emulator, request: Request) -> None:
        if request.number == 2:
            emulator.on_request = lambda emulator, _: emulator.remove_runs(ids_of(emulator)[3:])

    copyai_emulator.on_request = shrink
    plan, frames = await read_partitions(reader, copyai_emulator, 4, list.reverse)

    assert [len(frame) for frame in frames] == [0, 3]
    assert await read_last(reader, plan, frames) == ids_of(copyai_emulator)


@pytest.mark.usefixtures("small_pages")
async def test_a_list_that_begins_anew(copyai_emulator: Emulator) -> None:
    """Where the last partition met an empty list, the last pass reads to the end of what came afterwards."""
    copyai_emulator.replace_runs([raw_run(number) for number in range(40, 0, -1)])
    reader = ours._Reader(copyai_emulator.url, AT_ONCE, None)

    def begin_anew() -> None:
        copyai_emulator.replace_runs([])
        on_page(copyai_emulator, {1: lambda: copyai_emulator.add_runs(30)})

    on_page(copyai_emulator, {5: begin_anew})
    plan, frames = await read_partitions(reader, copyai_emulator, 4, list.reverse)

    assert [len(frame) for frame in frames] == [0, 15]
    assert sorted(await read_last(reader, plan, frames)) == sorted(ids_of(copyai_emulator))


@pytest.mark.usefixtures("small_pages")
async def test_a_list_that_grows_at_its_end(copyai_emulator: Emulator) -> None:
    """On a list that is oldest first, partitions are read in the wrong places, and the last pass goes back for it."""
    copyai_emulator.add_runs(40)
    reader = ours._Reader(copyai_emulator.url, AT_ONCE, None)
    plan, frames = await read_partitions(reader, copyai_emulator, 4, lambda order: order.pop())

    copyai_emulator.add_runs(40, at="tail")
    frames.append(ours._frame(1, await reader._read(plan[1], None)))

    assert [len(frame) for frame in frames] == [25, 20]
    assert sorted(await read_last(reader, plan, frames)) == sorted(ids_of(copyai_emulator))


@pytest.mark.parametrize(("status", "page"), [(403, 4), (404, 4), (404, 3)])
async def test_a_failed_page_fails_the_frame(copyai_emulator: Emulator, status: int, page: int) -> None:
    """What could not be read is raised as it is, with its page, and never left out: nor is a partition's first page."""
    copyai_emulator.add_runs(500)
    copyai_emulator.inject(Fault(status=status), page=page, times=None)

    with pytest.raises((PermissionDeniedError, NotFoundError)) as caught:
        await compute(copyai_emulator, partition_pages=2, scheduler="threads")

    assert caught.value.page == page


@pytest.mark.usefixtures("small_pages")
async def test_a_list_that_keeps_shrinking(copyai_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where runs go at every request, reading ends with an error, and not never."""
    monkeypatch.setattr(_page_ranges, "_PATIENCE", 5)
    copyai_emulator.add_runs(100)
    copyai_emulator.on_request = lambda emulator, _: emulator.remove_runs(ids_of(emulator)[:1])

    with pytest.raises(PaginationError, match="shrank"):
        await compute(copyai_emulator, scheduler="sync")


# --- a list that moves


@pytest.mark.usefixtures("small_pages")
@settings(max_examples=40)
@given(changing_lists(), st.integers(1, 3), st.randoms(use_true_random=False))
def test_none_that_stayed_is_lost(changing: ChangingList, pages: int, chance: random.Random) -> None:
    """Whatever is added in front and removed anywhere, and whichever partition is read when: what stayed is there."""

    async def check() -> None:
        async with Emulator() as emulator:

            def move(emulator: Emulator, _: Request) -> None:
                changing.change()
                changing.requests += 1
                emulator.replace_runs([{"id": run_id} for run_id in changing.ids])

            emulator.on_request = move
            reader = ours._Reader(emulator.url, RetryPolicy(attempts=1), None)
            plan, frames = await read_partitions(reader, emulator, pages, chance.shuffle)
            here = set(changing.ids)
            found = await read_last(reader, plan, frames)

            assert len(set(found)) == len(found)
            assert (here & set(changing.ids)) | changing.stayed <= set(found)

    asyncio.run(check())


@pytest.mark.usefixtures("small_pages")
async def test_a_page_beyond_a_gap_proves_nothing(copyai_emulator: Emulator) -> None:
    """A page that was read ahead of what joins up doesn't tell that its partition reaches the next one."""
    copyai_emulator.replace_runs([raw_run(number) for number in range(40, 0, -1)])
    reader = ours._Reader(copyai_emulator.url, AT_ONCE, None)
    moves = {
        4: lambda: copyai_emulator.add_runs(20),
        8: lambda: copyai_emulator.remove_runs(ids_of(copyai_emulator)[:12]),
    }

    def from_the_end(order: list[Any]) -> None:
        order.reverse()
        assert [part.lower for part in order] == [0, 15]

    def slip() -> None:  # when the older partition is read: five runs get between the two
        copyai_emulator.remove_runs([f"WRUN-{number}" for number in range(1, 11)])
        on_page(copyai_emulator, moves)

    on_page(copyai_emulator, {8: lambda: on_page(copyai_emulator, {1: slip})})
    plan, frames = await read_partitions(reader, copyai_emulator, 5, from_the_end)
    read = {run_id for frame in frames for run_id in frame["id"]}
    assert moves == {}
    assert set(ids_of(copyai_emulator)) - read

    assert set(ids_of(copyai_emulator)) <= set(await read_last(reader, plan, frames))


def test_a_chain_that_is_not_met_again_is_dropped() -> None:
    """After going back, what was read before counts only as far as what is read then joins up with it."""

    def chain(*ids: str) -> list[_page_ranges.Read]:
        return [_page_ranges.Read(1, 10, [Run(run_id) for run_id in ids], at=0)]

    last = chain("d", "e")

    assert _page_ranges._joined([chain("x", "y"), last]) == last
    assert _page_ranges._joined([chain("a", "b"), chain("x"), chain("b", "d"), last]) == [
        *chain("a", "b"),
        *chain("b", "d"),
        *last,
    ]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
async def test_the_frame_has_what_came_and_what_stayed(copyai_emulator: Emulator, scheduler: str) -> None:
    """While Dask reads, runs come in front and go anywhere: all that are there in the end are in the frame, once."""
    copyai_emulator.add_runs(150)

    def move(emulator: Emulator, request: Request) -> None:
        if request.number < 25:  # the last pass, which comes later, meets a list that stands still
            emulator.add_runs(3)
            emulator.remove_runs(ids_of(emulator)[request.number :: 40])

    copyai_emulator.on_request = move

    frame = await compute(copyai_emulator, partition_pages=3, scheduler=scheduler)

    assert frame["id"].is_unique
    assert set(ids_of(copyai_emulator)) <= set(frame["id"])


@pytest.mark.usefixtures("small_pages")
async def test_the_copy_that_was_read_last_is_kept(copyai_emulator: Emulator) -> None:
    """A run that has changed until the last pass meets it again is as it is then."""
    copyai_emulator.replace_runs([raw_run(number, status="PROCESSING") for number in range(20, 0, -1)])
    heads = 0

    def finish(emulator: Emulator, request: Request) -> None:
        nonlocal heads
        heads += request.page == 1 and request.size != 1
        if heads == 2:
            emulator.replace_runs([{**run, "status": "COMPLETE"} for run in emulator.runs()])

    copyai_emulator.on_request = finish

    frame = await compute(copyai_emulator, partition_pages=2, scheduler="sync")

    status = dict(zip(frame["id"], frame["status"], strict=True))
    assert [status[f"WRUN-{number}"] for number in (20, 16, 15, 1)] == ["COMPLETE", "COMPLETE", *["PROCESSING"] * 2]


async def test_a_second_reading_is_another_frame(copyai_emulator: Emulator) -> None:
    """A frame that is read later is never taken for one that a cluster still holds."""
    first, second = [
        await asyncio.to_thread(read_runs, copyai_emulator.workflow_id, base_url=copyai_emulator.url) for _ in "ab"
    ]

    assert set(first.__dask_keys__()).isdisjoint(second.__dask_keys__())


# --- the key, the rate, the loop


async def test_the_key_is_not_in_the_graph(copyai_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the frame nor its graph, pickled as they travel, nor what they show holds the key."""
    monkeypatch.setattr(copyai_emulator, "api_key", "a-key-to-look-for")
    monkeypatch.setenv("COPYAI_API_KEY", "a-key-to-look-for")
    copyai_emulator.add_runs(500)

    frame = await asyncio.to_thread(
        read_runs, copyai_emulator.workflow_id, partition_pages=2, base_url=copyai_emulator.url, max_rate=1e3
    )

    graph = dict(frame.optimize().__dask_graph__())
    travels = pickle.dumps(frame) + cloudpickle.dumps(frame) + cloudpickle.dumps(graph)
    assert copyai_emulator.workflow_id.encode() in travels
    assert b"look-for" not in travels + repr(frame).encode() + repr(graph).encode()


@pytest.mark.parametrize(("partitions", "threads", "share"), [(100, 4, 2.5), (2, 4, 5.0), (1, 4, 10.0), (100, 1, 10.0)])
def test_the_rate_is_shared_out(partitions: int, threads: int, share: float) -> None:
    """Each partition gets the rate of one thread, but no less than if all partitions were read at once."""
    reader = ours._Reader(None, AT_ONCE, 10.0, partitions)

    with dask.config.set(num_workers=threads):
        assert reader.share() == share


async def test_the_rate_is_kept(copyai_emulator: Emulator) -> None:
    """Partitions that are read one after the other, each by a session of its own, keep to the rate together."""
    copyai_emulator.add_runs(800)
    began = time.monotonic()

    with dask.config.set(num_workers=1):
        await compute(copyai_emulator, partition_pages=1, scheduler="sync", max_rate=50)

    # The first of all, and the first of the last pass, need not wait.
    assert time.monotonic() - began >= (len(copyai_emulator.requests) - 2) / 50


async def test_inside_a_running_event_loop(copyai_emulator: Emulator) -> None:
    """In a notebook, whose cells run inside an event loop, a frame is made and computed as anywhere."""
    copyai_emulator.add_runs(300)

    async def cell() -> int:
        frame = read_runs(copyai_emulator.workflow_id, base_url=copyai_emulator.url)
        with dask.config.set(scheduler="sync"):
            return len(frame)

    assert await asyncio.to_thread(asyncio.run, cell()) == 300


# --- a cluster


@pytest.fixture(name="crowd")
async def _crowd() -> AsyncIterator[Emulator]:
    """An emulator with 1,500 runs that is slow enough for the whole cluster to take part."""
    async with Emulator(1_500, latency=0.01) as emulator:
        yield emulator


async def test_a_cluster_reads_all(crowd: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that have the key from their own environment read every run once, though the caller has no key left."""
    frame = await asyncio.to_thread(read_runs, crowd.workflow_id, partition_pages=2, base_url=crowd.url, max_rate=1e4)
    monkeypatch.delenv("COPYAI_API_KEY")

    found = await asyncio.to_thread(lambda: client.compute(frame).result())

    assert sorted(found["id"]) == sorted(ids_of(crowd))
    assert list(found.dtypes) == list(frame.dtypes)


async def test_a_cluster_shares_the_rate(client: Client) -> None:
    """On a cluster the rate is shared by the threads that it has."""
    reader = ours._Reader(None, AT_ONCE, 10.0, partitions=100)

    assert await asyncio.to_thread(lambda: client.submit(reader.share).result()) == 2.5


async def test_a_killed_worker_loses_nothing(crowd: Emulator, client: Client) -> None:
    """A worker is killed in the middle, while the list moves: what stayed is in the frame, once."""
    before = ids_of(crowd)
    victims = [next(iter((await asyncio.to_thread(client.run, os.getpid)).values()))]

    def kill(emulator: Emulator, request: Request) -> None:
        if request.number % 3 == 0:
            emulator.add_runs(2)
            emulator.remove_runs(before[request.number : request.number + 1])
        if request.number == 20:
            os.kill(victims.pop(), signal.SIGKILL)

    crowd.on_request = kill

    frame = await compute(crowd, partition_pages=2)

    assert victims == []
    assert frame["id"].is_unique
    assert set(before) & set(ids_of(crowd)) <= set(frame["id"])
