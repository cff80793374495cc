"""``aiocopyai report``: summarize runs and their credits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from aiocopyai._display import local_time, plural, printable
from aiocopyai.cli._errors import require_packages, usage_errors
from aiocopyai.cli._options import Settings, Since, choose_workflow, shared_options
from aiocopyai.cli._progress import StatusLine, Tally
from aiocopyai.cli._runner import run_async, run_in_session


if TYPE_CHECKING:
    from aiocopyai import CopyAISession, Run
    from aiocopyai.report import Summary, Totals


_EXPORT_SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
_TOTALS_COLUMNS: Final = ("RUNS", "CREDITS", "FAILED")
_MAX_PERIODS: Final = 62
"""The maximum number of rows in the first table: days if they fit, otherwise weeks, months or years."""
_MAX_ROWS: Final = 10
_MAX_VALUES: Final = 5
_UPDATE_INTERVAL: Final = 500
"""The number of runs to read from a file before the progress is updated and Ctrl-C is handled."""


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
            "--output", "-o", metavar="FILE.html", help="Write a page with charts, instead of printing tables."
        ),
    ] = None,
    since: Since = None,
) -> None:
    """Summarize the runs of a workflow, their credits and errors.

    The report counts runs and credits by day, status and metadata, and lists the errors and the most expensive runs.
    It is printed as tables. With -o, it is written as an HTML page, which works offline and requires the extra
    `report`.
    Days are in your time zone. Reading a FILE requires neither a key nor a network.

    \b
    Examples:
      aiocopyai report --demo
      aiocopyai report WCFG-6db59f06-… --since 2026-01-01 -o report.html
      aiocopyai report runs.jsonl.gz -o report.html
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    if (source is not None) == settings.demo:
        raise typer.BadParameter("pass a WORKFLOW_ID, a FILE or --demo")
    file = None
    if source is not None and (source.lower().endswith(_EXPORT_SUFFIXES) or Path(source).is_file()):
        file = Path(source)
        if not file.is_file():
            raise typer.BadParameter(f"{printable(str(file))} does not exist, or is not a file")
    if output is not None:
        _check_output(output)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's default allocator keeps freed memory
    counter = RunCounter(StatusLine(settings))
    if file is not None:
        work = partial(_report_file, file, since, output, counter, settings)
        raise typer.Exit(run_async(work, settings, progress=counter.tally))
    workflow_id = choose_workflow(source, settings)

    async def report_workflow(session: CopyAISession) -> None:
        with usage_errors():
            pager = session.runs(workflow_id, since=since)
        with counter.status:
            async for page in pager.pages():
                for run in page.items:
                    counter.add(run)
                counter.show(pager.total if since is None else None)
        _show_report(counter, f"workflow {workflow_id}", output, settings)
        if pager.changes:
            settings.inform(f"the list changed while it was read: {pager.changes}")

    raise typer.Exit(run_in_session(report_workflow, settings, progress=counter.tally))


def _check_output(output: Path) -> None:
    """Reject a path that cannot be written, before any run is read."""
    if output.suffix.lower() not in {".html", ".htm"}:
        raise typer.BadParameter(f"the report is an HTML page: FILE must end in .html, got {printable(output.name)}")
    if output.is_dir():
        raise typer.BadParameter(f"{printable(str(output))} is a folder")
    if not os.access(output.absolute().parent, os.W_OK | os.X_OK):
        raise typer.BadParameter(
            f"{printable(str(output))} is in a folder that does not exist, or cannot be written to"
        )
    require_packages("the page", ("jinja2", "plotly"), extra="report")


class RunCounter:
    """Counts runs, and shows their number on a terminal."""

    def __init__(self, status: StatusLine) -> None:
        from aiocopyai.report import Summary  # noqa: PLC0415 (only this command needs it)

        self.status = status
        self.summary = Summary()
        self.tally = Tally()

    def add(self, run: Run) -> None:
        """Count a run."""
        self.summary.add(run)
        self.tally.add(run)

    def show(self, total: int | None = None) -> None:
        """Show how many runs were counted, and their total if it is known."""
        of = "" if total is None else f" of {total:,}"
        self.status.update(f"{self.summary.total.runs:,}{of} runs counted")


async def _report_file(
    file: Path, since: datetime | None, output: Path | None, counter: RunCounter, settings: Settings
) -> None:
    from aiocopyai.export import read_export  # noqa: PLC0415 (only this command needs it)

    with usage_errors(), counter.status:
        for number, run in enumerate(read_export(file)):
            # Runs without a creation time are included, as if they were read from the API.
            if since is None or run.created_at is None or run.created_at >= since:
                counter.add(run)
            if number % _UPDATE_INTERVAL == 0:
                counter.show()
                await asyncio.sleep(0)
    _show_report(counter, file.name, output, settings)


def _show_report(counter: RunCounter, source: str, output: Path | None, settings: Settings) -> None:
    """Print the tables, or write the page."""
    if output is None:
        _print_tables(counter.summary, source)
    else:
        from aiocopyai.report import write_report  # noqa: PLC0415 (only this command needs it)

        write_report(counter.summary, output, source=source)
        settings.inform(f"{counter.tally}; in {output}")


def _print_tables(summary: Summary, source: str) -> None:
    """Print all tables on standard output."""
    from aiocopyai.cli._tables import open_console, print_table  # noqa: PLC0415 (loads rich)
    from aiocopyai.report import group_by_period  # noqa: PLC0415 (only this command needs it)
    from aiocopyai.report._summary import OTHERS  # noqa: PLC0415

    console = open_console()
    total = summary.total
    lines = [f"{plural(total.runs, 'run')}, {total.failed:,} failed; {total.credits:,} credits"]
    if summary.first and summary.last:
        zones = " and ".join(summary.zones)
        lines.append(f"{_time(summary.first)} to {_time(summary.last)}; times and days in {zones}")
    console.print(printable(source), style="bold")
    console.print("\n".join(map(printable, [*lines, *summary.remarks])), end="\n\n")
    if summary.days.totals:
        grouped = group_by_period(summary, _MAX_PERIODS)
        periods = [(f"{p.start} (partial)" if p.is_partial else str(p.start), p.total) for p in grouped.periods]
        bars = [totals.runs for _, totals in periods]
        print_table(console, [grouped.unit.upper(), *_TOTALS_COLUMNS], _totals_rows(periods), bars=bars)
    if total.runs:
        statuses = [*summary.statuses.ranked, (OTHERS, summary.statuses.others)]
        print_table(console, ["STATUS", *_TOTALS_COLUMNS], _totals_rows(statuses))
    if len(summary.workflows.totals) > 1:
        top, others = summary.workflows.top(_MAX_ROWS)
        print_table(console, ["WORKFLOW", *_TOTALS_COLUMNS], _totals_rows([*top, (OTHERS, others)]))
    if summary.keys:
        print_table(console, ["METADATA", *_TOTALS_COLUMNS], _totals_rows(_metadata_totals(summary)))
    if summary.errors:
        errors = [(error.total, _time(error.latest), error.text) for error in summary.ranked_errors[:_MAX_ROWS]]
        errors.append((summary.errors_after(_MAX_ROWS), "", OTHERS))
        rows = [(totals.runs, totals.credits, latest, text) for totals, latest, text in errors if totals.runs]
        print_table(console, ["FAILED", "CREDITS", "LATEST", "ERROR"], rows)
    if summary.costliest:
        costliest = [(run.credits, _time(run.created_at), run.status, run.id) for run in summary.costliest]
        print_table(console, ["CREDITS", "CREATED", "STATUS", "ID"], costliest)


def _metadata_totals(summary: Summary) -> list[tuple[str, Totals]]:
    """Return the totals of each key and of its most frequent values, whose names are indented."""
    from aiocopyai.report._summary import OTHERS  # noqa: PLC0415

    rows: list[tuple[str, Totals]] = []
    for key, key_summary in summary.ranked_keys[:_MAX_ROWS]:
        top, others = key_summary.values.top(_MAX_VALUES)
        if len(top) == 1 and not others.runs:
            rows.append((f"{key} = {top[0][0]}", key_summary.total))
            continue
        rows.append((f"{key} ({key_summary.distinct} values)", key_summary.total))
        rows += [(f"  = {value}", totals) for value, totals in top]
        rows.append((f"  {OTHERS}", others))
    rows.append(("(none)", summary.without_metadata))
    return rows


def _totals_rows(named_totals: Sequence[tuple[str, Totals]]) -> list[tuple[str, int, int, int | None]]:
    """Return the rows of a table with the columns `_TOTALS_COLUMNS`. Names without runs are omitted."""
    return [(name, totals.runs, totals.credits, totals.failed or None) for name, totals in named_totals if totals.runs]


def _time(time: datetime | None) -> str:
    return f"{local_time(time):%Y-%m-%d %H:%M}" if time else "-"
