"""A reader of the documentation, who does what a page says, block by block.

The reader has an emulator, whose address and key are in the environment, and works in a folder that is empty at first.

- A ``python`` block is run. Then each of its functions that it doesn't call itself is called, such as a test, with what
  its parameters' names stand for.
- A ``python`` block that begins with ``# name.py`` is saved as that file, for a command to run.
- Of an ``sh`` block each command is done, or checked, or left out, as `COMMANDS` and `LEFT_OUT` say.
- A ``csv`` block is saved as ``rows.csv``, and an ``sql`` block is asked of ``runs.duckdb``.
- A ``text`` block is what the block before it put out; ``…`` in it stands for anything.

It all happens in this process, in a thread beside the emulator's loop: a process for each block takes half a minute.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import re
import runpy
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import dropwhile
from pathlib import Path
from threading import Thread
from typing import Any, Final
from unittest.mock import patch

import duckdb
from attrs import define, field

from aiocopyai import CopyAISession, cli
from aiocopyai.emulator import Emulator, _cli, serve
from tests.support.pages import Block, check_installable, check_session, functions_not_called


_YOURS: Final = re.compile(r"WCFG-6db59f06-[0-9a-f-]*…?")
_YOUR_KEY: Final = "your-key"
"""How the pages write the reader's own workflow and key."""

PATIENCE: Final = 60
"""Seconds until a block is taken for one that never ends."""

LEFT_OUT: Final = {
    "python -m venv": "the packages are those that the tests run with",
    ". .venv/bin/activate": "the same",
    "aiocopyai sync * --to postgres": "there is no such server here",
    "pre-commit": "it would write into the repository",
}
"""Why a command that begins so, or a block in this language, is not run; ``*`` stands for anything."""


@define
class Reader:
    """Who follows a page."""

    emulator: Emulator
    _told_url: str = ""
    """Where the page says that its emulator is; the true port is one that was free."""
    _out: io.TextIOWrapper = field(factory=lambda: io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True))
    """What the last block put out; with bytes below, as our command writes these."""
    _serving: list[asyncio.Task[None]] = field(factory=list[asyncio.Task[None]])

    async def follow(self, block: Block) -> None:
        """Do what a block says.

        Raises:
            KeyError: no reader knows what to do with its language, a command, or a parameter's name.
            AssertionError: it doesn't do what the page shows.
            TimeoutError: it doesn't end.
        """
        if block.language == "text":
            self._compare(block.code)
        if block.language in {"text", *LEFT_OUT}:
            return
        self._out.seek(0)
        self._out.truncate()
        code = _YOURS.sub(self.emulator.workflow_id, block.code).replace(_YOUR_KEY, self.emulator.api_key)
        follow = {"csv": self._csv, "python": self._python, "sh": self._shell, "sql": self._sql}[block.language]
        with redirect_stdout(self._out), redirect_stderr(self._out):
            async with asyncio.timeout(PATIENCE):
                await follow(code)

    async def leave(self) -> None:
        """Stop what was started."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    @property
    def _shown(self) -> str:
        self._out.seek(0)
        return self._out.read()

    def _compare(self, expected: str) -> None:
        shown = self._shown.replace(self.emulator.url, self._told_url or self.emulator.url)
        pattern = r" *\n".join(".*".join(map(re.escape, line.split("…"))) for line in expected.splitlines())
        assert re.search(f"^{pattern} *$", shown, re.MULTILINE), f"what came is:\n{shown}"

    async def _csv(self, text: str) -> None:
        Path("rows.csv").write_text(text, "utf-8")  # noqa: ASYNC240 (a few lines)

    async def _sql(self, statement: str) -> None:
        with duckdb.connect("runs.duckdb") as database:
            database.execute(statement)

    async def _python(self, code: str) -> None:
        if name := re.match(r"# (\w+\.py)\n", code):
            Path(name[1]).write_text(code, "utf-8")  # noqa: ASYNC240 (a few lines)
            return
        module: dict[str, Any] = {"__name__": "__main__"}
        await _aside(exec, compile(code, "<the block>", "exec"), module)
        for name in functions_not_called(code):
            await self._call(module[name])

    async def _call(self, function: Callable[..., object]) -> None:
        async with AsyncExitStack() as stack:
            result = function(*[await self._given(name, stack) for name in inspect.signature(function).parameters])
            if inspect.isawaitable(result):
                await result

    async def _given(self, name: str, stack: AsyncExitStack) -> object:
        """Return what a parameter of this name stands for, on whatever page."""
        if name == "session":
            return await stack.enter_async_context(CopyAISession())
        if name == "copyai_emulator":
            return await stack.enter_async_context(Emulator())
        return {
            "workflow_id": self.emulator.workflow_id,
            "workflow_ids": [self.emulator.workflow_id],
            "rows": [{"Company": "Northwind"}, {"Company": "Contoso"}],
            "moment": datetime(2025, 1, 1, tzinfo=UTC),
            "url": "https://bot.example.com/copyai",
        }[name]

    async def _shell(self, code: str) -> None:
        for line in code.replace("\\\n", " ").splitlines():
            for command in line.partition(" #")[0].split("&&"):
                words = list(dropwhile(lambda word: "=" in word, shlex.split(command)))  # FOR=this command only
                text = f"{shlex.join(words)} "
                if words and not any(fnmatchcase(text, f"{start} *") for start in LEFT_OUT):
                    known = [start for start in COMMANDS if text.startswith(f"{start} ")]
                    start = max(known, key=len, default=text)
                    await COMMANDS[start](self, words[len(start.split()) :])

    async def _aiocopyai(self, arguments: list[str]) -> None:
        # Signals are the main thread's, where no command runs here.
        with patch.object(sys, "argv", ["aiocopyai", *arguments]), patch("signal.signal"):
            await _aside(_end_well, cli.main)

    async def _script(self, arguments: list[str]) -> None:
        await _aside(_end_well, lambda: runpy.run_path(arguments[0], run_name="__main__"))

    async def _emulate(self, arguments: list[str]) -> None:
        """Start an emulator as asked, on a free port, and keep to it from here on."""
        options = _cli._parser("emulate").parse_args(arguments)
        self._told_url, options.port = f"http://127.0.0.1:{options.port}/api", 0
        self.emulator = _cli._make_emulator(options)
        self._serving.append(asyncio.create_task(serve(self.emulator)))
        async with asyncio.timeout(10):
            while self.emulator.workflow_id not in self._shown:
                await asyncio.sleep(0.01)

    async def _set(self, arguments: list[str]) -> None:
        for name, _, value in (text.partition("=") for text in arguments):
            os.environ[name] = value.replace(self._told_url, self.emulator.url)

    async def _install(self, arguments: list[str]) -> None:
        check_installable([text for text in arguments if not text.startswith("-")])

    async def _nox(self, arguments: list[str]) -> None:
        check_session(arguments)


COMMANDS: Final[Mapping[str, Callable[[Reader, list[str]], Awaitable[None]]]] = {
    "aiocopyai": Reader._aiocopyai,
    "export": Reader._set,
    "nox": Reader._nox,
    "python": Reader._script,
    "python -m aiocopyai.emulator": Reader._emulate,
    "python -m pip install": Reader._install,
}
"""What is done with a command that begins so, given the words behind that."""


async def _aside(run: Callable[..., object], *arguments: object) -> None:
    """Run in a thread beside the emulator's loop, and leave it behind if it never ends."""
    done = Future[None]()

    def work() -> None:
        try:
            run(*arguments)
        except BaseException as error:  # noqa: BLE001 (raised where it is awaited)
            done.set_exception(error)
        else:
            done.set_result(None)

    Thread(target=work, daemon=True).start()
    await asyncio.wrap_future(done)


def _end_well(run: Callable[[], object]) -> None:
    """Run what may end as a process does; here it ends with 0."""
    try:
        run()
    except SystemExit as done:
        assert not done.code, f"it ended with {done.code}"
