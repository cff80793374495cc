"""Reads the lists of an export, and stores their runs in the journal while the next pages are requested."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, suppress
from copy import copy
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from attrs import define, field, frozen

from aiocopyai import CopyAIError, CopyAISession
from aiocopyai._columns import Columns, join_columns, run_columns
from aiocopyai._files import file_errors
from aiocopyai._pagination import may_be_past_end
from aiocopyai._threads import FileThread
from aiocopyai.export._formats import FileWriter, Format
from aiocopyai.export._journal import Batch, Journal
from aiocopyai.export._resume import LAST, ExportState, ListState, leaves_no_gap


_COMMIT_RUNS: Final = 10_000
_COMMIT_SECONDS: Final = 0.25
"""Runs are committed after this number or time, so that only a few are read again after a crash."""
_BATCH_BYTES: Final = 2**21
"""Runs are stored in a thread after this number of bytes, while the next ones are read."""
_MAX_STORING: Final = 2
"""The maximum number of additions that are being stored, or wait for the thread."""


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
        """Return the progress of an export in this state."""
        return cls(state.runs, state.expected_runs(), dict(state.by_status), state.credits)


@define
class OutputFile:
    """The complete file, if it is written while runs are still being read, so that little is left to do at the end."""

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
            with suppress(OSError):  # closing writes the buffers, and may fail again on a full disk
                self.writer.close()
            with suppress(OSError):
                self.out.close()
            self.path.unlink(missing_ok=True)


@define
class ListReader:
    """Reads the unread pages of all lists, and stores their runs in the journal, in a separate thread."""

    session: CopyAISession
    journal: Journal
    state: ExportState
    """The state that was stored last. `_read_from` has a later state of the list that it reads."""
    format: Format
    on_progress: Callable[[Progress], object] | None
    thread: FileThread
    output: OutputFile | None
    unencoded: list[Columns] = field(factory=list[Columns])
    """The pages that are not in a batch yet."""
    run_bytes: float = math.inf
    """The mean encoded size of the runs of the latest batch. It is infinite at first: the first page is a batch."""
    unstored: list[Batch] = field(factory=list[Batch])
    """The batches that are not in the thread yet."""
    storing: deque[Future[Progress]] = field(factory=deque[Future[Progress]])
    """The additions in the thread. No other code uses the journal and the state until they are stored."""
    uncommitted: int = 0
    """The number of runs that were read since the last commit."""
    committed_at: float = 0.0
    callback_error: BaseException | None = None
    """The exception of `on_progress` for which `reading` was cancelled."""
    reading: asyncio.Timeout = field(factory=lambda: asyncio.timeout(None))

    async def read(self) -> None:
        """Read all lists to their end. Runs that were read before an error are stored, too."""
        try:
            async with self.reading:
                await self._read_lists()
        except Exception:
            if self.callback_error is None:
                raise
        if self.callback_error is not None:
            raise self.callback_error

    async def _read_lists(self) -> None:
        for workflow_id, list_state in self.state.lists.items():
            if list_state.checkpoint is not None and not list_state.is_done:
                list_state.total = (await self.session.runs_page(workflow_id, size=1)).total
        self._report(Progress.of(self.state))
        for workflow_id, stored in list(self.state.lists.items()):
            if stored.is_done:
                continue
            list_state = copy(stored)
            # Start over if pages were skipped. Read page by page if changes of the list hide where the new runs end.
            for start_page, may_prefetch in ((list_state.start_page(), True), (1, True), (1, False)):
                if await self._read_from(workflow_id, list_state, start_page, may_prefetch=may_prefetch):
                    break
            list_state.is_done = True
            await self._store_rest(workflow_id, list_state)

    async def _read_from(self, workflow_id: str, list_state: ListState, start_page: int, *, may_prefetch: bool) -> bool:
        """Read a list from a page to its end, and return whether certainly no unread run was skipped."""
        checkpoint, prefetch = list_state.checkpoint, list_state.start_attempt()
        if not may_prefetch:
            prefetch = 0
        selected = self.state.selection.since
        since = None if selected in {None, LAST} else datetime.fromisoformat(str(selected))
        pager = self.session.runs(workflow_id, start_page=start_page, since=since, prefetch=prefetch)
        rereads_at_horizon: int | None = None
        async with aclosing(pager.pages()) as pages:
            try:
                async for page in pages:
                    if not leaves_no_gap(checkpoint, start_page, pager.changes.first_total):
                        return False
                    self.unencoded.append(run_columns(page.items))  # first: if this fails, the page is not recorded
                    list_state.add(page, pages.verified.position, pages.verified.total, pages.page_length)
                    if list_state.is_past_horizon(page) and pages.position >= page.number * pages.page_length:
                        pages.stop_at(pages.position)
                        rereads_at_horizon = pager.changes.reread
                    list_state.total = pager.total
                    self.uncommitted += len(page.items)
                    await self._store(workflow_id, list_state)
            except CopyAIError as error:
                if start_page == 1 or pager.total is not None or not may_be_past_end(error):
                    raise
                return False
            finally:
                await self._store_rest(workflow_id, list_state)
        if prefetch != 0 and rereads_at_horizon is not None and pager.changes.reread > rereads_at_horizon:
            return False  # pages were read again after the horizon: newer runs may have moved to unread pages
        return leaves_no_gap(checkpoint, start_page, pager.changes.first_total)

    async def _store(self, workflow_id: str, list_state: ListState) -> None:
        """Encode the pages, and store the batches, if they are large enough or a commit is due.

        Wait if the thread is busy.
        """
        if sum([len(columns["id"]) for columns in self.unencoded]) * self.run_bytes >= self.format.batch_bytes:
            self._encode()
        is_due = self.uncommitted >= _COMMIT_RUNS or time.monotonic() - self.committed_at >= _COMMIT_SECONDS
        if is_due or sum([len(batch.encoded) for batch in self.unstored]) >= _BATCH_BYTES:
            if len(self.storing) >= _MAX_STORING:
                await self.thread.wait(self.storing[0])
                self.storing.popleft()
            storing = self._submit(workflow_id, list_state, commit=is_due)
            self.storing.append(storing)
            if is_due:
                loop = asyncio.get_running_loop()
                storing.add_done_callback(lambda stored: loop.call_soon_threadsafe(self._report_stored, stored))

    def _encode(self) -> None:
        # Not in the thread, which would compete with the event loop for the GIL.
        if self.unencoded:
            batch = Batch.of(join_columns(self.unencoded), self.format)
            self.run_bytes = len(batch.encoded) / len(batch.digests)
            self.unstored.append(batch)
            self.unencoded = []  # last: if encoding fails, `_store_rest` tries it again

    async def _store_rest(self, workflow_id: str, list_state: ListState) -> None:
        """Store and commit all runs that were read."""
        try:
            for storing in list(self.storing):
                await self.thread.wait(storing)
        finally:
            self.storing.clear()
        self._report(await self.thread.wait(self._submit(workflow_id, list_state, commit=True)))

    def _report_stored(self, stored: Future[Progress]) -> None:
        """Report the progress while the next page is awaited. The event loop would only log an exception."""
        if stored not in self.storing or stored.exception() is not None:  # the export may have ended
            return
        try:
            self._report(stored.result())
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 (raised by `read`)
            self.callback_error = error
            self.reading.reschedule(asyncio.get_running_loop().time())

    def _report(self, progress: Progress) -> None:
        """Call `on_progress`, unless it has raised an exception before."""
        on_progress, self.on_progress = self.on_progress, None
        if on_progress is not None:
            on_progress(progress)
            self.on_progress = on_progress

    def _submit(self, workflow_id: str, list_state: ListState, *, commit: bool) -> Future[Progress]:
        self._encode()
        storing = self.thread.submit(self._write, self.unstored, workflow_id, copy(list_state), commit=commit)
        self.unstored = []  # after submit(): if that fails, the last commit still stores them
        if commit:
            self.uncommitted, self.committed_at = 0, time.monotonic()
        return storing

    def _write(self, batches: Sequence[Batch], workflow_id: str, list_state: ListState, *, commit: bool) -> Progress:
        content = self.journal.add(batches, self.format)
        if commit:
            self.state.lists[workflow_id] = list_state
            self.journal.commit()
        if self.output is not None:
            with file_errors(self.output.path):
                self.output.writer.add(content)
        return Progress.of(self.state)
