"""Tests of the file formats: runs are read as they were written, and other files are rejected."""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from aiocopyai._columns import JSON_COLUMNS, run_columns
from aiocopyai._json import dump_json
from aiocopyai.export import ExportError, _formats, read_export
from aiocopyai.export._parquet import Parquet
from aiocopyai.models import Run
from tests.support.exporting import ANY_TEXT, FORMATS, UNICODE


def read_back(chosen: _formats.Format, runs: list[Run]) -> list[Run]:
    """Write each run as a batch, and read the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "runs")
        path.write_bytes(chosen.head + b"".join(chosen.pack(chosen.encode(run_columns([run]))) for run in runs))
        return list(chosen.read(path))


@given(ANY_TEXT)
def test_json_lines_keep_everything(runs: list[Run]) -> None:
    """JSON lines keep any string, including lone surrogates and line separators."""
    assert read_back(_formats.JSONLines(), runs) == runs


@given(ANY_TEXT)
def test_gzipped_lines_keep_everything(runs: list[Run]) -> None:
    """A gzip file of several members is read as one stream of JSON lines."""
    assert read_back(_formats.JSONLines(is_gzipped=True), runs) == runs


@given(UNICODE)
def test_csv_keeps_all_of_unicode(runs: list[Run]) -> None:
    """CSV keeps any valid Unicode string, including line breaks and quotes."""
    assert read_back(_formats.CSV(), runs) == runs


@given(ANY_TEXT)
def test_csv_accepts_lone_surrogates(runs: list[Run]) -> None:
    """In CSV, lone surrogates are kept in JSON, and replaced with their escapes in other cells."""
    back = read_back(_formats.CSV(), runs)

    assert [run.id for run in back] == [run.id.encode("utf-8", "backslashreplace").decode() for run in runs]
    assert [run.output for run in back] == [run.output for run in runs]


@given(UNICODE)
def test_encoded_runs_are_decoded(runs: list[Run]) -> None:
    """Encoded runs are decoded without a file, also after several batches were joined."""
    for chosen in (_formats.JSONLines(), _formats.JSONLines(is_gzipped=True), _formats.CSV(), Parquet()):
        encoded = [chosen.encode(run_columns([run])) for run in runs]
        decoded = chosen.decode(b"".join(encoded))
        assert decoded == runs
        assert [chosen.encode(run_columns([run])) for run in decoded] == encoded


@given(ANY_TEXT)
def test_encoders_match_to_json_and_the_csv_module(runs: list[Run]) -> None:
    """JSON lines are what `Run.to_json` returns, and CSV is what `csv.writer` writes for the same values."""
    text = io.StringIO(newline="")
    for run in runs:
        row = run.to_dict() | {name: dump_json(getattr(run, name)).decode() for name in JSON_COLUMNS}
        csv.writer(text).writerow(row.values() if run.error is not None else (row | {"error": None}).values())

    assert _formats.JSONLines().encode(run_columns(runs)) == "".join(f"{run.to_json()}\n" for run in runs).encode()
    assert _formats.CSV().encode(run_columns(runs)) == text.getvalue().encode("utf-8", "backslashreplace")


def test_long_outputs_are_read_from_csv() -> None:
    """A cell may be longer than Python's default limit of 128 KiB."""
    run = Run("a", output={"text": "x" * 300_000})

    assert read_back(_formats.CSV(), [run]) == [run]


@given(UNICODE)
def test_kept_rows_are_unchanged(runs: list[Run]) -> None:
    """A new file has the kept rows of the old file, unchanged, and then the new rows."""
    base_runs = list({run.id: run for run in runs}.values())
    added = Run("added", output={"text": "ü"})
    formats: list[_formats.Format] = [
        _formats.JSONLines(),
        _formats.JSONLines(is_gzipped=True),
        _formats.CSV(),
        Parquet(),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for chosen in formats:
            rows, base, out = (Path(folder, name) for name in ("rows", "base", "out"))
            encoded = [chosen.pack(chosen.encode(run_columns([run]))) for run in base_runs]
            rows.write_bytes(chosen.head + b"".join(encoded))
            with base.open("wb") as file:
                list(chosen.write(None, None, rows, file))
            rows.write_bytes(chosen.pack(chosen.encode(run_columns([added]))))
            with out.open("wb") as file:
                list(chosen.write(base, lambda ids: [number % 2 == 0 for number in range(len(ids))], rows, file))

            assert list(chosen.read(out)) == [*base_runs[::2], added]


def test_lines_with_long_integers_are_kept(tmp_path: Path) -> None:
    """A line with an integer of more digits than Python converts can be kept, because exports copy such integers."""
    base, rows, out = (tmp_path / name for name in ("base", "rows", "out"))
    base.write_bytes(b'{"id":"a","output":{"n":%b}}\n' % (b"9" * 5000))
    rows.touch()
    with out.open("wb") as file:
        list(_formats.JSONLines().write(base, lambda ids: [run_id == "a" for run_id in ids], rows, file))

    assert out.read_bytes() == base.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"id": "1"}\n{"id"', "ends in the middle of line 2"),
        ("a.jsonl", b"[]\n", "line 1: not an exported run"),
        ("a.jsonl", b'{"id": ""}\n', "line 1: not an exported run"),
        ("a.jsonl", b'{"id": "1", "created_at": "yesterday"}\n', "line 1: not an exported run"),
        ("a.jsonl", b"PAR1\xff\n", "line 1: not an exported run"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "line 1: not an exported run"),
        ("a.jsonl.gz", b"plain", "not a complete gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"id": "1"}\n', mtime=0)[:-9], "not a complete gzip file"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 99, "not a complete gzip file"),
        ("a.csv", b"", "ends in the middle"),
        ("a.csv", b"id,name\r\n", "does not have the columns"),
        ("a.csv", _formats.CSV.head + b"1,2\r\n", "line 2: not an exported run"),
        ("a.csv", _formats.CSV.head + b"1,2", "ends in the middle"),
        ("a.csv", b"\xff\n", "not a CSV file"),
        ("a.parquet", b"plain", "not a Parquet file"),
        ("a.parquet", b"PAR1" + b"\xff" * 99 + b"\x10\0\0\0PAR1", "not a Parquet file"),
    ],
)
def test_other_files_are_rejected(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A file that is not an export raises an error that names the file, and the line of a text file."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ExportError, match=message):
        list(read_export(path))


def test_other_parquet_columns_are_rejected(tmp_path: Path) -> None:
    """A Parquet file with other columns than those of an export raises an error."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["1"]}), path)
    with pytest.raises(ExportError, match="does not have the columns"):
        list(read_export(path))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems require valid Unicode")
def test_parquet_paths_are_any_bytes(tmp_path: Path) -> None:
    """Parquet files are written and read if their paths are not valid UTF-8."""
    rows, out = tmp_path / os.fsdecode(b"rows\xff"), tmp_path / os.fsdecode(b"\xff.parquet")
    rows.write_bytes(Parquet().encode(run_columns([Run("a")])))
    with out.open("wb") as file:
        list(Parquet().write(None, None, rows, file))

    assert list(Parquet().read(out)) == [Run("a")]


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    """Reading a file that does not exist raises FileNotFoundError in each format."""
    for ending in FORMATS:
        with pytest.raises(FileNotFoundError):
            list(read_export(tmp_path / f"missing.{ending}"))
