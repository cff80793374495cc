"""How a run is shown: a line of a table for people, a line of JSON for programs."""

from __future__ import annotations

import codecs
import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar

from rich.console import Console
from rich.text import Text

from aiocopyai import JSON, Run
from aiocopyai._display import local_time, preview, value_text


T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Format(StrEnum):
    """What ``--format`` takes."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"

    @classmethod
    def fitting_stdout(cls) -> Format:
        """Return the one for standard output as it is: a terminal or not."""
        return cls.TABLE if sys.stdout.isatty() else cls.JSONL


class Sink(Protocol[T_contra]):
    """Where runs, or whatever a command gives, are written."""

    def write(self, item: T_contra, /) -> None:
        """Write one; it may be held until `flush`."""

    def flush(self) -> None:
        """Let the reader have what was written."""


def sink(chosen: Format) -> Sink[Run]:
    """Return a writer of runs to standard output."""
    return sink_of(chosen, Table, row_of, Run(""))


def sink_of(chosen: Format, table: Callable[[], Sink[T]], row: Callable[[T], Mapping[str, JSON]], empty: T) -> Sink[T]:
    """Return a writer to standard output of whatever has a table and rows; an empty one tells the rows' names."""
    if chosen is Format.TABLE:
        return table()
    return JSONLines(row) if chosen is Format.JSONL else CSV(row, tuple(row(empty)))


def printable(text: str) -> str:
    r"""Escape what a terminal would obey, or not show, in a text from elsewhere: ESC becomes ``\u001b``.

    The escapes are JSON's, so that JSON stays the same JSON.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def say(*texts: str) -> None:
    """Write lines to standard error; what they quote of the server's can't steer the terminal."""
    for line in "".join(texts).splitlines():
        sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    # json.dumps splits what is beyond four digits in two, but leaves DEL as it is.
    return f"\\u{code:04x}" if code <= 0xFFFF else json.dumps(character)[1:-1]  # noqa: PLR2004


def json_line(value: JSON | Mapping[str, JSON]) -> bytes:
    """Write JSON on one line, in UTF-8 whatever the locale says."""
    # Escaped for pipes too: some readers take U+2028 for the end of a line.
    return printable(json.dumps(value, ensure_ascii=False)).encode() + b"\n"


def show_json(value: JSON | Mapping[str, JSON]) -> None:
    """Write one JSON value to standard output: indented on a terminal, on one line elsewhere."""
    out = sys.stdout.buffer
    if sys.stdout.isatty():
        lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
        out.writelines(printable(line).encode() + b"\n" for line in lines)
    else:
        out.write(json_line(value))
    out.flush()


class JSONLines(Generic[T]):
    """One JSON object a line."""

    def __init__(self, row: Callable[[T], Mapping[str, JSON]]) -> None:
        self._out = sys.stdout.buffer
        self._row = row

    def write(self, item: T, /) -> None:
        self._out.write(json_line(self._row(item)))

    def flush(self) -> None:
        self._out.flush()


class CSV(Generic[T]):
    """Comma-separated texts below a header, in UTF-8 as `JSONLines`; what is an object there is JSON text here."""

    JSON_TEXT: Final = frozenset({"input", "output", "metadata", "error", "run", "extra"})

    def __init__(self, row: Callable[[T], Mapping[str, JSON]], names: Sequence[str]) -> None:
        self._out = sys.stdout.buffer
        self._row = row
        self._rows = csv.writer(codecs.getwriter("utf-8")(self._out))
        self._rows.writerow(names)

    def write(self, item: T, /) -> None:
        self._rows.writerow([self._cell(name, value) for name, value in self._row(item).items()])

    def flush(self) -> None:
        self._out.flush()

    def _cell(self, name: str, value: JSON) -> str:
        if value is None:
            return ""
        return printable(json.dumps(value, ensure_ascii=False) if name in self.JSON_TEXT else value_text(value))


def row_of(run: Run) -> dict[str, JSON]:
    """Give a run as the JSON object that all commands show it as."""
    return {
        "id": run.id,
        "workflow_id": run.workflow_id,
        "status": run.status,
        "created_at": utc_text(run.created_at),
        "credits": run.credits,
        "input": dict(run.input),
        "output": dict(run.output),
        "metadata": dict(run.metadata),
        "error": run.error,
        "extra": dict(run.extra),
    }


def utc_text(moment: datetime | None) -> str | None:
    """Write a time as ISO text in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None


class _Console(Console):
    """A console that leaves a closed pipe to whoever writes: rich's own ends the program with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Give standard output as a console that takes every text for what it is."""
    # A terminal that can't show a character gets its escape, rather than us an error.
    reconfigure: Callable[..., object] | None = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")
    return _Console(highlight=False, markup=False, emoji=False)


class Table:
    """Lines with columns of fixed widths: they can be shown before the next run is known."""

    COLUMNS: Final = {"CREATED": 19, "STATUS": 10, "CREDITS": 7, "ID": 41}
    """The widths, in cells of the terminal: 80 with the gaps. The output gets what is left, if that is worth it."""
    LEAST_OUTPUT: Final = 10
    COLOURS: Final = {
        "NEW": "cyan",
        "WAITING": "cyan",
        "PROCESSING": "yellow",
        "RETRYING": "yellow",
        "COMPLETE": "green",
        "FAILED": "red",
    }

    def __init__(self) -> None:
        self._console = console()
        width = self._console.width if self._console.is_terminal else 140
        self._left = width - sum(self.COLUMNS.values()) - len(self.COLUMNS)
        self._print("bold", *self.COLUMNS, "OUTPUT")

    def write(self, run: Run, /) -> None:
        status = str(run.status or "-")
        created = run.created_at
        self._print(
            self.COLOURS.get(status, ""),
            f"{local_time(created):%Y-%m-%d %H:%M:%S}" if created else "-",
            status,
            "-" if run.credits is None else str(run.credits),
            run.id,
            preview(run),
        )

    def flush(self) -> None:
        sys.stdout.flush()

    def _print(self, style: str, *texts: str) -> None:
        """Print one line; the style is the status's."""
        created, status, credit, run_id, gist = texts
        widths = self.COLUMNS
        cells = [
            _cell(created, widths["CREATED"]),
            _cell(status, widths["STATUS"], style),
            _cell(credit.rjust(widths["CREDITS"]), widths["CREDITS"]),
            _cell(run_id, widths["ID"]),
        ]
        if self._left >= self.LEAST_OUTPUT:
            cells.append(_cell(gist, self._left))
        line = Text(" ").join(cells)
        line.rstrip()
        self._console.print(line, soft_wrap=True)


def _cell(text: str, width: int, style: str = "") -> Text:
    cell = Text(printable(text[: 4 * width]), style)
    cell.truncate(width, overflow="ellipsis", pad=True)
    return cell
