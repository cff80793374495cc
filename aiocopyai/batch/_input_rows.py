"""Read the inputs of runs from a CSV or JSON lines file."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from aiocopyai._display import plural
from aiocopyai._json import reject_constant
from aiocopyai.models import JSON


_FIELD_LIMIT: Final = 2**31 - 1
"""The largest CSV cell, in characters; Python's own limit is 128 KiB."""
_DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
_MAX_HEADER_LENGTH: Final = 2**20
"""The number of characters in which the delimiter is searched for."""
_QUOTED_CELL: Final = re.compile(r'(?:^|(?<=[,;\t|]))"(?:[^"]|"")*"')


def read_rows(path: str | os.PathLike[str], *, delimiter: str | None = None) -> Iterator[dict[str, JSON]]:
    """Read the rows of a file. Each row contains the inputs of one run.

    A ``.csv`` or ``.tsv`` file has a header line with the inputs' names; its values are strings. A ``.jsonl`` file has
    one JSON object on each line; its values may be any JSON. Both are in UTF-8, and blank lines are skipped.

    Args:
        path: the file.
        delimiter: the character between the cells of a CSV file. By default, a tab for ``.tsv``; for ``.csv``, the
            comma, semicolon, tab or pipe that separates the names in the header.

    Raises:
        ValueError: the delimiter is not one character, or is passed for ``.jsonl``; or the file is missing, malformed,
            without rows, or of another format. The message contains the line number. Raised while iterating.
    """
    path = Path(path)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0'):
        raise ValueError(f"delimiter must be one character, such as a semicolon, got {delimiter!r}")
    if path.suffix.lower() not in {".csv", ".tsv", ".jsonl"}:
        raise ValueError(f"rows are read from .csv, .tsv and .jsonl files, got {path.name}")
    if delimiter is not None and path.suffix.lower() == ".jsonl":
        raise ValueError(f"delimiter requires a .csv or .tsv file, got {path.name}")
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is not a file")
    is_empty = True
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _read_json_lines(file, path) if path.suffix.lower() == ".jsonl" else _read_csv(file, path, delimiter)
            for row in rows:
                is_empty = False
                yield row
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be encoded in UTF-8: {error}") from None
    if is_empty:
        raise ValueError(f"{path} has no rows")


def _read_csv(file: TextIO, path: Path, delimiter: str | None) -> Iterator[dict[str, JSON]]:
    csv.field_size_limit(_FIELD_LIMIT)
    delimiter = delimiter or _find_delimiter(file, path)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        names = next((cells for cells in reader if cells), list[str]())
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(
                f"{path}, line {reader.line_num}: column names must be unique and not empty, got {', '.join(names)}"
            )
        if any("\0" in name for name in names):
            raise ValueError(f"{path} must be encoded in UTF-8; it may be in UTF-16")
        for cells in reader:
            if len(cells) not in {0, len(names)}:
                raise ValueError(
                    f"{path}, line {reader.line_num}: {plural(len(cells), 'cell')} for {plural(len(names), 'column')}; "
                    f"cells that contain {_DELIMITERS.get(delimiter, repr(delimiter))} must be in double quotes"
                )
            if cells:
                yield dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _find_delimiter(file: TextIO, path: Path) -> str:
    """Return the delimiter in a file's header, or the usual one if the header has only one name."""
    header = _QUOTED_CELL.sub("", file.read(_MAX_HEADER_LENGTH).lstrip("\r\n")).partition("\n")[0]
    file.seek(0)
    found = [delimiter for delimiter in _DELIMITERS if delimiter in header]
    is_tsv = path.suffix.lower() == ".tsv"
    if is_tsv and (not found or "\t" in found):
        return "\t"
    if len(found) > 1 or is_tsv:
        names = " or ".join(_DELIMITERS[delimiter] for delimiter in found)
        raise ValueError(
            f"{path}, line 1: the columns may be separated by {names}; pass the correct one with delimiter="
        )
    return found[0] if found else ","


def _read_json_lines(file: TextIO, path: Path) -> Iterator[dict[str, JSON]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=reject_constant)
            json.dumps(row, allow_nan=False)  # loads() reads 1e999 as infinity
        except RecursionError:
            raise ValueError(f"{path}, line {number}: nested too deeply") from None
        except ValueError as error:
            # Omit Python's advice on how to change its limit of digits.
            raise ValueError(f"{path}, line {number}: {str(error).partition('; use sys.')[0]}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: must be a JSON object of input names and values")  # noqa: TRY004
        yield row
