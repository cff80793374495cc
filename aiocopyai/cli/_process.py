"""The command as a process: its standard streams, and the signals that stop it."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType
from typing import Final, TextIO


_SIGNALS: Final = ("SIGTERM", "SIGHUP")
"""The signals that stop a command like Ctrl-C. Windows has no SIGHUP."""


def run_app() -> int:
    """Run the command in ``sys.argv``, and return the exit code."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the terminal's encoding lacks are printed as escape sequences.
            stream.reconfigure(errors="backslashreplace")
    missing = next((name for name in ("typer", "rich") if find_spec(name) is None), None)
    if missing is not None:
        command = 'python -m pip install "aiocopyai[cli]"'
        sys.stderr.write(f"aiocopyai: the command line requires {missing}; install with: {command}\n")
        return 2
    with _signals_as_interrupt():
        code = 0
        try:
            from aiocopyai.cli.commands import app  # noqa: PLC0415 (here, so that Ctrl-C and closed streams are handled)

            app(prog_name="aiocopyai")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except OSError as error:  # a help text, a version or a usage error could not be printed
            usage_code = getattr(error.__context__, "exit_code", None)  # the context is the usage error
            if isinstance(usage_code, int):
                discard(sys.stderr)
                return usage_code
            return report_failed_output(error)
        try:
            sys.stdout.flush()
        except OSError as error:
            return code or report_failed_output(error)
        return code


@contextmanager
def blocking_call() -> Generator[None]:
    """Let Ctrl-C interrupt a call that blocks the event loop, such as a prompt; otherwise, it only cancels the task."""
    is_main = threading.current_thread() is threading.main_thread()  # only this thread can set handlers
    if not is_main or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def report_failed_output(error: OSError) -> int:
    """Report that standard output cannot be written, unless its reader has closed the pipe; return the exit code."""
    from aiocopyai.cli._output import echo_err  # noqa: PLC0415 (loaded after the check for missing packages)

    discard(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return 0
    echo_err(f"aiocopyai: cannot write to standard output: {error.strerror or error}")
    return 1


def discard(stream: TextIO) -> None:
    """Redirect a stream to the null device, so that flushing it at the end of the process does not fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, stream.fileno())
    finally:
        os.close(null)


def _open_closed_streams() -> None:
    """Open the null device in place of standard streams that were closed when the process started.

    Otherwise, the next file or connection would get the descriptor, and output could be written to it by mistake.
    Writing to a closed standard output is still an error; messages on a closed standard error are lost.
    """
    streams = (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))
    for descriptor, (name, flags) in enumerate(streams):
        if getattr(sys, name) is not None:
            continue
        null = os.open(os.devnull, flags)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)
        mode = "r" if name == "stdin" else "w"
        stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 (open until the process ends)
        setattr(sys, name, stream)


@contextmanager
def _signals_as_interrupt() -> Generator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C: the command cleans up, and prints how to resume."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can set handlers
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    # An ignored signal stays ignored, so that nohup works.
    previous = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) == signal.SIG_DFL}
    for number in previous:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a background process of a shell script
        raise KeyboardInterrupt
    # An event loop may have set the handler of SIGINT, to cancel the main task.
    signal.raise_signal(signal.SIGINT)
