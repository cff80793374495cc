"""``aiocopyai watch``: show new runs and changes of status as they happen."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Final

import typer

from aiocopyai.cli import _demo
from aiocopyai.cli._errors import usage_errors
from aiocopyai.cli._options import FormatOption, Settings, Since, WorkflowId, choose_workflow, shared_options
from aiocopyai.cli._output import open_run_writer
from aiocopyai.cli._progress import ItemCount
from aiocopyai.cli._runner import run_in_session


if TYPE_CHECKING:
    from aiocopyai import CopyAISession


_INTERVAL: Final = 10.0
_DEMO_INTERVAL: Final = 1.0


@shared_options
def watch(
    settings: Settings,
    workflow_id: WorkflowId = None,
    *,
    interval: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help=f"Wait this long between two polls, by default {_INTERVAL:g} s, or with --demo {_DEMO_INTERVAL:g} s.",
            show_default=False,
        ),
    ] = None,
    since: Since = None,
    status: Annotated[
        list[str] | None,
        typer.Option(metavar="STATUS", help="Show only changes to this status; repeat the option for more."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after this many changes.")] = None,
    output_format: FormatOption = None,
) -> None:
    """Show new runs of a workflow, and changes of status.

    Each new run and each change of a run's status is shown at once, until Ctrl-C. Outages do not end the command.
    The command watches runs that were created after it was started, or after --since.

    \b
    Examples:
      aiocopyai watch --demo
      aiocopyai watch WCFG-6db59f06-… --interval 30 --status failed
      aiocopyai watch WCFG-6db59f06-… | jq -r --unbuffered .id
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    workflow_id = choose_workflow(workflow_id, settings)
    if interval is None:
        interval = _DEMO_INTERVAL if settings.demo else _INTERVAL
    shown = ItemCount("change")

    async def show_changes(session: CopyAISession) -> None:
        with usage_errors():
            changes = session.watch(workflow_id, interval=interval, since=since, statuses=status or None)
        writer = open_run_writer(output_format)
        writer.flush()  # the header of a table or of CSV
        async with _demo.starting_runs(session) if settings.demo else nullcontext():
            async for event in changes:
                writer.write(event.run)
                writer.flush()
                shown.count += 1
                if shown.count == limit:
                    break
        settings.inform(str(shown))

    raise typer.Exit(run_in_session(show_changes, settings, progress=shown))
