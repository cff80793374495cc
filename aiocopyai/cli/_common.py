"""What the commands share: the key, the session, what is said on standard error, and exit codes."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import typer

from aiocopyai import ConfigurationError, CopyAIError, CopyAISession
from aiocopyai.cli._demo import WORKFLOW_ID, open_demo
from aiocopyai.cli._formats import say


class CommandError(Exception):
    """What a command failed by, in one line, where no error of ours or of the system says it."""


def find_key(*, demo: bool) -> str | None:
    """Return the key that a terminal's user types; None where the session finds one, or has to complain."""
    if demo or os.environ.get("COPYAI_API_KEY") or not sys.stdin.isatty():
        return None
    try:
        answer: str = typer.prompt("Copy.ai API key", hide_input=True, err=True)
    except typer.Abort:
        raise typer.Exit(130) from None
    return answer


@asynccontextmanager
async def open_session(
    workflow_ids: Sequence[str], key: str | None
) -> AsyncGenerator[tuple[CopyAISession, Sequence[str]], None]:
    """Give a session and the workflows to read: the user's own, or where there are none the demo's."""
    async with open_workspace(key, demo=not workflow_ids) as session:
        yield session, workflow_ids or [WORKFLOW_ID]


@asynccontextmanager
async def open_workspace(key: str | None, *, demo: bool) -> AsyncGenerator[CopyAISession, None]:
    """Give a session for what is no workflow's: on the user's own workspace, or the demo's."""
    async with open_demo() if demo else CopyAISession(key) as session:
        yield session


@contextmanager
def usage_errors() -> Generator[None]:
    """Take an argument that can't be used for what it is: usage."""
    try:
        yield
    except CopyAIError:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def perform(work: Coroutine[object, object, None], *, debug: bool, so_far: object = "") -> int:
    """Do a command's work; return the exit code.

    Args:
        work: the command itself.
        debug: whether to log each step, and to show tracebacks.
        so_far: what was done until it was stopped: its text tells, and it is false while there is nothing to tell.
    """
    return attempt(partial(asyncio.run, work), debug=debug, so_far=so_far)


def attempt(work: Callable[[], object], *, debug: bool, so_far: object) -> int:
    """Do the work of a command that needs no event loop of its own; like `perform`."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    try:
        work()
    except BrokenPipeError:
        let_go_of_stdout()
        return 0
    except KeyboardInterrupt:
        say(f"stopped after {so_far}" if so_far else "stopped")
        return 130
    except (CopyAIError, OSError, CommandError) as error:
        return _fail(error, so_far, debug=debug)
    return 0


def let_go_of_stdout() -> None:
    """Point standard output nowhere, so that Python doesn't fail once more when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: Exception, so_far: object, *, debug: bool) -> int:
    """Say what went wrong; return the exit code: 2 where it's the command that can't be done."""
    if debug:
        say(*traceback.format_exception(error))
    if so_far:
        say(f"stopped after {so_far}")
    say(f"aiocopyai: {error}")
    if isinstance(error, OSError) and not isinstance(error, CopyAIError):
        let_go_of_stdout()
    return 2 if isinstance(error, ConfigurationError) else 1
