"""``aiocopyai get``: show one run."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

import aiocopyai
from aiocopyai.cli._client import choose_workflow, find_key, open_session
from aiocopyai.cli._errors import run_async, usage_errors
from aiocopyai.cli._options import Settings, WaitTimeout, WorkflowId, apply_timeout, shared_options
from aiocopyai.cli._output import print_json


@shared_options
def get(
    settings: Settings,
    workflow_id: WorkflowId = None,
    run_id: Annotated[
        str | None, typer.Argument(metavar="RUN_ID", help="The run's id, such as WRUN-6fe9e53c-….", show_default=False)
    ] = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run is finished.")] = False,
    timeout: WaitTimeout = None,
) -> None:
    """Show one run, with all its fields, as JSON.

    With --wait it is shown once it is finished; the exit code is then 1 if it failed, or did not finish in time.

    \b
    Examples:
      aiocopyai get --demo
      aiocopyai get WCFG-6db59f06-… WRUN-6fe9e53c-…
      aiocopyai get WCFG-6db59f06-… WRUN-6fe9e53c-… --wait | jq .output
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    if workflow_id is not None and run_id is None and os.environ.get("COPYAI_WORKFLOW_ID"):
        workflow_id, run_id = None, workflow_id  # the only argument is the run's id
    if settings.demo is not (run_id is None) or (settings.demo and workflow_id is not None):
        raise typer.BadParameter("pass either a WORKFLOW_ID and a RUN_ID, or --demo")
    workflow_id = choose_workflow(workflow_id, settings)
    settings, wait_timeout = apply_timeout(timeout, settings, wait=wait)
    work = _get(workflow_id, run_id, wait_timeout, settings, find_key(settings))
    raise typer.Exit(run_async(work, settings))


async def _get(
    workflow_id: str, run_id: str | None, wait_timeout: float | None, settings: Settings, key: str | None
) -> None:
    """Print a run; in the demo, the newest one."""
    async with open_session(settings, key) as session:
        if run_id is None:
            run_id = (await session.runs_page(workflow_id, size=1)).items[0].id
        with usage_errors():
            try:
                if wait_timeout is None:
                    run = await session.get_run(workflow_id, run_id)
                else:
                    run = await session.wait_run(workflow_id, run_id, timeout=wait_timeout)
            except aiocopyai.RunFailedError as error:
                print_json(error.run.to_dict())
                raise
            except asyncio.CancelledError:
                if wait_timeout is not None:
                    settings.inform(f"run {run_id} continues on the server")
                raise
    print_json(run.to_dict())
