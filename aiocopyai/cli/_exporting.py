"""What ``aiocopyai export`` does: an export with a bar that shows how far it is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Literal

from attrs import define, field, frozen

from aiocopyai.cli._client import open_session
from aiocopyai.cli._errors import run_async, usage_errors
from aiocopyai.cli._options import Settings
from aiocopyai.cli._output import Tally, echo_err
from aiocopyai.cli._progress import ProgressBar
from aiocopyai.export import Exported, Progress, export_runs


@frozen
class Wanted:
    """What the command was asked for."""

    settings: Settings
    workflow_ids: Sequence[str]
    output: Path
    resume: bool
    since: datetime | Literal["last"] | None
    force: bool


@define
class Shown:
    """What was exported so far: on a bar, where there is a terminal, and in words."""

    bar: ProgressBar | None
    tally: Tally = field(factory=Tally)

    def __bool__(self) -> bool:
        return bool(self.tally)

    def __str__(self) -> str:
        return f"{self.tally}{'; --resume goes on from there' if self.tally else ''}"

    def show(self, progress: Progress) -> None:
        """Take over how far the export has come."""
        self.tally = tally(progress.by_status, progress.credits)
        if self.bar is not None:
            self.bar.update(progress.runs, progress.total)


def run(wanted: Wanted, key: str | None, settings: Settings) -> int:
    """Export; return the exit code."""
    # Arrow's own allocator keeps what was freed, tens of megabytes of it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    shown = Shown(ProgressBar.on_terminal(settings))
    return run_async(_export(wanted, key, shown), settings, so_far=shown)


async def _export(wanted: Wanted, key: str | None, shown: Shown) -> None:
    async with open_session(wanted.settings, key) as session:
        with usage_errors(), shown.bar or nullcontext():
            exported = await export_runs(
                session,
                wanted.workflow_ids,
                wanted.output,
                resume=wanted.resume,
                since=wanted.since,
                force=wanted.force,
                on_progress=shown.show,
            )
    echo_err(_outcome(exported, wanted))


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
