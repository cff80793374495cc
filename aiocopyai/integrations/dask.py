"""All runs of some workflows as a Dask data frame, read on whatever cluster there is; it needs the extra ``dask``.

How a list is read in parts, and what tells that they are joined, is in `_stretches`; here is the graph, and what Dask
and the workers need for it.
"""

# pandas and pyarrow have no types of their own, and Dask has some: what comes from them is unknown here.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Coroutine, Mapping, Sequence
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
from aiocopyai._validation import check_integer
from aiocopyai.integrations._page_ranges import PAGE_SIZE, Read, Stretch, hash_id, read_between, read_stretch
from aiocopyai.integrations.arrow import SCHEMA, record_batch


_PARTITION: Final = "_partition"
_READ_AT: Final = "_read_at"
_WIDE: Final = SCHEMA.append(pa.field(_PARTITION, pa.int64())).append(pa.field(_READ_AT, pa.int64()))

T = TypeVar("T")


def read_runs(
    workflow_ids: str | Sequence[str],
    *,
    partition_pages: int = 50,
    base_url: str | None = None,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (immutable)
    max_rate: float | None = None,
) -> dd.DataFrame:
    """Make a data frame of all runs of some workflows, with the columns of `aiocopyai.integrations.arrow.SCHEMA`.

    Each workflow's runs are counted at once, by one request. All else is read whenever the frame is computed, and anew
    each time: page ranges in parallel, and then, in a last pass, the head that has grown meanwhile and each border
    between two ranges where something may have slipped through. Ids are unique, by a shuffle over them, until which the
    cluster holds all that was read; of a run that was read twice the later copy is kept, by the workers' clocks. The
    order of the rows and the index mean nothing.

    **Promised**: each run that is on the list when the last pass begins, and isn't removed while it lasts, is in the
    frame, if the list is newest first, grows in front only, and tells its `total` rightly. Any number of runs may be
    added and removed, all the while. A request that fails for good fails the partition; no page is left out.

    **Not promised**: one moment that all rows show, since a run is as it was when it was read; that a run which was
    removed meanwhile is in it, or isn't; lists in another order, as for `CopyAISession.runs`. And if a worker is lost
    after the last pass, what it held is read again from the list as it is by then: that loses nothing as long as no
    more than 100 runs were removed from the workflow since its first partition was read.

    Each process that reads takes the key from its own environment, as ``COPYAI_API_KEY``; it is never in the graph.

    Args:
        workflow_ids: the workflows; one that is named twice is read once. A run that doesn't name its workflow gets the
            id from here.
        partition_pages: pages of 100 runs that a partition has at first, before the ids are made unique.
        base_url: where the API is, for all processes; by default what ``COPYAI_BASE_URL`` says in each.
        retry: what is sent again, how often and how patiently.
        max_rate: requests a second, over all that read this frame; None for no limit. When a partition's turn comes,
            it gets the share of one thread, of all that the cluster has at that moment: so many partitions at the most
            are read at a time. With Dask's own schedulers the threads are ``num_workers`` of its configuration, by
            default the cores; what is passed to ``compute`` isn't seen. The last pass has the whole rate.

    Raises:
        ValueError: an argument can't be used, or there is no key; before anything is sent.
        InvalidResponseError: the server doesn't say how many runs there are.
        CopyAIError: no answer, or an error; now, or in the same way when the frame is computed.
    """
    chosen = tuple(dict.fromkeys([workflow_ids] if isinstance(workflow_ids, str) else workflow_ids))
    if not chosen:
        raise ValueError("no workflow to read")
    check_integer("partition_pages", partition_pages, 1)
    reader = _Reader(base_url, retry, max_rate)
    totals = _run(reader.count(chosen))
    stretches = _plan(dict(zip(chosen, totals, strict=True)), partition_pages * PAGE_SIZE)
    reader = evolve(reader, partitions=len(stretches))

    meta = _frame(0, [])
    ranges = dd.from_map(reader.read, stretches, meta=meta, label="read-runs")
    hashes = ranges.map_partitions(_hashes, meta=_hashes(meta)).repartition(npartitions=1)
    mended = hashes.map_partitions(reader.mend, stretches, meta=meta)
    # Not by P2P, the default of a cluster: it knows no maps, and if a worker is lost it begins anew, with all reading.
    shuffled = dd.concat([ranges, mended]).shuffle("id", npartitions=len(stretches), shuffle_method="tasks")
    frame: dd.DataFrame = shuffled.map_partitions(_latest, meta=_latest(meta))
    return frame


def _plan(totals: dict[str, int], size: int) -> list[Stretch]:
    """Cut each list from its head into stretches of so many runs; an empty one into one that is empty."""
    cuts = [
        (workflow_id, total - start if start else None, max(0, total - start - size))
        for workflow_id, total in totals.items()
        for start in range(0, max(1, total), size)
    ]
    return [Stretch(number, *cut) for number, cut in enumerate(cuts)]


@frozen
class _Reader:
    """Reads partitions: what travels to the workers."""

    base_url: str | None
    retry: RetryPolicy
    max_rate: float | None
    partitions: int = 1
    nonce: str = field(factory=lambda: uuid.uuid4().hex)
    """Makes each frame another one for Dask, which would take two readings with the same plan for the same data."""

    async def count(self, workflow_ids: Sequence[str]) -> list[int]:
        """Ask how many runs each workflow has."""
        async with self._session(self.max_rate) as session:
            for workflow_id in workflow_ids:
                session.runs(workflow_id)  # sends nothing, and raises where that is no id
            return [await session.count_runs(workflow_id) for workflow_id in workflow_ids]

    def read(self, stretch: Stretch) -> pd.DataFrame:
        """Read a partition."""
        return _frame(stretch.partition, _run(self._read(stretch, self.share())))

    def share(self) -> float | None:
        """Tell how much of the rate a partition that is read here and now may have."""
        return None if self.max_rate is None else self.max_rate / min(self.partitions, _threads())

    def mend(self, hashes: pd.DataFrame, stretches: Sequence[Stretch]) -> pd.DataFrame:
        """Read what is missing between partitions, and before the first one of each list."""
        ids = cast("dict[int, Collection[int]]", dict(iter(hashes.groupby(_PARTITION)["id"])))
        return _frame(-1, _run(self._mend(ids, stretches)))

    def _session(self, max_rate: float | None) -> CopyAISession:
        return CopyAISession(base_url=self.base_url, retry=self.retry, max_rate=max_rate)

    async def _read(self, stretch: Stretch, rate: float | None) -> list[Read]:
        async with self._session(rate) as session:
            if rate is not None:  # whoever had this thread before may have sent its last request just now
                await asyncio.sleep(1 / rate)
            return await read_stretch(session, stretch)

    async def _mend(self, ids: Mapping[int, Collection[int]], stretches: Sequence[Stretch]) -> list[Read]:
        async with self._session(self.max_rate) as session:
            lists = [list(of_list) for _, of_list in groupby(stretches, lambda stretch: stretch.workflow_id)]
            return [read for of_list in lists for read in await read_between(session, of_list, ids)]


def _frame(partition: int, read: Sequence[Read]) -> pd.DataFrame:
    batch = record_batch([run for page in read for run in page.runs])
    moments = [page.at for page in read for _ in page.runs]
    columns = [*batch.columns, pa.array([partition] * len(moments), pa.int64()), pa.array(moments, pa.int64())]
    return pa.Table.from_arrays(columns, schema=_WIDE).to_pandas(types_mapper=pd.ArrowDtype)


def _hashes(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep 16 bytes of each run: what tells it from others, and whose it is."""
    ids = pd.Series([hash_id(run_id) for run_id in frame["id"]], frame.index, "uint64")
    return pd.DataFrame({"id": ids, _PARTITION: frame[_PARTITION].astype("int64")})


def _latest(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep of each run the copy that was read last."""
    newest = frame.sort_values([_READ_AT, _PARTITION]).drop_duplicates("id", keep="last")
    return newest.drop(columns=[_PARTITION, _READ_AT]).reset_index(drop=True)


def _threads() -> int:
    """Count the threads that partitions may be read in."""
    try:
        get_worker()
    except ValueError:
        return int(config.get("num_workers", None) or CPU_COUNT)
    return sum(cast("dict[str, int]", get_client().nthreads()).values())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; in another thread where an event loop runs in this one, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
