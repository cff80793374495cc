"""A dlt source of runs; it needs the extra ``dlt``.

::

    pipeline = dlt.pipeline("copyai", destination="duckdb", dataset_name="copyai")
    pipeline.run(copyai_source(["WCFG-…"]))

The columns are those of `aiocopyai.integrations.arrow`, but `input`, `output`, `metadata` and `extra` are JSON objects
as text, and `workflow_id` is never null. They are text to dlt as well, and not of its own type for JSON: with Arrow it
logs a warning for each page then, some destinations (SQLAlchemy's is one) write the text as JSON once more, and half a
surrogate pair in it stops a load into DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import dlt
from attrs import evolve
from dlt.extract import DltResource

from aiocopyai import CopyAISession, Page, Run
from aiocopyai.integrations._dlt_cursor import Cursor
from aiocopyai.integrations._flat import flat_batch
from aiocopyai.integrations._loop_thread import LoopThread


_VENDOR_ID: Final = re.compile(r"[A-Z]{4}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_AHEAD: Final = timedelta(days=1)
"""So far in the future a server's clock may be; later runs say nothing of how far a load came."""


@dlt.source(name="copyai", section="copyai")
def copyai_source(
    workflow_ids: Sequence[str],
    *,
    session: Callable[[], CopyAISession] = CopyAISession,
    look_back: timedelta = timedelta(days=1),
    open_for: timedelta = timedelta(days=30),
) -> Iterator[DltResource]:
    """Load the runs of some workflows: the first time all of them, later those that are new or may have changed.

    The resource ``runs`` puts the runs of all workflows into one table, whose key is `workflow_id` and `id`. For each
    workflow there is another one, ``runs_<workflow id>``, with a table of its own, whose key is `id`. Only ``runs`` is
    selected, so that no list is read twice; ``source.with_resources("runs_WCFG-…")`` chooses others. All are merged
    into their tables. A run that is no longer on the list stays there.

    What is read again is what was started within `look_back` before the newest run, and since the oldest run that was
    not over when it was last loaded; one without a status never is. Where such a run doesn't say when it was started,
    the whole list is read. The API doesn't tell what changed, so what changes even later is not seen.

    Args:
        workflow_ids: the workflows; one that is named twice is read once. A run that doesn't name its workflow gets the
            id from here.
        session: makes the session to read by, anew for each load; by default its key is in ``COPYAI_API_KEY``, and dlt
            never comes to see it.
        look_back: how much older than the newest run a run may be and still change, or turn up.
        open_for: how much older than the newest run a run may be and still be waited for, if it is not over.

    Raises:
        ValueError: no workflow is named, or a time is negative.
        CopyAIError: while loading, as the cause of what dlt raises: no answer, or an error. Nothing is loaded then.
    """
    chosen = list(dict.fromkeys([workflow_ids] if isinstance(workflow_ids, str) else workflow_ids))
    if not chosen or min(look_back, open_for) < timedelta(0):
        raise ValueError("name at least one workflow, and no negative times")

    def read(members: Sequence[str]) -> Iterator[object]:
        state: dict[str, Any] = dlt.current.resource_state()
        with LoopThread() as loop, _closing(session(), loop) as opened:
            for workflow_id in members:
                before, cursor = Cursor.load(state.get(workflow_id, {})), Cursor()
                pages = opened.runs(workflow_id, since=before.since(look_back, open_for)).pages()
                latest = datetime.now(UTC) + _AHEAD
                while page := loop.call(_next(pages)):
                    runs = [run if run.workflow_id else evolve(run, workflow_id=workflow_id) for run in page.items]
                    cursor.follow(runs, latest)
                    yield flat_batch(runs)
                cursor.newest = cursor.newest or before.newest
                state[workflow_id] = cursor.dump()

    together = dlt.resource(read, name="runs", write_disposition="merge", primary_key=("workflow_id", "id"))
    yield together(chosen)
    for workflow_id in chosen:
        alone = dlt.resource(
            read,
            name=f"runs_{workflow_id}",
            table_name=_table_name(workflow_id),
            write_disposition="merge",
            primary_key="id",
            selected=False,
        )
        yield alone([workflow_id])


@contextmanager
def _closing(session: CopyAISession, loop: LoopThread) -> Generator[CopyAISession]:
    """Close a session where it was used."""
    try:
        yield session
    finally:
        loop.call(session.close())


async def _next(pages: AsyncIterator[Page[Run]]) -> Page[Run] | None:
    return await anext(pages, None)


def _table_name(workflow_id: str) -> str:
    """Name a workflow's table; to dlt, ids of another form than the vendor's could be one and the same."""
    digest = "" if _VENDOR_ID.fullmatch(workflow_id) else blake2b(workflow_id.encode(), digest_size=4).hexdigest()
    return "_".join(filter(None, ("runs", workflow_id, digest)))
