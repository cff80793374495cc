"""Tests of `read_rows`, which reads rows from CSV and JSON lines files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import JSON, Run
from aiocopyai.batch import read_rows
from tests.support.exporting import UNICODE


DELIMITERS = st.sampled_from([",", ";", "\t"])
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
NAMES = st.lists(CELLS.filter(lambda name: name and name[0] != "\ufeff"), min_size=1, max_size=4, unique=True)


def read(folder: Path, name: str, content: str | bytes, delimiter: str | None = None) -> list[dict[str, JSON]]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(path, delimiter=delimiter))


@given(data=st.data(), names=NAMES, delimiter=DELIMITERS)
def test_any_csv_is_read_with_its_delimiter(
    data: st.DataObject, names: list[str], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The cells of any file that the csv module writes are read unchanged."""
    cells = st.lists(CELLS, min_size=len(names), max_size=len(names)).filter(any)
    rows = data.draw(st.lists(cells, min_size=1, max_size=5))
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([names, *rows])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(file.getvalue().encode())

    assert list(read_rows(path, delimiter=delimiter)) == [dict(zip(names, row, strict=True)) for row in rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_in_the_header(tmp_path: Path, delimiter: str) -> None:
    """A file with semicolons, tabs or pipes as delimiters has the same rows as a file with commas."""
    content = (
        "\ufeff" + delimiter.join(["Company", '"To,ne;\t"']) + "\r\n" + delimiter.join(["Müller", '"a,;\t"']) + "\r\n"
    )

    assert read(tmp_path, "rows.csv", content) == [{"Company": "Müller", "To,ne;\t": "a,;\t"}]


def test_one_column_does_not_need_a_delimiter(tmp_path: Path) -> None:
    """Cells may contain any delimiter if the header contains none."""
    assert read(tmp_path, "rows.csv", "Text\na;b\n\nc\td\n") == [{"Text": "a;b"}, {"Text": "c\td"}]


@pytest.mark.parametrize(
    ("header", "row", "delimiter", "expected"),
    [
        ("Company;Price, EUR", "A;2", ";", {"Company": "A", "Price, EUR": "2"}),
        ("Company,Colour (red;green)", "A,red", ",", {"Company": "A", "Colour (red;green)": "red"}),
        ("a\tb;c", "1\t2", "\t", {"a": "1", "b;c": "2"}),
        ("a,b\tc", "1\t2", "\t", {"a,b": "1", "c": "2"}),
    ],
)
def test_an_ambiguous_header_is_an_error(
    tmp_path: Path, header: str, row: str, delimiter: str, expected: dict[str, str]
) -> None:
    """A header that contains two delimiters raises ValueError unless `delimiter` is one of them."""
    with pytest.raises(
        ValueError, match=r"rows\.csv, line 1: the columns may be separated by .* or .*; pass the correct one"
    ):
        read(tmp_path, "rows.csv", f"{header}\n{row}\n")
    assert read(tmp_path, "rows.csv", f"{header}\n{row}\n", delimiter) == [expected]


def test_blank_lines_before_the_header_are_skipped(tmp_path: Path) -> None:
    """Blank lines before the header affect neither the names nor the delimiter."""
    assert read(tmp_path, "rows.csv", "\n\r\na;b\n1;2\n") == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("delimiter", ["", "||", '"', "\n", "\0"])
def test_a_delimiter_is_one_character(tmp_path: Path, delimiter: str) -> None:
    """A delimiter that has several characters, or cannot separate cells, raises ValueError."""
    with pytest.raises(ValueError, match="delimiter must be one character, such as a semicolon, got "):
        read(tmp_path, "rows.csv", "a\n1\n", delimiter)


def test_json_lines_have_no_delimiter(tmp_path: Path) -> None:
    """A delimiter for a JSON lines file raises ValueError."""
    with pytest.raises(ValueError, match=r"delimiter requires a \.csv or \.tsv file, got rows\.jsonl"):
        read(tmp_path, "rows.jsonl", "{}\n", ";")


def test_a_tsv_file_is_separated_by_tabs(tmp_path: Path) -> None:
    """The delimiter of a .tsv file is a tab, even if the header contains a comma."""
    assert read(tmp_path, "rows.tsv", "a,b\tc\n1\t2\n") == [{"a,b": "1", "c": "2"}]


@given(runs=UNICODE)
def test_json_lines_may_have_any_values(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The values in a JSON lines file may be any JSON, and blank lines are skipped."""
    rows = [{"run": json.loads(json.dumps(run.input))} for run in runs] or [{}]
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("\n \n".join(map(json.dumps, rows)), "utf-8")

    assert list(read_rows(path)) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "a,b\n1,2\n3\n", r"rows\.csv, line 3: 1 cell for 2 columns; cells that contain"),
        ("rows.csv", "a;b\n1;2\n3,4\n", r"rows\.csv, line 3: 1 cell for 2 columns; cells that contain"),
        ("rows.csv", "a,a\n1,2\n", "column names must be unique and not empty, got a, a"),
        ("rows.csv", "a,\n1,2\n", "column names must be unique and not empty"),
        ("rows.csv", "sep=;\na;b\n1;2\n", "column names must be unique and not empty"),
        ("rows.csv", 'a\n"1\n', r"rows\.csv, line 2"),
        ("rows.csv", "Text\na, b\n", "2 cells for 1 column; cells that contain commas must be in double quotes"),
        ("rows.csv", "a\n1\n".encode("utf-16-le"), "must be encoded in UTF-8; it may be in UTF-16"),
        ("rows.tsv", "a,b\n1,2\n", "the columns may be separated by commas; pass the correct one"),
        ("rows.csv", "", r"rows\.csv has no rows"),
        ("rows.csv", "a\n", r"rows\.csv has no rows"),
        ("rows.csv", b"a\n\xff\n", "must be encoded in UTF-8"),
        ("rows.csv", "a\tb\n1\t2\n".encode("utf-16"), "must be encoded in UTF-8"),
        ("rows.jsonl", '{"a": 1}\n[1]\n', r"rows\.jsonl, line 2: must be a JSON object"),
        ("rows.jsonl", '{"a": 1}\n{"a": NaN}\n', r"rows\.jsonl, line 2: NaN is not valid JSON"),
        ("rows.jsonl", '{"a": 1e999}\n', r"rows\.jsonl, line 1"),
        ("rows.jsonl", '{"a"', r"rows\.jsonl, line 1"),
        ("rows.jsonl", "[" * 100_000, r"rows\.jsonl, line 1: nested too deeply$"),
        ("rows.jsonl", '{"a": ' + "9" * 5000, r"rows\.jsonl, line 1: Exceeds the limit .* has 5000 digits$"),
        ("rows.xlsx", "a", r"rows are read from \.csv, \.tsv and \.jsonl files, got rows\.xlsx"),
    ],
)
def test_an_invalid_file_raises_an_error_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    """An invalid file raises ValueError, which says what is wrong, and in which line."""
    with pytest.raises(ValueError, match=message):
        read(tmp_path, name, content)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A file that does not exist, or is a folder, raises ValueError."""
    (tmp_path / "folder.csv").mkdir()
    for name in ("missing.csv", "folder.csv"):
        with pytest.raises(ValueError, match=rf"{name} does not exist, or is not a file"):
            list(read_rows(tmp_path / name))
