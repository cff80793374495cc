"""The progress of a command: counts for messages, and a progress bar or a status line on a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Self

from attrs import Factory, define

from aiocopyai._display import plural
from aiocopyai.cli._options import Settings


if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.status import Status

    from aiocopyai import Run


@define
class ItemCount:
    """The number of items that a command has printed."""

    noun: str
    count: int = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        return plural(self.count, self.noun)


@define
class Tally:
    """The runs that a command has printed, by status, and their credits."""

    by_status: Counter[str] = Factory(Counter[str])
    credits: int = 0

    def add(self, run: Run) -> None:
        """Count a run."""
        self.by_status[str(run.status or "no status")] += 1
        self.credits += run.credits or 0

    def __bool__(self) -> bool:
        return bool(self.by_status)

    def __str__(self) -> str:
        statuses = ", ".join(f"{number:,} {status}" for status, number in self.by_status.most_common())
        runs = plural(self.by_status.total(), "run")
        return f"{runs}{': ' if statuses else ''}{statuses}; {self.credits:,} credits"


class ProgressBar:
    """A bar on standard error with the number of runs, their rate and the remaining time; it is removed at the end.

    Nothing is shown if standard error is not a terminal, or if ``--quiet`` is given.
    """

    def __init__(self, settings: Settings) -> None:
        self._is_shown = settings.shows_progress
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if self._is_shown:
            # Imported here, because loading rich takes longer than most commands.
            from rich.console import Console  # noqa: PLC0415
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

            self._progress = Progress(
                BarColumn(),
                TextColumn("{task.completed:,}{task.fields[of]} runs"),
                TextColumn("{task.fields[rate]}", style="progress.data.speed"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.add_task("", total=None, of="", rate="")
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, done: int, total: int | None) -> None:
        """Show the number of finished runs and their total, or None for an unknown total."""
        if self._progress is None:
            return
        [task] = self._progress.tasks
        of = "" if total is None else f" of {total:,}"
        self._progress.update(task.id, completed=done, total=total, of=of)
        if task.speed:
            self._progress.update(task.id, rate=f"{task.speed:,.0f}/s")


class StatusLine:
    """A line on standard error that shows what a command is doing; it is removed at the end.

    Nothing is shown if standard error is not a terminal, or if ``--quiet`` is given.
    """

    def __init__(self, settings: Settings) -> None:
        self._is_shown = settings.shows_progress
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._is_shown:
            from rich.console import Console  # noqa: PLC0415 (loading rich takes longer than most commands)
            from rich.status import Status  # noqa: PLC0415

            self._status = Status("", console=Console(stderr=True))
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def update(self, text: str) -> None:
        """Replace the text."""
        if self._status is not None:
            self._status.update(text)
