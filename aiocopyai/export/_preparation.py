"""How an export begins: what stands on the disk decides whether it starts, goes on, or must not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final

from attrs import frozen

from aiocopyai import CopyAISession
from aiocopyai.export._errors import DamagedPartError, ExportError
from aiocopyai.export._formats import Format
from aiocopyai.export._journal import Part
from aiocopyai.export._reading import look
from aiocopyai.export._state import LAST, Asked, Base, State, Walked


LOOK_BACK: Final = timedelta(hours=1)
"""With ``since="last"``: a run may be so much older than the newest of the file, and is still looked for."""
_AT_ONCE: Final = 1_000
_EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)


@frozen
class Wanted:
    """One call of `export_runs`, its arguments checked."""

    path: Path
    format: Format
    asked: Asked
    resume: bool
    force: bool

    @property
    def adds(self) -> bool:
        """Whether what is there is added to."""
        return self.asked.since == LAST and self.path.exists()


def open_part(wanted: Wanted) -> Part | None:
    """Open what is to be gone on with, or an empty part to begin with; None where the file is whole already.

    Raises:
        ExportError: what is there stands against it.
    """
    path = wanted.path
    if not path.parent.is_dir():
        raise ExportError(f"there is no folder {path.parent}")
    if path.is_dir():
        raise ExportError(f"{path} is a folder")
    part = _begun_part(wanted)
    if part is None and path.exists() and not (wanted.force or wanted.adds):
        if wanted.resume:
            return None
        raise ExportError(f'{path} is there already: since "last" adds what is new, force replaces it')
    return part or Part(path)


async def new_state(session: CopyAISession, part: Part, wanted: Wanted) -> State:
    """Make the state to begin with; with a file to add to, its ids are known to the part then."""
    base = Base.of(wanted.path) if wanted.adds else None
    newest = await _learn(part, wanted) if base else {}
    walks: dict[str, Walked] = {}
    for workflow_id in wanted.asked.workflow_ids:
        total, named = await look(session, workflow_id)
        latest = newest.get(workflow_id) or newest.get(named)
        walks[workflow_id] = Walked(total, horizon=latest and latest - LOOK_BACK)
    return State(wanted.asked, replaces=wanted.force or base is not None, base=base, walks=walks)


def check_place(state: State, path: Path) -> None:
    """Refuse to touch a file that is not what it was when the export was begun.

    Raises:
        ExportError: it came to be since, or changed, or is gone.
    """
    if state.base is not None and (not path.exists() or Base.of(path) != state.base):
        raise ExportError(f"{path} is not what it was when the export was begun: begin anew by force")
    if not state.replaces and path.exists():
        raise ExportError(f"{path} came to be after the export was begun: move it away, and resume")


def _begun_part(wanted: Wanted) -> Part | None:
    """Find what was begun and is to be gone on with; clear away what is of no use any more."""
    if not Part.exists(wanted.path):
        return None
    try:
        part = Part(wanted.path)
    except DamagedPartError:
        if not wanted.force:
            raise
        Part.discard(wanted.path)
        return None
    try:
        if part.state is None or wanted.force or _is_placed(part.state, wanted.path):
            part.remove()
            return None
        _check(part.state, wanted)
    except BaseException:
        part.close()
        raise
    return part


def _is_placed(state: State, path: Path) -> bool:
    """Whether the file was put in its place, and the process ended before it cleared up."""
    return state.is_finished and (state.source is None or not path.with_name(state.source).exists())


def _check(state: State, wanted: Wanted) -> None:
    """Refuse to go on where that would not be what was asked for."""
    path = wanted.path
    if not wanted.resume:
        raise ExportError(f"an export to {path} was begun before: resume goes on with it, force begins anew")
    if state.asked != wanted.asked:
        raise ExportError(f"the export to {path} was begun for {state.asked}: ask for the same, or begin anew by force")
    check_place(state, path)


async def _learn(part: Part, wanted: Wanted) -> dict[str | None, datetime]:
    """Make the ids of a file known, and find its newest run for each workflow; a date in the future is no date."""
    newest: dict[str | None, datetime] = {}
    latest = datetime.now(UTC) + timedelta(days=1)
    runs = wanted.format.read(wanted.path)
    while some := list(islice(runs, _AT_ONCE)):
        part.know(run.id for run in some)
        for run in some:
            created = run.created_at
            if created is not None and _EARLIEST < created < latest:
                newest[run.workflow_id] = max(created, newest.get(run.workflow_id, created))
        await asyncio.sleep(0)
    return newest
