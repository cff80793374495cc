"""`export_runs` and `read_export`: start or resume an export, read the lists, finish the file."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, aclosing, closing, suppress
from copy import copy
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, Literal

from attrs import define, field, frozen

from aiocopyai import BadRequestError, CopyAISession, NotFoundError, RequestInvalidError
from aiocopyai._cursor import Cursor
from aiocopyai._files import FileThread, create_beside, move_into_place
from aiocopyai._validation import check_datetime
from aiocopyai.export._formats import CSV, ExportError, FileWriter, Format, GzippedJSONLines, JSONLines
from aiocopyai.export._journal import Batch, DamagedJournalError, Journal
from aiocopyai.export._resume import (
    LAST,
    ExportState,
    FileStamp,
    ListState,
    Selection,
    Tracker,
    leaves_no_gap,
)
from aiocopyai.models import Run


LOOK_BACK: Final = timedelta(hours=1)
"""With ``since="last"``: how much older than the newest run of the file a new run may be."""
REFRESH_FOR: Final = timedelta(days=30)
"""With ``since="last"``: how much older than the newest run of the file an unfinished run may be to be read again."""
_READ_AT_ONCE: Final = 1_000
_COMMIT_RUNS: Final = 10_000
_COMMIT_SECONDS: Final = 0.25
"""A process that is killed has to read again at most the runs of this time, and at most about that many."""
_BATCH_BYTES: Final = 2**18
"""How many bytes of encoded runs are stored at a time, in a thread, while the next ones are read."""
_MAX_STORING: Final = 3
"""How many such batches may wait for the thread."""
_POSSIBLE_ENDS: Final = (BadRequestError, NotFoundError, RequestInvalidError)
"""The errors that servers may send for a page past the end of a list."""


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


@frozen
class Progress:
    """The progress of an export.

    Attributes:
        runs: the number of runs that were read, including those of earlier processes; with ``since="last"``, only those
            that are new or have changed.
        total: the number of runs that the export will have; None if it is not known.
        by_status: the number of the runs by status.
        credits: the credits that the runs have cost.
    """

    runs: int
    total: int | None
    by_status: Mapping[str, int]
    credits: int

    @classmethod
    def of(cls, state: ExportState) -> Progress:
        """Return how far an export in this state has come."""
        return cls(state.runs, state.expected_runs(), dict(state.by_status), state.credits)


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
        on_progress: called with a `Progress` at the start, at the end, and several times a second in between.

    Raises:
        ExportError: there are conflicting files, the format is unknown, or the extra for it is not installed.
        ValueError: an argument is invalid.
        CopyAIError: the runs cannot be read. The stored rows remain for `resume`.
        OSError: a file cannot be read or written.
    """
    # In a thread, as it may import pyarrow.
    request = await asyncio.to_thread(_check_request, path, workflow_ids, since, resume=resume, force=force)
    journal = _open_journal(request)
    if journal is None:
        return Exported(request.path, 0, {}, 0)
    with closing(journal), ExitStack() as files, FileThread() as thread:
        early: _EarlyFile | None = None
        state = journal.state
        if state is None:
            state = await _start(session, thread, journal, request)
            if state.base is None and (writer := request.format.writer) is not None:
                out = create_beside(journal.out, request.path)
                early = files.enter_context(closing(_EarlyFile(journal.out, out, writer(out))))
        if not state.is_complete:
            await _ListReader(session, journal, state, request.format, on_progress, thread, early).read()
            await thread.run_steps(_write_file(journal, state, request, early))
        if state.source is not None:
            source = request.path.with_name(state.source)
            await thread.wait(thread.submit(move_into_place, source, request.path))
        journal.remove()
    return Exported(
        request.path,
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
    return format_of(Path(path)).read(Path(path))


def format_of(path: Path) -> Format:
    """Return the format that a file name ends in.

    Raises:
        ExportError: the ending is unknown, or what the format needs is not installed.
    """
    name = path.name.lower()
    for ending, make in _FORMATS.items():
        if name.endswith(ending):
            return make()
    raise ExportError(f"{path.name} must end in one of {', '.join(_FORMATS)}")


def _parquet() -> Format:
    try:
        from aiocopyai.export._parquet import Parquet  # noqa: PLC0415 (pyarrow may be missing)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise ExportError(
            'a .parquet file requires pyarrow; install it with: python -m pip install "aiocopyai[export]"'
        ) from None
    return Parquet()


_FORMATS: Final[dict[str, Callable[[], Format]]] = {
    ".jsonl": JSONLines,
    ".jsonl.gz": GzippedJSONLines,
    ".csv": CSV,
    ".parquet": _parquet,
}


@frozen
class _Request:
    """One call of `export_runs`, with its arguments checked."""

    path: Path
    format: Format
    selection: Selection
    resume: bool
    force: bool

    @property
    def adds(self) -> bool:
        """Whether runs are added to an existing file."""
        return self.selection.since == LAST and self.path.exists()


def _check_request(
    path: str | os.PathLike[str],
    workflow_ids: Sequence[str],
    since: datetime | str | None,
    *,
    resume: bool,
    force: bool,
) -> _Request:
    if resume and force:
        raise ValueError("resume continues an unfinished export and force discards it: use only one of them")
    chosen = tuple(dict.fromkeys([workflow_ids] if isinstance(workflow_ids, str) else workflow_ids))
    if not chosen:
        raise ValueError("workflow_ids must name at least one workflow")
    if isinstance(since, datetime):
        check_datetime("since", since)
        since = since.astimezone(UTC).isoformat()
    elif since is not None and since != LAST:
        raise ValueError(f'since must be a datetime, "last" or None, got {since!r}')
    target = Path(os.path.realpath(path))  # a link stays, and what it leads to is replaced
    return _Request(target, format_of(target), Selection(chosen, since), resume, force)


# --- start or resume


def _open_journal(request: _Request) -> Journal | None:
    """Open the export to resume, or an empty one; None if the file is complete already."""
    path = request.path
    if not path.parent.is_dir():
        raise ExportError(f"the folder {path.parent} does not exist")
    if path.is_dir():
        raise ExportError(f"{path} is a folder")
    journal = _open_unfinished(request)
    if journal is None and path.exists() and not (request.force or request.adds):
        if request.resume:
            return None
        raise ExportError(f"{path} already exists", 'use since="last" to add what is new, or force to replace it')
    return journal or Journal(path)


def _open_unfinished(request: _Request) -> Journal | None:
    """Open the export to resume, if there is one; delete what is left of others if that is safe or forced."""
    path = request.path
    if not Journal.exists(path):
        return None
    try:
        journal = Journal(path)
    except (DamagedJournalError, OSError):
        if not request.force:
            raise
        Journal.discard(path)
        return None
    state = journal.state
    # After the file was moved into place, only the journal has to be removed.
    is_placed = state is not None and state.is_complete and not (state.source and path.with_name(state.source).exists())
    if state is None or is_placed or request.force:
        journal.remove()
        return None
    try:
        _check_resumable(state, request)
    except BaseException:
        journal.close()
        raise
    return journal


def _check_resumable(state: ExportState, request: _Request) -> None:
    path = request.path
    if not request.resume:
        raise ExportError(f"an unfinished export to {path} exists", "use resume to continue it, or force to discard it")
    if state.selection != request.selection:
        raise ExportError(
            f"the unfinished export to {path} is of {state.selection}",
            "resume it for the same workflows and time, or use force to discard it",
        )
    _check_target(state, path)


def _check_target(state: ExportState, path: Path) -> None:
    """Refuse to replace a file that is not the one that the export started with."""
    if state.base is not None and (not path.exists() or FileStamp.of(path) != state.base):
        raise ExportError(f"{path} has changed since the export started", "use force to discard the unfinished export")
    if not state.replaces and path.exists():
        raise ExportError(f"{path} was created after the export started", "move it away, and use resume")


async def _start(session: CopyAISession, thread: FileThread, journal: Journal, request: _Request) -> ExportState:
    base, cursors = None, dict[str | None, Cursor]()
    if request.adds:
        base = FileStamp.of(request.path)
        try:
            await thread.run_steps(_read_base(journal, request, cursors))
        except ExportError as error:
            if not request.force:
                raise ExportError(error.problem, "use force to replace it, or move it away") from error
            base = None
            cursors.clear()
            journal.forget_base()
    lists: dict[str, ListState] = {}
    for workflow_id in request.selection.workflow_ids:
        first = await session.runs_page(workflow_id, size=1)  # shows an invalid key or id before hours of reading
        names = {workflow_id, *[run.workflow_id for run in first.items]}  # the server may call it by another id
        cursor = Cursor.merge(cursors[name] for name in names if name in cursors)
        lists[workflow_id] = ListState(first.total, horizon=cursor.since(LOOK_BACK, REFRESH_FOR))
    replaces = request.force or base is not None
    state = ExportState(request.selection, replaces=replaces, base=base, lists=lists)
    journal.start(state, b"" if base else request.format.head)
    return state


def _read_base(journal: Journal, request: _Request, cursors: dict[str | None, Cursor]) -> Generator[None]:
    """Note the runs of the file that is added to, and how far it goes, by workflow id."""
    runs = request.format.read(request.path)
    while batch := list(islice(runs, _READ_AT_ONCE)):
        journal.add_base(batch)
        for run in batch:
            cursors.setdefault(run.workflow_id, Cursor()).add([run])
        yield


# --- read the lists


@define
class _ListReader:
    """Reads what is left to read, and stores it in the journal, in a separate thread."""

    session: CopyAISession
    journal: Journal
    state: ExportState
    """As it was stored last; of the list that is being read, `_read_from` has a later state."""
    format: Format
    on_progress: Callable[[Progress], None] | None
    thread: FileThread
    early: _EarlyFile | None
    """What makes the file of the rows while more are read."""
    unstored: list[Batch] = field(factory=list[Batch])
    unstored_bytes: int = 0
    storing: deque[Future[Progress]] = field(factory=deque[Future[Progress]])
    """The batches in the thread; no other code uses the journal and the state until they are done."""
    uncommitted: int = 0
    """How many runs were read since the last commit."""
    committed_at: float = 0.0

    async def read(self) -> None:
        """Read every list that is not done to its end; what was read is stored, however this ends."""
        for workflow_id, listed in self.state.lists.items():
            if listed.checkpoint is not None and not listed.is_done:
                listed.total = (await self.session.runs_page(workflow_id, size=1)).total
        self._report(Progress.of(self.state))
        for workflow_id, stored in list(self.state.lists.items()):
            if not stored.is_done:
                await self._read_list(workflow_id, copy(stored))

    async def _read_list(self, workflow_id: str, listed: ListState) -> None:
        # From the start if pages between are missing; and one by one if changes hide where new runs end.
        for start_page, prefetch in ((listed.start_page(), True), (1, True), (1, False)):
            if await self._read_from(workflow_id, listed, start_page, prefetch=prefetch):
                break
        listed.is_done = True
        await self._store_rest(workflow_id, listed)

    async def _read_from(self, workflow_id: str, listed: ListState, start_page: int, *, prefetch: bool) -> bool:
        """Read a list from a page on; return whether that certainly left out no unread run."""
        checkpoint, tracker = listed.checkpoint, Tracker(listed)
        selected = self.state.selection.since
        since = None if selected in {None, LAST} else datetime.fromisoformat(str(selected))
        ahead = tracker.prefetch if prefetch else 0
        pager = self.session.runs(workflow_id, start_page=start_page, since=since, prefetch=ahead)
        rereads_at_horizon: int | None = None
        async with aclosing(pager.pages()) as pages:
            try:
                async for page in pages:
                    if not leaves_no_gap(checkpoint, start_page, pager.changes.first_total):
                        return False
                    # In this thread, as the other one would often make the loop wait for its turn to run Python; and
                    # page by page, while the runs are in the processor's caches.
                    batch = Batch.of(page.items, self.format)
                    tracker.add(page, pages.proven.position, pages.proven.total, pages.page_length)
                    if tracker.is_past_horizon(page) and pages.position >= page.number * pages.page_length:
                        pages.stop_at(pages.position)
                        rereads_at_horizon = pager.changes.reread
                    listed.total = pager.total
                    await self._store(batch, workflow_id, listed)
            except _POSSIBLE_ENDS:
                if start_page == 1 or pager.total is not None:
                    raise
                return False
            finally:
                await self._store_rest(workflow_id, listed)
        if ahead != 0 and rereads_at_horizon is not None and pager.changes.reread > rereads_at_horizon:
            return False  # pages were read again, and the runs of interest may have moved behind the position
        return leaves_no_gap(checkpoint, start_page, pager.changes.first_total)

    async def _store(self, batch: Batch, workflow_id: str, listed: ListState) -> None:
        """Store a batch together with others, once few enough are waiting for the thread."""
        self.unstored.append(batch)
        self.unstored_bytes += len(batch.encoded)
        self.uncommitted += len(batch.runs)
        is_due = self.uncommitted >= _COMMIT_RUNS or time.monotonic() - self.committed_at >= _COMMIT_SECONDS
        if is_due or self.unstored_bytes >= _BATCH_BYTES:
            if len(self.storing) >= _MAX_STORING:
                await self.thread.wait(self.storing[0])
                self.storing.popleft()
            storing = self._submit(workflow_id, listed, commit=is_due)
            self.storing.append(storing)
            if is_due:
                loop = asyncio.get_running_loop()
                storing.add_done_callback(lambda stored: loop.call_soon_threadsafe(self._report_stored, stored))

    async def _store_rest(self, workflow_id: str, listed: ListState) -> None:
        """Commit all that was read."""
        try:
            for storing in list(self.storing):
                await self.thread.wait(storing)
        finally:
            self.storing.clear()
        self._report(await self.thread.wait(self._submit(workflow_id, listed, commit=True)))

    def _submit(self, workflow_id: str, listed: ListState, *, commit: bool) -> Future[Progress]:
        batches, self.unstored, self.unstored_bytes = self.unstored, [], 0
        if commit:
            self.uncommitted, self.committed_at = 0, time.monotonic()
        return self.thread.submit(self._write, batches, workflow_id, copy(listed), commit=commit)

    def _write(self, batches: Sequence[Batch], workflow_id: str, listed: ListState, *, commit: bool) -> Progress:
        content = self.journal.add(batches, self.format)
        if commit:
            self.state.lists[workflow_id] = listed
            self.journal.commit()
        if self.early is not None:
            self.early.writer.add(content)
        return Progress.of(self.state)

    def _report_stored(self, stored: Future[Progress]) -> None:
        if stored in self.storing and stored.exception() is None:  # otherwise, the export may have ended
            self._report(stored.result())

    def _report(self, progress: Progress) -> None:
        if self.on_progress is not None:
            self.on_progress(progress)


# --- finish the file


@define
class _EarlyFile:
    """A file that is made while its rows are still read, so that little is left to do in the end."""

    path: Path
    out: BinaryIO
    writer: FileWriter

    def finish(self) -> None:
        """Complete the file, and wait until it is on the disk."""
        self.writer.close()
        self.out.flush()
        os.fsync(self.out.fileno())
        self.out.close()

    def close(self) -> None:
        """Delete the file if it is not complete."""
        if not self.out.closed:
            with suppress(OSError):
                self.writer.close()
            self.out.close()
            self.path.unlink(missing_ok=True)


def _write_file(journal: Journal, state: ExportState, request: _Request, early: _EarlyFile | None) -> Generator[None]:
    """Make the complete file next to the target, unless there is nothing to add to the existing one."""
    if state.base is None or state.runs:
        _check_target(state, request.path)
        source = journal.seal()
        if early is not None:
            early.finish()
            source = journal.out
        elif state.base is not None or request.format.writer is not None:
            source = journal.out
            base = request.path if state.base else None
            keep = journal.keep if state.refreshed else None
            with create_beside(source, request.path) as out:
                yield from request.format.write(base, keep, journal.rows, out)
                out.flush()
                os.fsync(out.fileno())
        _check_target(state, request.path)
        state.source = source.name
    state.is_complete = True
    journal.commit(durably=True)
