"""Tests of new exports: their content, their arguments and their progress."""

# ruff: noqa: ASYNC240 (the files are small, and nothing else runs)
from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from errno import ENOSPC
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow.parquet as pq
import pytest

from aiocopyai import JSON, CopyAISession
from aiocopyai.emulator import Emulator, Fault, Request
from aiocopyai.export import ExportError, Progress, _export, export_runs, read_export
from aiocopyai.export._journal import Journal
from aiocopyai.export._parquet import Parquet, ParquetWriter
from tests.support.exporting import ids_in, ids_of, leftovers, mode_of, raw_run


async def test_each_run_is_in_the_file_once(session: CopyAISession, emulator: Emulator, path: Path) -> None:
    """The file has every run in the order of the list, and no other file is left."""
    emulator.replace_runs([])
    emulator.add_runs(640)
    exported = await export_runs(session, [emulator.workflow_id], path)
    listed = [run async for run in session.runs(emulator.workflow_id)]

    assert list(read_export(path)) == listed
    assert ids_in(path) == ids_of(emulator)
    assert (exported.path, exported.runs, exported.is_written) == (path, 640, True)
    assert exported.credits == sum(run.credits or 0 for run in listed)
    assert sum(exported.by_status.values()) == 640
    assert leftovers(path) == []


async def test_empty_list_is_a_valid_file(session: CopyAISession, emulator: Emulator, path: Path) -> None:
    """The export of a workflow without runs is a file that can be read."""
    emulator.replace_runs([])
    await export_runs(session, [emulator.workflow_id], path)

    assert list(read_export(path)) == []
    assert ids_in(path) == []


async def test_unexpected_values_are_kept(session: CopyAISession, emulator: Emulator, path: Path) -> None:
    """A value that does not fit its field is in `extra`, and credits may have any size."""
    unexpected: list[JSON] = [
        raw_run(3, createdAt="+10000-01-01T00:00:00Z", credits=10**30, toolKey={"é\u2028": [None]}),
        raw_run(2, status=7, workflowId=12, error={"half": "\ud800"}),
        {"workflowRunId": "WRUN-1", "createdAt": "0001-01-01T00:00:00Z", "output": {"": '\x00\r\n,;"'}},
    ]
    emulator.replace_runs(unexpected)
    await export_runs(session, [emulator.workflow_id], path)
    first, second, third = read_export(path)

    assert (first.credits, first.created_at) == (10**30, None)
    assert first.extra == {"createdAt": "+10000-01-01T00:00:00Z", "toolKey": {"é\u2028": [None]}}
    assert (second.status, second.error) == (None, {"half": "\ud800"})
    assert second.extra == {"status": 7, "workflowId": 12}
    assert (third.id, third.output) == ("WRUN-1", {"": '\x00\r\n,;"'})
    assert third.created_at == datetime.min.replace(tzinfo=UTC)


async def test_run_names_its_workflow(session: CopyAISession, emulator: Emulator, lines: Path) -> None:
    """The workflow id of a run is the id that the server sends, or else the id that was passed."""
    emulator.replace_runs([raw_run(2), raw_run(1, workflowId="PKGW-1")])
    emulator.replace_runs([raw_run(3)], workflow_id="WCFG-other")
    await export_runs(session, [emulator.workflow_id, "WCFG-other", emulator.workflow_id], lines)

    assert [run.workflow_id for run in read_export(lines)] == [emulator.workflow_id, "PKGW-1", "WCFG-other"]


async def test_since_excludes_older_runs(session: CopyAISession, emulator: Emulator, lines: Path) -> None:
    """If `since` is a datetime, the file has only runs created at or after it."""
    start = datetime.fromtimestamp(1_750_000_000 + 60 * 1000, UTC)
    await export_runs(session, [emulator.workflow_id], lines, since=start)

    assert ids_in(lines) == [f"WRUN-{number}" for number in range(1050, 999, -1)]


async def test_parquet_is_written_in_groups(
    session: CopyAISession, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Parquet file has several row groups, and each is written when it is full."""
    monkeypatch.setattr("aiocopyai.export._parquet._GROUP_BYTES", 1)
    monkeypatch.setattr(Parquet, "batch_bytes", 0)
    monkeypatch.setattr("aiocopyai.export._list_reader._BATCH_BYTES", 1)
    path = tmp_path / "runs.parquet"
    await export_runs(session, [emulator.workflow_id], path)

    assert pq.ParquetFile(path).num_row_groups == 11
    assert ids_in(path) == ids_of(emulator)


async def test_slow_disk_does_not_block_the_loop(
    session: CopyAISession, emulator: Emulator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tasks run while the export waits for the disk."""
    loop, fsync, other_tasks_ran = asyncio.get_running_loop(), os.fsync, list[bool]()

    def slow_fsync(descriptor: int) -> None:
        ran = threading.Event()
        loop.call_soon_threadsafe(ran.set)
        other_tasks_ran.append(ran.wait(10))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    await export_runs(session, [emulator.workflow_id], path)

    assert set(other_tasks_ran) == {True}
    assert ids_in(path) == ids_of(emulator)


async def test_file_is_closed_if_the_disk_is_full(
    session: CopyAISession, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk is full when a Parquet file is created, no file stays open, and the export can be resumed."""
    path, opened = tmp_path / "runs.parquet", list[BinaryIO]()

    def fail(out: BinaryIO) -> ParquetWriter:
        opened.append(out)
        raise OSError(ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Parquet, "writer", staticmethod(fail))
        await export_runs(session, [emulator.workflow_id], path)
    await export_runs(session, [emulator.workflow_id], path, resume=True)

    assert [out.closed for out in opened] == [True]
    assert ids_in(path) == ids_of(emulator)
    assert leftovers(path) == []


@pytest.mark.parametrize(
    ("owner", "name"), [(_export, "_open_journal"), (Journal, "start"), (Journal, "add"), (Journal, "remove")]
)
async def test_cancelled_export_waits_for_its_thread(
    session: CopyAISession, emulator: Emulator, path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    """An export that is cancelled, even twice, ends after its thread has closed the files, and unlocks them."""
    started, proceed, call = threading.Event(), threading.Event(), getattr(owner, name)

    def slow_call(*arguments: object) -> object:
        started.set()
        assert proceed.wait(10)
        return call(*arguments)

    monkeypatch.setattr(owner, name, slow_call)
    export = asyncio.ensure_future(export_runs(session, [emulator.workflow_id], path))
    assert await asyncio.to_thread(started.wait, 10)
    for _ in range(2):
        export.cancel()
        await asyncio.sleep(0.01)
        assert not export.done()
    proceed.set()
    with pytest.raises(asyncio.CancelledError):
        await export
    await export_runs(session, [emulator.workflow_id], path, resume=True)

    assert ids_in(path) == ids_of(emulator)
    assert leftovers(path) == []


async def test_link_is_followed(session: CopyAISession, emulator: Emulator, tmp_path: Path) -> None:
    """If the path is a symbolic link, the file that it points to is replaced, and the link is kept."""
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    real.touch()
    link.symlink_to(real)
    await export_runs(session, [emulator.workflow_id], link, force=True)

    assert link.is_symlink()
    assert len(ids_in(real)) == 1050


@pytest.mark.parametrize("since", [None, "last"])
async def test_files_for_a_private_file_are_private(
    session: CopyAISession, emulator: Emulator, path: Path, since: Literal["last"] | None
) -> None:
    """If a file is private, the new content is written only to files with the same permissions."""
    emulator.replace_runs([raw_run(1)])
    await export_runs(session, [emulator.workflow_id], path)
    path.chmod(0o600)
    emulator.replace_runs([raw_run(number) for number in range(1050, 0, -1)])
    modes: set[int] = set()

    def record_modes(_: Emulator, request: Request) -> None:
        if request.size != 1:
            modes.update(mode_of(file) for file in path.parent.iterdir())

    emulator.on_request = record_modes
    await export_runs(session, [emulator.workflow_id], path, since=since, force=since is None)

    assert modes == {0o600}
    assert mode_of(path) == 0o600
    assert len(ids_in(path)) == 1050


async def test_progress_is_reported(session: CopyAISession, emulator: Emulator, lines: Path) -> None:
    """The callback gets the total of all lists from the start, and every run by the end."""
    emulator.replace_runs([raw_run(number) for number in range(2000, 1990, -1)], workflow_id="WCFG-other")
    reports: list[Progress] = []
    await export_runs(session, [emulator.workflow_id, "WCFG-other"], lines, on_progress=reports.append)

    assert (reports[0].runs, reports[0].total) == (0, 1060)
    assert (reports[-1].runs, reports[-1].total, reports[-1].credits) == (1060, 1060, 1060)
    assert reports[-1].by_status == {"COMPLETE": 1060}


@pytest.mark.parametrize(
    "is_reached",
    [lambda _runs: True, lambda runs: 0 < runs < 1050, lambda runs: runs == 1050],
    ids=["first", "middle", "last"],
)
@pytest.mark.parametrize("error", [LookupError("no such window"), asyncio.CancelledError("no such window")])
@pytest.mark.parametrize("name", ["runs.jsonl", "runs.parquet"])
async def test_error_of_the_callback_ends_the_export(
    session: CopyAISession,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: BaseException,
    is_reached: Callable[[int], bool],
) -> None:
    """At any call, an exception of the callback is raised to the caller, and the export can be resumed."""
    monkeypatch.setattr("aiocopyai.export._list_reader._COMMIT_SECONDS", 0)
    path, reports = tmp_path / name, list[Progress]()

    def fail(progress: Progress) -> None:
        reports.append(progress)
        if is_reached(progress.runs):
            raise error

    with pytest.raises(type(error), match="no such window"):
        await export_runs(session, [emulator.workflow_id], path, on_progress=fail)
    assert not path.exists()
    assert [is_reached(report.runs) for report in reports] == [*[False] * (len(reports) - 1), True]
    await export_runs(session, [emulator.workflow_id], path, resume=True)

    assert ids_in(path) == ids_of(emulator)
    assert leftovers(path) == []


async def test_error_of_the_callback_does_not_wait_for_the_next_page(
    session: CopyAISession, emulator: Emulator, lines: Path
) -> None:
    """Progress is reported while a page is awaited; an exception then ends the export at once."""
    emulator.inject(Fault(delay=60), page=3, times=None)
    reports: list[int] = []

    def fail(progress: Progress) -> None:
        reports.append(progress.runs)
        if progress.runs:
            raise LookupError("no such window")

    with pytest.raises(LookupError, match="no such window"):
        async with asyncio.timeout(30):
            await export_runs(session, [emulator.workflow_id], lines, on_progress=fail)

    assert reports in ([0, 100], [0, 200])
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("callback", [3, asyncio.sleep])
async def test_invalid_callback(session: CopyAISession, emulator: Emulator, path: Path, callback: Any) -> None:  # noqa: ANN401 (invalid on purpose)
    """A callback that cannot be called, or that is asynchronous, raises ValueError, and nothing is sent."""
    with pytest.raises(ValueError, match="on_progress must be a synchronous function"):
        await export_runs(session, [emulator.workflow_id], path, on_progress=callback)
    assert emulator.requests == []


@pytest.mark.parametrize("name", ["jsonl", "csv", "gz", "runs.xml", "runs.json"])
async def test_unknown_extension_is_rejected(session: CopyAISession, tmp_path: Path, name: str) -> None:
    """An unknown extension raises an error that lists the known extensions."""
    with pytest.raises(ExportError, match=r"must end in one of \.jsonl, \.jsonl\.gz, \.csv, \.parquet"):
        await export_runs(session, ["WCFG-1"], tmp_path / name)


async def test_parquet_without_pyarrow(session: CopyAISession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the extra is not installed, the error has the command to install it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "aiocopyai.export._parquet", raising=False)
    with pytest.raises(ExportError, match=r'pip install "aiocopyai\[export\]"'):
        await export_runs(session, ["WCFG-1"], tmp_path / "runs.parquet")


@pytest.mark.parametrize(
    ("workflow_ids", "since", "message"),
    [
        ([], None, "must contain at least one id"),
        (["WCFG-1"], datetime(2026, 1, 1), "with a time zone"),  # noqa: DTZ001 (the rejected value)
        (["WCFG-1"], "first", 'must be a datetime, "last" or None'),
        ([".."], None, "workflow_id"),
    ],
)
async def test_invalid_arguments_leave_no_files(
    session: CopyAISession,
    lines: Path,
    workflow_ids: list[str],
    since: datetime | Literal["last"] | None,
    message: str,
) -> None:
    """An invalid argument raises ValueError, and no file is created."""
    with pytest.raises(ValueError, match=message):
        await export_runs(session, workflow_ids, lines, since=since)

    assert leftovers(lines) == []


async def test_path_must_be_a_file_in_an_existing_folder(session: CopyAISession, tmp_path: Path) -> None:
    """A path in a missing folder, or of a folder, raises an error."""
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ExportError, match="does not exist"):
        await export_runs(session, ["WCFG-1"], tmp_path / "missing" / "runs.csv")
    with pytest.raises(ExportError, match="is a folder"):
        await export_runs(session, ["WCFG-1"], tmp_path / "folder.csv")
