"""Rows of inputs, read from a file: a run is started for each."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Final, NoReturn, Self, TextIO

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


class Rows:
    """The rows of a file, or the one row that needs none, as they were when this was made: a copy of them is held.

    Args:
        path: a file of CSV below a header with the inputs' names, or of JSON lines with an object each; None for one
            row with the common inputs.
        common: inputs that every row has; the row's own come before them.

    Raises:
        typer.BadParameter: the file can't be read, a row makes no sense, or there is none.
    """

    def __init__(self, path: Path | None, common: Mapping[str, JSON]) -> None:
        self.is_file: Final = path is not None
        self._held = TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed by `__exit__`)
        digest, count = blake2b(digest_size=16), 0
        try:
            for inputs in _read(path) if path else iter([dict[str, JSON]()]):
                line = json.dumps({**common, **inputs})
                digest.update(line.encode() + b"\n")
                self._held.write(f"{line}\n")
                count += 1
        except BaseException:
            self._held.close()
            raise
        self.count: Final = count
        self.digest: Final = digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.close()

    def __iter__(self) -> Iterator[Row]:
        """Give all rows; only one such iteration at a time is of use."""
        self._held.seek(0)
        for number, line in enumerate(self._held, start=1):
            yield Row(number, json.loads(line))


def _read(path: Path) -> Iterator[Mapping[str, JSON]]:
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    if path.suffix.lower() not in readers:
        raise typer.BadParameter(f"{path.name} should end in .csv or .jsonl")
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            some = False
            for inputs in readers[path.suffix.lower()](file, path):
                some = True
                yield inputs
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path} is not in UTF-8: {error}") from None
    if not some:
        raise typer.BadParameter(f"{path} has no rows")


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
