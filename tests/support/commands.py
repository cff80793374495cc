"""What the tests of the command line share: the command as a process of its own, in a pipe or on a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import struct
import sys
import termios
from collections.abc import Mapping
from typing import NamedTuple

from aiocopyai.emulator import Emulator


MAIN = ("-m", "aiocopyai")
START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""Whoever runs the tests in the background may have told their children to ignore Ctrl-C."""


PATIENCE = 15
"""Seconds until a process is taken for stuck."""


class Done(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, object]]:
        """Its output, as lines of JSON."""
        return [json.loads(line) for line in self.out.split("\n") if line]


def environment(emulator: Emulator | None = None, **more: str) -> dict[str, str]:
    """Return this process's environment without what would change the output, and with the emulator's address."""
    dropped = ("COPYAI_", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
    base = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    ours = {"COPYAI_API_KEY": emulator.api_key, "COPYAI_BASE_URL": emulator.url} if emulator else {}
    return {**base, "TZ": "UTC", "TERM": "xterm-256color", **ours, **more}


async def start(
    *arguments: str,
    env: Mapping[str, str],
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
) -> asyncio.subprocess.Process:
    """Start an interpreter in a session of its own: the terminal that the tests run on is none of its business."""
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
    )


async def finish(process: asyncio.subprocess.Process, patience: float = PATIENCE) -> Done:
    """Wait for a process to end, but not for ever."""
    try:
        async with asyncio.timeout(patience):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Done(await process.wait(), (out or b"").decode(), (err or b"").decode())


async def cli(*arguments: str, emulator: Emulator | None = None, **env: str) -> Done:
    """Run the command to its end."""
    return await finish(await start(*MAIN, *arguments, env=environment(emulator, **env)))


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
    """Read a terminal until its last writer is gone, which Linux tells by an error and others by nothing."""
    shown = b""
    try:
        while part := os.read(descriptor, 65536):
            shown += part
            if key and shown.endswith(b"key: "):  # typed any sooner, it would be thrown away
                os.write(descriptor, f"{key}\n".encode())
                key = ""
    except OSError:
        pass
    return shown.decode()
