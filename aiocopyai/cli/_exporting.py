"""What ``aiocopyai export`` does: an export with a bar that shows how far it is."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Literal

from attrs import define, field, frozen
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from aiocopyai.cli._common import open_session, perform, usage_errors
from aiocopyai.cli._formats import say
from aiocopyai.cli._tally import Tally
from aiocopyai.export import Exported, Progress, export_runs


@frozen
class Wanted:
    """What the command was asked for."""

    workflow_ids: Sequence[str]
    """Empty for the demo."""
    output: Path
    resume: bool
    since: datetime | Literal["last"] | None
    force: bool


@define
class Shown:
    """What was exported so far: on a bar, where there is a terminal, and in words."""

    bar: Bar | None
    tally: Tally = field(factory=Tally)

    def __bool__(self) -> bool:
        return bool(self.tally)

    def __str__(self) -> str:
        return f"{self.tally}{'; --resume goes on from there' if self.tally else ''}"

    def show(self, progress: Progress) -> None:
        """Take over how far the export has come."""
        self.tally = tally(progress.by_status, progress.credits)
        if self.bar is not None:
            of = "" if progress.total is None else f" of {progress.total:,}"
            self.bar.update(self.bar.task_ids[0], completed=progress.runs, total=progress.total, of=of)


class Pace(ProgressColumn):
    """Runs a second, of late."""

    def render(self, task: Task) -> Text:
        """Show the speed, if it is known."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")


def run(wanted: Wanted, key: str | None, *, debug: bool) -> int:
    """Export; return the exit code."""
    # Arrow's own allocator keeps what was freed, tens of megabytes of it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    shown = Shown(_bar())
    return perform(_export(wanted, key, shown), debug=debug, so_far=shown)


async def _export(wanted: Wanted, key: str | None, shown: Shown) -> None:
    async with open_session(wanted.workflow_ids, key) as (session, workflow_ids):
        with usage_errors(), shown.bar or nullcontext():
            exported = await export_runs(
                session,
                workflow_ids,
                wanted.output,
                resume=wanted.resume,
                since=wanted.since,
                force=wanted.force,
                on_progress=shown.show,
            )
    say(_outcome(exported, wanted))


def _outcome(exported: Exported, wanted: Wanted) -> str:
    name = wanted.output
    if exported.is_written:
        return f"{tally(exported.by_status, exported.credits)}; {'added to' if exported.is_addition else 'in'} {name}"
    if wanted.since == "last":
        return f"nothing new; {name} is as it was"
    return f"{name} is whole already: --since last adds what is new"


def tally(by_status: Mapping[str, int], credits: int) -> Tally:  # noqa: A002
    """Give counts as the other commands do."""
    return Tally(Counter(by_status), credits)


def _bar() -> Bar | None:
    """Make a bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        return None
    columns = (BarColumn(), TextColumn("{task.completed:,}{task.fields[of]} runs"), Pace(), TimeRemainingColumn())
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("", total=None, of="")
    return bar
