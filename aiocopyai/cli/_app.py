"""The commands and their options; what they do is in a room of its own for each."""

from __future__ import annotations

from typing import Annotated

import typer

import aiocopyai
from aiocopyai.cli import _export, _report, _runs


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


app.command()(_runs.runs)
app.command()(_export.export)
app.command()(_report.report)
