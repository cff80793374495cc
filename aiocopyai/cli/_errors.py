"""From exceptions to messages and exit codes."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from typing import Final

import typer

import aiocopyai
from aiocopyai.cli._log_handler import log_to_stderr
from aiocopyai.cli._options import Settings
from aiocopyai.cli._output import echo_err
from aiocopyai.cli._process import discard


_NAMES: Final = {
    "base_url": "COPYAI_BASE_URL",
    "concurrency": "--concurrency",
    "event_type": "EVENT",
    "inputs": "--input",
    "interval": "--interval",
    "limit": "--limit",
    "max_rate": "--max-rate",
    "metadata": "--metadata",
    "prefetch": "--prefetch",
    "run_id": "RUN_ID",
    "secret": "COPYAI_WEBHOOK_SECRET",
    "since": "--since",
    "timeout": "--timeout",
    "url": "URL",
    "webhook_id": "WEBHOOK_ID",
    "workflow_id": "WORKFLOW_ID",
}
"""What the command line calls a parameter of the library. Messages about a parameter begin with its name."""


class CommandError(Exception):
    """A command failed for another reason than an error of the API.

    Args:
        message: one line.
        exit_code: the exit code; 2 for wrong usage.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def usage_errors(**names: str) -> Generator[None]:
    """Report a `ValueError` as wrong usage of the command: exit code 2.

    Args:
        names: what this command calls parameters of the library, if not as other commands do.
    """
    try:
        yield
    except aiocopyai.ConfigurationError:
        raise
    except ValueError as error:
        raise typer.BadParameter(_rename(str(error), names)) from error


def describe(error: Exception) -> str:
    """Return the message of an error in the words of the command line: options instead of parameters."""
    if not isinstance(error, aiocopyai.CopyAIError):
        return str(error)
    if isinstance(error, aiocopyai.ConfigurationError):
        return _rename(str(error), {})
    advice = _advice(error)
    if advice is None:
        return str(error)
    page = "" if error.page is None else f"page {error.page}: "
    request = "" if error.request is None else f" ({error.request})"
    return f"{page}{error.summary}{request}; {advice}"


def run_async(work: Coroutine[object, object, None], settings: Settings, *, so_far: object = "") -> int:
    """Run a command's coroutine in a new event loop, and return the exit code.

    Args:
        work: the command.
        settings: the options that every command has.
        so_far: what is done when the command is interrupted: its `str` describes it, and it is false while there is
            nothing to describe.
    """
    try:
        return run_sync(partial(asyncio.run, work), settings, so_far=so_far)
    finally:
        work.close()  # for the case that it was not started


def run_sync(work: Callable[[], object], settings: Settings, *, so_far: object = "") -> int:
    """Run a command that needs no event loop, and return the exit code; see `run_async`."""
    try:
        with log_to_stderr(settings):
            work()
            sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-D at a question
        echo_err(f"stopped after {so_far}" if so_far else "stopped")
        return 130
    except (typer.BadParameter, typer.Exit):
        raise
    except Exception as error:  # noqa: BLE001 (a traceback is of no use without --debug)
        return _report(error, settings, so_far)
    return 0


def _report(error: Exception, settings: Settings, so_far: object) -> int:
    """Print an error, and return the exit code."""
    if settings.debug:
        echo_err("".join(traceback.format_exception(error)))
    if so_far:
        echo_err(f"stopped after {so_far}")
    if isinstance(error, aiocopyai.CopyAIError | CommandError):
        echo_err(f"aiocopyai: {describe(error)}")
    elif isinstance(error, OSError):
        echo_err(f"aiocopyai: {error}")
        try:
            sys.stdout.flush()
        except OSError:  # it is what could not be written to
            discard(sys.stdout)
    else:
        advice = "" if settings.debug else "; --debug shows where"
        echo_err(f"aiocopyai: unexpected {type(error).__name__}: {error}{advice}")
    if isinstance(error, CommandError):
        return error.exit_code
    return 2 if isinstance(error, aiocopyai.ConfigurationError) else 1


def _rename(message: str, names: dict[str, str]) -> str:
    name, space, rest = message.partition(" ")
    return f"{(_NAMES | names).get(name, name)}{space}{rest}"


def _advice(error: aiocopyai.CopyAIError) -> str | None:
    """Return what a user of the command line can do about an error; None if that is what the error itself says."""
    if isinstance(error, aiocopyai.RunTimeoutError):
        return f"`aiocopyai get {error.workflow_id} {error.run_id} --wait` continues to wait"
    if isinstance(error, aiocopyai.AmbiguousStartError):
        return f"check `aiocopyai runs {error.workflow_id} --limit 10` before you start it again"
    if isinstance(error, aiocopyai.RateLimitedError):
        wait = "" if error.retry_after is None else f"the server asks to wait {error.retry_after:.10g} s; "
        return f"{wait}try a lower --max-rate"
    if isinstance(error, aiocopyai.APIStatusError) and 300 <= error.status < 400:  # noqa: PLR2004 (redirects)
        return "the redirect was not followed: check COPYAI_BASE_URL"
    return None
