"""Exports: whole files from lists that move, by processes that don't last."""

from __future__ import annotations

import gzip
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from aiocopyai import JSON, CopyAISession
from aiocopyai.emulator import Emulator
from aiocopyai.export import ExportError, Progress, _formats, export_runs, read_export
from aiocopyai.models import Run
from tests.support.exporting import ODDITIES, UNICODE, ids_in, leftovers, raw_run


Since = datetime | Literal["last"] | None


class TestAFile:
    """What is in the file."""

    async def test_it_has_each_run_once(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """Every run of the list is in the file, in the list's order, and nothing stands beside the file."""
        emulator.replace_runs([])
        emulator.add_runs(640)
        exported = await export_runs(session, [emulator.workflow_id], path)
        listed = [run async for run in session.runs(emulator.workflow_id)]

        assert list(read_export(path)) == listed
        assert ids_in(path) == [run["id"] for run in emulator.runs()]
        assert (exported.path, exported.runs, exported.is_written) == (path, 640, True)
        assert exported.credits == sum(run.credits or 0 for run in listed)
        assert sum(exported.by_status.values()) == 640
        assert leftovers(path) == []

    async def test_no_runs_make_a_valid_file(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """An empty list is no error, and its file can be read."""
        emulator.replace_runs([])
        await export_runs(session, [emulator.workflow_id], path)

        assert list(read_export(path)) == []
        assert ids_in(path) == []

    async def test_odd_runs_are_kept(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """What doesn't fit its field stands in `extra`, and huge credits are no obstacle."""
        odd: list[JSON] = [
            raw_run(3, createdAt="+10000-01-01T00:00:00Z", credits=10**30, toolKey={"é\u2028": [None]}),
            raw_run(2, status=7, workflowId=12, error={"half": "\ud800"}),
            {"workflowRunId": "WRUN-1", "createdAt": "0001-01-01T00:00:00Z", "output": {"": '\x00\r\n,;"'}},
        ]
        emulator.replace_runs(odd)
        await export_runs(session, [emulator.workflow_id], path)
        first, second, third = read_export(path)

        assert (first.credits, first.created_at) == (10**30, None)
        assert first.extra == {"createdAt": "+10000-01-01T00:00:00Z", "toolKey": {"é\u2028": [None]}}
        assert (second.status, second.extra, second.error) == (
            None,
            {"status": 7, "workflowId": 12},
            {"half": "\ud800"},
        )
        assert (third.id, third.output) == ("WRUN-1", {"": '\x00\r\n,;"'})
        assert third.created_at == datetime.min.replace(tzinfo=UTC)

    async def test_a_run_without_a_workflow_gets_the_one_asked_for(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """Of several workflows in one file, each run tells its own: as the server calls it, if it does."""
        emulator.replace_runs([raw_run(2), raw_run(1, workflowId="PKGW-1")])
        emulator.replace_runs([raw_run(3)], workflow_id="WCFG-other")
        await export_runs(session, [emulator.workflow_id, "WCFG-other", emulator.workflow_id], lines)

        assert [run.workflow_id for run in read_export(lines)] == [emulator.workflow_id, "PKGW-1", "WCFG-other"]

    async def test_since_takes_what_is_newer(self, session: CopyAISession, emulator: Emulator, lines: Path) -> None:
        """With a moment, only runs created at or after it are in the file."""
        moment = datetime.fromtimestamp(1_750_000_000 + 60 * 1000, UTC)
        await export_runs(session, [emulator.workflow_id], lines, since=moment)

        assert ids_in(lines) == [f"WRUN-{number}" for number in range(1050, 999, -1)]

    async def test_parquet_is_written_in_groups(
        self, session: CopyAISession, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No more of a file is held than one row group, whatever its size."""
        monkeypatch.setattr("aiocopyai.export._parquet._GROUP_BYTES", 1)
        path = tmp_path / "runs.parquet"
        await export_runs(session, [emulator.workflow_id], path)

        assert pq.ParquetFile(path).num_row_groups == 11
        assert ids_in(path) == [run["id"] for run in emulator.runs()]

    async def test_a_link_is_followed_and_a_mode_is_kept(
        self, session: CopyAISession, emulator: Emulator, tmp_path: Path
    ) -> None:
        """What a link leads to is replaced, and stays as readable as it was."""
        real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
        real.touch(mode=0o600)
        link.symlink_to(real)
        await export_runs(session, [emulator.workflow_id], link, force=True)

        assert link.is_symlink()
        assert len(ids_in(real)) == 1050
        assert real.stat().st_mode & 0o777 == 0o600

    async def test_progress_is_told(self, session: CopyAISession, emulator: Emulator, lines: Path) -> None:
        """The callback hears of the total from the start, of all lists together, and of every run by the end."""
        emulator.replace_runs([raw_run(number) for number in range(2000, 1990, -1)], workflow_id="WCFG-other")
        told: list[Progress] = []
        await export_runs(session, [emulator.workflow_id, "WCFG-other"], lines, on_progress=told.append)

        assert (told[0].runs, told[0].total) == (0, 1060)
        assert (told[-1].runs, told[-1].total, told[-1].credits) == (1060, 1060, 1060)
        assert told[-1].by_status == {"COMPLETE": 1060}

    @pytest.mark.parametrize("name", ["jsonl", "csv", "gz", "runs.xml", "runs.json"])
    async def test_an_unknown_ending_is_refused(self, session: CopyAISession, tmp_path: Path, name: str) -> None:
        """The ending is the format; what is none is named with those that are."""
        with pytest.raises(ExportError, match=r"should end in one of \.jsonl, \.jsonl\.gz, \.csv, \.parquet"):
            await export_runs(session, ["WCFG-1"], tmp_path / name)

    async def test_parquet_without_pyarrow_tells_what_to_install(
        self, session: CopyAISession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the extra is missing, the error has the line that installs it."""
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.delitem(sys.modules, "aiocopyai.export._parquet", raising=False)
        with pytest.raises(ExportError, match=r'pip install "aiocopyai\[export\]"'):
            await export_runs(session, ["WCFG-1"], tmp_path / "runs.parquet")

    @pytest.mark.parametrize(
        ("workflow_ids", "since", "complaint"),
        [
            ([], None, "no workflow"),
            (["WCFG-1"], datetime(2026, 1, 1), "must have a time zone"),  # noqa: DTZ001 (that is what is refused)
            (["WCFG-1"], "first", 'must be a datetime, "last" or None'),
            ([".."], None, "workflow_id"),
        ],
    )
    async def test_arguments_are_checked(
        self, session: CopyAISession, lines: Path, workflow_ids: list[str], since: Since, complaint: str
    ) -> None:
        """What can't be meant is a ValueError, and leaves nothing behind."""
        with pytest.raises(ValueError, match=complaint):
            await export_runs(session, workflow_ids, lines, since=since)

        assert leftovers(lines) == []

    async def test_a_folder_must_be_there(self, session: CopyAISession, tmp_path: Path) -> None:
        """A folder is neither made nor taken for a file."""
        (tmp_path / "folder.csv").mkdir()
        with pytest.raises(ExportError, match="no folder"):
            await export_runs(session, ["WCFG-1"], tmp_path / "missing" / "runs.csv")
        with pytest.raises(ExportError, match="is a folder"):
            await export_runs(session, ["WCFG-1"], tmp_path / "folder.csv")


class TestTexts:
    """The formats, with any content."""

    @given(ODDITIES)
    def test_json_lines_keep_everything(self, runs: list[Run]) -> None:
        """JSON lines hold any text, halves of surrogate pairs and line separators included."""
        assert through(_formats.JSONLines(), runs) == runs

    @given(ODDITIES)
    def test_gzipped_lines_keep_everything(self, runs: list[Run]) -> None:
        """Members of one gzip file are read as one."""
        assert through(_formats.GzippedJSONLines(), runs) == runs

    @given(UNICODE)
    def test_csv_keeps_everything_unicode_has(self, runs: list[Run]) -> None:
        """CSV holds any text that Unicode has, line ends and quotes included."""
        assert through(_formats.CSV(), runs) == runs

    @given(ODDITIES)
    def test_csv_refuses_no_text(self, runs: list[Run]) -> None:
        """Halves of surrogate pairs become their escapes outside of JSON; as values they are kept."""
        back = through(_formats.CSV(), runs)

        assert [run.id for run in back] == [run.id.encode("utf-8", "backslashreplace").decode() for run in runs]
        assert [run.output for run in back] == [run.output for run in runs]

    def test_long_outputs_are_read_from_csv(self) -> None:
        """Python's own limit of a cell, 128 KiB, is none here."""
        run = Run("a", output={"text": "x" * 300_000})

        assert through(_formats.CSV(), [run]) == [run]


def through(chosen: _formats.Format, runs: list[Run]) -> list[Run]:
    """Put runs into a file one by one, as the smallest pages would, and read it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "runs")
        path.write_bytes(chosen.head + b"".join(chosen.encode([run]) for run in runs))
        return list(chosen.read(path))


class TestReading:
    """`read_export` on files that are not what they seem."""

    @pytest.mark.parametrize(
        ("name", "content", "complaint"),
        [
            ("a.jsonl", b'{"id": "1"}\n{"id"', "breaks off in line 2"),
            ("a.jsonl", b"[]\n", "line 1: this is no exported run"),
            ("a.jsonl", b'{"id": ""}\n', "line 1: this is no exported run"),
            ("a.jsonl", b'{"id": "1", "created_at": "yesterday"}\n', "line 1: this is no exported run"),
            ("a.jsonl", b"PAR1\xff\n", "line 1: this is no exported run"),
            ("a.jsonl.gz", b"plain", "no whole gzip file"),
            ("a.jsonl.gz", gzip.compress(b'{"id": "1"}\n', mtime=0)[:-9], "no whole gzip file"),
            ("a.csv", b"", "breaks off"),
            ("a.csv", b"id,name\r\n", "other columns"),
            ("a.csv", _formats.CSV.head + b"1,2\r\n", "line 2: this is no exported run"),
            ("a.csv", _formats.CSV.head + b"1,2", "breaks off"),
            ("a.csv", b"\xff\n", "no CSV file"),
            ("a.parquet", b"plain", "no Parquet file"),
        ],
    )
    def test_what_is_no_export_is_named(self, tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
        """The file and the place are told, in one line."""
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ExportError, match=complaint):
            list(read_export(path))

    def test_another_parquet_file_is_no_export(self, tmp_path: Path) -> None:
        """Columns must be those of a run."""
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"id": ["1"]}), path)
        with pytest.raises(ExportError, match="other columns"):
            list(read_export(path))
