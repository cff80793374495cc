"""The file formats of an export. A format encodes runs, reads a file and writes a file.

`cli._output` writes to standard output.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import compress, islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeAlias, TypeVar, cast

from attrs import frozen

from aiocopyai._columns import COLUMNS, JSON_COLUMNS, Columns, row_to_run
from aiocopyai._json import dump_each, dump_rows, loads
from aiocopyai.errors import CopyAIError
from aiocopyai.models import Run


T = TypeVar("T")

Keep: TypeAlias = "Callable[[Sequence[str]], Sequence[bool]]"
"""For a sequence of run ids, returns whether the row of each run stays in the new file."""

_COPY_BYTES: Final = 2**20
"""The number of bytes to copy in one step."""
_FILTER_ROWS: Final = 500
"""The number of rows to filter in one step."""
_NEEDS_QUOTES: Final = re.compile(rb'[",\r\n]')


class ExportError(CopyAIError, ValueError):
    """The export conflicts with existing files, a file is not an export, or its format is unknown or not installed.

    Attributes:
        problem: what is wrong.
        advice: how to solve it, with the names of the arguments of `export_runs`; may be empty.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def _describe(self) -> str:
        return f"{self.problem}: {self.advice}" if self.advice else self.problem


class FileWriter(Protocol):
    """Writes a file from rows."""

    def add(self, packed: bytes) -> None:
        """Add rows that `Format.pack` returned."""
        ...

    def close(self) -> None:
        """Write the end of the file."""
        ...


class Format(Protocol):
    """A file format. Runs are encoded, packed and appended to a rows file."""

    @property
    def head(self) -> bytes:
        """The beginning of a rows file."""
        ...

    @property
    def batch_bytes(self) -> int:
        """The approximate size of runs that are encoded together; 0 to encode each page separately."""
        ...

    @property
    def writer(self) -> Callable[[BinaryIO], FileWriter] | None:
        """The class that writes a file from rows; None if a complete rows file already has this format."""
        ...

    def encode(self, columns: Columns) -> bytes | memoryview:
        """Encode runs."""
        ...

    def decode(self, encoded: bytes) -> list[Run]:
        """Return the runs that were encoded."""
        ...

    def pack(self, encoded: bytes) -> bytes:
        """Compress encoded runs, or return them unchanged; may be called in any thread."""
        ...

    def read(self, path: Path) -> Iterator[Run]:
        """Yield the runs of a file.

        Raises:
            ExportError: the file is not of this format, or is incomplete.
        """
        ...

    def write(self, base: Path | None, keep: Keep | None, rows: Path, out: BinaryIO) -> Generator[None]:
        """Write the runs of a base file that `keep` selects, by default all, and then the runs of a rows file.

        Each step of the generator writes a part.
        """
        ...


@frozen
class JSONLines:
    """One JSON object per line."""

    is_gzipped: bool = False
    """Whether the lines are compressed. Each addition is a separate gzip member, which readers concatenate."""
    batch_bytes = 0  # faster, because the values of one page are still in the processor's cache
    writer = None

    @property
    def head(self) -> bytes:
        return self.pack(b"")

    def encode(self, columns: Columns) -> bytes:
        return dump_rows(columns)

    def decode(self, encoded: bytes) -> list[Run]:
        return [row_to_run(_load_row(line)) for line in encoded.splitlines()]

    def pack(self, encoded: bytes) -> bytes:
        # Level 4 is three times as fast as 6, and the files are a tenth larger.
        return gzip.compress(encoded, 4, mtime=0) if self.is_gzipped else encoded

    def read(self, path: Path) -> Iterator[Run]:
        for number, line in enumerate(self._lines(path), start=1):
            yield _read_run(_load_row, line, path, number)

    def write(self, base: Path | None, keep: Keep | None, rows: Path, out: BinaryIO) -> Generator[None]:
        if base is not None and keep is None:
            yield from _copy(base, out)
        elif base is not None and keep is not None:
            for lines in batched(self._lines(base), _FILTER_ROWS):
                mask = keep([_load_row(line)["id"] for line in lines])
                out.write(self.pack(b"".join(compress(lines, mask))))
                yield
        yield from _copy(rows, out)

    def _lines(self, path: Path) -> Iterator[bytes]:
        try:
            with gzip.open(path) if self.is_gzipped else path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        raise ExportError(f"{path} ends in the middle of line {number}")
                    yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ExportError(f"{path} is not a complete gzip file: {error}") from None


class CSV:
    """Comma-separated values as in RFC 4180, with a header. Objects and errors are JSON text."""

    head = f"{','.join(COLUMNS)}\r\n".encode()
    batch_bytes = 0  # faster, because the values of one page are still in the processor's cache
    writer = None

    def encode(self, columns: Columns) -> bytes:
        return _csv_lines([_encode_cells(name, values) for name, values in columns.items()])

    def decode(self, encoded: bytes) -> list[Run]:
        return [row_to_run(_cells_to_row(cells)) for cells in _csv_rows(io.StringIO(encoded.decode(), newline=""))]

    def pack(self, encoded: bytes) -> bytes:
        return encoded

    def read(self, path: Path) -> Iterator[Run]:
        for number, cells in enumerate(self._rows(path), start=2):
            yield _read_run(_cells_to_row, cells, path, number)

    def write(self, base: Path | None, keep: Keep | None, rows: Path, out: BinaryIO) -> Generator[None]:
        if base is not None and keep is None:
            yield from _copy(base, out)
        elif base is not None and keep is not None:
            out.write(self.head)
            for batch in batched(self._rows(base), _FILTER_ROWS):
                kept = compress(batch, keep([cells[0] for cells in batch]))
                out.write(_csv_lines([_quoted(map(str.encode, column)) for column in zip(*kept, strict=True)]))
                yield
        yield from _copy(rows, out)

    def _rows(self, path: Path) -> Iterator[list[str]]:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - 1))
            if file.read() != b"\n":
                raise ExportError(f"{path} ends in the middle of its last line")
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = _csv_rows(file)
                if next(rows, None) != list(COLUMNS):
                    raise ExportError(f"{path} does not have the columns of an export")
                yield from rows
        except (UnicodeDecodeError, csv.Error) as error:
            raise ExportError(f"{path} is not a CSV file: {error}") from None


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of this length. The last list may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def _copy(path: Path, out: BinaryIO) -> Iterator[None]:
    with path.open("rb") as source:
        while copied := source.read(_COPY_BYTES):
            out.write(copied)
            yield


def _csv_rows(lines: Iterable[str]) -> Iterator[list[str]]:
    csv.field_size_limit(2**31 - 1)  # a long output exceeds the default of 128 KiB
    return csv.reader(lines, strict=True)


def _encode_cells(name: str, values: Sequence[Any]) -> list[bytes]:
    if name in JSON_COLUMNS:
        cells = _quoted(dump_each(values))
    elif name == "created_at":
        cells = [text[1:-1] for text in dump_each(values)]
    else:
        cells = [str(value).encode("utf-8", "backslashreplace") for value in values]
        if _NEEDS_QUOTES.search(b"".join(cells)):  # which is rare
            cells = _quoted(cells)
    return [b"" if value is None else cell for value, cell in zip(values, cells, strict=True)]


def _csv_lines(columns: Iterable[Iterable[bytes]]) -> bytes:
    """Return the same lines as `csv.writer`, but faster."""
    return b"\r\n".join([*map(b",".join, zip(*columns, strict=True)), b""])


def _quoted(cells: Iterable[bytes]) -> list[bytes]:
    must_quote = _NEEDS_QUOTES.search
    return [b'"%b"' % cell.replace(b'"', b'""') if must_quote(cell) else cell for cell in cells]


def _cells_to_row(cells: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: cell or None for name, cell in zip(COLUMNS, cells, strict=True)}
    for name in JSON_COLUMNS:
        if row[name] is not None:
            row[name] = loads(row[name].encode())
    if row["credits"] is not None:
        row["credits"] = int(row["credits"])
    return row


def _load_row(line: bytes) -> dict[str, Any]:
    return cast("dict[str, Any]", loads(line))


def _read_run(parse: Callable[[T], dict[str, Any]], row: T, path: Path, number: int) -> Run:
    try:
        return row_to_run(parse(row))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ExportError(f"{path}, line {number}: not an exported run ({error})") from None
