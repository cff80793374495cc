"""``aiocopyai export``: its arguments and options."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from aiocopyai.cli._client import choose_workflows, find_key
from aiocopyai.cli._options import Settings, read_datetime, shared_options


@shared_options
def export(
    settings: Settings,
    workflow_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORKFLOW_ID…", help="The workflows' ids, such as WCFG-6db59f06-….", show_default=False),
    ] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            *("--output", "-o"),
            metavar="FILE",
            help="Where to; its ending is the format: .jsonl, .jsonl.gz, .csv or .parquet.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was begun, if something was; else begin.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="ISO|last",
            help="Only runs created at or after this date or time; or add to FILE what it has not: last.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew: replace FILE, throw away what was begun.")
    ] = False,
) -> None:
    """Write all runs of one or more workflows to a file.

    The file appears whole or not at all.

    Until it is whole, what was read stands beside it as FILE.part and FILE.part.db.
    However the command ends, even by kill -9, the same command with --resume goes on from there.
    With --since last it adds what FILE has not; --resume --since last suits a timetable, and the first time too.
    The key is taken from COPYAI_API_KEY, or asked for on a terminal.

    \b
    Examples:
      aiocopyai export --demo -o runs.csv
      aiocopyai export WCFG-6db59f06-… WCFG-d0f4f3eb-… -o runs.parquet
      aiocopyai export WCFG-6db59f06-… -o runs.jsonl.gz --resume --since last
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    # Here, as other commands need neither SQLite nor this much to load.
    from aiocopyai.cli._exporting import Wanted, run  # noqa: PLC0415

    workflow_ids = choose_workflows(workflow_ids, settings)
    if output is None:  # typer's own check is lost on some pairs of typer and click
        raise typer.BadParameter("say where to: -o FILE")
    wanted = Wanted(settings, workflow_ids, output, resume, _read_since(since), force)
    raise typer.Exit(run(wanted, find_key(settings), settings))


def _read_since(since: str | None) -> datetime | Literal["last"] | None:
    if since is None:
        return None
    return "last" if since == "last" else read_datetime(since)
