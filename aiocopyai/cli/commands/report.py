"""``aiocopyai report``: show where runs and credits went."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from attrs import define, field

from aiocopyai.cli._client import choose_workflow, find_key, open_session
from aiocopyai.cli._errors import run_async, usage_errors
from aiocopyai.cli._options import Settings, Since, shared_options
from aiocopyai.cli._output import Tally


if TYPE_CHECKING:
    from rich.status import Status

    from aiocopyai import Changes, Run
    from aiocopyai.report import Summary


_EXPORT_SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
_UPDATE_EVERY: Final = 500
"""Runs of a file between two updates of the progress; Ctrl-C is handled then, too."""


@shared_options
def report(
    settings: Settings,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKFLOW_ID|FILE",
            help="The workflow's id, or a file written by `aiocopyai export` or `aiocopyai start`.",
            show_default=False,
        ),
    ] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.html", help="Write a page with charts, instead of showing tables."
        ),
    ] = None,
    since: Since = None,
) -> None:
    """Show where the runs and credits of a workflow went.

    Counts them by day, status and metadata, and lists the errors and the most expensive runs: as tables, or with -o as
    a page for a browser, which needs no network (this requires the extra `report`).
    Days are in your time zone. Reading a FILE needs neither a key nor a network.

    \b
    Examples:
      aiocopyai report --demo
      aiocopyai report WCFG-6db59f06-… --since 2026-01-01 -o report.html
      aiocopyai report runs.jsonl.gz -o report.html
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    if (source is None) is not settings.demo:
        raise typer.BadParameter("pass either a WORKFLOW_ID or a FILE, or --demo")
    file = None
    if source is not None and (source.lower().endswith(_EXPORT_SUFFIXES) or Path(source).is_file()):
        file = Path(source)
        if not file.is_file():
            raise typer.BadParameter(f"{file} does not exist, or is not a file")
    if output is not None:
        _check_output(output)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's own allocator keeps memory that was freed
    progress = ReportProgress()
    if file is None:
        workflow_id = choose_workflow(source, settings)
        count = partial(_count_workflow, workflow_id, since, settings, find_key(settings), progress)
    else:
        count = partial(_count_file, file, since, progress)
    raise typer.Exit(run_async(_report(count, output, settings, progress), settings, so_far=progress))


def _check_output(output: Path) -> None:
    """Refuse a page that cannot be written, before anything is read."""
    if output.suffix.lower() not in {".html", ".htm"}:
        raise typer.BadParameter(f"the report is an HTML page: FILE must end in .html, got {output.name}")
    if output.is_dir():
        raise typer.BadParameter(f"{output} is a folder")
    if not os.access(output.absolute().parent, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"{output} is in a folder that does not exist, or cannot be written to")
    missing = [name for name in ("jinja2", "plotly") if find_spec(name) is None]
    if missing:
        raise typer.BadParameter(
            f'the page needs {" and ".join(missing)}; install with: python -m pip install "aiocopyai[report]"'
        )


def _new_summary() -> Summary:
    from aiocopyai.report import Summary  # noqa: PLC0415 (only this command needs it)

    return Summary()


@define
class ReportProgress:
    """What was counted so far, shown on a terminal."""

    summary: Summary = field(factory=_new_summary, init=False)
    tally: Tally = field(factory=Tally, init=False)
    changes: Changes | None = field(default=None, init=False)
    _status: Status | None = field(default=None, init=False)

    def add(self, run: Run) -> None:
        """Count a run."""
        self.summary.add(run)
        self.tally.add(run)

    def update(self, total: int | None = None) -> None:
        """Show how many runs were counted, of how many if that is known."""
        if self._status is not None:
            of = "" if total is None else f" of {total:,}"
            self._status.update(f"{self.summary.total.runs:,}{of} runs counted")

    @contextmanager
    def shown(self, settings: Settings) -> Generator[None]:
        """Show the progress while this lasts, if there is a terminal."""
        if not settings.shows_progress:
            yield
            return
        from rich.console import Console  # noqa: PLC0415 (takes longer to load than most commands to run)
        from rich.status import Status  # noqa: PLC0415

        self._status = Status("", console=Console(stderr=True))
        with self._status:
            yield

    def __bool__(self) -> bool:
        return bool(self.tally)

    def __str__(self) -> str:
        return str(self.tally)


async def _report(
    count: Callable[[], Awaitable[str]], output: Path | None, settings: Settings, progress: ReportProgress
) -> None:
    """Count the runs, then show or write the report."""
    with progress.shown(settings):
        source = await count()
    if output is None:
        from aiocopyai.cli._report_tables import print_tables  # noqa: PLC0415 (loads rich)

        print_tables(progress.summary, source)
    else:
        from aiocopyai.report import write_report  # noqa: PLC0415 (only this command needs it)

        write_report(progress.summary, output, source=source)
        settings.inform(f"{progress}; in {output}")
    if progress.changes:
        settings.inform(f"the list changed while it was read: {progress.changes}")


async def _count_workflow(
    workflow_id: str, since: datetime | None, settings: Settings, key: str | None, progress: ReportProgress
) -> str:
    """Count the runs of a workflow; return the name of the source."""
    async with open_session(settings, key) as session:
        with usage_errors():
            pager = session.runs(workflow_id, since=since)
        async for page in pager.pages():
            for run in page.items:
                progress.add(run)
            progress.update(pager.total if since is None else None)
        progress.changes = pager.changes
    return f"workflow {workflow_id}"


async def _count_file(path: Path, since: datetime | None, progress: ReportProgress) -> str:
    """Count the runs of a file; return the name of the source."""
    from aiocopyai.export import read_export  # noqa: PLC0415 (only this command needs it)

    with usage_errors():
        for number, run in enumerate(read_export(path)):
            # Runs without a time are included, as in the list of a workflow.
            if since is None or run.created_at is None or run.created_at >= since:
                progress.add(run)
            if number % _UPDATE_EVERY == 0:
                progress.update()
                await asyncio.sleep(0)
    return path.name
