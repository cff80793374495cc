"""``aiocopyai sync``: its arguments and options."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from aiocopyai.cli._client import choose_workflows, find_key
from aiocopyai.cli._options import Settings, shared_options


@shared_options
def sync(
    settings: Settings,
    workflow_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORKFLOW_ID…", help="The workflows' ids, such as WCFG-6db59f06-….", show_default=False),
    ] = None,
    *,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL|NAME",
            help="Where to: a DuckDB file, or another destination that dlt knows. "
            "[duckdb:///runs.duckdb; the demo's is demo.duckdb]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Keep a database up to date with the runs of workflows.

    The first time all runs are loaded, into the table copyai.runs. Later those are that are new, and those that may
    have changed: the last day's, and back to the oldest one, of up to 30 days, that was not over.
    However the command ends, the next one goes on from what is in the database.
    It loads by dlt (the extra `dlt`). With --to NAME the rest is in dlt's configuration, as for any pipeline.
    The key is taken from COPYAI_API_KEY, or asked for on a terminal.

    \b
    Examples:
      aiocopyai sync --demo
      aiocopyai sync WCFG-6db59f06-… WCFG-d0f4f3eb-… --to duckdb:///runs.duckdb
      aiocopyai sync WCFG-6db59f06-… --to bigquery
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    workflow_ids = choose_workflows(workflow_ids, settings)
    missing = [name for name in ("dlt", "duckdb", "pyarrow") if find_spec(name) is None]
    if missing:
        raise typer.BadParameter(
            f'sync needs {" and ".join(missing)}; install by: python -m pip install "aiocopyai[dlt]"'
        )
    # Here, as other commands need none of this.
    from aiocopyai.cli._syncing import Wanted, run  # noqa: PLC0415

    # Made-up runs must not get among real ones unasked.
    place = to or ("duckdb:///demo.duckdb" if settings.demo else "duckdb:///runs.duckdb")
    raise typer.Exit(run(Wanted(settings, workflow_ids, place), find_key(settings), settings))
