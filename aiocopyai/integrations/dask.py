"""Read all runs of one or more workflows as a Dask data frame. Needs the extra ``dask``.

This module builds the graph and runs on the workers. `_page_ranges` divides a list into parts.
"""

# pandas and pyarrow are not typed, and Dask is in part: their values are unknown to the type checkers.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, Final, TypeVar, cast

import dask.dataframe as dd
import pandas as pd  # type: ignore[import-untyped]  # see above
import pyarrow as pa  # type: ignore[import-untyped]  # see above
from attrs import evolve, field, frozen
from dask import config
from dask.system import CPU_COUNT
from distributed import get_client, get_worker

from aiocopyai import CopyAISession, RetryPolicy
from aiocopyai._tasks import TaskSet
from aiocopyai._validation import check_integer
from aiocopyai.integrations._page_ranges import (
    PAGE_SIZE,
    PageRange,
    ReadPage,
    hash_id,
    plan_ranges,
    read_between,
    read_range,
)
from aiocopyai.integrations.arrow import SCHEMA, record_batch


_RANGE: Final = "_range"
_READ_AT: Final = "_read_at"
_WIDE_SCHEMA: Final = SCHEMA.append(pa.field(_RANGE, pa.int64())).append(pa.field(_READ_AT, pa.int64()))
_NO_RANGE: Final = -1
"""The range of rows that show nothing about what is between ranges."""
_LISTS_AT_ONCE: Final = 8
"""How many lists one process reads at the same time."""

S = TypeVar("S")
T = TypeVar("T")


def read_runs(
    workflow_ids: str | Sequence[str],
    *,
    partition_pages: int = 50,
    base_url: str | None = None,
    retry: RetryPolicy | int = RetryPolicy(),  # noqa: B008 (immutable)
    max_rate: float | None = None,
) -> dd.DataFrame:
    """Return a data frame of all runs of one or more workflows, with the columns of `aiocopyai.integrations.arrow`.

    This call counts the runs of each workflow, with one request each. Each computation of the frame reads the list:
    first ranges of pages in parallel, and then, in a last pass, the runs that were added at the head and those between
    two ranges that have no run in common. Short lists share a partition. A shuffle makes the ids unique; until it ends,
    the cluster holds all rows. If a run was read twice, the frame has the later copy, according to the workers' clocks.
    The order of the rows and the index have no meaning.

    The frame has each run that is in the list when the last pass starts, and is not removed before it ends. This holds
    if the list is sorted from newest to oldest, grows only at its head, and has a correct `total`. Any number of runs
    may be added and removed in the meantime, and a run that is removed may or may not be in the frame. Each run is as
    it was when its page was read. If a worker is lost after the last pass, its ranges are read again from the current
    list: no run is lost if at most 100 runs were removed from the workflow since its first range was read.

    Each process reads the key from its own environment variable ``COPYAI_API_KEY``. The graph does not contain it.

    Args:
        workflow_ids: the ids of the workflows; duplicates are ignored.
        partition_pages: the maximum number of pages of 100 runs in a partition, before ids are made unique.
        base_url: the API's URL, for all processes; by default the value of ``COPYAI_BASE_URL`` in each.
        retry: how often, and with which waits, a request is retried, as for `CopyAISession`.
        max_rate: the maximum number of requests per second of all processes that read this frame; None for no limit. It
            is divided by the number of threads of the cluster. For Dask's own schedulers this is ``num_workers`` of its
            configuration, by default the number of cores; an argument of ``compute`` has no effect. The last pass has
            the whole rate.

    Raises:
        ValueError: an argument is invalid, or there is no key; raised before anything is sent.
        InvalidResponseError: a response has no `total`.
        CopyAIError: a request failed, in this call or while the frame is computed. No page is left out.
    """
    chosen = tuple(dict.fromkeys([workflow_ids] if isinstance(workflow_ids, str) else workflow_ids))
    if not chosen:
        raise ValueError("workflow_ids must name at least one workflow")
    check_integer("partition_pages", partition_pages, 1)
    reader = _PartitionReader(base_url, retry, max_rate)
    totals = _run(reader.count(chosen))
    partitions = plan_ranges(dict(zip(chosen, totals, strict=True)), partition_pages * PAGE_SIZE)
    reader = evolve(reader, partitions=len(partitions))
    all_ranges = [page_range for ranges in partitions for page_range in ranges]

    meta = _frame([])
    ranges = dd.from_map(reader.read, partitions, meta=meta, label="read-runs")
    hashes = ranges.map_partitions(_hashes, meta=_hashes(meta)).repartition(npartitions=1)
    between = hashes.map_partitions(reader.read_between, all_ranges, meta=meta)
    # The peer-to-peer shuffle, a cluster's default, does not support maps, and reads all again if a worker is lost.
    shuffled = dd.concat([ranges, between]).shuffle("id", npartitions=len(partitions), shuffle_method="tasks")
    frame: dd.DataFrame = shuffled.map_partitions(_latest, meta=_latest(meta))
    return frame


@frozen
class _PartitionReader:
    """Reads partitions; this is sent to the workers."""

    base_url: str | None
    retry: RetryPolicy | int
    max_rate: float | None
    partitions: int = 1
    nonce: str = field(factory=lambda: uuid.uuid4().hex)
    """Makes each frame different for Dask, which would take two frames with the same plan for the same data."""

    async def count(self, workflow_ids: Sequence[str]) -> list[int]:
        """Return how many runs each workflow has."""
        async with self._session(self.max_rate) as session:
            for workflow_id in workflow_ids:
                session.runs(workflow_id)  # raises if it is not an id, and sends nothing
            return await _map_at_once(session.count_runs, workflow_ids)

    def read(self, ranges: Sequence[PageRange]) -> pd.DataFrame:
        """Read a partition."""
        return _frame(_run(self._read(ranges, self.share())))

    def share(self) -> float | None:
        """Return the part of the rate that a partition may use which is read in this process now."""
        if self.max_rate is None:
            return None
        try:
            get_worker()
        except ValueError:
            threads = int(config.get("num_workers", None) or CPU_COUNT)
        else:
            threads = sum(cast("dict[str, int]", get_client().nthreads()).values())
        return self.max_rate / min(self.partitions, threads)  # at most that many are read at the same time

    def read_between(self, hashes: pd.DataFrame, ranges: Sequence[PageRange]) -> pd.DataFrame:
        """Read what is missing between ranges, and at the head of each list."""
        ids = cast("dict[int, Collection[int]]", dict(iter(hashes.groupby(_RANGE)["id"])))
        return _frame(_run(self._read_between(ids, ranges)))

    def _session(self, max_rate: float | None) -> CopyAISession:
        return CopyAISession(base_url=self.base_url, retry=self.retry, max_rate=max_rate)

    async def _read(self, ranges: Sequence[PageRange], rate: float | None) -> list[tuple[int, ReadPage]]:
        async with self._session(rate) as session:
            if rate is not None:  # the partition before this one may have sent its last request just now
                await asyncio.sleep(1 / rate)
            read = await _map_at_once(lambda wanted: read_range(session, wanted), ranges)
        return [
            (wanted.index if page.is_connected else _NO_RANGE, page)
            for wanted, pages in zip(ranges, read, strict=True)
            for page in pages
        ]

    async def _read_between(
        self, ids: Mapping[int, Collection[int]], ranges: Sequence[PageRange]
    ) -> list[tuple[int, ReadPage]]:
        lists = [list(members) for _, members in groupby(ranges, lambda wanted: wanted.workflow_id)]
        async with self._session(self.max_rate) as session:
            read = await _map_at_once(lambda members: read_between(session, members, ids), lists)
        return [(_NO_RANGE, page) for pages in read for page in pages]


async def _map_at_once(call: Callable[[S], Awaitable[T]], arguments: Iterable[S]) -> list[T]:
    """Await a call for each argument, some of them at the same time; return the results in order."""
    semaphore, tasks = asyncio.Semaphore(_LISTS_AT_ONCE), TaskSet()

    async def limited(argument: S) -> T:
        async with semaphore:
            return await call(argument)

    started = [tasks.spawn(limited(argument)) for argument in arguments]
    try:
        return [await task for task in started]
    finally:
        await tasks.cancel()


def _frame(read: Sequence[tuple[int, ReadPage]]) -> pd.DataFrame:
    batch = record_batch([run for _, page in read for run in page.runs])
    indices = pa.array([index for index, page in read for _ in page.runs], pa.int64())
    times = pa.array([page.read_at for _, page in read for _ in page.runs], pa.int64())
    return pa.Table.from_arrays([*batch.columns, indices, times], schema=_WIDE_SCHEMA).to_pandas(
        types_mapper=pd.ArrowDtype
    )


def _hashes(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep 16 bytes of each run: a hash of its id, and its range."""
    ids = pd.Series([hash_id(run_id) for run_id in frame["id"]], frame.index, "uint64")
    return pd.DataFrame({"id": ids, _RANGE: frame[_RANGE].astype("int64")})


def _latest(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the copy of each run that was read last."""
    newest = frame.sort_values([_READ_AT, _RANGE]).drop_duplicates("id", keep="last")
    return newest.drop(columns=[_RANGE, _READ_AT]).reset_index(drop=True)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; in another thread if an event loop runs in this one, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
