"""Read all runs of one or more workflows as a Dask data frame. Needs the extra ``dask``.

This module builds the graph and runs on the workers. `_page_ranges` divides a list into parts.
"""

# pandas and pyarrow are not typed, and Dask is in part: their values are unknown to the type checkers.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from itertools import groupby
from typing import Any, Final, TypeVar, cast

import dask.dataframe as dd
import pandas as pd  # type: ignore[import-untyped]  # see above
import pyarrow as pa  # type: ignore[import-untyped]  # see above
from attrs import evolve, frozen
from dask import config
from dask.delayed import delayed
from dask.system import CPU_COUNT
from distributed import get_client, get_worker

from aiocopyai import CopyAISession, RetryPolicy
from aiocopyai._tasks import TaskSet
from aiocopyai._threads import LoopThread
from aiocopyai._validation import check_integer, path_segment
from aiocopyai.integrations._page_ranges import (
    NO_RANGE,
    PageRange,
    ReadPage,
    count_listed,
    plan_ranges,
    read_between,
    read_range,
)
from aiocopyai.integrations.arrow import SCHEMA


_HASH: Final = "_hash"
_RANGE: Final = "_range"
_READ_AT: Final = "_read_at"
_MAX_DIRECT: Final = 32
"""The maximum number of partitions to exchange rows in one step, which takes the square of this number of tasks."""
_LISTS_AT_ONCE: Final = 8
"""The number of lists that one partition reads at the same time."""

S = TypeVar("S")
T = TypeVar("T")


def read_runs(
    workflow_ids: str | Sequence[str],
    *,
    partition_pages: int = 100,
    base_url: str | None = None,
    retry: RetryPolicy | int = RetryPolicy(),  # noqa: B008 (immutable)
    max_rate: float | None = None,
) -> dd.DataFrame:
    """Return a data frame of all runs of one or more workflows, with the columns of `aiocopyai.integrations.arrow`.

    This call counts the runs of each workflow, with one request each. For more than 10 million runs, it sends up to 24
    more requests to find the end of the list. Each computation of the frame reads the list: first ranges of pages in
    parallel, and then, in a last pass, the runs that were added at the head and those between two ranges that have no
    run in common. Short lists share a partition. A shuffle makes the ids unique; until it ends, the cluster keeps all
    rows in memory. If a run was read twice, the frame has the later copy, according to the workers' clocks. The order
    of the rows and the index have no meaning.

    The frame has each run that is in the list when the last pass starts, and is not removed before it ends. This holds
    if the list is sorted from newest to oldest, grows only at its head, and has a correct `total`. Any number of runs
    may be added and removed in the meantime, and a run that is removed may or may not be in the frame. Each run is as
    it was when its page was read. If a worker is lost after the last pass, its ranges are read again from the current
    list: no run is lost if at most 100 runs were removed from the workflow since its first range was read.

    Each process reads the key from its own environment variable ``COPYAI_API_KEY``. The graph does not contain it.

    Args:
        workflow_ids: the ids of the workflows; duplicates are ignored.
        partition_pages: the maximum number of pages of 100 runs in a partition, before ids are made unique. Each thread
            of the cluster, or of Dask's own scheduler, reads the same number of partitions, which all have about the
            same length, unless this takes partitions of fewer than 20 pages. A thread holds one partition at a time
            while it reads: about 10 MB for 100 pages of runs of 1 KB.
        base_url: the API's URL, for all processes; by default the value of ``COPYAI_BASE_URL`` in each.
        retry: when failed requests are retried, as for `CopyAISession`.
        max_rate: the maximum number of requests per second of all processes that read this frame; None for no limit. It
            is divided by the number of threads of the cluster. For Dask's own schedulers this is ``num_workers`` of its
            configuration, by default the number of cores; an argument of ``compute`` has no effect. The last pass uses
            the full rate.

    Raises:
        ValueError: an argument is invalid, or there is no key; raised before anything is sent.
        InvalidResponseError: a response has no `total`.
        CopyAIError: a request failed, in this call or while the frame is computed. No page is skipped.
    """
    unique_ids = tuple(dict.fromkeys([workflow_ids] if isinstance(workflow_ids, str) else workflow_ids))
    if not unique_ids:
        raise ValueError("workflow_ids must contain at least one id")
    for workflow_id in unique_ids:
        path_segment("workflow_id", workflow_id)
    check_integer("partition_pages", partition_pages, 1)
    reader = _PartitionReader(base_url, retry, max_rate)
    counts = dict(zip(unique_ids, reader.count(unique_ids), strict=True))
    plan = plan_ranges(
        {workflow_id: total for workflow_id, (total, _) in counts.items()},
        partition_pages,
        _count_threads(get_client),
        {workflow_id: divided for workflow_id, (_, divided) in counts.items()},
    )
    count, all_ranges = len(plan), [page_range for ranges in plan for page_range in ranges]
    reader = evolve(reader, partitions=count)

    # The keys form one group, so that the scheduler can queue partitions instead of assigning all of them in advance.
    name = f"read-runs-{uuid.uuid4().hex}"
    partitions = [delayed(reader.read)(ranges, dask_key_name=(name, index)) for index, ranges in enumerate(plan)]
    hashes = [delayed(_hashes)(partition) for partition in partitions]
    partitions.append(delayed(reader.read_between)(hashes, all_ranges))
    meta = _frame([])
    frame: dd.DataFrame
    if count <= _MAX_DIRECT:
        selected = [[delayed(_select)(partition, index, count) for partition in partitions] for index in range(count)]
        frame = dd.from_delayed([delayed(_latest)(*parts) for parts in selected], _latest(meta))
    else:
        # The default of a cluster, the peer-to-peer shuffle, does not support maps. It would also read everything again
        # if a worker is lost.
        shuffled = dd.from_delayed(partitions, meta).shuffle(_HASH, npartitions=count, shuffle_method="tasks")
        frame = shuffled.map_partitions(_latest, meta=_latest(meta))
    return frame


@frozen
class _PartitionReader:
    """Reads partitions. It is sent to the workers."""

    base_url: str | None
    retry: RetryPolicy | int
    max_rate: float | None
    partitions: int = 1

    def count(self, workflow_ids: Sequence[str]) -> list[tuple[int, int]]:
        """Return the number of runs of each workflow, and the number of runs to divide."""
        return self._map(count_listed, workflow_ids, self.max_rate)

    def read(self, ranges: Sequence[PageRange]) -> pd.DataFrame:
        """Read a partition."""
        rate = self.partition_rate()
        if rate is not None:  # the previous partition may just have sent its last request
            time.sleep(1 / rate)
        return _frame(self._map(read_range, ranges, rate))

    def partition_rate(self) -> float | None:
        """Return the maximum request rate for a partition that is read in this process."""
        if self.max_rate is None:
            return None
        return self.max_rate / min(self.partitions, _count_threads(get_worker))

    def read_between(self, hashes: Sequence[pd.DataFrame], ranges: Sequence[PageRange]) -> pd.DataFrame:
        """Read the runs that are missing between ranges, and at the head of each list."""
        known = cast("dict[int, Collection[int]]", dict(iter(pd.concat(hashes).groupby(_RANGE)[_HASH])))
        lists = [list(group) for _, group in groupby(ranges, lambda page_range: page_range.workflow_id)]
        return _frame(self._map(lambda session, group: read_between(session, group, known), lists, self.max_rate))

    def _map(
        self, call: Callable[[CopyAISession, S], Coroutine[Any, Any, T]], arguments: Iterable[S], rate: float | None
    ) -> list[T]:
        """Call a function with a session and each argument, several at a time, and return the results in order."""

        async def map_all() -> list[T]:
            semaphore, tasks = asyncio.Semaphore(_LISTS_AT_ONCE), TaskSet()

            async def limited(argument: S) -> T:
                async with semaphore:
                    return await call(session, argument)

            async with CopyAISession(base_url=self.base_url, retry=self.retry, max_rate=rate) as session:
                started = [tasks.spawn(limited(argument)) for argument in arguments]
                try:
                    return [await task for task in started]
                finally:
                    await tasks.cancel()

        with LoopThread() as loop:
            return loop.call(map_all())


def _count_threads(find: Callable[[], object]) -> int:
    """Return how many partitions are read at the same time. `find` raises a `ValueError` if there is no cluster."""
    threads = 0
    try:
        find()
        client = get_client()
    except ValueError:
        pass
    else:
        if client.asynchronous:  # it cannot be called here, but has the scheduler's latest report
            info = cast("dict[str, Any]", client.scheduler_info())
            threads = info.get("total_threads") or sum(worker["nthreads"] for worker in info["workers"].values())
        else:
            threads = max(1, sum(cast("dict[str, int]", client.nthreads()).values()))
    return threads or int(config.get("num_workers", None) or CPU_COUNT)


def _frame(read: Iterable[Sequence[ReadPage]]) -> pd.DataFrame:
    pages = [page for range_pages in read for page in range_pages]
    table = pa.Table.from_batches([page.rows for page in pages], SCHEMA)
    for name, kind, values in (
        (_HASH, pa.uint64(), [number for page in pages for number in page.hashes]),
        (
            _RANGE,
            pa.int64(),
            [page.range_index if page.is_connected else NO_RANGE for page in pages for _ in page.hashes],
        ),
        (_READ_AT, pa.int64(), [page.read_at for page in pages for _ in page.hashes]),
    ):
        table = table.append_column(name, pa.array(values, kind))
    return table.combine_chunks().to_pandas(types_mapper=pd.ArrowDtype)


def _hashes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return 16 bytes of each run: the hash of its id, and its range."""
    return pd.DataFrame({_HASH: rows[_HASH].to_numpy("uint64"), _RANGE: rows[_RANGE].to_numpy("int64")})


def _select(rows: pd.DataFrame, index: int, count: int) -> pd.DataFrame:
    """Return the rows that belong to one of `count` partitions. All copies of a run belong to the same partition."""
    return rows.take((rows[_HASH].to_numpy("uint64") % count == index).nonzero()[0])


def _latest(*parts: pd.DataFrame) -> pd.DataFrame:
    """Return the copy of each run that was read last."""
    latest = pd.concat(parts).sort_values([_READ_AT, _RANGE]).drop_duplicates("id", keep="last")
    return latest.drop(columns=[_HASH, _RANGE, _READ_AT]).reset_index(drop=True)
