"""``aiocopyai runs``: list the runs of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import Factory, frozen

import aiocopyai
from aiocopyai._display import plural, value_text
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
    run_filter = _RunFilter.parse(status or [], metadata or [])
    for unknown in sorted(run_filter.statuses.difference(aiocopyai.RunStatus)):
        echo_err(f"warning: the API reference has no status {unknown}, only {', '.join(aiocopyai.RunStatus)}")
    tally = Tally()
    query = _Query(workflow_id, run_filter, limit, since, prefetch, output_format)
    raise typer.Exit(run_async(_list_runs(query, settings, find_key(settings), tally), settings, so_far=tally))


@frozen
class _RunFilter:
    """Selects runs by status and metadata; an empty filter selects all."""

    statuses: frozenset[str] = frozenset()
    """The accepted statuses, in upper case."""
    metadata: Mapping[str, frozenset[str]] = Factory(dict[str, frozenset[str]])
    """The required keys, with the accepted values of each as text."""

    @classmethod
    def parse(cls, statuses: list[str], metadata: list[str]) -> _RunFilter:
        """Read the values of ``--status`` and ``--metadata``."""
        pairs = read_pairs("--metadata", metadata)
        values = {key: frozenset(value for other, value in pairs if other == key) for key, _ in pairs}
        return cls(frozenset(status.upper() for status in statuses), values)

    def __bool__(self) -> bool:
        return bool(self.statuses or self.metadata)

    def matches(self, run: Run) -> bool:
        """Return whether a run is selected."""
        if self.statuses and (run.status or "").upper() not in self.statuses:
            return False
        return all(
            key in run.metadata and value_text(run.metadata[key]) in values for key, values in self.metadata.items()
        )


@frozen
class _Query:
    """What the command lists, and how."""

    workflow_id: str
    run_filter: _RunFilter
    limit: int | None
    since: datetime | None
    prefetch: int | None
    output_format: OutputFormat | None

    def open_pager(self, session: CopyAISession) -> Pager[Run]:
        """Return a pager that requests no more runs than needed, where that is known beforehand."""
        limit = None if self.run_filter and self.limit else self.limit
        prefetch = {} if self.prefetch is None else {"prefetch": self.prefetch}
        with usage_errors():
            return session.runs(self.workflow_id, limit=limit, since=self.since, **prefetch)


async def _list_runs(query: _Query, settings: Settings, key: str | None, tally: Tally) -> None:
    read, left = 0, query.limit
    async with open_session(settings, key) as session:
        pager = query.open_pager(session)
        writer = open_run_writer(query.output_format)
        async with aclosing(pager.pages()) as pages:
            async for page in pages:
                read += len(page.items)
                matching = [run for run in page.items if query.run_filter.matches(run)][:left]
                for run in matching:
                    writer.write(run)
                    tally.add(run)
                writer.flush()
                if left is not None:
                    left -= len(matching)
                    if not left:
                        break
    settings.inform(f"{tally} (of {plural(read, 'run')} read)" if query.run_filter else str(tally))
    if pager.changes:
        settings.inform(f"the list changed while it was read: {pager.changes}")
