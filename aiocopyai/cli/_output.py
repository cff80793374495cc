"""JSON lines and CSV on standard output, and messages on standard error. `export._formats` writes files."""

from __future__ import annotations

import codecs
import csv
import errno
import io
import json
import os
import select
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import aiocopyai
from aiocopyai._display import json_line, printable, value_text
from aiocopyai.cli._process import discard


if TYPE_CHECKING:
    from aiocopyai import JSON, Run


T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class OutputFormat(StrEnum):
    """The values of ``--format``."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"

    @classmethod
    def default(cls) -> OutputFormat:
        """Return the default: a table on a terminal, else JSON lines."""
        return cls.TABLE if sys.stdout.isatty() else cls.JSONL


class OutputWriter(Protocol[T_contra]):
    """Writes items to standard output."""

    def write(self, item: T_contra, /) -> None:
        """Write an item, or buffer it until `flush`."""

    def flush(self) -> None:
        """Write the buffered items."""


def open_run_writer(output_format: OutputFormat | None) -> OutputWriter[Run]:
    """Return a writer of runs in a format; None means the default."""

    def open_table() -> OutputWriter[Run]:
        from aiocopyai.cli._tables import RunTable  # noqa: PLC0415 (loads rich)

        return RunTable()

    return open_writer(output_format, open_table, aiocopyai.Run.to_dict, aiocopyai.Run(""))


def open_writer(
    output_format: OutputFormat | None,
    make_table: Callable[[], OutputWriter[T]],
    to_row: Callable[[T], Mapping[str, JSON]],
    empty: T,
) -> OutputWriter[T]:
    """Return a writer of items of any type.

    Args:
        output_format: the format; None means the default.
        make_table: makes the writer for `OutputFormat.TABLE`.
        to_row: converts an item to a row for the other formats.
        empty: an item without values. The keys of its row are the columns of a CSV.
    """
    chosen = output_format or OutputFormat.default()
    if chosen is OutputFormat.TABLE:
        return make_table()
    return JSONLinesWriter(to_row) if chosen is OutputFormat.JSONL else CSVWriter(to_row, tuple(to_row(empty)))


class JSONLinesWriter(Generic[T]):
    """Writes one JSON object per line."""

    def __init__(self, to_row: Callable[[T], Mapping[str, JSON]]) -> None:
        self._out = sys.stdout.buffer
        self._to_row = to_row

    def write(self, item: T, /) -> None:
        self._out.write(json_line(self._to_row(item)))

    def flush(self) -> None:
        self._out.flush()


class CSVWriter(Generic[T]):
    """Writes CSV in UTF-8 with a header. Objects are written as JSON text."""

    JSON_COLUMNS: Final = frozenset({"input", "output", "metadata", "error", "run", "extra"})

    def __init__(self, to_row: Callable[[T], Mapping[str, JSON]], names: Sequence[str]) -> None:
        self._out = sys.stdout.buffer
        self._to_row = to_row
        self._csv = csv.writer(codecs.getwriter("utf-8")(self._out))
        self._csv.writerow(names)

    def write(self, item: T, /) -> None:
        cells: list[str] = []
        for name, value in self._to_row(item).items():
            text = json.dumps(value, ensure_ascii=False) if name in self.JSON_COLUMNS else value_text(value)
            cells.append("" if value is None else printable(text))
        self._csv.writerow(cells)

    def flush(self) -> None:
        self._out.flush()


def print_json(value: JSON | Mapping[str, JSON]) -> None:
    """Print a JSON value: indented on a terminal, else on one line."""
    out = sys.stdout.buffer
    if sys.stdout.isatty():
        # Characters that the terminal's encoding lacks are escaped as in JSON, not as in Python.
        is_unicode = codecs.lookup(sys.stdout.encoding).name.startswith("utf")
        lines = json.dumps(value, ensure_ascii=not is_unicode, indent=2).split("\n")
        out.writelines(printable(line).encode(sys.stdout.encoding) + b"\n" for line in lines)
    else:
        out.write(json_line(value))
    out.flush()


def check_stdout() -> None:
    """Raise an OSError if standard output cannot be written."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:  # not an open file of the operating system
        return
    os.write(descriptor, b"")  # fails on a device without space, and on a file that is not open for writing
    if stat.S_ISREG(os.fstat(descriptor).st_mode) and hasattr(os, "fstatvfs"):
        if os.fstatvfs(descriptor).f_bavail == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def echo_err(message: str) -> None:
    """Print lines on standard error, with control characters escaped."""
    try:
        for line in message.splitlines():
            sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()
    except OSError:
        # The reader has closed the pipe, or the disk is full. The command continues without messages.
        discard(sys.stderr)
