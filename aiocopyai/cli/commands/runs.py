"""``aiocopyai runs``: list the runs of a workflow."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

import aiocopyai
from aiocopyai._display import plural
from aiocopyai.cli._errors import usage_errors
from aiocopyai.cli._options import (
    FormatOption,
    Prefetch,
    Settings,
    Since,
    WorkflowId,
    choose_workflow,
    read_pairs,
    shared_options,
)
from aiocopyai.cli._output import echo_err, open_run_writer
from aiocopyai.cli._progress import Tally
from aiocopyai.cli._runner import run_in_session


if TYPE_CHECKING:
    from aiocopyai import CopyAISession


@shared_options
def runs(
    settings: Settings,
    workflow_id: WorkflowId = None,
    *,
    limit: Annotated[int | None, typer.Option(min=0, metavar="N", help="Stop after this many matching runs.")] = None,
    since: Since = None,
    status: Annotated[
        list[str] | None,
        typer.Option(metavar="STATUS", help="List only runs with this status; repeat the option for more."),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="List only runs with this metadata; repeat the option for more keys, or for more values of a key.",
        ),
    ] = None,
    output_format: FormatOption = None,
    prefetch: Prefetch = None,
) -> None:
    """List all runs of a workflow.

    The runs are printed on standard output, followed by their number and credits on standard error.
    The key is read from COPYAI_API_KEY, or from a prompt on a terminal.

    \b
    Examples:
      aiocopyai runs --demo
      aiocopyai runs WCFG-6db59f06-… --since 2026-01-31 --status failed
      aiocopyai runs WCFG-6db59f06-… --metadata batch=7 --format csv > batch-7.csv
      aiocopyai runs WCFG-6db59f06-… | jq -r 'select(.status == "FAILED") | .id'
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    workflow_id = choose_workflow(workflow_id, settings)
    pairs = read_pairs("--metadata", metadata or [])
    metadata_filter = {key: [value for other, value in pairs if other == key] for key, _ in pairs}
    for unknown in sorted({name.upper() for name in status or []}.difference(aiocopyai.RunStatus)):
        echo_err(f"warning: the API reference has no status {unknown}, only {', '.join(aiocopyai.RunStatus)}")
    tally = Tally()

    async def list_runs(session: CopyAISession) -> None:
        with usage_errors():
            pager = session.runs(
                workflow_id,
                limit=limit,
                since=since,
                status=status or None,
                metadata=metadata_filter,
                **({} if prefetch is None else {"prefetch": prefetch}),
            )
        writer = open_run_writer(output_format)
        async with aclosing(pager.pages()) as pages:
            async for page in pages:
                for run in page.items:
                    writer.write(run)
                    tally.add(run)
                writer.flush()
            read = pages.position if pager.total is None else min(pages.position, pager.total)
        settings.inform(f"{tally} (of {plural(read, 'run')} read)" if status or metadata_filter else str(tally))
        if pager.changes:
            settings.inform(f"the list changed while it was read: {pager.changes}")

    raise typer.Exit(run_in_session(list_runs, settings, progress=tally))
