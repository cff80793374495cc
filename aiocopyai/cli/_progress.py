"""A progress bar for commands that take long."""

from __future__ import annotations

from typing import Self

from aiocopyai.cli._options import Settings


class ProgressBar:
    """The number of runs done, their total, the rate and the time left, on standard error; removed at the end."""

    def __init__(self) -> None:
        # Here, as rich takes longer to load than most commands to run.
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
        self._task = self._progress.add_task("", total=None, of="", rate="")

    @classmethod
    def on_terminal(cls, settings: Settings) -> ProgressBar | None:
        """Return a bar if standard error is a terminal and ``--quiet`` is not given, else None."""
        return cls() if settings.shows_progress else None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: int, total: int | None) -> None:
        """Show how many runs are done; the total is None while it is not known."""
        of = "" if total is None else f" of {total:,}"
        self._progress.update(self._task, completed=done, total=total, of=of)
        if speed := self._progress.tasks[0].speed:
            self._progress.update(self._task, rate=f"{speed:,.0f}/s")
