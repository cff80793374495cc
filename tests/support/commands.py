"""Run the command line in this process, with files or a pseudo-terminal as its streams, or in a child process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple
from unittest import mock

# Before any test, as it keeps the `os.environ` that it finds: tests of pages replace it with a copy.
import rich.console  # noqa: F401

from aiocopyai.cli import main
from aiocopyai.emulator import Emulator


MAIN = ("-m", "aiocopyai")
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
"""Restores signals that a child inherits as ignored, when the tests run in the background of a script or with nohup."""

PATIENCE = 50
"""Seconds until a command is considered stuck."""
LONG_PATIENCE = 240
"""The same in tests whose time limit is 300 s, as they need much of a processor."""

_PROCESS_STATE = threading.Lock()
"""Held while a command has replaced the process-wide streams, environment and time zone."""


class Done(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, object]]:
        """The output, as lines of JSON."""
        return [json.loads(line) for line in self.out.split("\n") if line]


def environment(emulator: Emulator | None = None, **more: str) -> dict[str, str]:
    """Return the environment without variables that change the output, and with the emulator's address."""
    dropped = ("COPYAI_", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
    base = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    ours = {"COPYAI_API_KEY": emulator.api_key, "COPYAI_BASE_URL": emulator.url} if emulator else {}
    return {**base, "TZ": "UTC", "TERM": "xterm-256color", **ours, **more}


async def cli(*arguments: str, emulator: Emulator | None = None, patience: float = PATIENCE, **env: str) -> Done:
    """Run the command to its end in a thread of this process, because a new interpreter would take a second.

    Tests of signals, pipes, resource limits and missing extras use `start` instead.
    """
    # Files rather than StringIO: the command writes to `.buffer`, and to the file descriptor itself.
    with Path(os.devnull).open() as stdin, TemporaryFile() as out, TemporaryFile() as err:  # noqa: ASYNC230 (a device)
        streams = (stdin.fileno(), out.fileno(), err.fileno())
        code = await _run(arguments, environment(emulator, **env), streams, patience)
        out.seek(0)
        err.seek(0)
        encoding = env.get("PYTHONIOENCODING", "utf-8")
        return Done(code, *(_decode(stream.read(), encoding) for stream in (out, err)))


def _decode(written: bytes, encoding: str) -> str:
    """Return output as text: JSON and CSV are UTF-8, regardless of the encoding of the stream."""
    try:
        return written.decode()
    except UnicodeDecodeError:
        return written.decode(encoding.partition(":")[0], "replace")


async def terminal(
    *arguments: str, key: str = "", width: int = 140, patience: float = PATIENCE, env: Mapping[str, str]
) -> tuple[int, str]:
    """Run the command on a pseudo-terminal, type the key when requested, and return the exit code and the output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    reading = asyncio.create_task(asyncio.to_thread(_read_all, ours, key))
    try:
        code = await _run(arguments, env, (theirs, theirs, theirs), patience)
    finally:
        os.close(theirs)
    shown = await reading
    os.close(ours)
    return code, shown.replace("\r\n", "\n")


def _read_all(descriptor: int, key: str) -> str:
    """Read a terminal until all writers have closed it: Linux raises an error then, other systems return nothing."""
    shown = b""
    try:
        while part := os.read(descriptor, 65536):
            shown += part
            if key and shown.endswith((b"key: ", b"[y/N]: ")):  # earlier input would be discarded
                os.write(descriptor, f"{key}\n".encode())
                key = ""
    except OSError:
        pass
    return shown.decode()


async def _run(arguments: Sequence[str], env: Mapping[str, str], streams: tuple[int, int, int], patience: float) -> int:
    """Run the command as a new interpreter would, with these files as its streams; return its exit code.

    It runs in a daemon thread, so that a command that is stuck fails its test but does not stop the others.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    codes: list[int] = []

    def run() -> None:
        with _PROCESS_STATE, _replaced_process_state(arguments, env, *streams):
            codes.append(_exit_code(main))
        with contextlib.suppress(RuntimeError):  # the loop is closed where the test has timed out
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=run, daemon=True).start()
    async with asyncio.timeout(patience):
        await ended.wait()
    return codes[0]


@contextlib.contextmanager
def _replaced_process_state(
    arguments: Sequence[str], env: Mapping[str, str], stdin: int, stdout: int, stderr: int
) -> Generator[None]:
    """Run a command with separate standard streams, arguments, environment, time zone and log handler."""
    encoding, _, errors = env.get("PYTHONIOENCODING", "utf-8").partition(":")
    streams = ("stdin", "stdout", "stderr")
    names = ("argv", *streams, *(f"__{name}__" for name in streams))
    state = {name: getattr(sys, name) for name in names}
    variables = dict(os.environ)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with (
        os.fdopen(os.dup(stdin), encoding="utf-8") as read_from,
        os.fdopen(os.dup(stdout), "w", encoding=encoding, errors=errors or "strict") as write_to,
        os.fdopen(os.dup(stderr), "w", encoding=encoding, errors="backslashreplace", buffering=1) as log_to,
        mock.patch.object(signal, "signal"),  # only the main thread may call it, and only that receives signals
    ):
        try:
            sys.argv = ["aiocopyai", *arguments]
            for name, stream in zip(streams, (read_from, write_to, log_to), strict=True):
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)
            root.handlers[:] = []
            root.setLevel(logging.WARNING)
            _set_environment(env)
            yield
        finally:
            _set_environment(variables)
            root.handlers[:] = handlers
            root.setLevel(level)
            for name, value in state.items():
                setattr(sys, name, value)


def _set_environment(env: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    time.tzset()


def _exit_code(command: Callable[[], object]) -> int:
    """Return the code that an interpreter would end with after `command`."""
    try:
        command()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        sys.stderr.write(f"{stop.code}\n")
        return 1
    except BaseException:  # noqa: BLE001 (an interpreter prints every exception)
        traceback.print_exc()
        return 1
    return 0


async def start(
    *arguments: str,
    env: Mapping[str, str],
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
) -> asyncio.subprocess.Process:
    """Start an interpreter in a new session, so that it cannot use the terminal that the tests run on."""
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
    )


async def await_event(
    process: asyncio.subprocess.Process, condition: Callable[[], object], patience: float = PATIENCE
) -> None:
    """Wait until a condition is true while a process is running."""
    async with asyncio.timeout(patience):
        while not condition():
            assert process.returncode is None, "the process ended first"
            await asyncio.sleep(0.005)


def read_until(descriptor: int, end: bytes) -> bytes:
    """Read a terminal until it shows `end`; if that is empty, until the last writer has closed it."""
    shown = b""
    deadline = time.monotonic() + PATIENCE
    try:
        while not end or end not in shown:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{end!r} was not shown, but {shown!r}"
            if not (part := os.read(descriptor, 65536)):
                break
            shown += part
    except OSError:  # Linux reports the end like this
        pass
    return shown


async def finish(process: asyncio.subprocess.Process, patience: float = PATIENCE) -> Done:
    """Wait for a process to end, and kill it after `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Done(await process.wait(), (out or b"").decode(), (err or b"").decode())
