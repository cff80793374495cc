"""``aiocopyai runs``: list the runs of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import frozen

import aiocopyai
from aiocopyai._display import plural
from aiocopyai.cli._client import choose_workflow, find_key, open_session
from aiocopyai.cli._errors import run_async, usage_errors
from aiocopyai.cli._options import FormatOption, Prefetch, Settings, Since, WorkflowId, read_pairs, shared_options
from aiocopyai.cli._output import OutputFormat, Tally, echo_err, open_run_writer


if TYPE_CHECKING:
    from aiocopyai import CopyAISession, Pager, Run


@shared_options
def runs(
    settings: Settings,
    workflow_id: WorkflowId = None,
    *,
    limit: Annotated[int | None, typer.Option(min=0, help="Stop after this many matching runs.")] = None,
    since: Since = None,
    status: Annotated[
        list[str] | None, typer.Option(metavar="STATUS", help="Only runs with this status; repeat it for more.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Only runs with this metadata; repeat it for more keys, or for more values of a key.",
        ),
    ] = None,
    output_format: FormatOption = None,
    prefetch: Prefetch = None,
) -> None:
    """List all runs of a workflow, page by page as they arrive.

    The runs go to standard output; counts by status and the credits spent follow on standard error.
    The key is read from COPYAI_API_KEY; without it, a terminal shows a prompt.

    \b
    Examples:
      aiocopyai runs --demo
      aiocopyai runs WCFG-6db59f06-… --since 2026-01-31 --status failed
      aiocopyai runs WCFG-6db59f06-… --metadata batch=7 --format csv > batch-7.csv
      aiocopyai runs WCFG-6db59f06-… | jq -r 'select(.status == "FAILED") | .id'
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    workflow_id = choose_workflow(workflow_id, settings)
    pairs = read_pairs("--metadata", metadata or [])
    values = {key: [value for other, value in pairs if other == key] for key, _ in pairs}
    for unknown in sorted({name.upper() for name in status or []}.difference(aiocopyai.RunStatus)):
        echo_err(f"warning: the API reference has no status {unknown}, only {', '.join(aiocopyai.RunStatus)}")
    tally = Tally()
    query = _Query(workflow_id, status, values, limit, since, prefetch, output_format)
    raise typer.Exit(run_async(_list_runs(query, settings, find_key(settings), tally), settings, so_far=tally))


@frozen
class _Query:
    """What the command lists, and how."""

    workflow_id: str
    status: list[str] | None
    metadata: Mapping[str, list[str]]
    limit: int | None
    since: datetime | None
    prefetch: int | None
    output_format: OutputFormat | None

    def open_pager(self, session: CopyAISession) -> Pager[Run]:
        """Return a pager of the runs."""
        prefetch = {} if self.prefetch is None else {"prefetch": self.prefetch}
        with usage_errors():
            return session.runs(
                self.workflow_id,
                limit=self.limit,
                since=self.since,
                status=self.status or None,
                metadata=self.metadata,
                **prefetch,
            )


async def _list_runs(query: _Query, settings: Settings, key: str | None, tally: Tally) -> None:
    async with open_session(settings, key) as session:
        pager = query.open_pager(session)
        writer = open_run_writer(query.output_format)
        async with aclosing(pager.pages()) as pages:
            async for page in pages:
                for run in page.items:
                    writer.write(run)
                    tally.add(run)
                writer.flush()
            read = min(pages.position, pages.position if pager.total is None else pager.total)
    is_filtered = query.status or query.metadata
    settings.inform(f"{tally} (of {plural(read, 'run')} read)" if is_filtered else str(tally))
    if pager.changes:
        settings.inform(f"the list changed while it was read: {pager.changes}")
