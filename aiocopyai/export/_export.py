"""`export_runs` and `read_export`: start or resume an export, read the lists, and write the file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, Literal

from attrs import frozen

from aiocopyai import CopyAISession
from aiocopyai._files import create_beside, file_errors, move_into_place
from aiocopyai._incremental import Cursor
from aiocopyai._threads import FileThread
from aiocopyai._validation import check_callback, check_datetime
from aiocopyai.export._formats import CSV, ExportError, Format, JSONLines, batched
from aiocopyai.export._journal import DamagedJournalError, Journal
from aiocopyai.export._list_reader import ListReader, OutputFile, Progress
from aiocopyai.export._resume import LAST, ExportState, FileStamp, ListState, Selection
from aiocopyai.models import Run


LOOK_BACK: Final = timedelta(hours=1)
"""With ``since="last"``, a new run may be older than the newest run in the file by this much."""
REFRESH_WINDOW: Final = timedelta(days=30)
"""With ``since="last"``, an unfinished run is read again if it is older than the newest run by at most this much."""


@frozen
class Exported:
    """The result of an export.

    Attributes:
        path: the file.
        runs: the number of runs that this export wrote, including those of earlier processes that it resumed.
        by_status: the number of these runs by status.
        credits: the credits that these runs have cost.
        is_written: False if the file is unchanged, because it was already complete or nothing was new.
        is_addition: whether runs were added to an existing file.
        refreshed: the number of these runs that replace an older, unfinished row of the same run.
    """

    path: Path
    runs: int
    by_status: Mapping[str, int]
    credits: int
    is_written: bool = False
    is_addition: bool = False
    refreshed: int = 0


async def export_runs(
    session: CopyAISession,
    workflow_ids: Sequence[str],
    path: str | os.PathLike[str],
    *,
    resume: bool = False,
    since: datetime | Literal["last"] | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
) -> Exported:
    """Write all runs of one or more workflows to one file, which is created when it is complete.

    Until then, the rows and the state are stored next to it, in ``<path>.part``, ``<path>.part.db`` and
    ``<path>.part.db-wal``; if you move one of them, move all. After an error or a crash, `resume` continues from them.
    A run that is in the list from the first start to the end is in the file once. A run that is added or removed in the
    meantime may be in it. Memory use does not depend on the number of runs.

    A run is written as it was when it was read. With ``since="last"``, unfinished runs are read again if they are at
    most 30 days older than the newest run in the file, and a run that has changed gets a new row at the end of the
    file instead of the old one. Changes of finished runs are not detected, and a run that was removed from the list
    keeps its row.

    Args:
        session: reads the runs.
        workflow_ids: the ids of the workflows; duplicates are ignored.
        path: the file; its extension selects the format: ``.jsonl``, ``.jsonl.gz``, ``.csv`` or ``.parquet``.
        resume: continue an unfinished export if there is one. A complete file is not changed.
        since: write only runs created at or after this time, which must have a time zone. With ``"last"``, add the new
            runs to an existing file and refresh the unfinished ones, or write all runs if there is no file.
        force: discard an unfinished export, and replace an existing file. With ``since="last"``, an existing file is
            replaced only if it is not a readable export.
        on_progress: called with a `Progress` at the start, at the end, and several times a second in between. If it
            raises an exception, it is not called again, and the export ends with that exception and can be resumed.

    Raises:
        ExportError: there are conflicting files, the format is unknown, or the extra for it is not installed.
        ValueError: an argument is invalid.
        CopyAIError: the runs cannot be read. The stored rows remain for `resume`.
        OSError: a file cannot be read or written.
    """
    check_callback("on_progress", on_progress)
    # In a thread, because it may import pyarrow.
    options = await asyncio.to_thread(_check_options, path, workflow_ids, since, resume=resume, force=force)
    with ExitStack() as files, FileThread() as thread:
        journal = await thread.wait(thread.submit(_open_journal, options, files))
        if journal is None:
            return Exported(options.path, 0, {}, 0)
        output: OutputFile | None = None
        state = journal.state
        if state is None:
            state = await _start(session, thread, journal, options)
            if state.base is None and (writer := options.format.writer) is not None:
                with file_errors(journal.output_path):
                    out = files.enter_context(create_beside(journal.output_path, options.path))
                    output = files.enter_context(closing(OutputFile(journal.output_path, out, writer(out))))
        if not state.is_complete:
            # Private, because only this package can use these runs.
            unparsed = session._with_unparsed_runs()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            await ListReader(unparsed, journal, state, options.format, on_progress, thread, output).read()
            await thread.run_steps(_write_file(journal, state, options, output))
        if state.source is not None:
            source = options.path.with_name(state.source)
            await thread.wait(thread.submit(move_into_place, source, options.path))
        await thread.wait(thread.submit(journal.remove))
    return Exported(
        options.path,
        state.runs,
        state.by_status,
        state.credits,
        is_written=state.source is not None,
        is_addition=state.base is not None,
        refreshed=state.refreshed,
    )


def read_export(path: str | os.PathLike[str]) -> Iterator[Run]:
    """Yield the runs of an exported file.

    Raises:
        ExportError: the file is not an export, or the extra for its format is not installed; raised while iterating.
        OSError: the file cannot be read; raised while iterating.
    """
    return _format_of(Path(path)).read(Path(path))


_FORMATS: Final[dict[str, Callable[[], Format]]] = {
    ".jsonl": JSONLines,
    ".jsonl.gz": partial(JSONLines, is_gzipped=True),
    ".csv": CSV,
}


def _format_of(path: Path) -> Format:
    """Return the format that the extension of a file selects.

    Raises:
        ExportError: the extension is unknown, or the extra for its format is not installed.
    """
    name = path.name.lower()
    for extension, make_format in _FORMATS.items():
        if name.endswith(extension):
            return make_format()
    if not name.endswith(".parquet"):
        raise ExportError(f"{path.name} must end in one of {', '.join(_FORMATS)}, .parquet")
    try:
        from aiocopyai.export._parquet import Parquet  # noqa: PLC0415 (pyarrow may be missing)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise ExportError(
            'a .parquet file requires pyarrow; install it with: python -m pip install "aiocopyai[export]"'
        ) from None
    return Parquet()


@frozen
class _Options:
    """The validated arguments of `export_runs`."""

    path: Path
    format: Format
    selection: Selection
    resume: bool
    force: bool

    @property
    def adds_to_file(self) -> bool:
        """Whether runs are added to an existing file."""
        return self.selection.since == LAST and self.path.exists()


def _check_options(
    path: str | os.PathLike[str],
    workflow_ids: Sequence[str],
    since: datetime | str | None,
    *,
    resume: bool,
    force: bool,
) -> _Options:
    if resume and force:
        raise ValueError("resume continues an unfinished export and force discards it: use only one of them")
    unique_ids = tuple(dict.fromkeys([workflow_ids] if isinstance(workflow_ids, str) else workflow_ids))
    if not unique_ids:
        raise ValueError("workflow_ids must contain at least one id")
    if isinstance(since, datetime):
        check_datetime("since", since)
        since = since.astimezone(UTC).isoformat()
    elif since is not None and since != LAST:
        raise ValueError(f'since must be a datetime, "last" or None, got {since!r}')
    target = Path(os.path.realpath(path))  # a link is kept, and its target is replaced
    return _Options(target, _format_of(target), Selection(unique_ids, since), resume, force)


# --- start or resume


def _open_journal(options: _Options, files: ExitStack) -> Journal | None:
    """Return a new journal, or that of an unfinished export, or None if the file is already complete.

    `files` closes the journal.
    """
    path = options.path
    if not path.parent.is_dir():
        raise ExportError(f"the folder {path.parent} does not exist")
    if path.is_dir():
        raise ExportError(f"{path} is a folder")
    if Journal.exists(path) and (unfinished := _open_unfinished(options, files)) is not None:
        return unfinished
    if path.exists() and not (options.force or options.adds_to_file):
        if options.resume:
            return None
        raise ExportError(f"{path} already exists", 'use since="last" to add new runs, or force to replace it')
    return files.enter_context(closing(Journal(path)))


def _open_unfinished(options: _Options, files: ExitStack) -> Journal | None:
    """Open the journal of an unfinished export, or delete its files and return None if that is safe or forced."""
    path = options.path
    try:
        journal = files.enter_context(closing(Journal(path)))
    except (DamagedJournalError, OSError):
        if not options.force:
            raise
        Journal.discard(path)
        return None
    state = journal.state
    # If the complete file was moved into place, the earlier process only did not remove the journal.
    is_placed = state is not None and state.is_complete and not (state.source and path.with_name(state.source).exists())
    if state is None or is_placed or options.force:
        journal.remove()
        return None
    if not options.resume:
        raise ExportError(f"an unfinished export to {path} exists", "use resume to continue it, or force to discard it")
    if state.selection != options.selection:
        raise ExportError(
            f"the unfinished export to {path} is for {state.selection}",
            "resume it for the same workflows and time, or use force to discard it",
        )
    _check_target(state, path)
    return journal


def _check_target(state: ExportState, path: Path) -> None:
    """Raise an `ExportError` if the file to replace was changed or created after the export started."""
    if state.base is not None and (not path.exists() or FileStamp.of(path) != state.base):
        raise ExportError(f"{path} has changed since the export started", "use force to discard the unfinished export")
    if not state.replaces and path.exists():
        raise ExportError(f"{path} was created after the export started", "move it away, and use resume")


async def _start(session: CopyAISession, thread: FileThread, journal: Journal, options: _Options) -> ExportState:
    base, cursors = None, dict[str | None, Cursor]()
    if options.adds_to_file:
        base = FileStamp.of(options.path)
        try:
            await thread.run_steps(_read_base(journal, options, cursors))
        except ExportError as error:
            if not options.force:
                raise ExportError(error.problem, "use force to replace it, or move it away") from error
            base = None
            cursors.clear()
            journal.forget_base()
    lists: dict[str, ListState] = {}
    for workflow_id in options.selection.workflow_ids:
        page = await session.runs_page(workflow_id, size=1)  # fails early if the key or the id is invalid
        ids = {workflow_id, *[run.workflow_id for run in page.items]}  # the server may return another id
        cursor = Cursor.merge(cursors[id_] for id_ in ids if id_ in cursors)
        lists[workflow_id] = ListState(page.total, horizon=cursor.since(LOOK_BACK, REFRESH_WINDOW))
    replaces = options.force or base is not None
    state = ExportState(options.selection, replaces=replaces, base=base, lists=lists)
    await thread.wait(thread.submit(journal.start, state, b"" if base else options.format.head))
    return state


def _read_base(journal: Journal, options: _Options, cursors: dict[str | None, Cursor]) -> Generator[None]:
    """Store the runs of an existing file, and add them to the cursors of their workflows."""
    for runs in batched(options.format.read(options.path), 1_000):
        journal.add_base(runs)
        for run in runs:
            cursors.setdefault(run.workflow_id, Cursor()).add([run])
        yield


# --- write the file


def _write_file(journal: Journal, state: ExportState, options: _Options, output: OutputFile | None) -> Generator[None]:
    """Write the complete file next to the target, unless there is nothing to add to an existing file."""
    if state.base is None or state.runs:
        _check_target(state, options.path)
        source = journal.output_path
        if output is not None:
            with file_errors(source):
                output.finish()
        elif state.base is None and options.format.writer is None:
            source = journal.seal()
        else:
            rows = journal.seal()
            base = options.path if state.base else None
            keep = journal.keep if state.refreshed else None
            with file_errors(source), create_beside(source, options.path) as out:
                yield from options.format.write(base, keep, rows, out)
                out.flush()
                os.fsync(out.fileno())
        _check_target(state, options.path)
        state.source = source.name
    state.is_complete = True
    journal.commit(durably=True)
