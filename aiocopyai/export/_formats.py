"""The formats: how runs are put into a part, how a file is made of it, and how the file is read again."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

from aiocopyai.export._columns import COLUMNS, from_cells, from_line, to_cells, to_lines
from aiocopyai.export._errors import ExportError
from aiocopyai.models import Run


COPIED: Final = 2**20
"""Bytes that are copied in one go."""
_GZIP_LEVEL: Final = 4  # three times as fast as 6, and a tenth larger
_FIELD_LIMIT: Final = 2**31 - 1


class Format(Protocol):
    """One kind of file. What `encode` gives is appended to the part, whole or not at all."""

    head: bytes
    """What a new file begins with."""
    is_final: bool
    """Whether a part of it is the file itself, once it is whole."""

    def encode(self, runs: Sequence[Run]) -> bytes:
        """Give some runs as they are put into the part."""
        ...

    def read(self, path: Path) -> Iterator[Run]:
        """Read a file; raises `ExportError` where it isn't one of this format."""
        ...

    def assemble(self, base: Path | None, part: Path, out: BinaryIO) -> Iterator[None]:
        """Write what a base holds, and behind it what a part does; gives way to others at each step."""
        ...


class JSONLines:
    """One JSON object a line."""

    head = b""
    is_final = True

    def encode(self, runs: Sequence[Run]) -> bytes:
        return to_lines(runs)

    def read(self, path: Path) -> Iterator[Run]:
        with path.open("rb") as file:
            yield from _read_lines(file, path)

    def assemble(self, base: Path | None, part: Path, out: BinaryIO) -> Iterator[None]:
        return _append(base, part, out)


class GzippedJSONLines(JSONLines):
    """The same compressed; every addition is a gzip member of its own, which readers take for one stream."""

    head = gzip.compress(b"", mtime=0)

    def encode(self, runs: Sequence[Run]) -> bytes:
        return gzip.compress(to_lines(runs), _GZIP_LEVEL, mtime=0)

    def read(self, path: Path) -> Iterator[Run]:
        try:
            with gzip.open(path, "rb") as file:
                yield from _read_lines(file, path)
        except (EOFError, gzip.BadGzipFile) as error:
            raise ExportError(f"{path} is no whole gzip file: {error}") from None


class CSV:
    """Comma-separated texts as in RFC 4180, under a header; maps and errors are JSON text."""

    head = f"{','.join(COLUMNS)}\r\n".encode()
    is_final = True

    def encode(self, runs: Sequence[Run]) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(map(to_cells, runs))
        return text.getvalue().encode("utf-8", "backslashreplace")

    def read(self, path: Path) -> Iterator[Run]:
        _check_end(path)
        csv.field_size_limit(_FIELD_LIMIT)  # Python's own is less than one long output
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = csv.reader(file, strict=True)
                if next(rows, None) != list(COLUMNS):
                    raise ExportError(f"{path} has other columns than an export")
                for number, cells in enumerate(rows, start=2):
                    yield _read_row(from_cells, cells, path, number)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ExportError(f"{path} is no CSV file: {error}") from None

    def assemble(self, base: Path | None, part: Path, out: BinaryIO) -> Iterator[None]:
        return _append(base, part, out)


def format_of(path: Path) -> Format:
    """Tell a file's format by its name.

    Raises:
        ExportError: the ending is unknown, or what the format needs isn't installed.
    """
    name = path.name.lower()
    for ending, make in _ENDINGS.items():
        if name.endswith(ending):
            return make()
    raise ExportError(f"{path.name} should end in one of {', '.join(_ENDINGS)}")


def _parquet() -> Format:
    try:
        from aiocopyai.export._parquet import Parquet  # noqa: PLC0415 (pyarrow may be missing)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise ExportError(
            'a .parquet file needs pyarrow; install it by: python -m pip install "aiocopyai[export]"'
        ) from None
    return Parquet()


_ENDINGS: Final[dict[str, Callable[[], Format]]] = {
    ".jsonl": JSONLines,
    ".jsonl.gz": GzippedJSONLines,
    ".csv": CSV,
    ".parquet": _parquet,
}


def _append(base: Path | None, part: Path, out: BinaryIO) -> Iterator[None]:
    """Put two files one behind the other."""
    for path in (base, part):
        if path is not None:
            with path.open("rb") as source:
                while copied := source.read(COPIED):
                    out.write(copied)
                    yield


def _read_lines(file: Iterable[bytes], path: Path) -> Iterator[Run]:
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            raise ExportError(f"{path} breaks off in line {number}")
        yield _read_row(from_line, line, path, number)


def _check_end(path: Path) -> None:
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read() != b"\n":
            raise ExportError(f"{path} breaks off in its last line")


T = TypeVar("T")


def _read_row(read: Callable[[T], Run], row: T, path: Path, number: int) -> Run:
    try:
        return read(row)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ExportError(f"{path}, line {number}: this is no exported run ({error})") from None
