"""The API key, the session and the workflows of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import typer

import aiocopyai
from aiocopyai.cli import _demo
from aiocopyai.cli._options import Settings


if TYPE_CHECKING:
    from aiocopyai import CopyAISession


def find_key(settings: Settings) -> str | None:
    """Ask for the API key on a terminal; return None if it is not needed, or the session has to find it."""
    if settings.demo or os.environ.get("COPYAI_API_KEY") or not sys.stdin.isatty():
        return None
    try:
        answer: str = typer.prompt("Copy.ai API key", hide_input=True, err=True)
    except typer.Abort:
        raise typer.Exit(130) from None
    return answer


@asynccontextmanager
async def open_session(settings: Settings, key: str | None) -> AsyncGenerator[CopyAISession]:
    """Open a session with the user's workspace, or with that of the demo."""
    async with _demo.open_session(settings) if settings.demo else aiocopyai.CopyAISession(key) as session:
        yield session


def choose_workflow(workflow_id: str | None, settings: Settings) -> str:
    """Return the workflow that a command is about.

    Raises:
        typer.BadParameter: neither or both of WORKFLOW_ID and --demo were given.
    """
    [chosen] = choose_workflows([] if workflow_id is None else [workflow_id], settings)
    return chosen


def choose_workflows(workflow_ids: list[str] | None, settings: Settings) -> list[str]:
    """Return the workflows that a command is about.

    Raises:
        typer.BadParameter: neither or both of WORKFLOW_ID and --demo were given.
    """
    if bool(workflow_ids) is settings.demo:
        raise typer.BadParameter("give either a WORKFLOW_ID or --demo")
    return workflow_ids or [_demo.WORKFLOW_ID]
