"""``aiocopyai watch``: show new runs and changes of status as they happen."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime
from typing import Annotated

import typer

from aiocopyai.cli._client import choose_workflow, find_key, open_session
from aiocopyai.cli._demo import starting_runs
from aiocopyai.cli._errors import run_async, usage_errors
from aiocopyai.cli._options import FormatOption, Settings, Since, WorkflowId, shared_options
from aiocopyai.cli._output import ItemCount, OutputFormat, open_run_writer


_DEMO_INTERVAL = 1.0


@shared_options
def watch(
    settings: Settings,
    workflow_id: WorkflowId = None,
    *,
    interval: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="How long to wait between two polls.")
    ] = 10.0,
    since: Since = None,
    status: Annotated[
        list[str] | None,
        typer.Option(metavar="STATUS", help="Only changes to this status; repeat it for more."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many changes.")] = None,
    output_format: FormatOption = None,
) -> None:
    """Show the new runs of a workflow, and changes of status.

    Each new run is shown, and each change of a run's status, until Ctrl-C.
    By default these are the runs created after the command started; with --since, those created since then.
    It continues after outages.

    \b
    Examples:
      aiocopyai watch --demo
      aiocopyai watch WCFG-6db59f06-… --interval 30 --status failed
      aiocopyai watch WCFG-6db59f06-… | jq -r --unbuffered .id
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    workflow_id = choose_workflow(workflow_id, settings)
    if settings.demo:
        interval = min(interval, _DEMO_INTERVAL)
    shown = ItemCount("change")
    work = _watch(workflow_id, interval, since, status, limit, output_format, settings, find_key(settings), shown)
    raise typer.Exit(run_async(work, settings, so_far=shown))


async def _watch(
    workflow_id: str,
    interval: float,
    since: datetime | None,
    statuses: list[str] | None,
    limit: int | None,
    output_format: OutputFormat | None,
    settings: Settings,
    key: str | None,
    shown: ItemCount,
) -> None:
    async with open_session(settings, key) as session:
        with usage_errors():
            changes = session.watch(workflow_id, interval=interval, since=since, statuses=statuses or None)
        writer = open_run_writer(output_format)
        writer.flush()  # the header of a table or of CSV
        async with starting_runs(session) if settings.demo else nullcontext():
            async for event in changes:
                writer.write(event.run)
                writer.flush()
                shown.count += 1
                if shown.count == limit:
                    break
    settings.inform(str(shown))
