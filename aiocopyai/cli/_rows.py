"""Rows of inputs, read from a file: a run is started for each."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Final, NoReturn, TextIO

import typer
from attrs import frozen

from aiocopyai import JSON


_FIELD_LIMIT: Final = 2**31 - 1


@frozen
class Row:
    """What one run is started with."""

    number: int
    """Which row it is, from 1 on; a header is none."""
    inputs: Mapping[str, JSON]


@frozen
class Rows:
    """The rows of a file, or the one row that needs none; each iteration reads them anew.

    Args:
        path: a file of CSV below a header with the inputs' names, or of JSON lines with an object each.
        common: inputs that every row has; the row's own come before them.
    """

    path: Path | None
    common: Mapping[str, JSON]

    def __iter__(self) -> Iterator[Row]:
        rows: Iterator[Mapping[str, JSON]] = _read(self.path) if self.path else iter([dict[str, JSON]()])
        for number, inputs in enumerate(rows, start=1):
            yield Row(number, {**self.common, **inputs})

    def check(self) -> tuple[int, str]:
        """Read all rows, before anything is sent; return how many there are, and a digest of them.

        Raises:
            typer.BadParameter: the file can't be read, a row makes no sense, or there is none.
        """
        digest, count = blake2b(digest_size=16), 0
        for row in self:
            digest.update(json.dumps(row.inputs).encode() + b"\n")
            count = row.number
        if not count:
            raise typer.BadParameter(f"{self.path} has no rows")
        return count, digest.hexdigest()


def _read(path: Path) -> Iterator[Mapping[str, JSON]]:
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    if path.suffix.lower() not in readers:
        raise typer.BadParameter(f"{path.name} should end in .csv or .jsonl")
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from readers[path.suffix.lower()](file, path)
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path} is not in UTF-8: {error}") from None


def _read_csv(file: TextIO, path: Path) -> Iterator[Mapping[str, JSON]]:
    csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(file, strict=True)
    try:
        names = next(reader, list[str]())
        if not all(names) or len(set(names)) < len(names):
            raise typer.BadParameter(f"{path}, line 1: every column needs a name of its own")
        for cells in reader:
            if len(cells) not in {0, len(names)}:
                raise typer.BadParameter(f"{path}, line {reader.line_num}: {len(cells)} cells for {len(names)} columns")
            if cells:
                yield dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise typer.BadParameter(f"{path}, line {reader.line_num}: {error}") from None


def _read_json_lines(file: TextIO, path: Path) -> Iterator[Mapping[str, JSON]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            inputs = json.loads(line, parse_constant=_refuse)
            json.dumps(inputs, allow_nan=False)  # 1e999 is read as an infinity
        except (ValueError, RecursionError) as error:
            raise typer.BadParameter(f"{path}, line {number}: {error}") from None
        if not isinstance(inputs, dict):
            raise typer.BadParameter(f"{path}, line {number}: not an object with the inputs by name")
        yield inputs


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
