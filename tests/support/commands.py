"""Run the command line in tests: in this process, in a child process, or on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import pty
import signal
import struct
import sys
import tempfile
import termios
import threading
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple
from unittest import mock

from aiocopyai.cli import main
from aiocopyai.emulator import Emulator


MAIN = ("-m", "aiocopyai")
START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A child inherits an ignored SIGINT when the tests run in the background of a script; this restores the default."""

PATIENCE = 50
"""Seconds until a command is considered stuck."""

_PROCESS_STATE = threading.Lock()
"""Held while a command has replaced the process-wide streams, environment and time zone."""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, object]]:
        """The output, as lines of JSON."""
        return [json.loads(line) for line in self.out.split("\n") if line]


def environment(emulator: Emulator | None = None, **more: str) -> dict[str, str]:
    """Return this process's environment without what would change the output, and with the emulator's address."""
    dropped = ("COPYAI_", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
    base = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    ours = {"COPYAI_API_KEY": emulator.api_key, "COPYAI_BASE_URL": emulator.url} if emulator else {}
    return {**base, "TZ": "UTC", "TERM": "xterm-256color", **ours, **more}


async def cli(*arguments: str, emulator: Emulator | None = None, **env: str) -> Done:
    """Run the command to its end, in a thread of this process: a new interpreter would take a second.

    Tests of signals, terminals, pipes, resource limits and missing extras use `start` or `terminal` instead.
    """
    return await _in_thread(lambda: _run(main, arguments, environment(emulator, **env)))


async def _in_thread(work: Callable[[], Done]) -> Done:
    """Call `work` in a daemon thread, so that a command that is stuck fails its test but does not stop the others."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    results: list[Done] = []

    def report() -> None:
        results.append(work())
        with contextlib.suppress(RuntimeError):  # the loop is closed where the test has timed out
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=report, daemon=True).start()
    async with asyncio.timeout(PATIENCE):
        await ended.wait()
    return results[0]


def _run(command: Callable[[], object], arguments: Sequence[str], env: Mapping[str, str]) -> Done:
    """Call `command` as a new interpreter would; return its exit code and its output."""
    # Files rather than StringIO: the command writes to `.buffer`, and to the file descriptor itself.
    with _PROCESS_STATE, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _replaced_process_state(arguments, env, os.dup(out.fileno()), os.dup(err.fileno())):
            code = _exit_code(command)
        out.seek(0)
        err.seek(0)
        return Done(code, out.read().decode(), err.read().decode())


@contextlib.contextmanager
def _replaced_process_state(arguments: Sequence[str], env: Mapping[str, str], out: int, err: int) -> Generator[None]:
    """Run a command with separate standard streams, arguments, environment, time zone and log handler."""
    encoding, _, errors = env.get("PYTHONIOENCODING", "utf-8").partition(":")
    streams = ("stdin", "stdout", "stderr")
    names = ("argv", *streams, *(f"__{name}__" for name in streams))
    state = {name: getattr(sys, name) for name in names}
    variables = dict(os.environ)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with (
        open(os.devnull, encoding="utf-8") as stdin,  # noqa: PTH123 (a device)
        open(out, "w", encoding=encoding, errors=errors or "strict") as stdout,
        open(err, "w", encoding=encoding, errors="backslashreplace", buffering=1) as stderr,
        mock.patch.object(signal, "signal"),  # only the main thread may call it, and only that receives signals
    ):
        try:
            sys.argv = ["aiocopyai", *arguments]
            for name, stream in zip(streams, (stdin, stdout, stderr), strict=True):
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


async def finish(process: asyncio.subprocess.Process, patience: float = PATIENCE) -> Done:
    """Wait for a process to end, and kill it after `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Done(await process.wait(), (out or b"").decode(), (err or b"").decode())


async def terminal(*arguments: str, key: str = "", width: int = 140, env: Mapping[str, str]) -> tuple[int, str]:
    """Run the command on a pseudo-terminal, type the key when asked; return the exit code and all that was shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    process = await start(*MAIN, *arguments, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    reading = asyncio.create_task(asyncio.to_thread(_read_all, ours, key))
    done = await finish(process)
    shown = await reading
    os.close(ours)
    return done.code, shown.replace("\r\n", "\n")


def _read_all(descriptor: int, key: str) -> str:
    """Read a terminal until all writers have closed it: Linux raises an error then, other systems return nothing."""
    shown = b""
    try:
        while part := os.read(descriptor, 65536):
            shown += part
            if key and shown.endswith((b"key: ", b"[y/N]: ")):  # typed any sooner, it would be thrown away
                os.write(descriptor, f"{key}\n".encode())
                key = ""
    except OSError:
        pass
    return shown.decode()
