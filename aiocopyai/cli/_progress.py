"""A bar that shows how far a long piece of work is."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Pace(ProgressColumn):
    """Runs a second, of late."""

    def render(self, task: Task) -> Text:
        """Show the speed, if it is known."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")


class Bar(Progress):
    """Runs done, of how many, the pace and the time left, on standard error; nothing of it remains."""

    def __init__(self) -> None:
        columns = (BarColumn(), TextColumn("{task.completed:,}{task.fields[of]} runs"), _Pace(), TimeRemainingColumn())
        super().__init__(*columns, console=Console(stderr=True), transient=True)
        self._task = self.add_task("", total=None, of="")

    def show(self, done: int, total: int | None) -> None:
        """Take over how far it is; the total is None where it isn't known."""
        self.update(self._task, completed=done, total=total, of="" if total is None else f" of {total:,}")


def bar() -> Bar | None:
    """Make a bar, if standard error is a terminal."""
    return Bar() if sys.stderr.isatty() else None
