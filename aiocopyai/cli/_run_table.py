"""A table of runs on a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.text import Text

from aiocopyai import Run
from aiocopyai._display import local_time, preview, printable


class _StdoutConsole(Console):
    def on_broken_pipe(self) -> None:
        # Console's own method ends the program with exit code 1.
        raise BrokenPipeError


def open_console() -> Console:
    """Return standard output as a console that prints every text as it is."""
    # rich looks at standard input first, as it was when rich was loaded.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return _StdoutConsole(highlight=False, markup=False, emoji=False, width=width)


class RunTable:
    """Prints runs in columns of fixed width, so that each run is shown before the next is known."""

    COLUMNS: Final = {"CREATED": 19, "STATUS": 10, "CREDITS": 7, "ID": 41}
    """The widths in terminal cells: 80 with the gaps. OUTPUT has the rest, if that is at least `MIN_OUTPUT`."""
    MIN_OUTPUT: Final = 10
    OMITTED_FIRST: Final = ("CREDITS", "CREATED")
    """The columns that a narrow terminal does without. If that is not enough, ID is cut."""
    COLORS: Final = {
        "NEW": "cyan",
        "WAITING": "cyan",
        "PROCESSING": "yellow",
        "RETRYING": "yellow",
        "COMPLETE": "green",
        "FAILED": "red",
    }

    def __init__(self) -> None:
        self._console = open_console()
        self._widths = self._fit(self._console.width if self._console.is_terminal else 140)
        self._print({name: name for name in (*self.COLUMNS, "OUTPUT")}, status_style="bold")

    def write(self, run: Run, /) -> None:
        status = str(run.status or "-")
        created = run.created_at
        texts = {
            "CREATED": f"{local_time(created):%Y-%m-%d %H:%M:%S}" if created else "-",
            "STATUS": status,
            "CREDITS": "-" if run.credits is None else str(run.credits),
            "ID": run.id,
            "OUTPUT": preview(run),
        }
        self._print(texts, status_style=self.COLORS.get(status, ""))

    def flush(self) -> None:
        sys.stdout.flush()

    def _fit(self, width: int) -> dict[str, int]:
        """Return the widths of the columns that fit into a width, by name."""
        widths = dict(self.COLUMNS)
        for name in self.OMITTED_FIRST:
            if _total(widths) > width:
                del widths[name]
        widths["ID"] -= max(0, _total(widths) - width)
        rest = width - _total(widths) - 1
        return widths | {"OUTPUT": rest} if rest >= self.MIN_OUTPUT else widths

    def _print(self, texts: Mapping[str, str], *, status_style: str) -> None:
        widths = dict(self._widths)
        if "CREDITS" in widths:  # a number is not cut: its column takes cells from the id
            extra = min(max(0, len(texts["CREDITS"]) - widths["CREDITS"]), widths["ID"] - 1)
            widths["CREDITS"] += extra
            widths["ID"] -= extra
        cells: list[Text] = []
        for name, width in widths.items():
            text = texts[name].rjust(width) if name == "CREDITS" else texts[name][: 4 * width]
            cell = Text(printable(text), status_style if name == "STATUS" else "")
            cell.truncate(width, overflow="ellipsis", pad=True)
            cells.append(cell)
        line = Text(" ").join(cells)
        line.rstrip()
        self._console.print(line, soft_wrap=True)


def _total(widths: Mapping[str, int]) -> int:
    """Return the width of a row, with the gaps between its columns."""
    return sum(widths.values()) + len(widths) - 1
