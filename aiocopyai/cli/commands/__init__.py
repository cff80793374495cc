"""The commands of `aiocopyai`, one per file, and `app`, which combines them."""

from __future__ import annotations

from typing import Annotated

import typer

import aiocopyai
from aiocopyai.cli.commands import (
    check_key,
    emulate,
    export,
    get,
    mcp_server,
    report,
    runs,
    start,
    sync,
    watch,
    webhooks,
    webhooks_listen,
)


def _make_group(name: str, summary: str) -> typer.Typer:
    # Markup would join the lines of the examples.
    return typer.Typer(
        name=name,
        help=summary,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"]},
    )


app = _make_group("aiocopyai", "Work with Copy.ai workflows from the command line.")
_webhooks_group = _make_group("webhooks", "List, create, delete and receive webhooks.")


def _print_version(is_requested: bool) -> None:  # noqa: FBT001 (called by typer)
    if is_requested:
        typer.echo(f"aiocopyai {aiocopyai.__version__}")
        raise typer.Exit


@app.callback()
def common_options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Add the options that come before the name of a command."""


app.command()(runs.runs)
app.command()(export.export)
app.command()(report.report)
app.command()(sync.sync)
app.command()(start.start)
app.command()(get.get)
app.command()(watch.watch)
_webhooks_group.command("list")(webhooks.list_)
_webhooks_group.command()(webhooks.create)
_webhooks_group.command()(webhooks.delete)
_webhooks_group.command()(webhooks_listen.listen)
app.add_typer(_webhooks_group)
app.command()(mcp_server.mcp)
app.command("check-key")(check_key.check_key)
# The emulator parses its own options.
app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    emulate.emulate
)
