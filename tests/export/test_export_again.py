"""Exports where there is something already: files that are added to, and what must not be lost by mistake."""

# ruff: noqa: ASYNC230, ASYNC240 (a test's own files are small, and nobody waits)
from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

import pytest

from aiocopyai import CopyAISession
from aiocopyai.emulator import Emulator, Request
from aiocopyai.export import ExportError, _reading, _resume, export_runs, read_export
from aiocopyai.export._journal import Part
from tests.support.exporting import break_off, ids_in, ids_of, leftovers, pages_asked, raw_run


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every page at once, and go back by no more than the rule asks for."""
    monkeypatch.setattr(_reading, "_AT_STAKE_RUNS", 1)
    monkeypatch.setattr(_resume, "MARGIN", 0)


class TestLast:
    """`since="last"`: what is new, and no more."""

    async def test_it_adds_what_is_new(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """New runs follow the old ones; the old are not read again beyond the look-back, and none comes twice."""
        await export_runs(session, [emulator.workflow_id], path)
        before = ids_in(path)
        emulator.replace_runs([raw_run(number) for number in range(1170, 0, -1)])
        exported = await export_runs(session, [emulator.workflow_id], path, since="last")

        assert ids_in(path) == [*before, *(f"WRUN-{number}" for number in range(1170, 1050, -1))]
        assert (exported.runs, exported.is_written, exported.is_addition) == (120, True, True)
        assert [run.id for run in read_export(path)] == ids_in(path)
        assert leftovers(path) == []

    async def test_it_reads_no_more_than_it_must(self, session: CopyAISession, emulator: Emulator, lines: Path) -> None:
        """Of a list that is newest first, no page is given a thought that must be older than the file's newest run."""
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.replace_runs([raw_run(number) for number in range(1100, 0, -1)])
        emulator.requests.clear()
        await export_runs(session, [emulator.workflow_id], lines, since="last")

        assert set(pages_asked(emulator)) <= set(range(1, 2 + 4 + 1))
        assert ids_in(lines)[1050:] == [f"WRUN-{number}" for number in range(1100, 1050, -1)]

    async def test_nothing_new_leaves_the_file_alone(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """The file is not even touched."""
        await export_runs(session, [emulator.workflow_id], path)
        before = path.stat()
        exported = await export_runs(session, [emulator.workflow_id], path, since="last")

        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert (exported.runs, exported.is_written) == (0, False)
        assert leftovers(path) == []

    async def test_without_a_file_it_exports_everything(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """The first time is like any other."""
        exported = await export_runs(session, [emulator.workflow_id], path, since="last", resume=True)

        assert ids_in(path) == ids_of(emulator)
        assert not exported.is_addition

    async def test_a_new_workflow_is_added_whole(self, session: CopyAISession, emulator: Emulator, lines: Path) -> None:
        """One that the file knows nothing of is read from end to end, however old its runs are."""
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.replace_runs([raw_run(number) for number in range(-1, -300, -1)], workflow_id="WCFG-2")
        await export_runs(session, [emulator.workflow_id, "WCFG-2"], lines, since="last")

        assert ids_in(lines)[1050:] == ids_of(emulator, "WCFG-2")

    async def test_the_servers_own_form_of_an_id_is_known_again(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """Where the server calls the workflow otherwise, the file's runs are still found to be its own."""
        emulator.replace_runs([raw_run(number, workflowId="PKGW-1") for number in range(1050, 0, -1)])
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.requests.clear()
        await export_runs(session, [emulator.workflow_id], lines, since="last")

        assert max(pages_asked(emulator)) < 11

    async def test_a_list_in_another_order_is_read_whole(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """Where new runs may stand anywhere, they are found anywhere, whatever their dates say."""
        emulator.replace_runs([raw_run(number) for number in range(1050)])
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.replace_runs([*emulator.runs(), raw_run(5000), raw_run(-5000), {"id": "undated"}])
        await export_runs(session, [emulator.workflow_id], lines, since="last")

        assert ids_in(lines)[1050:] == ["WRUN-5000", "WRUN--5000", "undated"]

    async def test_a_date_in_the_future_hides_nothing(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """One absurd date doesn't make every new run look old."""
        emulator.replace_runs([raw_run(number) for number in range(500, 0, -1)])
        emulator.replace_runs([raw_run(501, createdAt="9999-12-31T00:00:00Z"), *emulator.runs()])
        await export_runs(session, [emulator.workflow_id], lines)
        emulator.replace_runs([*(raw_run(number) for number in range(800, 501, -1)), *emulator.runs()])
        await export_runs(session, [emulator.workflow_id], lines, since="last")

        assert len(set(ids_in(lines))) == 800

    async def test_halves_of_surrogate_pairs_are_known_again(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """An id that a format can only spell otherwise is not taken for a new one."""
        emulator.replace_runs([raw_run(1, id="WRUN-\ud800")])
        await export_runs(session, [emulator.workflow_id], path)
        exported = await export_runs(session, [emulator.workflow_id], path, since="last")

        assert exported.runs == 0

    async def test_it_can_be_broken_off_too(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """The file stays as it was until all that is new is there."""
        emulator.replace_runs([raw_run(number) for number in range(200, 0, -1)])
        ids = [emulator.workflow_id]
        await export_runs(session, ids, path)
        before = path.read_bytes()
        emulator.replace_runs([raw_run(number) for number in range(1050, 0, -1)])
        await break_off(emulator, 6, lambda: export_runs(session, ids, path, since="last"))
        between = path.read_bytes()
        await export_runs(session, ids, path, since="last", resume=True)

        assert between == before
        assert pages_asked(emulator)[0] == 6
        assert sorted(ids_in(path)) == sorted(ids_of(emulator))

    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
    async def test_only_an_export_can_be_added_to(
        self, session: CopyAISession, emulator: Emulator, tmp_path: Path, name: str
    ) -> None:
        """Another file is refused, and stays as it is."""
        path = tmp_path / name
        path.write_bytes(b"{}")
        with pytest.raises(ExportError):
            await export_runs(session, [emulator.workflow_id], path, since="last")

        assert path.read_bytes() == b"{}"
        assert leftovers(path) == []


class TestRefusals:
    """What is there already is never lost by mistake."""

    async def test_a_file_is_not_replaced_unasked(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """It takes `force`; and `resume` finds it whole."""
        path.write_bytes(b"precious")
        with pytest.raises(ExportError, match="is there already"):
            await export_runs(session, [emulator.workflow_id], path)
        exported = await export_runs(session, [emulator.workflow_id], path, resume=True)
        kept = path.read_bytes()
        await export_runs(session, [emulator.workflow_id], path, force=True)

        assert (kept, exported.is_written) == (b"precious", False)
        assert len(ids_in(path)) == 1050

    async def test_what_was_begun_is_not_thrown_away_unasked(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """Hours of reading are worth a question; `force` begins anew."""
        ids = [emulator.workflow_id]
        await break_off(emulator, 6, lambda: export_runs(session, ids, lines))
        with pytest.raises(ExportError, match="was begun before"):
            await export_runs(session, ids, lines)
        emulator.requests.clear()
        await export_runs(session, ids, lines, force=True)

        assert pages_asked(emulator) == list(range(1, 12))
        assert ids_in(lines) == ids_of(emulator)

    @pytest.mark.parametrize("since", ["last", datetime(2025, 1, 1, tzinfo=UTC)])
    async def test_it_goes_on_with_the_same_only(
        self, session: CopyAISession, emulator: Emulator, lines: Path, since: datetime | Literal["last"]
    ) -> None:
        """Other workflows, or another moment, would make a file that is neither the one nor the other."""
        ids = [emulator.workflow_id]
        await break_off(emulator, 6, lambda: export_runs(session, ids, lines, since=since))
        for other, moment in ((["WCFG-2"], since), (ids, None)):
            with pytest.raises(ExportError, match=r"was begun for WCFG-.* since"):
                await export_runs(session, other, lines, since=cast("Literal['last']", moment), resume=True)
        await export_runs(session, ids, lines, since=since, resume=True)

        assert ids_in(lines) == ids_of(emulator)

    async def test_resume_and_force_exclude_each_other(self, session: CopyAISession, lines: Path) -> None:
        """Both at once can't be meant."""
        with pytest.raises(ValueError, match="choose one"):
            await export_runs(session, ["WCFG-1"], lines, resume=True, force=True)

    async def test_two_can_not_write_one_file(self, session: CopyAISession, emulator: Emulator, lines: Path) -> None:
        """The second is told, and the first goes on undisturbed."""
        part = Part(lines)
        for force in (False, True):
            with pytest.raises(ExportError, match="another export writes the same file"):
                await export_runs(session, [emulator.workflow_id], lines, force=force)
        part.close()
        await export_runs(session, [emulator.workflow_id], lines)

        assert leftovers(lines) == []

    async def test_a_file_that_came_to_be_meanwhile_is_kept(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """Neither the export that ends nor the one that goes on replaces what it didn't know of."""
        ids = [emulator.workflow_id]

        def interfere(_: Emulator, request: Request) -> None:
            if request.page == 11:
                lines.write_text("precious")

        emulator.on_request = interfere
        for resume in (False, True):
            with pytest.raises(ExportError, match=r"came to be .*: move it away"):
                await export_runs(session, ids, lines, resume=resume)
        kept = lines.read_text()
        lines.unlink()
        await export_runs(session, ids, lines, resume=True)

        assert kept == "precious"
        assert ids_in(lines) == ids_of(emulator)

    async def test_a_file_that_changed_is_not_added_to(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """The ids that are known are those of the file as it was."""
        ids = [emulator.workflow_id]
        emulator.replace_runs([raw_run(1)])
        await export_runs(session, ids, lines)
        emulator.replace_runs([raw_run(number) for number in range(1050, 0, -1)])
        await break_off(emulator, 6, lambda: export_runs(session, ids, lines, since="last"))
        lines.write_text("")
        with pytest.raises(ExportError, match="is not what it was"):
            await export_runs(session, ids, lines, since="last", resume=True)

    @pytest.mark.parametrize("harm", ["short", "gone", "garbage", "future"])
    async def test_a_damaged_part_is_told_and_can_be_begun_anew(
        self, session: CopyAISession, emulator: Emulator, lines: Path, harm: str
    ) -> None:
        """What can't be trusted is not built upon."""
        ids = [emulator.workflow_id]
        await break_off(emulator, 6, lambda: export_runs(session, ids, lines))
        self.do_harm(Path(f"{lines}.part"), Path(f"{lines}.part.db"), harm)
        with pytest.raises(ExportError, match="begin anew by force"):
            await export_runs(session, ids, lines, resume=True)
        await export_runs(session, ids, lines, force=True)

        assert ids_in(lines) == ids_of(emulator)
        assert leftovers(lines) == []

    def do_harm(self, rows: Path, ledger: Path, harm: str) -> None:
        if harm == "short":
            os.truncate(rows, 1000)
        elif harm == "gone":
            rows.unlink()
        elif harm == "garbage":
            ledger.write_bytes(b"no database" * 1000)
        else:
            with sqlite3.connect(ledger) as db:
                db.execute("PRAGMA user_version = 99")
            db.close()

    async def test_what_stands_behind_the_rows_that_count_is_cut_off(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """A process that ended in the middle of a line leaves no half line in the file."""
        ids = [emulator.workflow_id]
        await break_off(emulator, 6, lambda: export_runs(session, ids, path))
        with Path(f"{path}.part").open("ab") as rows:
            rows.write(b'{"id":"half')
        await export_runs(session, ids, path, resume=True)

        assert ids_in(path) == ids_of(emulator)
