"""Run a command with a session and the library's log on standard error, and report its errors and Ctrl-C.

`_process` turns other signals into Ctrl-C.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

import aiocopyai
from aiocopyai._logging import level_from_environment
from aiocopyai._redaction import Secret
from aiocopyai.cli import _demo
from aiocopyai.cli._errors import CommandError, describe, exit_code
from aiocopyai.cli._options import Settings
from aiocopyai.cli._output import check_stdout, echo_err
from aiocopyai.cli._process import discard, report_failed_output


if TYPE_CHECKING:
    from aiocopyai import CopyAISession


def run_in_session(
    work: Callable[[CopyAISession], Coroutine[object, object, None]], settings: Settings, *, progress: object = ""
) -> int:
    """Run a command that sends requests, and return the exit code; see `run_async`.

    Args:
        work: the command. It receives a session for the user's workspace, or for the emulator of the demo.
        settings: the options that every command has.
        progress: as for `run_async`.
    """
    key = prompt_for_key(settings)

    async def run_with_key() -> None:
        if not key and not os.environ.get("COPYAI_API_KEY"):
            raise CommandError("no API key: set the environment variable COPYAI_API_KEY", exit_code=2)
        async with settings.make_session(key) as session:
            await work(session)

    async def run_demo() -> None:
        async with (
            _demo.make_emulator() as emulator,
            settings.make_session(emulator.api_key, base_url=emulator.url) as session,
        ):
            await _demo.create_webhooks(session)
            settings.inform(_demo.startup_message(emulator))
            await work(session)

    return run_async(run_demo if settings.demo else run_with_key, settings, progress=progress)


def run_async(work: Callable[[], Coroutine[object, object, None]], settings: Settings, *, progress: object = "") -> int:
    """Run a command in a new event loop, and return the exit code.

    Args:
        work: the command.
        settings: the options that every command has.
        progress: what the command has done so far. If the command fails or is stopped, and `progress` is true, its
            `str` is printed.
    """

    def run() -> None:
        coroutine = work()
        try:
            asyncio.run(coroutine)
        finally:
            coroutine.close()  # in case of Ctrl-C before it was started

    return run_sync(run, settings, progress=progress)


def run_sync(work: Callable[[], object], settings: Settings, *, progress: object = "") -> int:
    """Run a command without an event loop, and return the exit code; see `run_async`."""
    try:
        with _log_to_stderr(settings):
            work()
            sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-D at a prompt
        echo_err(f"stopped after {progress}" if progress else "stopped")
        return 130
    except (typer.BadParameter, typer.Exit):
        raise
    except Exception as error:  # noqa: BLE001 (tracebacks are printed only with --debug)
        if isinstance(error.__cause__, KeyboardInterrupt):  # see `main`
            echo_err("stopped")
            return 130
        return _report_error(error, settings, progress)
    return 0


def prompt_for_key(settings: Settings) -> str | None:
    """Prompt for the API key on a terminal. Return None if it is in the environment, or not needed."""
    if settings.demo or os.environ.get("COPYAI_API_KEY") or not sys.stdin.isatty():
        return None
    from getpass import getpass  # noqa: PLC0415 (rarely needed)

    try:
        # getpass() turns off the terminal's echo before it prints the prompt, so that a key typed early is not shown.
        return Secret(getpass("Copy.ai API key: ", sys.stderr))
    except (EOFError, KeyboardInterrupt):
        raise typer.Exit(130) from None
    except UnicodeDecodeError:
        raise typer.BadParameter("the API key must be printable ASCII without spaces") from None


def _report_error(error: Exception, settings: Settings, progress: object) -> int:
    """Print an error, and return the exit code."""
    if settings.debug:
        echo_err("".join(traceback.format_exception(error)))
    if progress:
        echo_err(f"stopped after {progress}")
    if isinstance(error, aiocopyai.CopyAIError | CommandError):
        echo_err(f"aiocopyai: {describe(error)}")
    elif isinstance(error, OSError):
        try:
            check_stdout()
        except OSError as output_error:
            if error.filename is None and error.errno == output_error.errno:
                return report_failed_output(error)
            discard(sys.stdout)
        echo_err(f"aiocopyai: {error}")
    else:
        advice = "" if settings.debug else "; --debug shows the traceback"
        echo_err(f"aiocopyai: unexpected {type(error).__name__}: {error}{advice}")
    return exit_code(error)


@contextmanager
def _log_to_stderr(settings: Settings) -> Generator[None]:
    """Print the library's warnings on standard error inside the block, and with ``--debug`` every request.

    Raises:
        ConfigurationError: ``COPYAI_LOG`` is not a level.
    """
    level = logging.DEBUG if settings.debug else level_from_environment()
    logger = logging.getLogger("aiocopyai")
    handler = _StderrHandler()
    if level is not None:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    previous = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level or (logging.ERROR if settings.quiet else logging.WARNING))
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(previous[0])
        logger.propagate = previous[1]


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which a command may replace."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if isinstance(record.args, tuple):  # messages of errors name options instead of parameters
                record.args = tuple(describe(arg) if isinstance(arg, Exception) else arg for arg in record.args)
            echo_err(self.format(record))
        except Exception:  # noqa: BLE001 (logging must not end the program)
            self.handleError(record)
