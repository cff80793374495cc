"""What the commands share: the key, the session, what is said on standard error, and exit codes."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

import typer

from aiocopyai import ConfigurationError, CopyAIError, CopyAISession
from aiocopyai.cli._demo import spread
from aiocopyai.cli._formats import printable


DEMO_RUNS = 640


class CommandError(Exception):
    """What a command failed by, in one line, where no error of ours or of the system says it."""


def read_moment(text: str) -> datetime:
    """Read an ISO date or time; one without a zone is in the user's."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone() if moment.tzinfo is None else moment
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(f"{text!r} is no ISO date, such as 2026-01-31 or 2026-01-31T09:00Z") from None


def find_key(*, demo: bool) -> str | None:
    """Return the key that a terminal's user types; None where the session finds one, or has to complain."""
    if demo or os.environ.get("COPYAI_API_KEY") or not sys.stdin.isatty():
        return None
    answer: str = typer.prompt("Copy.ai API key", hide_input=True, err=True)
    return answer


@asynccontextmanager
async def open_session(
    workflow_ids: Sequence[str], key: str | None
) -> AsyncGenerator[tuple[CopyAISession, Sequence[str]], None]:
    """Give a session and the workflows to read: the user's own, or where there are none the demo's."""
    if workflow_ids:
        async with CopyAISession(key) as session:
            yield session, workflow_ids
        return
    from aiocopyai.emulator import Emulator  # noqa: PLC0415 (only the demo needs a server)

    # A little latency, as a real server has it, so that the pages are seen to come one by one.
    async with (
        Emulator(DEMO_RUNS, latency=0.05) as emulator,
        CopyAISession(emulator.api_key, base_url=emulator.url) as session,
    ):
        emulator.put_runs(spread(emulator.runs()))
        say(f"demo: {DEMO_RUNS} made-up runs, from a Copy.ai emulator at {emulator.url}")
        yield session, [emulator.workflow_id]


def perform(work: Coroutine[object, object, None], *, debug: bool, so_far: object) -> int:
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
        say(f"stopped after {so_far}")
        return 130
    except (CopyAIError, OSError, CommandError) as error:
        return _fail(error, so_far, debug=debug)
    return 0


def say(*texts: str) -> None:
    """Write lines to standard error; what they quote of the server's can't steer the terminal."""
    for line in "".join(texts).splitlines():
        typer.echo(printable(line), err=True)


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
