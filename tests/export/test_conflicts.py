"""Tests of exports that conflict with existing files, with each other, or with a damaged unfinished export."""

# ruff: noqa: ASYNC230, ASYNC240 (the files are small, and nothing else runs)
from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

import pytest

from aiocopyai import CopyAISession
from aiocopyai.emulator import Emulator, Request
from aiocopyai.export import ExportError, _export, export_runs
from aiocopyai.export._journal import Journal
from tests.support.exporting import ids_in, ids_of, interrupt, leftovers, raw_run, requested_pages


pytestmark = pytest.mark.usefixtures("small_steps")


async def test_existing_file_is_not_replaced(session: CopyAISession, emulator: Emulator, path: Path) -> None:
    """An existing file is replaced only with `force`. With `resume`, it is regarded as complete."""
    path.write_bytes(b"precious")
    with pytest.raises(ExportError, match='already exists: use since="last"'):
        await export_runs(session, [emulator.workflow_id], path)
    exported = await export_runs(session, [emulator.workflow_id], path, resume=True)
    kept = path.read_bytes()
    await export_runs(session, [emulator.workflow_id], path, force=True)

    assert (kept, exported.is_written) == (b"precious", False)
    assert len(ids_in(path)) == 1050


async def test_unfinished_export_is_not_discarded(session: CopyAISession, emulator: Emulator, lines: Path) -> None:
    """Without `resume` and `force`, an unfinished export raises an error. With `force`, the export starts again."""
    ids = [emulator.workflow_id]
    await interrupt(emulator, 6, lambda: export_runs(session, ids, lines))
    with pytest.raises(ExportError, match=r"unfinished export to .* exists: use resume"):
        await export_runs(session, ids, lines)
    emulator.requests.clear()
    await export_runs(session, ids, lines, force=True)

    assert requested_pages(emulator) == list(range(1, 12))
    assert ids_in(lines) == ids_of(emulator)


@pytest.mark.parametrize("since", ["last", datetime(2025, 1, 1, tzinfo=UTC)])
async def test_only_the_same_selection_is_resumed(
    session: CopyAISession, emulator: Emulator, lines: Path, since: datetime | Literal["last"]
) -> None:
    """An export is resumed only for the same workflows and `since`, which the error names."""
    ids = [emulator.workflow_id]
    await interrupt(emulator, 6, lambda: export_runs(session, ids, lines, since=since))
    for other, start in ((["WCFG-2"], since), (ids, None)):
        with pytest.raises(ExportError, match=r"is for WCFG-.* since"):
            await export_runs(session, other, lines, since=cast("Literal['last']", start), resume=True)
    await export_runs(session, ids, lines, since=since, resume=True)

    assert ids_in(lines) == ids_of(emulator)


async def test_resume_and_force_exclude_each_other(session: CopyAISession, lines: Path) -> None:
    """`resume` and `force` together raise an error."""
    with pytest.raises(ValueError, match="use only one of them"):
        await export_runs(session, ["WCFG-1"], lines, resume=True, force=True)


async def test_second_export_to_a_file_is_rejected(session: CopyAISession, emulator: Emulator, lines: Path) -> None:
    """While an export to a file is in progress, another export to it raises an error, even with `force`."""
    journal = Journal(lines)
    for force in (False, True):
        with pytest.raises(ExportError, match=r"another export to .* is in progress"):
            await export_runs(session, [emulator.workflow_id], lines, force=force)
    journal.close()
    await export_runs(session, [emulator.workflow_id], lines)

    assert leftovers(lines) == []


async def test_file_created_during_the_export_is_kept(session: CopyAISession, emulator: Emulator, lines: Path) -> None:
    """A file that was created after the export started is not replaced, even with `resume`."""
    ids = [emulator.workflow_id]

    def interfere(_: Emulator, request: Request) -> None:
        if request.page == 11:
            lines.write_text("precious")

    emulator.on_request = interfere
    for resume in (False, True):
        with pytest.raises(ExportError, match=r"was created after the export started: move it away"):
            await export_runs(session, ids, lines, resume=resume)
    kept = lines.read_text()
    lines.unlink()
    await export_runs(session, ids, lines, resume=True)

    assert kept == "precious"
    assert ids_in(lines) == ids_of(emulator)


async def test_interrupted_addition_to_a_changed_file_is_not_resumed(
    session: CopyAISession, emulator: Emulator, lines: Path
) -> None:
    """If a file has changed, an interrupted addition to it is not resumed. `force` adds to the changed file."""
    ids = [emulator.workflow_id]
    emulator.replace_runs([raw_run(1)])
    await export_runs(session, ids, lines)
    emulator.replace_runs([raw_run(number) for number in range(1050, 0, -1)])
    await interrupt(emulator, 6, lambda: export_runs(session, ids, lines, since="last"))
    lines.write_text("")
    with pytest.raises(ExportError, match="has changed since the export started: use force"):
        await export_runs(session, ids, lines, since="last", resume=True)
    await export_runs(session, ids, lines, since="last", force=True)

    assert ids_in(lines) == ids_of(emulator)


class TestDamage:
    """Tests of damage: an unfinished export that cannot be read raises `ExportError`, and `force` starts again."""

    @pytest.mark.parametrize(
        "damage",
        [
            "short rows",
            "no rows",
            "no database",
            "empty database",
            "cut off",
            "version",
            "state",
            "table",
            "ids",
            "log",
        ],
    )
    @pytest.mark.parametrize("since", [None, "last"])
    async def test_damage_is_reported_and_force_starts_again(
        self,
        session: CopyAISession,
        emulator: Emulator,
        lines: Path,
        damage: str,
        since: Literal["last"] | None,
    ) -> None:
        """The error names the files of the damaged export, and `force` deletes them and starts again."""
        ids = [emulator.workflow_id]
        await interrupt(emulator, 6, lambda: export_runs(session, ids, lines, since=since))
        self.inflict(Path(f"{lines}.part"), Path(f"{lines}.part.db"), damage)
        if damage in {"empty database", "log"}:  # these files do not show an unfinished export
            await export_runs(session, ids, lines, since=since, resume=True)
        else:
            with pytest.raises(ExportError, match=r"are [^)]*runs\.jsonl\.part\.db\): use force to discard it"):
                await export_runs(session, ids, lines, since=since, resume=True)
            await export_runs(session, ids, lines, since=since, force=True)

        assert ids_in(lines) == ids_of(emulator)
        assert leftovers(lines) == []

    def inflict(self, rows: Path, database: Path, damage: str) -> None:
        statements = {
            "version": "PRAGMA user_version = 99",
            "state": "UPDATE state SET document = '{\"runs\": 7}'",
            "ids": "DROP TABLE seen",
            "table": "DROP TABLE seen; CREATE TABLE seen (other)",
        }
        if damage == "short rows":
            os.truncate(rows, 1000)
        elif damage == "no rows":
            rows.unlink()
        elif damage == "no database":
            database.write_bytes(b"not a database" * 1000)
        elif damage == "empty database":
            database.write_bytes(b"")
        elif damage == "cut off":
            os.truncate(database, database.stat().st_size - 1)
        elif damage == "log":
            database.with_name(f"{database.name}-wal").write_bytes(os.urandom(5000))
        else:
            with closing(sqlite3.connect(database)) as connection:
                connection.executescript(statements[damage])

    @pytest.mark.parametrize("damage", ["gone", "changed", "zeros", "content", "metadata"])
    async def test_damage_after_the_last_page_is_reported(
        self, session: CopyAISession, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
    ) -> None:
        """Damaged rows that are detected while the file is written raise the same error."""
        ids, path = [emulator.workflow_id], tmp_path / "runs.parquet"
        with monkeypatch.context() as patch, pytest.raises(TypeError):
            patch.setattr(_export, "_write_file", None)
            await export_runs(session, ids, path)
        rows = Path(f"{path}.part")
        if damage == "gone":
            rows.unlink()
        else:
            content = rows.read_bytes()
            size = len(content)
            damaged = {
                "changed": b"#" * size,
                "zeros": bytes(size),
                "content": content[:-2000] + b"\xff" * 2000,
                "metadata": content[:40] + b"\xff" * 60 + content[100:],
            }
            rows.write_bytes(damaged[damage])
        with pytest.raises(ExportError, match=r"runs\.parquet\.part is .*: use force to discard"):
            await export_runs(session, ids, path, resume=True)
        await export_runs(session, ids, path, force=True)

        assert ids_in(path) == ids_of(emulator)

    async def test_incomplete_rows_are_removed(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """If a process ended in the middle of a line, the resumed export has no incomplete line."""
        ids = [emulator.workflow_id]
        await interrupt(emulator, 6, lambda: export_runs(session, ids, path))
        with Path(f"{path}.part").open("ab") as rows:
            rows.write(b'{"id":"half')
        await export_runs(session, ids, path, resume=True)

        assert ids_in(path) == ids_of(emulator)
