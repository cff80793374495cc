"""Tests of interrupted exports: another process continues them, even if the list has changed."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal, cast

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import CopyAISession, Page, Pager, PermissionDeniedError, Run
from aiocopyai._columns import Columns
from aiocopyai._pager import Plan
from aiocopyai._threads import FileThread
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from aiocopyai.export import Progress, _export, _list_reader, _resume, export_runs
from aiocopyai.export._formats import JSONLines
from aiocopyai.export._journal import Batch, Journal
from tests.support.exporting import ids_in, ids_of, interrupt, leftovers, raw_run, requested_pages


pytestmark = pytest.mark.usefixtures("small_steps")


class TestContinue:
    """Tests of `resume` after an interruption while the list was read."""

    async def test_only_unread_pages_are_read(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """The second process reads only pages that the first one did not read, and creates the file."""
        ids = [emulator.workflow_id]
        await interrupt(emulator, 6, lambda: export_runs(session, ids, path))
        beside = leftovers(path)
        exported = await export_runs(session, ids, path, resume=True)

        assert beside == [f"{path.name}.part", f"{path.name}.part.db"]
        assert requested_pages(emulator) == [6, 7, 8, 9, 10, 11]
        assert ids_in(path) == ids_of(emulator)
        assert (exported.runs, exported.by_status, exported.credits) == (1050, {"COMPLETE": 1050}, 1050)
        assert leftovers(path) == []

    async def test_no_run_is_lost_if_the_list_changes_between_processes(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """Runs that moved to other pages between the processes are in the file once."""
        ids, before = [emulator.workflow_id], ids_of(emulator)
        await interrupt(emulator, 6, lambda: export_runs(session, ids, path))
        emulator.remove_runs(before[20:330])
        emulator.replace_runs([*(raw_run(number) for number in range(1095, 1050, -1)), *emulator.runs()])
        await export_runs(session, ids, path, resume=True)
        found = ids_in(path)

        assert len(found) == len(set(found))
        assert set(before) - set(before[20:330]) <= set(found)

    async def test_no_progress_is_lost_in_repeated_interruptions(
        self, session: CopyAISession, emulator: Emulator, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that ends while it reads pages again does not lose the progress of earlier processes."""
        monkeypatch.setattr(_resume, "MARGIN", 5)
        ids = [emulator.workflow_id]
        await interrupt(emulator, 9, lambda: export_runs(session, ids, lines))
        for _ in range(3):
            await interrupt(emulator, 5, lambda: export_runs(session, ids, lines, resume=True))
        await export_runs(session, ids, lines, resume=True)

        assert requested_pages(emulator)[0] == 4
        assert ids_in(lines) == ids_of(emulator)

    @pytest.mark.parametrize("quirks", [Quirks(total="absent"), Quirks(sparse=True, total=lambda _: "many")])
    async def test_without_a_total_the_list_is_read_from_the_start(
        self, session: CopyAISession, emulator: Emulator, lines: Path, quirks: Quirks
    ) -> None:
        """Without a total, the whole list is read again, and each run is written once."""
        emulator.quirks = quirks
        ids = [emulator.workflow_id]
        await interrupt(emulator, 6, lambda: export_runs(session, ids, lines))
        await export_runs(session, ids, lines, resume=True)

        assert requested_pages(emulator)[0] == 1
        assert ids_in(lines) == ids_of(emulator)

    async def test_list_in_another_order_is_read_from_the_start(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """A list that is not newest first is read from the start, because runs may have been added on any page."""
        emulator.replace_runs([raw_run(number) for number in range(1050)])
        ids = [emulator.workflow_id]
        await interrupt(emulator, 6, lambda: export_runs(session, ids, lines))
        await export_runs(session, ids, lines, resume=True)

        assert requested_pages(emulator)[0] == 1
        assert ids_in(lines) == ids_of(emulator)

    async def test_page_length_is_the_servers(self, session: CopyAISession, emulator: Emulator, lines: Path) -> None:
        """The page to continue from is calculated with the server's page length if it is not the requested one."""
        emulator.quirks = Quirks(max_size=30)
        ids, before = [emulator.workflow_id], ids_of(emulator)
        await interrupt(emulator, 20, lambda: export_runs(session, ids, lines))
        emulator.remove_runs(before[:45])
        await export_runs(session, ids, lines, resume=True)

        assert requested_pages(emulator)[0] == 18
        assert set(ids_in(lines)) == set(before)

    async def test_no_run_is_lost_if_the_list_shrinks_after_its_total_was_read(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """If runs are removed between the request of the total and that of the first page, no run is missing."""
        ids, before = [emulator.workflow_id], ids_of(emulator)
        await interrupt(emulator, 6, lambda: export_runs(session, ids, lines))

        def shrink(server: Emulator, request: Request) -> None:
            if request.page == 6:
                server.remove_runs(before[:250])

        emulator.on_request = shrink
        await export_runs(session, ids, lines, resume=True)
        found = ids_in(lines)

        assert sorted(found) == sorted(before)

    @pytest.mark.parametrize("past_end", ["empty", "last", 400, 404, 422])
    async def test_list_without_the_page_to_continue_from_is_read_from_the_start(
        self,
        session: CopyAISession,
        emulator: Emulator,
        lines: Path,
        past_end: Literal["empty", "last", 400, 404, 422],
    ) -> None:
        """If the page to continue from no longer exists, the list is read from its start."""
        emulator.quirks = Quirks(past_end=past_end)
        ids, before = [emulator.workflow_id], ids_of(emulator)
        await interrupt(emulator, 6, lambda: export_runs(session, ids, lines))

        def shrink(server: Emulator, request: Request) -> None:
            if request.page == 6:
                server.remove_runs(before[:-5])

        emulator.on_request = shrink
        await export_runs(session, ids, lines, resume=True)
        found = ids_in(lines)

        assert len(found) == len(set(found))
        assert set(before[:500] + before[-5:]) <= set(found)

    async def test_complete_workflows_are_not_read_again(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """Of several workflows, those that were read to the end are not requested again."""
        emulator.replace_runs([raw_run(number) for number in range(3050, 2000, -1)], workflow_id="WCFG-2")
        ids = [emulator.workflow_id, "WCFG-2"]
        emulator.inject(Fault(status=403), page=4, path="WCFG-2")
        with pytest.raises(PermissionDeniedError):
            await export_runs(session, ids, lines)
        emulator.requests.clear()
        reports: list[Progress] = []
        await export_runs(session, ids, lines, resume=True, on_progress=reports.append)

        assert {request.path.split("/")[3] for request in emulator.requests} == {"WCFG-2"}
        assert (reports[0].runs, reports[0].total) == (1350, 2100)
        assert ids_in(lines) == ids_of(emulator) + ids_of(emulator, "WCFG-2")

    async def test_cancelled_export_keeps_what_it_read(
        self, session: CopyAISession, emulator: Emulator, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A cancelled export commits the runs that it read, and does not wait for the server."""
        monkeypatch.setattr(_list_reader, "_COMMIT_RUNS", 10_000)
        monkeypatch.setattr(_list_reader, "_COMMIT_SECONDS", 1000)
        emulator.inject(Fault(delay=60), page=6)
        ids = [emulator.workflow_id]
        export = asyncio.ensure_future(export_runs(session, ids, lines))
        async with asyncio.timeout(30):
            while max(requested_pages(emulator), default=0) < 6:
                await asyncio.sleep(0.005)
        export.cancel()
        with pytest.raises(asyncio.CancelledError):
            await export
        emulator.requests.clear()
        await export_runs(session, ids, lines, resume=True)

        assert requested_pages(emulator)[0] == 6
        assert ids_in(lines) == ids_of(emulator)

    async def test_batch_that_fails_is_read_again(
        self, session: CopyAISession, emulator: Emulator, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If runs cannot be encoded, their pages are read again."""
        monkeypatch.setattr(_list_reader, "_COMMIT_RUNS", 10_000)
        encode = JSONLines.encode
        failures = itertools.count(1)

        def fail_once(chosen: JSONLines, columns: Columns) -> bytes:
            if next(failures) == 5:
                raise MemoryError
            return encode(chosen, columns)

        monkeypatch.setattr(JSONLines, "encode", fail_once)
        with pytest.raises(MemoryError):
            await export_runs(session, [emulator.workflow_id], lines)
        await export_runs(session, [emulator.workflow_id], lines, resume=True)

        assert ids_in(lines) == ids_of(emulator)

    async def test_additions_after_one_that_fails_are_read_again(
        self, session: CopyAISession, emulator: Emulator, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If batches cannot be joined in the thread, later additions that wait for the thread are not committed."""
        monkeypatch.setattr(_list_reader, "_COMMIT_RUNS", 1)
        monkeypatch.setattr(_resume, "MARGIN", 0)
        join, additions = Batch.join, itertools.count(1)

        def fail_once(batches: Sequence[Batch]) -> Batch:
            if next(additions) == 3:
                time.sleep(0.05)  # so that the next addition waits for the thread
                raise MemoryError
            return join(batches)

        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(Batch, "join", fail_once)
            await export_runs(session, [emulator.workflow_id], lines)
        await export_runs(session, [emulator.workflow_id], lines, resume=True)

        assert ids_in(lines) == ids_of(emulator)

    async def test_batch_that_is_not_passed_to_the_thread_is_read_again(
        self, session: CopyAISession, emulator: Emulator, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If a batch cannot be passed to the thread, its runs are read again."""
        ids, submit, batches = [emulator.workflow_id], FileThread.submit, itertools.count()

        def submit_all_but_one(thread: FileThread, *arguments: object, **options: object) -> object:
            if next(batches) == 4:
                raise MemoryError
            return submit(thread, *arguments, **options)  # type: ignore[arg-type]  # passed unchanged

        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(FileThread, "submit", submit_all_but_one)
            await export_runs(session, ids, lines)
        await export_runs(session, ids, lines, resume=True)

        assert ids_in(lines) == ids_of(emulator)

    async def test_short_processes_make_progress(
        self, session: CopyAISession, emulator: Emulator, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If processes end before prefetched pages are verified, later ones read page by page and make progress."""
        monkeypatch.setattr(_resume, "_PREFETCH", 4)
        monkeypatch.setattr(_resume, "MARGIN", 5)
        ids = [emulator.workflow_id]
        await interrupt(emulator, 9, lambda: export_runs(session, ids, lines))
        for _ in range(8):
            await interrupt(emulator, 9, lambda: export_runs(session, ids, lines, resume=True))
        await export_runs(session, ids, lines, resume=True)

        assert requested_pages(emulator)[0] == 4
        assert ids_in(lines) == ids_of(emulator)


class TestFinish:
    """Tests of `resume` after an interruption when all pages were read."""

    @pytest.mark.parametrize("step", ["_write_file", "move_into_place"])
    @pytest.mark.parametrize("since", [None, "last"])
    async def test_nothing_is_read_again(
        self,
        session: CopyAISession,
        emulator: Emulator,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        step: str,
        since: Literal["last"] | None,
    ) -> None:
        """The second process writes the file and moves it into place, without a request for a page."""
        if since:
            await self.export_half(session, emulator, path)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
            patch.setattr(_export, step, cut_the_power)
            await export_runs(session, [emulator.workflow_id], path, since=since)
        emulator.requests.clear()
        exported = await export_runs(session, [emulator.workflow_id], path, since=since, resume=True)

        assert requested_pages(emulator) == []
        assert sorted(ids_in(path)) == sorted(ids_of(emulator))
        assert exported.runs == (550 if since else 1050)
        assert leftovers(path) == []

    @pytest.mark.parametrize("since", [None, "last"])
    async def test_file_in_place_is_recognized(
        self,
        session: CopyAISession,
        emulator: Emulator,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        since: Literal["last"] | None,
    ) -> None:
        """If a process ended before it deleted the journal of a complete file, the next process deletes it."""
        if since:
            await self.export_half(session, emulator, path)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
            patch.setattr(Journal, "remove", cut_the_power)
            await export_runs(session, [emulator.workflow_id], path, since=since)
        exported = await export_runs(session, [emulator.workflow_id], path, since=since, resume=True)

        assert not exported.is_written
        assert sorted(ids_in(path)) == sorted(ids_of(emulator))
        assert leftovers(path) == []

    async def test_incomplete_file_is_written_again(
        self, session: CopyAISession, emulator: Emulator, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that was not completely written is written again."""
        await self.export_half(session, emulator, path)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
            patch.setattr(os, "fsync", cut_the_power_at(2))
            await export_runs(session, [emulator.workflow_id], path, since="last")
        await export_runs(session, [emulator.workflow_id], path, since="last", resume=True)

        assert sorted(ids_in(path)) == sorted(ids_of(emulator))

    async def export_half(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        emulator.replace_runs([raw_run(number) for number in range(500, 0, -1)])
        await export_runs(session, [emulator.workflow_id], path)
        emulator.replace_runs([raw_run(number) for number in range(1050, 0, -1)])


def cut_the_power(*_: object) -> None:
    raise OSError("power cut")


def cut_the_power_at(call: int) -> Callable[..., None]:
    calls = itertools.count(1)

    def fsync(*_: object) -> None:
        if next(calls) == call:
            cut_the_power()

    return fsync


class Killed(BaseException):
    """The process was killed."""


@define
class ChangingList:
    """A session with one list, newest first. It changes before each request, and some requests kill the process."""

    numbers: list[int]
    changes: Iterator[tuple[int, int]]
    chance: Random
    kills: set[int]
    stayed: set[int] = field(init=False)
    requests: int = 0
    is_killed: bool = False

    def __attrs_post_init__(self) -> None:
        self.stayed = set(self.numbers)

    def change(self) -> None:
        added, removed = next(self.changes, (0, 0))
        newest = max(self.numbers, default=1000)
        self.numbers[:0] = range(newest + added, newest, -1)
        for _ in range(min(removed, len(self.numbers))):
            self.stayed.discard(self.numbers.pop(self.chance.randrange(len(self.numbers))))

    async def page(self, number: int, size: int) -> Page[Run]:
        self.change()
        self.requests += 1
        if self.requests in self.kills:
            self.is_killed = True
            raise Killed
        numbers = self.numbers[(number - 1) * size : number * size]
        runs = [Run(f"WRUN-{run}", created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(run)) for run in numbers]
        return Page(number, size, len(self.numbers), runs)

    def _with_unparsed_runs(self) -> ChangingList:
        return self

    async def runs_page(self, _: str, *, size: int) -> Page[Run]:
        return await self.page(1, size)

    def runs(self, name: str, *, start_page: int, since: None, prefetch: int) -> Pager[Run]:
        return Pager(self.page, Plan(name, 5, start_page=start_page, since=since, prefetch=prefetch))


@st.composite
def changing_lists(draw: st.DrawFn) -> ChangingList:
    """Draw a list of up to 30 pages, its changes, and the requests at which the process is killed."""
    numbers = list(range(draw(st.integers(20, 150)), 0, -1))
    changes = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=40, max_size=80))
    kills = draw(st.sets(st.integers(4, 50), min_size=1, max_size=6))
    return ChangingList(numbers, iter(changes), draw(st.randoms(use_true_random=False)), kills)


async def export_until_complete(changing: ChangingList, path: Path) -> None:
    """Start one process after the other until one completes the export, while the list keeps changing."""
    session, resume = cast("CopyAISession", changing), False
    while True:
        try:
            await export_runs(session, ["WCFG-1"], path, resume=resume)
        except Killed:
            changing.is_killed, resume = False, True
            for _ in range(6):
                changing.change()
        else:
            return


@pytest.mark.slow
@given(changing_lists(), st.integers(1, 25), st.integers(0, 4))
def test_no_run_is_lost_or_repeated_after_kills_and_changes(
    changing: ChangingList, commit_runs: int, prefetch: int
) -> None:
    """Each run that stays in the list is in the file once, for any changes of the list and any killed processes."""
    commit = Journal.commit

    def commit_unless_killed(journal: Journal, *, durably: bool = False) -> None:
        if changing.is_killed:
            raise Killed
        commit(journal, durably=durably)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_list_reader, "_COMMIT_RUNS", commit_runs)
        patch.setattr(_list_reader, "_BATCH_BYTES", commit_runs * 50)
        patch.setattr(_resume, "_PREFETCH", prefetch)
        patch.setattr(Journal, "commit", commit_unless_killed)
        path = Path(folder, "runs.jsonl")
        asyncio.run(export_until_complete(changing, path))
        found = ids_in(path)

    assert len(found) == len(set(found))
    assert {f"WRUN-{number}" for number in changing.stayed} <= set(found)
