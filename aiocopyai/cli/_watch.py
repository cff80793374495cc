"""``aiocopyai watch``: each new run of a workflow, and each change, as it happens."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime
from typing import Annotated

import typer
from attrs import frozen

from aiocopyai.cli._common import find_key, open_session, perform, usage_errors
from aiocopyai.cli._demo import starting_runs
from aiocopyai.cli._formats import Format, say, sink
from aiocopyai.cli._options import Debug, Demo, OutputFormat, Since, WorkflowId, check_workflow
from aiocopyai.cli._tally import Count


@frozen
class Wanted:
    """What the command was asked for."""

    workflow_id: str | None
    """None for the demo."""
    interval: float
    since: datetime | None
    limit: int | None
    format: Format


def watch(
    workflow_id: WorkflowId = None,
    *,
    interval: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="How long to wait between two looks.")
    ] = 10.0,
    since: Since = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so much news.")] = None,
    output_format: OutputFormat = None,
    demo: Demo = False,
    debug: Debug = False,
) -> None:
    """Show each new run of a workflow, and again at each change of its status, until Ctrl-C.

    It begins with what is new from now on; with --since, with the runs created since then.
    Outages are lived through.

    \b
    Examples:
      aiocopyai watch --demo
      aiocopyai watch WCFG-6db59f06-… --interval 30
      aiocopyai watch WCFG-6db59f06-… | jq -r --unbuffered 'select(.status == "FAILED") | .id'
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    check_workflow(workflow_id, demo=demo)
    interval = min(interval, 1.0) if demo else interval
    wanted = Wanted(workflow_id, interval, since, limit, output_format or Format.fitting_stdout())
    news = Count("piece of news", "pieces of news")
    raise typer.Exit(perform(_watch(wanted, find_key(demo=demo), news), debug=debug, so_far=news))


async def _watch(wanted: Wanted, key: str | None, news: Count) -> None:
    chosen = [] if wanted.workflow_id is None else [wanted.workflow_id]
    async with open_session(chosen, key) as (session, [workflow_id]):
        with usage_errors():
            changes = session.watch(workflow_id, interval=wanted.interval, since=wanted.since)
        out = sink(wanted.format)
        out.flush()
        async with nullcontext() if chosen else starting_runs(session):
            async for run in changes:
                out.write(run)
                out.flush()
                news.count += 1
                if news.count == wanted.limit:
                    break
    say(str(news))
