"""Execute the code blocks of a documentation page with an emulator, as a reader would.

The address and the key of the emulator are in the environment, and the working directory is empty at first.

- A block after ``<!-- not run: reason -->`` is not run; its Python is compiled.
- A ``python`` block is executed, also with ``await`` as in a notebook, and sees the variables of the blocks before it.
  Then each of its functions that it does not call itself, such as a test, is called; the names of its parameters
  select the arguments.
- A ``python`` block that starts with ``# name.py`` is saved as that file, for a later command.
- Each command of an ``sh`` block is executed, checked or skipped, according to `COMMANDS` and `SKIPPED`.
- A ``csv`` block is saved as ``rows.csv``, an ``sql`` block is executed with ``runs.duckdb``, and a ``json`` block is
  parsed.
- A ``text`` block is compared with the output of the block before it; ``…`` in it matches anything.

Everything runs in this process, in a thread next to the emulator's event loop: a process per block would take half a
minute.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import json
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
from types import FunctionType
from typing import Any, Final
from unittest.mock import patch

import duckdb
from attrs import define, field

from aiocopyai import CopyAISession, cli
from aiocopyai.emulator import Emulator, serve
from aiocopyai.emulator import __main__ as emulator_program
from tests.support.pages import Block, check_installable, check_session, functions_not_called


_PLACEHOLDER_ID: Final = re.compile(r"WCFG-6db59f06-[0-9a-f-]*…?")
_PLACEHOLDER_KEY: Final = "your-key"
"""The placeholders for the reader's workflow and key on the pages."""

PATIENCE: Final = 60
"""Seconds until a block is considered stuck."""

SKIPPED: Final = {
    "python -m venv": "the tests use their own environment",
    ". .venv/bin/activate": "the same",
    "aiocopyai mcp": "it serves until it is stopped; tests/cli/test_cli_mcp.py does that",
    "aiocopyai sync * --to postgres": "there is no PostgreSQL server",
    "pre-commit": "it would write to the repository",
}
"""Commands that start like this are not run, for this reason; ``*`` matches anything."""


@define
class Reader:
    """Executes the blocks of one page."""

    emulator: Emulator
    _shown_url: str = ""
    """The address of the emulator on the page; the actual port is another one."""
    _out: io.TextIOWrapper = field(factory=lambda: io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True))
    """The output of the last block; it has a `buffer`, because the command writes bytes."""
    _module: dict[str, Any] = field(factory=dict[str, Any])
    """The variables of the ``python`` blocks so far."""
    _serving: list[asyncio.Task[None]] = field(factory=list[asyncio.Task[None]])

    async def follow(self, block: Block) -> None:
        """Execute a block.

        Raises:
            KeyError: its language, a command or the name of a parameter is unknown.
            AssertionError: the output is not as shown, or a command failed.
            TimeoutError: it does not end.
        """
        if block.not_run:
            if block.language == "python":
                compile(block.code, "<the block>", "exec")
            return
        if block.language == "text":
            self._compare(block.code)
            return
        self._out.seek(0)
        self._out.truncate()
        code = _PLACEHOLDER_ID.sub(self.emulator.workflow_id, block.code).replace(
            _PLACEHOLDER_KEY, self.emulator.api_key
        )
        follow = {"csv": self._csv, "json": self._json, "python": self._python, "sh": self._shell, "sql": self._sql}[
            block.language
        ]
        with redirect_stdout(self._out), redirect_stderr(self._out):
            async with asyncio.timeout(PATIENCE):
                await follow(code)

    async def leave(self) -> None:
        """Stop the emulators that were started."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    @property
    def _shown(self) -> str:
        self._out.seek(0)
        return self._out.read()

    def _compare(self, expected: str) -> None:
        shown = self._shown.replace(self.emulator.url, self._shown_url or self.emulator.url)
        pattern = r" *\n".join(".*".join(map(re.escape, line.split("…"))) for line in expected.splitlines())
        assert re.search(f"^{pattern} *$", shown, re.MULTILINE), f"the output is:\n{shown}"

    async def _csv(self, text: str) -> None:
        Path("rows.csv").write_text(text, "utf-8")  # noqa: ASYNC240 (a few lines)

    async def _json(self, text: str) -> None:
        json.loads(text)

    async def _sql(self, statement: str) -> None:
        with duckdb.connect("runs.duckdb") as database:
            database.execute(statement)

    async def _python(self, code: str) -> None:
        if comment := re.match(r"# (\w+\.py)\n", code):
            Path(comment[1]).write_text(code, "utf-8")  # noqa: ASYNC240 (a few lines)
            return
        module = self._module = {"__name__": "__main__", **self._module}
        await _run_in_thread(_execute, code, module)
        for name in functions_not_called(code):
            await self._call(module[name])

    async def _call(self, function: Callable[..., object]) -> None:
        async with AsyncExitStack() as stack:
            arguments = [await self._argument(name, stack) for name in inspect.signature(function).parameters]
            if inspect.iscoroutinefunction(function):
                await function(*arguments)
            else:
                await _run_in_thread(function, *arguments)

    async def _argument(self, name: str, stack: AsyncExitStack) -> object:
        """Return the argument for a parameter of this name."""
        if name == "session":
            return await stack.enter_async_context(CopyAISession())
        if name == "copyai_emulator":
            return await stack.enter_async_context(Emulator())
        return {
            "workflow_id": self.emulator.workflow_id,
            "workflow_ids": [self.emulator.workflow_id],
            "rows": [{"Company": "Northwind"}, {"Company": "Contoso"}],
            "folder": Path.cwd(),
            "time": datetime(2025, 1, 1, tzinfo=UTC),
            "url": "https://bot.example.com/copyai",
        }[name]

    async def _shell(self, code: str) -> None:
        for line in code.replace("\\\n", " ").splitlines():
            for command in line.partition(" #")[0].split("&&"):
                words = list(dropwhile(lambda word: "=" in word, shlex.split(command)))  # without variables
                text = f"{shlex.join(words)} "
                if words and not any(fnmatchcase(text, f"{start} *") for start in SKIPPED):
                    known = [start for start in COMMANDS if text.startswith(f"{start} ")]
                    start = max(known, key=len, default=text)
                    await COMMANDS[start](self, words[len(start.split()) :])

    async def _aiocopyai(self, arguments: list[str]) -> None:
        # Only the main thread can handle signals, and commands run in another thread.
        with patch.object(sys, "argv", ["aiocopyai", *arguments]), patch("signal.signal"):
            await _run_in_thread(_check_exit_code, cli.main)

    async def _script(self, arguments: list[str]) -> None:
        await _run_in_thread(_check_exit_code, lambda: runpy.run_path(arguments[0], run_name="__main__"))

    async def _emulate(self, arguments: list[str]) -> None:
        """Start an emulator with these options on a free port, and use it for the rest of the page."""
        options = emulator_program._parser("emulate").parse_args(arguments)
        self._shown_url, options.port = f"http://127.0.0.1:{options.port}/api", 0
        self.emulator = emulator_program._make_emulator(options)
        self._serving.append(asyncio.create_task(serve(self.emulator)))
        async with asyncio.timeout(10):
            while self.emulator.workflow_id not in self._shown:
                await asyncio.sleep(0.01)

    async def _set(self, arguments: list[str]) -> None:
        for name, _, value in (text.partition("=") for text in arguments):
            os.environ[name] = value.replace(self._shown_url, self.emulator.url)

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
"""How to execute a command that starts like this; the function gets the remaining words."""


async def _run_in_thread(run: Callable[..., object], *arguments: object) -> None:
    """Run in a daemon thread next to the emulator's event loop."""
    done = Future[None]()

    def work() -> None:
        try:
            run(*arguments)
        except BaseException as error:  # noqa: BLE001 (raised to the caller)
            done.set_exception(error)
        else:
            done.set_result(None)

    Thread(target=work, daemon=True).start()
    await asyncio.wrap_future(done)


def _execute(code: str, module: dict[str, Any]) -> None:
    compiled = compile(code, "<the block>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = FunctionType(compiled, module)()  # unlike exec(), returns the coroutine of a block with `await`
    if inspect.iscoroutine(result):
        asyncio.run(result)


def _check_exit_code(run: Callable[[], object]) -> None:
    """Call a function that may exit, and check that the exit code is 0."""
    try:
        run()
    except SystemExit as done:
        assert not done.code, f"exit code {done.code}"
