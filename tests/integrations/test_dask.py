"""Tests of Dask data frames, in this process and on a cluster."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Any

import cloudpickle
import dask
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster

from aiocopyai import (
    ConfigurationError,
    CopyAISession,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
)
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from aiocopyai.integrations import _page_ranges
from aiocopyai.integrations import dask as tested
from aiocopyai.integrations.arrow import SCHEMA, record_batch
from aiocopyai.integrations.dask import read_runs
from tests.conftest import AT_ONCE
from tests.support.arguments import INVALID_INTEGERS, INVALID_NUMBERS, problem_of
from tests.support.exporting import ids_of, raw_run


KEY = "emulator-key"
SCHEDULERS = ("sync", "threads")
CLUSTER_SECONDS = 40
"""A limit for each wait for a cluster: a thread that waits for longer would outlive its test."""

pytestmark = pytest.mark.xdist_group("dask")  # one cluster serves all tests of this module


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch, _no_environment: None) -> None:
    monkeypatch.setenv("COPYAI_API_KEY", KEY)


@pytest.fixture(name="small_pages")
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages of five runs in this process, so that short lists have many pages."""
    monkeypatch.setattr(_page_ranges, "PAGE_SIZE", 5)
    monkeypatch.setattr(_page_ranges, "MARGIN", 5)


@pytest.fixture(name="client", scope="module")
def _client() -> Iterator[Client]:
    """A cluster of two processes with two threads each, and with the key in their environment."""
    # Workers are forked from one process with all imports, which take seconds, instead of importing the same again.
    multiprocessing.get_context("forkserver").set_forkserver_preload([tested.__name__])
    options = {"distributed.admin.log-length": 0, "distributed.worker.multiprocessing-method": "forkserver"}
    with pytest.MonkeyPatch.context() as patch, dask.config.set(options):
        patch.setattr("distributed.utils._forkserver_preload_set", True, raising=False)  # or it would set its own
        cluster = LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", env={"COPYAI_API_KEY": KEY})
        client = Client(cluster, timeout=CLUSTER_SECONDS)
        try:
            yield client
        finally:
            # No wait without a limit, and no process is left, even if a failed test leaves the cluster in a bad state.
            with suppress(TimeoutError):
                client.close(timeout=CLUSTER_SECONDS)
            with suppress(TimeoutError):
                cluster.close(timeout=CLUSTER_SECONDS)
            for process in multiprocessing.active_children():
                process.kill()
                process.join(CLUSTER_SECONDS)


async def compute(
    emulator: Emulator,
    workflow_ids: str | Sequence[str] | None = None,
    *,
    scheduler: str | None = None,
    client: Client | None = None,
    **options: Any,  # noqa: ANN401 (any option of `read_runs`)
) -> pd.DataFrame:
    """Create a frame and compute it in a thread, so that the emulator can respond."""

    def work() -> pd.DataFrame:
        frame = read_runs(workflow_ids or emulator.workflow_id, base_url=emulator.url, **{"retry": AT_ONCE, **options})
        if client is not None:
            computed: pd.DataFrame = client.compute(frame).result(CLUSTER_SECONDS)
        else:
            with dask.config.set(scheduler=scheduler):
                computed = frame.compute()
        assert list(computed.dtypes) == list(frame.dtypes)
        return computed

    return await asyncio.to_thread(work)


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
async def test_invalid_arguments_send_nothing(
    copyai_emulator: Emulator, workflow_ids: str | list[str], options: dict[str, Any]
) -> None:
    """An invalid argument raises ValueError before anything is sent."""
    with pytest.raises(ValueError):  # noqa: PT011 (each has its own message)
        await asyncio.to_thread(read_runs, workflow_ids, **{"base_url": copyai_emulator.url, **options})

    assert copyai_emulator.requests == []


@pytest.mark.parametrize(
    ("name", "values"),
    [("partition_pages", INVALID_INTEGERS), ("max_rate", INVALID_NUMBERS), ("retry", INVALID_INTEGERS)],
)
def test_absurd_numbers(name: str, values: dict[str, Any]) -> None:
    """An absurd number raises a ValueError that names the parameter, before anything is sent."""
    for value in values.values():
        with pytest.raises(ValueError, match=rf"^{name} must ") as caught:
            read_runs("WCFG-1", **{name: value})

        assert problem_of(caught.value) == ""


def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key in the environment, `read_runs` raises an error."""
    monkeypatch.delenv("COPYAI_API_KEY")

    with pytest.raises(ConfigurationError, match="COPYAI_API_KEY"):
        read_runs("WCFG-1", base_url="http://127.0.0.1:9/api")


async def test_no_total(copyai_emulator: Emulator) -> None:
    """A list without a total raises an error."""
    copyai_emulator.quirks = Quirks(total="absent")

    with pytest.raises(InvalidResponseError):
        await compute(copyai_emulator)


# --- content


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("max_direct", [32, 2])
async def test_frame_equals_an_iteration(
    copyai_emulator: Emulator,
    session: CopyAISession,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
    max_direct: int,
) -> None:
    """Each run is a row with the columns, types and values of the Arrow schema, in any number of partitions."""
    monkeypatch.setattr(tested, "_MAX_DIRECT", max_direct)
    copyai_emulator.add_runs(450)
    runs = [run async for run in session.runs(copyai_emulator.workflow_id)]

    frame = await compute(copyai_emulator, partition_pages=2, scheduler=scheduler)

    rows = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False).to_pylist()
    assert sorted(rows, key=lambda row: row["id"]) == record_batch(sorted(runs, key=lambda run: run.id)).to_pylist()
    assert [dtype.pyarrow_dtype for dtype in frame.dtypes] == SCHEMA.types


@pytest.mark.parametrize("convert", [True, False])
async def test_workflow_without_runs_is_an_empty_frame(
    copyai_emulator: Emulator,
    convert: bool,  # noqa: FBT001 (a parameter)
) -> None:
    """A frame without runs has the same columns, with every setting of Dask for strings."""
    with dask.config.set({"dataframe.convert-string": convert}):
        frame = await compute(copyai_emulator, scheduler="sync")

    assert frame.empty
    assert list(frame.columns) == SCHEMA.names
    assert [dtype.pyarrow_dtype for dtype in frame.dtypes] == SCHEMA.types


async def test_several_workflows(copyai_emulator: Emulator) -> None:
    """Each workflow is read once, and a run without a workflow id has the id that was passed."""
    copyai_emulator.add_runs(3)
    copyai_emulator.replace_runs([], workflow_id="WCFG-none")
    copyai_emulator.replace_runs([{"id": "WRUN-a"}, {"id": "WRUN-\ud800"}], workflow_id="WCFG-other")

    wanted = [copyai_emulator.workflow_id, "WCFG-none", "WCFG-other", copyai_emulator.workflow_id]
    frame = await compute(copyai_emulator, wanted, scheduler="sync")

    assert sorted(frame["id"]) == sorted([*ids_of(copyai_emulator), "WRUN-a", "WRUN-\\ud800"])
    assert Counter(frame["workflow_id"]) == {copyai_emulator.workflow_id: 3, "WCFG-other": 2}


async def test_short_lists_share_a_partition(copyai_emulator: Emulator) -> None:
    """Fifty workflows with three runs each are one partition, with few tasks and at most four requests per workflow."""
    ids = [f"WCFG-{number}" for number in range(50)]
    for number, workflow_id in enumerate(ids):
        runs = [raw_run(10 * number + n) for n in range(3, 0, -1)]
        copyai_emulator.replace_runs(runs, workflow_id=workflow_id)
    with dask.config.set(num_workers=1):
        frame = await asyncio.to_thread(read_runs, ids, base_url=copyai_emulator.url)
        computed = await compute(copyai_emulator, ids, scheduler="sync")
    graph = frame.optimize().__dask_graph__()

    assert frame.npartitions == 1
    assert len(graph) < 30
    assert len(computed) == 150
    assert len(copyai_emulator.requests) <= 4 * 50


@pytest.mark.parametrize(("status", "page"), [(403, 4), (404, 4), (404, 3)])
async def test_failed_page_fails_the_frame(copyai_emulator: Emulator, status: int, page: int) -> None:
    """The error of any page, even the first one of a partition, is raised unchanged with its page number."""
    copyai_emulator.add_runs(500)
    copyai_emulator.inject(Fault(status=status), page=page, times=None)

    with pytest.raises((PermissionDeniedError, NotFoundError)) as caught:
        await compute(copyai_emulator, partition_pages=2, scheduler="threads")

    assert caught.value.page == page


# --- changing lists


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("max_direct", [32, 2])
async def test_frame_of_a_changing_list(
    copyai_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, scheduler: str, max_direct: int
) -> None:
    """If runs are added and removed while Dask reads, the frame has each run of the final list once."""
    monkeypatch.setattr(tested, "_MAX_DIRECT", max_direct)
    copyai_emulator.add_runs(150)

    def change(emulator: Emulator, request: Request) -> None:
        if request.number < 25:  # the last pass, which is later, reads an unchanging list
            emulator.add_runs(3)
            emulator.remove_runs(ids_of(emulator)[request.number :: 40])

    copyai_emulator.on_request = change

    frame = await compute(copyai_emulator, partition_pages=3, scheduler=scheduler)

    assert frame["id"].is_unique
    assert set(ids_of(copyai_emulator)) <= set(frame["id"])


@pytest.mark.usefixtures("small_pages")
async def test_list_that_shrinks_at_every_second_request(copyai_emulator: Emulator) -> None:
    """If the list loses runs all the time, every run that stays in it is read."""
    copyai_emulator.add_runs(100)

    def shrink(emulator: Emulator, request: Request) -> None:
        if request.number % 2 == 0:
            emulator.remove_runs(ids_of(emulator)[-1:])

    copyai_emulator.on_request = shrink

    frame = await compute(copyai_emulator, partition_pages=10, scheduler="sync")

    assert set(ids_of(copyai_emulator)) <= set(frame["id"])


@pytest.mark.usefixtures("small_pages")
async def test_latest_copy_is_kept(copyai_emulator: Emulator) -> None:
    """If a run changes between two reads, the frame has the later copy."""
    copyai_emulator.replace_runs([raw_run(number, status="PROCESSING") for number in range(20, 0, -1)])

    def finish(emulator: Emulator, request: Request) -> None:
        heads = [earlier for earlier in emulator.requests if earlier.page == 1 and earlier.size != 1]
        if len(heads) == 3 and request is heads[-1]:  # the first page, its verification, and the last pass
            emulator.replace_runs([{**run, "status": "COMPLETE"} for run in emulator.runs()])

    copyai_emulator.on_request = finish

    frame = await compute(copyai_emulator, partition_pages=2, scheduler="sync")

    status = dict(zip(frame["id"], frame["status"], strict=True))
    assert [status[f"WRUN-{number}"] for number in (20, 16, 15, 1)] == ["COMPLETE", "COMPLETE", *["PROCESSING"] * 2]


async def test_every_frame_is_different(copyai_emulator: Emulator) -> None:
    """Each frame has its own tasks, so that a cluster does not return the results of an earlier frame."""
    first, second = [
        await asyncio.to_thread(read_runs, copyai_emulator.workflow_id, base_url=copyai_emulator.url) for _ in "ab"
    ]

    assert set(first.__dask_keys__()).isdisjoint(second.__dask_keys__())


# --- the key, the rate, the loop


async def test_key_is_not_in_the_graph(copyai_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is neither in the frame nor in its graph, neither pickled nor in a repr."""
    monkeypatch.setattr(copyai_emulator, "api_key", "a-key-to-look-for")
    monkeypatch.setenv("COPYAI_API_KEY", "a-key-to-look-for")
    copyai_emulator.add_runs(500)

    frame = await asyncio.to_thread(
        read_runs, copyai_emulator.workflow_id, partition_pages=2, base_url=copyai_emulator.url, max_rate=1e3
    )

    graph = dict(frame.optimize().__dask_graph__())
    pickled = pickle.dumps(frame) + cloudpickle.dumps(frame) + cloudpickle.dumps(graph)
    assert copyai_emulator.workflow_id.encode() in pickled
    assert b"look-for" not in pickled + repr(frame).encode() + repr(graph).encode()


async def test_partitions_are_divided_among_the_threads(copyai_emulator: Emulator) -> None:
    """There are as many partitions as threads, unless they would be too long or too short."""
    copyai_emulator.add_runs(8_000)

    with dask.config.set(num_workers=4):
        frame = await asyncio.to_thread(read_runs, copyai_emulator.workflow_id, base_url=copyai_emulator.url)

    assert frame.npartitions == 4


@pytest.mark.usefixtures("small_pages")
async def test_absurd_total(copyai_emulator: Emulator) -> None:
    """A total that the list does not have costs a few partitions more, and no run is lost."""
    copyai_emulator.add_runs(33)
    copyai_emulator.quirks = Quirks(total=lambda _: 10**15)

    frame = await compute(copyai_emulator, partition_pages=2, scheduler="sync")

    assert sorted(frame["id"]) == sorted(ids_of(copyai_emulator))
    assert len(copyai_emulator.requests) < 150


@pytest.mark.parametrize(("partitions", "threads", "share"), [(100, 4, 2.5), (2, 4, 5.0), (1, 4, 10.0), (100, 1, 10.0)])
def test_rate_is_divided(partitions: int, threads: int, share: float) -> None:
    """Each partition gets the rate of one thread, or more if there are fewer partitions than threads."""
    reader = tested._PartitionReader(None, AT_ONCE, 10.0, partitions)

    with dask.config.set(num_workers=threads):
        assert reader.partition_rate() == share


async def test_rate_is_kept(copyai_emulator: Emulator) -> None:
    """Partitions that are read one after the other do not exceed the rate, although each has its own session."""
    copyai_emulator.add_runs(800)
    started = time.monotonic()

    with dask.config.set(num_workers=1):
        await compute(copyai_emulator, partition_pages=1, scheduler="sync", max_rate=50)

    # The first request of all, and the first one of the last pass, do not wait.
    assert time.monotonic() - started >= (len(copyai_emulator.requests) - 2) / 50


async def test_running_event_loop(copyai_emulator: Emulator) -> None:
    """A frame can be created and computed in a running event loop, as in a notebook."""
    copyai_emulator.add_runs(300)

    async def cell() -> int:
        frame = read_runs(copyai_emulator.workflow_id, base_url=copyai_emulator.url)
        with dask.config.set(scheduler="sync"):
            return len(frame)

    assert await asyncio.to_thread(asyncio.run, cell()) == 300


# --- a cluster


@pytest.fixture(name="slow_emulator")
async def _slow_emulator() -> AsyncIterator[Emulator]:
    """An emulator with 1,500 runs that is slow enough for all workers of the cluster to read some of them."""
    async with Emulator(1_500, latency=0.01) as emulator:
        yield emulator


async def test_cluster_reads_every_run(
    slow_emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers use the key in their environment, and read every run once."""
    frame = await asyncio.to_thread(
        read_runs, slow_emulator.workflow_id, partition_pages=2, base_url=slow_emulator.url, max_rate=1e4
    )
    monkeypatch.delenv("COPYAI_API_KEY")

    found = await asyncio.to_thread(lambda: client.compute(frame).result(CLUSTER_SECONDS))

    assert sorted(found["id"]) == sorted(ids_of(slow_emulator))
    assert list(found.dtypes) == list(frame.dtypes)


async def test_cluster_divides_the_rate(client: Client) -> None:
    """On a cluster, the rate is divided by the number of its threads."""
    reader = tested._PartitionReader(None, AT_ONCE, 10.0, partitions=100)

    assert await asyncio.to_thread(lambda: client.submit(reader.partition_rate).result(CLUSTER_SECONDS)) == 2.5


async def test_partitions_are_divided_among_the_threads_of_a_cluster(
    copyai_emulator: Emulator,
    client: Client,  # noqa: ARG001 (it is found)
) -> None:
    """On a cluster, there are as many partitions as threads."""
    copyai_emulator.add_runs(8_000)

    frame = await asyncio.to_thread(read_runs, copyai_emulator.workflow_id, base_url=copyai_emulator.url)

    assert frame.npartitions == 4


async def test_threads_of_an_asynchronous_client(copyai_emulator: Emulator, client: Client) -> None:
    """With an asynchronous client, the threads of its cluster are counted, and not those of this machine."""
    copyai_emulator.add_runs(8_000)

    async with Client(client.scheduler.address, asynchronous=True):
        with dask.config.set(num_workers=1):
            frame = await asyncio.to_thread(read_runs, copyai_emulator.workflow_id, base_url=copyai_emulator.url)

    assert frame.npartitions == 4


async def test_no_run_is_lost_if_a_worker_is_killed(slow_emulator: Emulator, client: Client) -> None:
    """If a worker is killed while the list changes, each run that stays in the list is in the frame once."""
    before = ids_of(slow_emulator)
    victims = [next(iter((await asyncio.to_thread(client.run, os.getpid)).values()))]

    def kill(emulator: Emulator, request: Request) -> None:
        if request.number % 3 == 0:
            emulator.add_runs(2)
            emulator.remove_runs(before[request.number : request.number + 1])
        if request.number == 20:
            os.kill(victims.pop(), signal.SIGKILL)

    slow_emulator.on_request = kill

    frame = await compute(slow_emulator, partition_pages=2, client=client)

    assert victims == []
    assert frame["id"].is_unique
    assert set(before) & set(ids_of(slow_emulator)) <= set(frame["id"])
