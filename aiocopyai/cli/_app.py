"""The commands and their options; what they do is in a room of its own for each."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

import aiocopyai
from aiocopyai.cli import _export, _report, _runs, _sync
from aiocopyai.cli._common import find_key, read_moment
from aiocopyai.cli._formats import Format


app = typer.Typer(
    name="aiocopyai",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: it keeps the examples' lines
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (typer calls it so)
    if wanted:
        typer.echo(f"aiocopyai {aiocopyai.__version__}")
        raise typer.Exit


@app.callback()
def aiocopyai_(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Work with Copy.ai workflows from the command line."""


@app.command()
def runs(
    workflow_id: Annotated[
        str | None, typer.Argument(help="The workflow's id, such as WCFG-6db59f06-….", show_default=False)
    ] = None,
    *,
    demo: Annotated[
        bool, typer.Option("--demo", help="List made-up runs of a local emulator: no key, no network.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=0, help="Stop after so many of the wanted runs.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=read_moment,
            metavar="ISO",
            help="Only runs created at or after this date or time; without a zone it is in yours.",
        ),
    ] = None,
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
    output_format: Annotated[
        Format | None,
        typer.Option("--format", help="By default a table on a terminal, JSON lines elsewhere."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log each step, and show tracebacks.")] = False,
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
    if (workflow_id is None) is not demo:
        raise typer.BadParameter("give either a WORKFLOW_ID or --demo")
    chosen = _runs.read_filter(status or [], metadata or [])
    wanted = _runs.Wanted(workflow_id, limit, since, output_format or Format.fitting_stdout(), chosen)
    raise typer.Exit(_runs.run(wanted, find_key(demo=demo), debug=debug))


app.command()(_export.export)
app.command()(_report.report)
app.command()(_sync.sync)
