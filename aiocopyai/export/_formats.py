"""The file formats of an export: how runs are encoded, how a file is read again, and how a new file is put together."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import compress, islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeAlias, TypeVar

from aiocopyai._json import dump_each, dump_lines
from aiocopyai.errors import CopyAIError
from aiocopyai.export._columns import COLUMNS, JSON_COLUMNS, row_of, run_of
from aiocopyai.models import Run


T = TypeVar("T")

Keep: TypeAlias = "Callable[[Sequence[str]], Sequence[bool]]"
"""Says for some run ids which of the rows stay in the new file."""

_COPY_BYTES: Final = 2**20
_FILTER_ROWS: Final = 500
_GZIP_LEVEL: Final = 4  # three times as fast as 6, and the files are a tenth larger
_NEEDS_QUOTES: Final = re.compile(rb'[",\r\n]')
_FIELD_LIMIT: Final = 2**31 - 1


class ExportError(CopyAIError, ValueError):
    """The export conflicts with existing files, a file is not an export, or its format is unknown or not installed.

    Attributes:
        problem: what is wrong.
        advice: what can be done about it, in the words of `export_runs`; may be empty.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def _describe(self) -> str:
        return f"{self.problem}: {self.advice}" if self.advice else self.problem


class FileWriter(Protocol):
    """Makes a file of rows."""

    def add(self, packed: bytes) -> None:
        """Add rows that `Format.pack` returned."""
        ...

    def close(self) -> None:
        """Write the end of the file."""
        ...


class Format(Protocol):
    """One file format. What `pack` returns of encoded runs is appended to the rows file."""

    head: bytes
    """The beginning of a new rows file."""

    @property
    def writer(self) -> Callable[[BinaryIO], FileWriter] | None:
        """What makes a file of the rows; None if a complete rows file is the file itself."""
        ...

    def encode(self, runs: Sequence[Run]) -> bytes:
        """Encode runs."""
        ...

    def pack(self, encoded: bytes) -> bytes:
        """Compress encoded runs, or return them as they are; may be called in any thread."""
        ...

    def read(self, path: Path) -> Iterator[Run]:
        """Yield the runs of a file.

        Raises:
            ExportError: the file is not of this format, or is incomplete.
        """
        ...

    def write(self, base: Path | None, keep: Keep | None, rows: Path, out: BinaryIO) -> Generator[None]:
        """Write the runs of a base file, all or those to `keep`, and then those of a rows file; yields at each step."""
        ...


class JSONLines:
    """One JSON object per line."""

    head = b""
    writer = None

    def encode(self, runs: Sequence[Run]) -> bytes:
        return dump_lines([row_of(run) for run in runs])

    def read(self, path: Path) -> Iterator[Run]:
        for number, line in enumerate(self._lines(path), start=1):
            yield _read_run(json.loads, line, path, number)

    def write(self, base: Path | None, keep: Keep | None, rows: Path, out: BinaryIO) -> Generator[None]:
        if base is not None and keep is None:
            yield from _copy(base, out)
        elif base is not None and keep is not None:
            for lines in _batched(self._lines(base), _FILTER_ROWS):
                mask = keep([json.loads(line)["id"] for line in lines])
                out.write(self.pack(b"".join(compress(lines, mask))))
                yield
        yield from _copy(rows, out)

    def _lines(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            yield from _complete_lines(file, path)

    def pack(self, encoded: bytes) -> bytes:
        return encoded


class GzippedJSONLines(JSONLines):
    """JSON lines, compressed; every addition is another gzip member, which readers join to one stream."""

    head = gzip.compress(b"", mtime=0)

    def _lines(self, path: Path) -> Iterator[bytes]:
        try:
            with gzip.open(path, "rb") as file:
                yield from _complete_lines(file, path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ExportError(f"{path} is not a complete gzip file: {error}") from None

    def pack(self, encoded: bytes) -> bytes:
        return gzip.compress(encoded, _GZIP_LEVEL, mtime=0)


class CSV:
    """Comma-separated values as in RFC 4180, below a header; objects and errors are JSON text."""

    head = f"{','.join(COLUMNS)}\r\n".encode()
    writer = None

    def encode(self, runs: Sequence[Run]) -> bytes:
        rows = [row_of(run) for run in runs]
        return _csv_lines([_cells(name, [row[name] for row in rows]) for name in COLUMNS])

    def pack(self, encoded: bytes) -> bytes:
        return encoded

    def read(self, path: Path) -> Iterator[Run]:
        for number, cells in enumerate(self._rows(path), start=2):
            yield _read_run(_row_of_cells, cells, path, number)

    def write(self, base: Path | None, keep: Keep | None, rows: Path, out: BinaryIO) -> Generator[None]:
        if base is not None and keep is None:
            yield from _copy(base, out)
        elif base is not None and keep is not None:
            out.write(self.head)
            for kept in _batched(self._rows(base), _FILTER_ROWS):
                lasting = compress(kept, keep([cells[0] for cells in kept]))
                out.write(_csv_lines([list(map(str.encode, column)) for column in zip(*lasting, strict=True)]))
                yield
        yield from _copy(rows, out)

    def _rows(self, path: Path) -> Iterator[list[str]]:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - 1))
            if file.read() != b"\n":
                raise ExportError(f"{path} ends in the middle of its last line")
        csv.field_size_limit(_FIELD_LIMIT)  # by default a cell may have 128 KiB, which is less than a long output
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = csv.reader(file, strict=True)
                if next(rows, None) != list(COLUMNS):
                    raise ExportError(f"{path} does not have the columns of an export")
                yield from rows
        except (UnicodeDecodeError, csv.Error) as error:
            raise ExportError(f"{path} is not a CSV file: {error}") from None


def _copy(path: Path, out: BinaryIO) -> Iterator[None]:
    with path.open("rb") as source:
        while copied := source.read(_COPY_BYTES):
            out.write(copied)
            yield


def _complete_lines(file: Iterable[bytes], path: Path) -> Iterator[bytes]:
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            raise ExportError(f"{path} ends in the middle of line {number}")
        yield line


def _batched(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch


def _cells(name: str, values: Sequence[object]) -> list[bytes]:
    """Return a column as text; None is empty."""
    if name in JSON_COLUMNS:
        texts = dump_each(values)
    elif name == "created_at":
        texts = [text.strip(b'"') for text in dump_each(values)]
    else:
        texts = [str(value).encode("utf-8", "backslashreplace") for value in values]
    return [b"" if value is None else text for value, text in zip(values, texts, strict=True)]


def _csv_lines(columns: Sequence[Sequence[bytes]]) -> bytes:
    """Return rows as CSV: like `csv.writer`, in a third of the time."""
    must_quote = _NEEDS_QUOTES.search
    quoted = [
        [b'"%b"' % cell.replace(b'"', b'""') if must_quote(cell) else cell for cell in cells]
        if must_quote(b"".join(cells))  # half of the columns never need it
        else cells
        for cells in columns
    ]
    return b"".join([b",".join(row) + b"\r\n" for row in zip(*quoted, strict=True)])


def _row_of_cells(cells: Sequence[str]) -> dict[str, Any]:
    texts = dict(zip(COLUMNS, cells, strict=True))
    row = {
        name: None if not text else json.loads(text) if name in JSON_COLUMNS else text for name, text in texts.items()
    }
    return row | {"credits": int(texts["credits"]) if texts["credits"] else None}


def _read_run(parse: Callable[[T], dict[str, Any]], row: T, path: Path, number: int) -> Run:
    try:
        return run_of(parse(row))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ExportError(f"{path}, line {number}: not an exported run ({error})") from None
