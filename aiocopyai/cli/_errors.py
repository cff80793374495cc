"""From exceptions to messages and exit codes."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial

import typer

import aiocopyai
from aiocopyai.cli._logging import log_to_stderr
from aiocopyai.cli._options import Settings
from aiocopyai.cli._output import echo_err


class CommandError(Exception):
    """A command failed for a reason of its own; the message is one line."""


@contextmanager
def usage_errors() -> Generator[None]:
    """Report a `ValueError` as wrong usage of the command: exit code 2."""
    try:
        yield
    except aiocopyai.CopyAIError:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def run_async(work: Coroutine[object, object, None], settings: Settings, *, so_far: object = "") -> int:
    """Run a command's coroutine in an event loop of its own, and return the exit code.

    Args:
        work: the command.
        settings: the options that every command has.
        so_far: what is done when the command is interrupted: its `str` describes it, and it is false while there is
            nothing to describe.
    """
    return run_sync(partial(asyncio.run, work), settings, so_far=so_far)


def run_sync(work: Callable[[], object], settings: Settings, *, so_far: object = "") -> int:
    """Run a command that needs no event loop of its own, and return the exit code; see `run_async`."""
    with log_to_stderr(debug=settings.debug):
        try:
            work()
        except BrokenPipeError:
            discard_stdout()
            return 0
        except KeyboardInterrupt:
            echo_err(f"stopped after {so_far}" if so_far else "stopped")
            return 130
        except (aiocopyai.CopyAIError, OSError, CommandError) as error:
            return _report(error, settings, so_far)
        return 0


def discard_stdout() -> None:
    """Point standard output at the null device, so that flushing it at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: Exception, settings: Settings, so_far: object) -> int:
    """Print an error, and return the exit code."""
    if settings.debug:
        echo_err("".join(traceback.format_exception(error)))
    if so_far:
        echo_err(f"stopped after {so_far}")
    echo_err(f"aiocopyai: {error}")
    if isinstance(error, OSError) and not isinstance(error, aiocopyai.CopyAIError):
        discard_stdout()
    return 2 if isinstance(error, aiocopyai.ConfigurationError) else 1
