"""``aiocopyai sync``: load runs into a database. `integrations._sync_pipeline` reads ``--to`` and runs dlt."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import define

from aiocopyai._display import plural
from aiocopyai.cli import _demo
from aiocopyai.cli._errors import CommandError, require_packages, usage_errors
from aiocopyai.cli._options import Settings, WorkflowIds, choose_workflows, shared_options
from aiocopyai.cli._progress import StatusLine
from aiocopyai.cli._runner import prompt_for_key, run_sync


if TYPE_CHECKING:
    from aiocopyai import CopyAISession


@shared_options
def sync(
    settings: Settings,
    workflow_ids: WorkflowIds = None,
    *,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL|NAME",
            help="Load the runs into this database: a DuckDB file, or another destination of dlt; by default "
            "duckdb:///runs.duckdb, or duckdb:///demo.duckdb for --demo.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Keep a database up to date with the runs of workflows.

    The first time, all runs are loaded into the table copyai.runs. Later, only runs that are new or may have changed
    are loaded: the runs of the last day, and runs of the last 30 days that were not finished.
    If a load is interrupted, the next one continues from the rows in the database.
    The command requires the extra `dlt`. With --to NAME, configure the destination as for any dlt pipeline.
    The key is read from COPYAI_API_KEY, or from a prompt on a terminal.

    \b
    Examples:
      aiocopyai sync --demo
      aiocopyai sync WCFG-6db59f06-… WCFG-d0f4f3eb-… --to duckdb:///runs.duckdb
      aiocopyai sync WCFG-6db59f06-… --to bigquery
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    workflow_ids = choose_workflows(workflow_ids, settings)
    require_packages("sync", ("dlt", "duckdb", "pyarrow"), extra="dlt")
    # By default, sample runs are not mixed with real ones.
    url = to or ("duckdb:///demo.duckdb" if settings.demo else "duckdb:///runs.duckdb")
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    # dlt logs the errors that it raises.
    os.environ.setdefault("RUNTIME__LOG_LEVEL", "INFO" if settings.debug else "CRITICAL")
    progress = SyncProgress(StatusLine(settings))
    key = prompt_for_key(settings)

    def load_runs() -> None:
        from aiocopyai.integrations._sync_pipeline import Destination, DestinationError, load  # noqa: PLC0415 (loads dlt)
        from aiocopyai.integrations.dlt import copyai_source  # noqa: PLC0415

        with usage_errors():
            destination = Destination.parse(url)
        try:
            with destination.locked(), _session_factory(settings, key) as make_session:
                with usage_errors():
                    pipeline = destination.open_pipeline()
                    session = make_session()
                    for workflow_id in workflow_ids:
                        session.runs(workflow_id)  # checks the id, and sends nothing
                with progress.status:
                    loaded = load(pipeline, copyai_source(workflow_ids, session=make_session), progress.update)
        except DestinationError as error:
            raise CommandError(str(error)) from error
        new = plural(loaded.new, "new run")
        settings.inform(f"{new}, {loaded.updated:,} read again; {loaded.total:,} in {destination.label}")

    raise typer.Exit(run_sync(load_runs, settings, progress=progress))


@define
class SyncProgress:
    """Counts the runs that were read, and shows their number on a terminal."""

    status: StatusLine
    runs: int = 0

    def update(self, runs: int) -> None:
        """Show how many runs were read."""
        self.runs = runs
        self.status.update(f"{plural(runs, 'run')} read")

    def __bool__(self) -> bool:
        return self.runs > 0

    def __str__(self) -> str:
        return f"reading {plural(self.runs, 'run')}"


@contextmanager
def _session_factory(settings: Settings, key: str | None) -> Generator[Callable[[], CopyAISession]]:
    """Yield a function that makes a session for the user's workspace, or for the emulator of the demo."""
    if not settings.demo:
        yield partial(settings.make_session, key)
        return
    from aiocopyai._threads import LoopThread  # noqa: PLC0415 (only the demo needs it)

    with LoopThread() as loop:  # dlt blocks this thread
        emulator = _demo.make_emulator()
        loop.call(emulator.start())
        try:
            settings.inform(_demo.startup_message(emulator))
            yield partial(settings.make_session, emulator.api_key, base_url=emulator.url)
        finally:
            loop.call(emulator.stop())
