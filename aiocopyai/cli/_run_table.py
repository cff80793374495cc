"""A table of runs on a terminal."""

from __future__ import annotations

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
    return _StdoutConsole(highlight=False, markup=False, emoji=False)


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
        self._print("bold", "CREATED", "STATUS", "CREDITS", "ID", "OUTPUT")

    def write(self, run: Run, /) -> None:
        status = str(run.status or "-")
        created = run.created_at
        self._print(
            self.COLORS.get(status, ""),
            f"{local_time(created):%Y-%m-%d %H:%M:%S}" if created else "-",
            status,
            "-" if run.credits is None else str(run.credits),
            run.id,
            preview(run),
        )

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

    def _print(self, status_style: str, created: str, status: str, run_credits: str, run_id: str, output: str) -> None:
        texts = {
            "CREATED": created,
            "STATUS": status,
            "CREDITS": run_credits.rjust(self.COLUMNS["CREDITS"]),
            "ID": run_id,
            "OUTPUT": output,
        }
        widths = dict(self._widths)
        if "CREDITS" in widths:  # a number is not cut: its column takes cells from the id
            extra = min(len(texts["CREDITS"]) - widths["CREDITS"], widths["ID"] - 1)
            widths["CREDITS"] += extra
            widths["ID"] -= extra
        cells = [_cell(texts[name], width, status_style if name == "STATUS" else "") for name, width in widths.items()]
        line = Text(" ").join(cells)
        line.rstrip()
        self._console.print(line, soft_wrap=True)


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + len(widths) - 1


def _cell(text: str, width: int, style: str = "") -> Text:
    cell = Text(printable(text[: 4 * width]), style)
    cell.truncate(width, overflow="ellipsis", pad=True)
    return cell
