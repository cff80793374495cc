"""The commands and their options; what they do is in a room of its own for each."""

from __future__ import annotations

from typing import Annotated

import typer

import aiocopyai
from aiocopyai.cli import (
    _check_key,
    _emulate,
    _export,
    _get,
    _listen,
    _report,
    _runs,
    _start,
    _sync,
    _watch,
    _webhooks,
)


def _group(name: str, summary: str | None = None) -> typer.Typer:
    # Plain help keeps the examples' lines.
    return typer.Typer(
        name=name,
        help=summary,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"]},
    )


app = _group("aiocopyai")
webhooks = _group("webhooks", "List, register and delete webhooks, and listen to what they tell.")


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
app.command()(_sync.sync)
app.command()(_start.start)
app.command()(_get.get)
app.command()(_watch.watch)
webhooks.command("list")(_webhooks.list_)
webhooks.command()(_webhooks.create)
webhooks.command()(_webhooks.delete)
webhooks.command()(_listen.listen)
app.add_typer(webhooks)
app.command("check-key")(_check_key.check_key)
app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    _emulate.emulate
)
