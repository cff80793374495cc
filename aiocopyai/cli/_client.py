"""The API key, the session and the workflows of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import typer

from aiocopyai._redaction import Secret
from aiocopyai.cli import _demo
from aiocopyai.cli._errors import CommandError
from aiocopyai.cli._options import Settings


if TYPE_CHECKING:
    from aiocopyai import CopyAISession


def find_key(settings: Settings) -> str | None:
    """Ask for the API key on a terminal; return None if it is in the environment, or not needed."""
    if settings.demo or os.environ.get("COPYAI_API_KEY") or not sys.stdin.isatty():
        return None
    from getpass import getpass  # noqa: PLC0415 (rarely needed)

    try:
        # It turns the terminal's echo off before it prints the prompt, so that a key typed at once is not shown.
        return Secret(getpass("Copy.ai API key: ", sys.stderr))
    except (EOFError, KeyboardInterrupt):
        raise typer.Exit(130) from None


@asynccontextmanager
async def open_session(settings: Settings, key: str | None) -> AsyncGenerator[CopyAISession]:
    """Open a session with the user's workspace, or with that of the demo."""
    if settings.demo:
        async with _demo.open_session(settings) as session:
            yield session
        return
    if not key and not os.environ.get("COPYAI_API_KEY"):
        raise CommandError("no API key: set the environment variable COPYAI_API_KEY", exit_code=2)
    async with settings.make_session(key) as session:
        yield session


def choose_workflow(workflow_id: str | None, settings: Settings) -> str:
    """Return the workflow that a command is about; see `choose_workflows`."""
    [chosen] = choose_workflows([] if workflow_id is None else [workflow_id], settings)
    return chosen


def choose_workflows(workflow_ids: list[str] | None, settings: Settings) -> list[str]:
    """Return the workflows that a command is about: by default that in the environment, or that of the demo.

    Raises:
        typer.BadParameter: neither or both of WORKFLOW_ID and --demo were given.
    """
    if settings.demo:
        if workflow_ids:
            raise typer.BadParameter("pass either a WORKFLOW_ID or --demo")
        return [_demo.WORKFLOW_ID]
    chosen = workflow_ids or [os.environ.get("COPYAI_WORKFLOW_ID", "")]
    if not all(chosen):
        raise typer.BadParameter("pass either a WORKFLOW_ID or --demo, or set COPYAI_WORKFLOW_ID")
    return chosen
