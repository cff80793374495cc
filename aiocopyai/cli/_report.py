"""``aiocopyai report``: its arguments and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aiocopyai.cli._client import find_key
from aiocopyai.cli._options import Settings, Since, shared_options


@shared_options
def report(
    settings: Settings,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKFLOW_ID|FILE",
            help="The workflow's id, or a file that `aiocopyai export` wrote.",
            show_default=False,
        ),
    ] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.html", help="Write a page with charts; without it tables are shown here."
        ),
    ] = None,
    since: Since = None,
) -> None:
    """Tell where a workflow's runs and credits went.

    Counts them by day, status and metadata, with the failures' errors and the costliest runs: as tables here, or
    with -o as one page for a browser, which holds all it needs and opens offline (it takes the extra `report`).
    A day begins at midnight where you are. A FILE needs neither key nor network.
    For a workflow the key is taken from COPYAI_API_KEY, or asked for on a terminal.

    \b
    Examples:
      aiocopyai report --demo
      aiocopyai report WCFG-6db59f06-… --since 2026-01-01 -o report.html
      aiocopyai report runs.jsonl.gz -o report.html
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    # Here, as other commands need none of this.
    from aiocopyai.cli._reporting import is_file, read_wanted, run  # noqa: PLC0415

    if (source is None) is not settings.demo:
        raise typer.BadParameter("give either a WORKFLOW_ID or a FILE, or --demo")
    wanted = read_wanted(settings, source, output, since)
    key = None if is_file(source) else find_key(settings)
    raise typer.Exit(run(wanted, key, settings))
