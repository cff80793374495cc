"""A dlt source of runs. Needs the extra ``dlt``.

::

    pipeline = dlt.pipeline("copyai", destination="duckdb", dataset_name="copyai")
    pipeline.run(copyai_source(["WCFG-…"]))

The columns are those of `aiocopyai.integrations.arrow`, with two differences:

- `workflow_id` is the id that was passed to the source, because it is part of the key. If the server returns another
  id, `extra` has it as ``workflowId``.
- `input`, `output`, `metadata` and `extra` are JSON objects in string columns. The source does not use dlt's own type
  for JSON, because with Arrow tables dlt would log a warning for each page, some destinations (such as SQLAlchemy)
  would encode the JSON twice, and a load of a lone surrogate into DuckDB would fail.
"""

# pyarrow is not typed: its values are unknown to the type checkers.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import dlt
import pyarrow as pa  # type: ignore[import-untyped]  # see above
from attrs import evolve
from dlt.extract import DltResource

from aiocopyai import CopyAISession, Page, Run
from aiocopyai._incremental import Cursor
from aiocopyai._tasks import TaskSet
from aiocopyai._threads import LoopThread
from aiocopyai._validation import check_timedelta
from aiocopyai.integrations.arrow import FLAT_SCHEMA, flat_batch


_Queue: TypeAlias = "asyncio.Queue[Page[Run] | Exception | None]"

_KEY_NAME: Final = "workflow_id"
_SCHEMA: Final = pa.schema([field.with_nullable(field.nullable and field.name != _KEY_NAME) for field in FLAT_SCHEMA])
_LISTS_AT_ONCE: Final = 8
"""The number of workflows that are read at the same time."""
_PAGES_AHEAD: Final = 4
"""The number of pages of each workflow that wait in memory until the workflows before it are loaded."""
_WORKFLOW_ID: Final = re.compile(r"[A-Z]{4}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The usual format of a workflow's id."""


@dlt.source(name="copyai", section="copyai")
def copyai_source(
    workflow_ids: Sequence[str],
    *,
    session: Callable[[], CopyAISession] = CopyAISession,
    look_back: timedelta = timedelta(days=1),
    open_for: timedelta = timedelta(days=30),
) -> Iterator[DltResource]:
    """Load the runs of one or more workflows: first all of them, and later those that are new or may have changed.

    The resource ``runs`` merges the runs of all workflows into one table with the key `workflow_id` and `id`. Each
    workflow also has a resource ``runs_<workflow id>``, with its own table and the key `id`. Only ``runs`` is selected;
    ``source.with_resources("runs_WCFG-…")`` selects another one. A run that is removed from the list keeps its row.

    The API does not report changes. A load therefore starts with the newest run, and reads back to `look_back` before
    the newest run of the previous load, or to the oldest run that was unfinished then, if that is older. A run without
    a status counts as unfinished. If an unfinished run has no creation time, the whole list is read. Changes of older
    runs are not loaded.

    Up to eight workflows are read at the same time. They are loaded in the order of their ids in `workflow_ids`.

    Args:
        workflow_ids: the ids of the workflows; duplicates are ignored.
        session: a function that returns a new session for each load. By default the session reads its key from
            ``COPYAI_API_KEY``. dlt never receives the key.
        look_back: how far before the newest loaded run every run is read again.
        open_for: how far before the newest loaded run unfinished runs are read again.

    Raises:
        ValueError: there is no workflow id, or a time is negative.
        CopyAIError: the runs cannot be read; raised during the load, as the cause of dlt's error. Nothing is loaded.
    """
    unique_ids = list(dict.fromkeys([workflow_ids] if isinstance(workflow_ids, str) else workflow_ids))
    if not unique_ids:
        raise ValueError("workflow_ids must contain at least one id")
    check_timedelta("look_back", look_back, zero=True)
    check_timedelta("open_for", open_for, zero=True)

    def read(ids: Sequence[str]) -> Iterator[object]:
        state: dict[str, Any] = dlt.current.resource_state()
        old_cursors = {workflow_id: Cursor.load(state.get(workflow_id, {})) for workflow_id in ids}
        since = {workflow_id: cursor.since(look_back, open_for) for workflow_id, cursor in old_cursors.items()}
        new_cursors = {workflow_id: Cursor() for workflow_id in ids}
        with closing(_read_lists(session, since)) as pages:
            for workflow_id, page in pages:
                cursor = new_cursors[workflow_id]
                if page is not None:
                    cursor.add(page.items)
                    runs = [_with_workflow_id(run, workflow_id) for run in page.items]
                    yield pa.RecordBatch.from_arrays(flat_batch(runs).columns, schema=_SCHEMA)
                else:
                    cursor.newest = cursor.newest or old_cursors[workflow_id].newest
                    state[workflow_id] = cursor.dump()

    all_runs = dlt.resource(read, name="runs", write_disposition="merge", primary_key=(_KEY_NAME, "id"))
    yield all_runs(unique_ids)
    for workflow_id in unique_ids:
        name = f"runs_{workflow_id}"
        table = name
        if not _WORKFLOW_ID.fullmatch(workflow_id):  # dlt may normalize different ids to the same name
            table += "_" + blake2b(workflow_id.encode(), digest_size=4).hexdigest()
        workflow_runs = dlt.resource(
            read, name=name, table_name=table, write_disposition="merge", primary_key="id", selected=False
        )
        yield workflow_runs([workflow_id])


def _read_lists(
    session: Callable[[], CopyAISession], since: Mapping[str, datetime | None]
) -> Generator[tuple[str, Page[Run] | None]]:
    """Yield the pages of one workflow after another, and None after the last page of each."""
    with LoopThread() as loop:
        lists = _Lists(session(), since.items())
        try:
            while (item := loop.call(lists.next_page())) is not None:
                yield item
        finally:
            loop.call(lists.close())


class _Lists:
    """Reads several lists at the same time, and returns the pages of one list after another."""

    def __init__(self, session: CopyAISession, since: Iterable[tuple[str, datetime | None]]) -> None:
        self._session = session
        self._waiting = deque(since)
        self._reading: deque[tuple[str, _Queue]] = deque()
        self._tasks = TaskSet()

    async def next_page(self) -> tuple[str, Page[Run] | None] | None:
        """Return the next page with the id of its workflow, or the id and None after its last page; None at the end."""
        while self._waiting and len(self._reading) < _LISTS_AT_ONCE:
            workflow_id, since = self._waiting.popleft()
            queue: _Queue = asyncio.Queue(_PAGES_AHEAD)
            self._reading.append((workflow_id, queue))
            self._tasks.spawn(self._read(workflow_id, since, queue))
        if not self._reading:
            return None
        workflow_id, queue = self._reading[0]
        page = await queue.get()
        if isinstance(page, Exception):
            raise page
        if page is None:
            self._reading.popleft()
        return workflow_id, page

    async def close(self) -> None:
        """Cancel all requests, and close the session."""
        try:
            await self._tasks.cancel()
        finally:
            await self._session.close()

    async def _read(self, workflow_id: str, since: datetime | None, queue: _Queue) -> None:
        try:
            async for page in self._session.runs(workflow_id, since=since).pages():
                await queue.put(page)
        except Exception as error:  # noqa: BLE001 (raised after the pages of the earlier lists)
            await queue.put(error)
        else:
            await queue.put(None)


def _with_workflow_id(run: Run, workflow_id: str) -> Run:
    """Return a run with the workflow id of the request, because its key in the table must not change."""
    if run.workflow_id == workflow_id:
        return run
    extra = run.extra if run.workflow_id is None else {**run.extra, "workflowId": run.workflow_id}
    return evolve(run, workflow_id=workflow_id, extra=extra)
