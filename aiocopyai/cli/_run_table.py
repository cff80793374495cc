"""A table of runs on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
    # A character that the terminal's encoding does not have is printed as an escape.
    reconfigure: Callable[..., object] | None = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")
    return _StdoutConsole(highlight=False, markup=False, emoji=False)


class RunTable:
    """Prints runs in columns of fixed width, so that each run is shown before the next is known."""

    COLUMNS: Final = {"CREATED": 19, "STATUS": 10, "CREDITS": 7, "ID": 41}
    """The widths in terminal cells: 80 with the gaps. OUTPUT has the rest, if that is at least `MIN_OUTPUT`."""
    MIN_OUTPUT: Final = 10
    COLOURS: Final = {
        "NEW": "cyan",
        "WAITING": "cyan",
        "PROCESSING": "yellow",
        "RETRYING": "yellow",
        "COMPLETE": "green",
        "FAILED": "red",
    }

    def __init__(self) -> None:
        self._console = open_console()
        width = self._console.width if self._console.is_terminal else 140
        self._output_width = width - sum(self.COLUMNS.values()) - len(self.COLUMNS)
        self._print("bold", "CREATED", "STATUS", "CREDITS", "ID", "OUTPUT")

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

    def _print(self, status_style: str, created: str, status: str, run_credits: str, run_id: str, output: str) -> None:
        widths = self.COLUMNS
        cells = [
            _cell(created, widths["CREATED"]),
            _cell(status, widths["STATUS"], status_style),
            _cell(run_credits.rjust(widths["CREDITS"]), widths["CREDITS"]),
            _cell(run_id, widths["ID"]),
        ]
        if self._output_width >= self.MIN_OUTPUT:
            cells.append(_cell(output, self._output_width))
        line = Text(" ").join(cells)
        line.rstrip()
        self._console.print(line, soft_wrap=True)


def _cell(text: str, width: int, style: str = "") -> Text:
    cell = Text(printable(text[: 4 * width]), style)
    cell.truncate(width, overflow="ellipsis", pad=True)
    return cell
