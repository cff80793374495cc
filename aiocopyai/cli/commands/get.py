"""``aiocopyai get``: show one run."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import typer

import aiocopyai
from aiocopyai.cli._errors import usage_errors
from aiocopyai.cli._options import Settings, WaitTimeout, WorkflowId, apply_timeout, choose_workflow, shared_options
from aiocopyai.cli._output import print_json
from aiocopyai.cli._runner import run_in_session


if TYPE_CHECKING:
    from aiocopyai import CopyAISession


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

    With --wait, the run is shown when it is finished. The exit code is 1 if it failed, or did not finish in time.

    \b
    Examples:
      aiocopyai get --demo
      aiocopyai get WCFG-6db59f06-… WRUN-6fe9e53c-…
      aiocopyai get WCFG-6db59f06-… WRUN-6fe9e53c-… --wait | jq .output
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    if workflow_id is not None and run_id is None and os.environ.get("COPYAI_WORKFLOW_ID"):
        workflow_id, run_id = None, workflow_id  # the only argument is the run's id
    is_valid = (workflow_id is None and run_id is None) if settings.demo else run_id is not None
    if not is_valid:
        raise typer.BadParameter("pass either a WORKFLOW_ID and a RUN_ID, or --demo")
    workflow_id = choose_workflow(workflow_id, settings)
    settings, wait_timeout = apply_timeout(timeout, settings, wait=wait)

    async def show(session: CopyAISession) -> None:
        # The demo shows its newest run.
        shown_id = (await session.runs_page(workflow_id, size=1)).items[0].id if run_id is None else run_id
        with usage_errors():
            try:
                if wait_timeout is None:
                    run = await session.get_run(workflow_id, shown_id)
                else:
                    run = await session.wait_run(workflow_id, shown_id, timeout=wait_timeout)
            except aiocopyai.RunFailedError as error:
                print_json(error.run.to_dict())
                raise
            except asyncio.CancelledError:
                if wait_timeout is not None:
                    settings.inform(f"run {shown_id} continues on the server")
                raise
        print_json(run.to_dict())

    raise typer.Exit(run_in_session(show, settings))
