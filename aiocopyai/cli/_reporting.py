"""What ``aiocopyai report`` does: count the runs of a workflow or a file, then show tables or write a page."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import typer
from attrs import define, field, frozen
from rich.console import Console
from rich.status import Status

from aiocopyai import Changes, Run
from aiocopyai._files import replace_file
from aiocopyai.cli._client import choose_workflow, open_session
from aiocopyai.cli._errors import run_async, usage_errors
from aiocopyai.cli._options import Settings
from aiocopyai.cli._output import Tally, echo_err
from aiocopyai.export import ExportError, read_export
from aiocopyai.report._statistics import Figures
from aiocopyai.report._table import show_tables


_ENDINGS: Final = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
_PAGES: Final = (".html", ".htm")
_TURN: Final = 500
"""Runs of a file that are counted until others, such as Ctrl-C, get their turn."""


@frozen
class Wanted:
    """What the command was asked for."""

    settings: Settings
    workflow_id: str | None
    """None for a file, or the demo."""
    file: Path | None
    output: Path | None
    since: datetime | None


@define
class Count:
    """What was counted so far, shown on a terminal as it grows."""

    status: Status
    figures: Figures = field(factory=Figures, init=False)
    tally: Tally = field(factory=Tally, init=False)
    source: str = field(default="", init=False)
    """What is reported on, in words."""
    total: int | None = field(default=None, init=False)
    changes: Changes | None = field(default=None, init=False)

    def add(self, run: Run) -> None:
        """Count one run."""
        self.figures.add(run)
        self.tally.add(run)

    def show(self) -> None:
        """Tell how far it is."""
        of = "" if self.total is None else f" of {self.total:,}"
        self.status.update(f"{self.tally.by_status.total():,}{of} runs counted")

    def __bool__(self) -> bool:
        return bool(self.tally)

    def __str__(self) -> str:
        return str(self.tally)


def is_file(source: str | None) -> bool:
    """Tell whether what is to be reported on is a file: by its ending, or because there is one."""
    return source is not None and (source.lower().endswith(_ENDINGS) or Path(source).is_file())


def read_wanted(settings: Settings, source: str | None, output: Path | None, since: datetime | None) -> Wanted:
    """Check what the command was asked for, before anything is read.

    Raises:
        typer.BadParameter: it makes no sense, or needs what is not installed.
    """
    file = Path(source) if source is not None and is_file(source) else None
    if file is not None and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}")
    if output is not None:
        _check_output(output)
    return Wanted(settings, None if file else source, file, output, since)


def run(wanted: Wanted, key: str | None, settings: Settings) -> int:
    """Count and show; return the exit code."""
    # Arrow's own allocator keeps what was freed, tens of megabytes of it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    count = Count(Status("", console=Console(stderr=True)))
    return run_async(_report(wanted, key, count), settings, so_far=count)


def _check_output(output: Path) -> None:
    if output.suffix.lower() not in _PAGES:
        raise typer.BadParameter(f"a report is a page: {output.name} should end in .html")
    if output.is_dir() or not os.access(output.absolute().parent, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"{output} is no place to write a file to")
    missing = [name for name in ("jinja2", "plotly") if find_spec(name) is None]
    if missing:
        raise typer.BadParameter(
            f'the page needs {" and ".join(missing)}; install by: python -m pip install "aiocopyai[report]"'
        )


async def _report(wanted: Wanted, key: str | None, count: Count) -> None:
    with _shown(count.status):
        if wanted.file is None:
            await _count_workflow(wanted, key, count)
        else:
            await _count_file(wanted.file, wanted.since, count)
    if wanted.output is None:
        show_tables(count.figures, count.source)
    else:
        # Here, as the tables do without plotly.
        from aiocopyai.report._page import make_page  # noqa: PLC0415

        replace_file(wanted.output, [make_page(count.figures, count.source).encode("utf-8", "backslashreplace")])
        echo_err(f"{count}; in {wanted.output}")
    if count.changes:
        echo_err(f"the list moved meanwhile: {count.changes}")


async def _count_workflow(wanted: Wanted, key: str | None, count: Count) -> None:
    workflow_id = choose_workflow(wanted.workflow_id, wanted.settings)
    async with open_session(wanted.settings, key) as session:
        count.source = f"workflow {workflow_id}"
        with usage_errors():
            pager = session.runs(workflow_id, since=wanted.since)
        async for page in pager.pages():
            for item in page.items:
                count.add(item)
            count.total = pager.total if wanted.since is None else None
            count.show()
        count.changes = pager.changes


async def _count_file(path: Path, since: datetime | None, count: Count) -> None:
    count.source = path.name
    try:
        for number, item in enumerate(read_export(path)):
            # As in a walk of a list: what has no time is not lost.
            if since is None or item.created_at is None or item.created_at >= since:
                count.add(item)
            if number % _TURN == 0:
                count.show()
                await asyncio.sleep(0)
    except ExportError as error:
        raise typer.BadParameter(str(error)) from error


@contextmanager
def _shown(status: Status) -> Generator[None]:
    """Show it where standard error is a terminal."""
    if sys.stderr.isatty():
        with status:
            yield
    else:
        yield
