"""``aiocopyai export``: write runs to a file."""

from __future__ import annotations

import os
import re
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from attrs import define, field

from aiocopyai._display import printable
from aiocopyai.cli._errors import usage_errors
from aiocopyai.cli._options import Settings, WorkflowIds, choose_workflows, read_datetime, shared_options
from aiocopyai.cli._progress import ProgressBar, Tally
from aiocopyai.cli._runner import run_in_session


if TYPE_CHECKING:
    from aiocopyai import CopyAISession
    from aiocopyai.export import Progress


@shared_options
def export(
    settings: Settings,
    workflow_ids: WorkflowIds = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write this file; its extension selects the format: .jsonl, .jsonl.gz, .csv or .parquet.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an unfinished export, if there is one; otherwise start one.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|AGE|last",
            help="Export only runs created since this date, time or age, such as 7d. With last, add new runs to FILE, "
            "and refresh those that were not finished.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Discard an unfinished export, and replace FILE if it exists.")
    ] = False,
) -> None:
    """Write all runs of one or more workflows to a file.

    The file is created when the export is complete. Until then, the runs are stored in FILE.part, FILE.part.db and
    FILE.part.db-wal. If the export is interrupted, the same command with --resume continues it.
    For a nightly job, use --resume --since last: it adds new runs, and refreshes those that were not finished when
    they were exported, if they are at most 30 days older than the newest run of FILE.
    The key is read from COPYAI_API_KEY, or from a prompt on a terminal.

    \b
    Examples:
      aiocopyai export --demo -o runs.csv
      aiocopyai export WCFG-6db59f06-… WCFG-d0f4f3eb-… -o runs.parquet
      aiocopyai export WCFG-6db59f06-… -o runs.jsonl.gz --resume --since last
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    workflow_ids = choose_workflows(workflow_ids, settings)
    if output is None:  # some combinations of typer and click do not support a required option that may be None
        raise typer.BadParameter("pass the file to write with -o FILE")
    if resume and force:
        raise typer.BadParameter("pass either --resume or --force")
    parsed_since: datetime | Literal["last"] | None
    parsed_since = "last" if since == "last" else None if since is None else read_datetime(since)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's default allocator keeps freed memory
    progress = ExportProgress(ProgressBar(settings))

    async def export_to_file(session: CopyAISession) -> None:
        from aiocopyai.export import ExportError, export_runs  # noqa: PLC0415 (loads SQLite)

        with usage_errors(workflow_ids="WORKFLOW_ID"), progress.bar:
            try:
                exported = await export_runs(
                    session,
                    workflow_ids,
                    output,
                    resume=resume,
                    since=parsed_since,
                    force=force,
                    on_progress=progress.update,
                )
            except ExportError as error:
                advice = re.sub(r"\b(force|resume)\b(?! it)", r"--\1", error.advice)
                advice = advice.replace('since="last"', "--since last")
                problem = printable(error.problem)
                raise typer.BadParameter(f"{problem}: {advice}" if advice else problem) from error
        if exported.is_written:
            counts = Tally(Counter(exported.by_status), exported.credits)
            preposition = "added to" if exported.is_addition else "in"
            refreshed = f"; {exported.refreshed:,} of them replaced unfinished ones" if exported.refreshed else ""
            settings.inform(f"{counts}; {preposition} {output}{refreshed}")
        elif parsed_since == "last":
            settings.inform(f"nothing new; {output} is unchanged")
        else:
            settings.inform(f"{output} is already complete; use --since last to add new runs")

    raise typer.Exit(run_in_session(export_to_file, settings, progress=progress))


@define
class ExportProgress:
    """The progress of an export, for the progress bar and for the message after an interruption."""

    bar: ProgressBar
    tally: Tally = field(factory=Tally)

    def update(self, progress: Progress) -> None:
        """Show how many runs are stored."""
        self.tally = Tally(Counter(progress.by_status), progress.credits)
        self.bar.update(progress.runs, progress.total)

    def __bool__(self) -> bool:
        return bool(self.tally)

    def __str__(self) -> str:
        return f"{self.tally}; --resume continues from there"
