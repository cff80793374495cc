"""``aiocopyai runs``: its arguments and options."""

from __future__ import annotations

from typing import Annotated

import typer

from aiocopyai import RunStatus
from aiocopyai.cli._common import find_key
from aiocopyai.cli._formats import Format, say
from aiocopyai.cli._listing import Wanted, read_filter, run
from aiocopyai.cli._options import Debug, Demo, OutputFormat, Since, WorkflowId, check_workflow


def runs(
    workflow_id: WorkflowId = None,
    *,
    demo: Demo = False,
    limit: Annotated[int | None, typer.Option(min=0, help="Stop after so many of the wanted runs.")] = None,
    since: Since = None,
    status: Annotated[
        list[str] | None, typer.Option(metavar="STATUS", help="Only runs of this status; repeat it for more.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Only runs with this value under this metadata key; repeat it for more keys, or other values.",
        ),
    ] = None,
    output_format: OutputFormat = None,
    debug: Debug = False,
) -> None:
    """List every run of a workflow, as the answers come.

    The runs go to standard output; counts by status and the credits spent follow on standard error.
    The key is taken from COPYAI_API_KEY, or asked for on a terminal.

    \b
    Examples:
      aiocopyai runs --demo
      aiocopyai runs WCFG-6db59f06-… --since 2026-01-31 --status failed
      aiocopyai runs WCFG-6db59f06-… --metadata batch=7 --format csv > batch-7.csv
      aiocopyai runs WCFG-6db59f06-… | jq -r 'select(.status == "FAILED") | .id'
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    check_workflow(workflow_id, demo=demo)
    for unknown in [name for name in status or [] if name.upper() not in RunStatus.__members__]:
        say(f"the API's reference knows no status {unknown}; it knows {', '.join(RunStatus)}")
    chosen = read_filter(status or [], metadata or [])
    wanted = Wanted(workflow_id, limit, since, output_format or Format.fitting_stdout(), chosen)
    raise typer.Exit(run(wanted, find_key(demo=demo), debug=debug))
