"""Tests of `since="last"`: new runs are added to a file, and unfinished runs in it are refreshed."""

# ruff: noqa: ASYNC240 (the files are small, and nothing else runs)
from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from aiocopyai import CopyAISession
from aiocopyai.emulator import Emulator, Request
from aiocopyai.export import ExportError, _resume, export_runs, read_export
from tests.support.exporting import (
    change,
    ids_in,
    ids_of,
    interrupt,
    leftovers,
    raw_run,
    requested_pages,
)


pytestmark = pytest.mark.usefixtures("small_steps")

DAY = 24 * 60
"""Runs of `raw_run` are a minute apart."""


class TestNewRuns:
    """Tests of runs that are not in the file."""

    async def test_new_runs_are_added(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """New runs are added after the existing ones, and no run is in the file twice."""
        await export_runs(session, [emulator.workflow_id], path)
        before = ids_in(path)
        emulator.replace_runs([raw_run(number) for number in range(1170, 0, -1)])
        exported = await export_runs(session, [emulator.workflow_id], path, since="last")

        assert ids_in(path) == [*before, *(f"WRUN-{number}" for number in range(1170, 1050, -1))]
        assert (exported.runs, exported.is_written, exported.is_addition) == (120, True, True)
        assert [run.id for run in read_export(path)] == ids_in(path)
        assert leftovers(path) == []

    async def test_reading_ends_at_the_newest_exported_run(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """In a list that is newest first, pages with only older runs than the newest in the file are not read."""
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.replace_runs([raw_run(number) for number in range(1100, 0, -1)])
        emulator.requests.clear()
        await export_runs(session, [emulator.workflow_id], lines, since="last")

        assert requested_pages(emulator) == [1, 2]
        assert ids_in(lines)[1050:] == [f"WRUN-{number}" for number in range(1100, 1050, -1)]

    async def test_no_run_is_lost_in_a_list_of_constant_length(
        self, session: CopyAISession, emulator: Emulator, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If each new run removes the oldest one while pages are read, the pages are read again one by one."""
        monkeypatch.setattr(_resume, "_PREFETCH", 4)
        emulator.replace_runs([raw_run(number) for number in range(1000, 0, -1)])
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.replace_runs([raw_run(number) for number in range(1350, 350, -1)])
        newest = itertools.count(1351)

        def change_list(server: Emulator, request: Request) -> None:
            if request.page == 1 and request.size != 1:
                server.replace_runs([raw_run(next(newest)), *server.runs()[:-1]])

        emulator.on_request = change_list
        await export_runs(session, [emulator.workflow_id], lines, since="last")
        found = ids_in(lines)

        assert len(found) == len(set(found))
        assert {f"WRUN-{number}" for number in range(1, 1351)} <= set(found)
        assert next(newest) > 1353  # the list was read more than once

    async def test_unchanged_list_does_not_write_the_file(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """If nothing is new, the file is not written."""
        await export_runs(session, [emulator.workflow_id], path)
        before = path.stat()
        exported = await export_runs(session, [emulator.workflow_id], path, since="last")

        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert (exported.runs, exported.is_written) == (0, False)
        assert leftovers(path) == []

    async def test_all_runs_are_exported_if_there_is_no_file(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """If there is no file, `since="last"` exports all runs."""
        exported = await export_runs(session, [emulator.workflow_id], path, since="last", resume=True)

        assert ids_in(path) == ids_of(emulator)
        assert not exported.is_addition

    async def test_all_runs_of_a_new_workflow_are_added(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """A workflow without runs in the file is read to its end, even if its runs are old."""
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.replace_runs([raw_run(number) for number in range(-1, -300, -1)], workflow_id="WCFG-2")
        await export_runs(session, [emulator.workflow_id, "WCFG-2"], lines, since="last")

        assert ids_in(lines)[1050:] == ids_of(emulator, "WCFG-2")

    async def test_other_form_of_a_workflow_id_is_recognized(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """If the server sends another id for the workflow, the runs in the file are still recognized as its runs."""
        emulator.replace_runs([raw_run(number, workflowId="PKGW-1") for number in range(1050, 0, -1)])
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.requests.clear()
        await export_runs(session, [emulator.workflow_id], lines, since="last")

        assert max(requested_pages(emulator)) < 11

    async def test_list_in_another_order_is_read_completely(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """In a list that is not newest first, new runs are found at any position and with any date."""
        emulator.replace_runs([raw_run(number) for number in range(1050)])
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.replace_runs([*emulator.runs(), raw_run(5000), raw_run(-5000), {"id": "undated"}])
        await export_runs(session, [emulator.workflow_id], lines, since="last")

        assert ids_in(lines)[1050:] == ["WRUN-5000", "WRUN--5000", "undated"]

    async def test_date_in_the_far_future_does_not_hide_runs(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """New runs are added although a run in the file has a date in the far future."""
        emulator.replace_runs([raw_run(number) for number in range(500, 0, -1)])
        emulator.replace_runs([raw_run(501, createdAt="9999-12-31T00:00:00Z"), *emulator.runs()])
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.replace_runs([*(raw_run(number) for number in range(800, 501, -1)), *emulator.runs()])
        await export_runs(session, [emulator.workflow_id], lines, since="last")

        assert len(set(ids_in(lines))) == 800

    async def test_interrupted_addition_is_resumed(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """The file is unchanged until an interrupted addition was resumed and is complete."""
        emulator.replace_runs([raw_run(number) for number in range(200, 0, -1)])
        ids = [emulator.workflow_id]
        await export_runs(session, ids, path)
        before = path.read_bytes()
        emulator.replace_runs([raw_run(number) for number in range(1050, 0, -1)])
        await interrupt(emulator, 6, lambda: export_runs(session, ids, path, since="last"))
        between = path.read_bytes()
        await export_runs(session, ids, path, since="last", resume=True)

        assert between == before
        assert requested_pages(emulator)[0] == 6
        assert sorted(ids_in(path)) == sorted(ids_of(emulator))

    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
    async def test_runs_are_not_added_to_other_files(
        self, session: CopyAISession, emulator: Emulator, tmp_path: Path, name: str
    ) -> None:
        """A file that is not an export raises an error and is not changed. With `force`, it is replaced."""
        path = tmp_path / name
        path.write_bytes(b"{}")
        with pytest.raises(ExportError, match="use force to replace it, or move it away"):
            await export_runs(session, [emulator.workflow_id], path, since="last")
        unchanged, beside = path.read_bytes(), leftovers(path)
        await export_runs(session, [emulator.workflow_id], path, since="last", force=True)

        assert (unchanged, beside) == (b"{}", [])
        assert ids_in(path) == ids_of(emulator)
        assert leftovers(path) == []

    async def test_force_keeps_runs_that_are_no_longer_listed(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """With `force`, runs are still added to a readable export, which keeps runs that are no longer listed."""
        await export_runs(session, [emulator.workflow_id], path)
        emulator.replace_runs([raw_run(number) for number in range(1060, 500, -1)])
        await export_runs(session, [emulator.workflow_id], path, since="last", force=True)

        assert sorted(ids_in(path)) == sorted(f"WRUN-{number}" for number in range(1, 1061))


class TestRefresh:
    """Tests of runs that were not finished when they were exported."""

    async def test_unfinished_runs_are_refreshed(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """The row of an unfinished run that has changed is replaced. Rows of finished runs are not."""
        old, recent = 1050 - 600, 1050 - 2
        emulator.replace_runs(
            [raw_run(n, status="PROCESSING" if n in {old, recent} else "COMPLETE") for n in range(1050, 0, -1)]
        )
        await export_runs(session, [emulator.workflow_id], path)
        for number in (old, recent, 1049):
            change(emulator, f"WRUN-{number}", status="FAILED", output={"Post": "späť"}, credits=7)
        exported = await export_runs(session, [emulator.workflow_id], path, since="last")
        rows = {run.id: run for run in read_export(path)}

        assert (exported.runs, exported.refreshed, exported.is_addition) == (2, 2, True)
        assert exported.by_status == {"FAILED": 2}
        assert sorted(ids_in(path)) == sorted(ids_of(emulator))
        assert [str(rows[f"WRUN-{number}"].status) for number in (old, recent, 1049)] == [
            "FAILED",
            "FAILED",
            "COMPLETE",
        ]
        assert dict(rows[f"WRUN-{old}"].output) == {"Post": "späť"}
        assert leftovers(path) == []

    async def test_run_that_changes_twice_is_refreshed_twice(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """A run that is refreshed twice is in the file once, with its latest status."""
        emulator.replace_runs([raw_run(n, status="NEW" if n == 7 else "COMPLETE") for n in range(30, 0, -1)])
        await export_runs(session, [emulator.workflow_id], path)
        for status in ("PROCESSING", "COMPLETE"):
            change(emulator, "WRUN-7", status=status)
            await export_runs(session, [emulator.workflow_id], path, since="last")
        exported = await export_runs(session, [emulator.workflow_id], path, since="last")

        assert not exported.is_written
        assert sorted(ids_in(path)) == sorted(ids_of(emulator))
        assert {run.id: str(run.status) for run in read_export(path)}["WRUN-7"] == "COMPLETE"

    async def test_unchanged_unfinished_run_is_not_written(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """An unfinished run that has not changed is not written again, for any content."""
        odd = {"status": "PROCESSING", "credits": 10**30, "output": {"a": [1.5, None, "\ud800"], "é": {}}}
        with_float = raw_run(3, id="WRUN-\udc00", status="PROCESSING", output={"a": 1e16})
        emulator.replace_runs([with_float, raw_run(2, id="WRUN-\ud800", **odd), raw_run(1, status=None)])
        await export_runs(session, [emulator.workflow_id], path)
        exported = await export_runs(session, [emulator.workflow_id], path, since="last")

        assert (exported.runs, exported.is_written) == (0, False)

    async def test_runs_unfinished_for_too_long_are_not_refreshed(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """An unfinished run that is more than 30 days older than the newest run is not read again."""
        emulator.replace_runs([raw_run(DAY * (1050 - n), status="COMPLETE") for n in range(1049)])
        emulator.replace_runs([*emulator.runs(), raw_run(1, status="PROCESSING")])
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.requests.clear()
        await export_runs(session, [emulator.workflow_id], lines, since="last")

        assert max(requested_pages(emulator)) < 11

    async def test_undated_unfinished_run_is_refreshed(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """If an unfinished run has no date, the whole list is read to refresh it."""
        runs = [raw_run(number) for number in range(1050, 0, -1)]
        emulator.replace_runs([*runs[:900], {"id": "undated", "status": "NEW"}, *runs[900:]])
        await export_runs(session, [emulator.workflow_id], lines)
        change(emulator, "undated", status="COMPLETE")
        exported = await export_runs(session, [emulator.workflow_id], lines, since="last")

        assert (exported.runs, exported.refreshed) == (1, 1)

    async def test_interrupted_refresh_is_resumed(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """If a refresh is interrupted and resumed, each refreshed run is in the file once, with its latest status."""
        ids = [emulator.workflow_id]
        emulator.replace_runs([raw_run(n, status="NEW" if n in {3, 1040} else "COMPLETE") for n in range(1050, 0, -1)])
        await export_runs(session, ids, path)
        change(emulator, "WRUN-1040", status="COMPLETE")
        change(emulator, "WRUN-3", status="COMPLETE")
        await interrupt(emulator, 6, lambda: export_runs(session, ids, path, since="last"))
        exported = await export_runs(session, ids, path, since="last", resume=True)

        assert (exported.runs, exported.refreshed) == (2, 2)
        assert sorted(ids_in(path)) == sorted(ids_of(emulator))
        assert {str(run.status) for run in read_export(path)} == {"COMPLETE"}
