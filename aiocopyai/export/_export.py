"""`export_runs` and `read_export`."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from attrs import frozen

from aiocopyai import CopyAISession
from aiocopyai._validation import check_datetime
from aiocopyai.export._formats import format_of
from aiocopyai.export._journal import Part
from aiocopyai.export._preparation import Wanted, check_place, new_state, open_part
from aiocopyai.export._reading import Progress, Reading, look
from aiocopyai.export._state import LAST, Asked, State
from aiocopyai.models import Run


@frozen
class Exported:
    """What an export came to."""

    path: Path
    """The file."""
    runs: int
    """Runs that this export put into it, those of processes before this one included."""
    by_status: Mapping[str, int]
    """The same by status."""
    credits: int
    """What they have cost."""
    is_written: bool = False
    """False where the file was left as it was: it is whole already, or nothing was new."""
    is_addition: bool = False
    """Whether the file was there before, and was added to."""


async def export_runs(
    session: CopyAISession,
    workflow_ids: Sequence[str],
    path: str | os.PathLike[str],
    *,
    resume: bool = False,
    since: datetime | Literal["last"] | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Exported:
    """Write all runs of some workflows to one file, which appears whole or not at all.

    What is read is kept beside the file until it is whole, as ``<path>.part`` and ``<path>.part.db``. However the
    process ends, `resume` goes on from there: each run that is on the list from the first start to the end is in the
    file once. A run that is removed or added meanwhile may be in it or not; one still under way is as it was when it
    was read. The rows stand in the order in which they were read. Memory doesn't grow with the number of runs.

    Args:
        session: where to read from.
        workflow_ids: the workflows, one after the other; one that is named twice is read once. A run that doesn't name
            its workflow gets the id from here.
        path: the file; its ending is the format: ``.jsonl``, ``.jsonl.gz``, ``.csv`` or ``.parquet``.
        resume: go on with what was begun, if something was. A file that is whole already is left as it is.
        since: only runs created at or after this moment, which must have a time zone. With ``"last"``, add to the file
            that is there what it has not; without a file, write everything.
        force: begin anew, and replace what is there.
        on_progress: called at the start, at the end, and whenever something was stored, some times a second.

    Raises:
        ExportError: what is there stands against it, or the format is unknown, or needs what isn't installed.
        ValueError: an argument can't be used.
        CopyAIError: no answer, or an error. What was read stays, for `resume`.
        OSError: the disk.
    """
    if resume and force:
        raise ValueError("resume goes on with what is there, and force throws it away: choose one")
    wanted = _wanted(path, _asked(workflow_ids, since), resume=resume, force=force)
    part = open_part(wanted)
    if part is None:
        return Exported(wanted.path, 0, {}, 0)
    with closing(part):
        state = part.state or await _begin(session, part, wanted)
        if not state.is_finished:
            await _look_again(session, state)
            await Reading(session, part, state, wanted.format.encode, on_progress).read()
            await _finish(part, state, wanted)
        _place(part, state, wanted.path)
    written, added = state.source is not None, state.base is not None
    return Exported(wanted.path, state.runs, state.by_status, state.credits, written, added)


def read_export(path: str | os.PathLike[str]) -> Iterator[Run]:
    """Read the runs of an exported file, one by one.

    Raises:
        ExportError: while iterating: it is no such file. The format's own conditions are those of `export_runs`.
        OSError: while iterating: it can't be read.
    """
    return format_of(Path(path)).read(Path(path))


def _wanted(path: str | os.PathLike[str], asked: Asked, *, resume: bool, force: bool) -> Wanted:
    real = Path(os.path.realpath(path))  # a link is followed: it is what it leads to that is replaced
    return Wanted(real, format_of(real), asked, resume, force)


def _asked(workflow_ids: Sequence[str], since: datetime | str | None) -> Asked:
    chosen = tuple(dict.fromkeys([workflow_ids] if isinstance(workflow_ids, str) else workflow_ids))
    if not chosen:
        raise ValueError("no workflow to export")
    if isinstance(since, datetime):
        check_datetime("since", since)
        return Asked(chosen, since.astimezone(UTC).isoformat())
    if since is None or since == LAST:
        return Asked(chosen, since)
    raise ValueError(f'since must be a datetime, "last" or None, got {since!r}')


async def _begin(session: CopyAISession, part: Part, wanted: Wanted) -> State:
    state = await new_state(session, part, wanted)
    part.begin(state, b"" if state.base else wanted.format.head)
    return state


async def _look_again(session: CopyAISession, state: State) -> None:
    """Ask how long the lists are now that are to be gone on with."""
    for workflow_id, walked in state.walks.items():
        if walked.mark is not None and not walked.is_done:
            walked.total, _ = await look(session, workflow_id)


async def _finish(part: Part, state: State, wanted: Wanted) -> None:
    """Make the file of the part, beside its place, unless there is nothing to add to the one that is there."""
    if state.base is None or state.runs:
        check_place(state, wanted.path)
        state.source = (await _assemble(part, state, wanted)).name
        check_place(state, wanted.path)
    state.is_finished = True
    part.commit(durably=True)


async def _assemble(part: Part, state: State, wanted: Wanted) -> Path:
    source = part.seal()
    if state.base is not None or not wanted.format.is_final:
        source = part.out
        for _ in _write(part, state, wanted):
            await asyncio.sleep(0)
    return source


def _write(part: Part, state: State, wanted: Wanted) -> Iterator[None]:
    with part.out.open("wb") as out:
        yield from wanted.format.assemble(wanted.path if state.base else None, part.rows, out)
        out.flush()
        os.fsync(out.fileno())


def _place(part: Part, state: State, path: Path) -> None:
    """Put the file in its place, and clear up."""
    if state.source is not None:
        source = path.with_name(state.source)
        if path.exists():
            shutil.copymode(path, source)
        source.replace(path)
        _sync_folder(path.parent)
    part.remove()


def _sync_folder(folder: Path) -> None:
    """Wait until a new name is on the disk, where folders can be waited for."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
