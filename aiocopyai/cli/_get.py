"""``aiocopyai get``: one run, as it stands or once it is over."""

from __future__ import annotations

from typing import Annotated

import typer

from aiocopyai import RunFailedError
from aiocopyai.cli._common import find_key, open_session, perform, usage_errors
from aiocopyai.cli._formats import row_of, show_json
from aiocopyai.cli._options import Debug, Demo, Timeout, WorkflowId, read_timeout


def get(
    workflow_id: WorkflowId = None,
    run_id: Annotated[
        str | None, typer.Argument(metavar="RUN_ID", help="The run's id, such as WRUN-6fe9e53c-….", show_default=False)
    ] = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run is over.")] = False,
    timeout: Timeout = None,
    demo: Demo = False,
    debug: Debug = False,
) -> None:
    """Show one run, with all its fields, as JSON.

    With --wait it is shown once it is over; the exit code is 1 then if it failed, or was not over in time.

    \b
    Examples:
      aiocopyai get --demo
      aiocopyai get WCFG-6db59f06-… WRUN-6fe9e53c-…
      aiocopyai get WCFG-6db59f06-… WRUN-6fe9e53c-… --wait | jq .output
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    if demo is not (workflow_id is None) or demo is not (run_id is None):
        raise typer.BadParameter("give either a WORKFLOW_ID and a RUN_ID, or --demo")
    work = _get(workflow_id, run_id, find_key(demo=demo), read_timeout(timeout, wait=wait))
    raise typer.Exit(perform(work, debug=debug))


async def _get(workflow_id: str | None, run_id: str | None, key: str | None, timeout: float | None) -> None:  # noqa: ASYNC109 (the session's own)
    """Show a run, with a time-out once it is over; without an id the demo's newest."""
    async with open_session([workflow_id] if workflow_id else [], key) as (session, [workflow]):
        wanted = run_id or (await session.runs_page(workflow, size=1)).items[0].id
        with usage_errors():
            try:
                if timeout is None:
                    run = await session.get_run(workflow, wanted)
                else:
                    run = await session.wait_run(workflow, wanted, timeout=timeout)
            except RunFailedError as error:
                show_json(row_of(error.run))
                raise
    show_json(row_of(run))
