"""``aiocopyai start``: its arguments and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aiocopyai.cli._client import choose_workflow, find_key
from aiocopyai.cli._options import Settings, WaitTimeout, WorkflowId, read_pairs, read_timeout, shared_options


@shared_options
def start(
    settings: Settings,
    workflow_id: WorkflowId = None,
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Option(*("--input", "-i"), metavar="NAME=TEXT", help="An input; repeat it for more.", show_default=False),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Start a run for each row: of a .csv below a header with the inputs' names, or of a .jsonl.",
            show_default=False,
        ),
    ] = None,
    no_input: Annotated[bool, typer.Option("--no-input", help="The workflow has no inputs.")] = False,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            *("--metadata", "-m"), metavar="KEY=TEXT", help="What each run is to carry along.", show_default=False
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until each run is over.")] = False,
    timeout: WaitTimeout = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=100, metavar="N", help="So many runs are open at a time; without --wait, starts.")
    ] = 8,
    output: Annotated[
        Path | None,
        typer.Option(
            *("--output", "-o"), metavar="FILE.jsonl", help="Where the results go; else they are shown.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with FILE.jsonl, if it was begun; no row is started twice.")
    ] = False,
) -> None:  # fmt: skip
    """Start a run, or one for each row of a file. Each spends credits.

    A start whose answer is lost is looked for before it is sent again. When the credits are out, no more is started.
    With -o each result is written as it comes. However the command ends, the same command with --resume goes on:
    what was started is found again, and not paid for twice.
    The exit code is 0 only if every run was started, and with --wait is complete.

    \b
    Examples:
      aiocopyai start --demo -i "Company name=Northwind" --wait
      aiocopyai start WCFG-6db59f06-… -i "Input 1=…" -m batch=7
      aiocopyai start WCFG-6db59f06-… --input-file rows.csv --wait -o results.jsonl
      aiocopyai start WCFG-6db59f06-… --input-file rows.csv --wait -o results.jsonl --resume
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    # Here, as other commands need none of this.
    from aiocopyai.batch._input_rows import Rows  # noqa: PLC0415
    from aiocopyai.cli._starting import Wanted, run  # noqa: PLC0415

    workflow_id = choose_workflow(workflow_id, settings)
    if no_input is not (input_file is None and not inputs):
        raise typer.BadParameter("give inputs by -i or --input-file, or --no-input for a workflow that has none")
    carried = dict(read_pairs("--metadata", metadata or []))
    common = dict(read_pairs("--input", inputs or []))
    seconds = read_timeout(timeout, wait=wait)
    key = find_key(settings)
    with Rows(input_file, common) as rows:
        wanted = Wanted(settings, workflow_id, rows, carried, concurrency, output, seconds, resume)
        raise typer.Exit(run(wanted, key, settings))
