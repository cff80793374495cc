"""Tests of the pytest plugin: the `copyai_emulator` fixture, and the modules that the plugin loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import aiocopyai


TESTS = """
import asyncio

import pytest
import pytest_asyncio
from aiocopyai import CopyAISession
from fastapi import FastAPI
from fastapi.testclient import TestClient


async def count(emulator):
    async with CopyAISession(emulator.api_key, base_url=emulator.url) as session:
        return await session.count_runs(emulator.workflow_id)


def test_sync(copyai_emulator):
    copyai_emulator.add_runs(3)
    assert asyncio.run(count(copyai_emulator)) == 3


def test_test_client(copyai_emulator):
    app = FastAPI()
    app.get("/")(lambda: asyncio.run(count(copyai_emulator)))
    copyai_emulator.add_runs(2)
    assert TestClient(app).get("/").json() == 2


@pytest.mark.asyncio(loop_scope="function")
async def test_function_loop(copyai_emulator):
    assert await count(copyai_emulator) == 0


@pytest.mark.asyncio(loop_scope="session")
async def test_session_loop(copyai_emulator):
    assert await count(copyai_emulator) == 0


@pytest_asyncio.fixture(loop_scope="module")
async def runs(copyai_emulator):
    copyai_emulator.add_runs(4)
    return await count(copyai_emulator)


@pytest.mark.asyncio(loop_scope="session")
async def test_fixture_in_another_loop(copyai_emulator, runs):
    assert await count(copyai_emulator) == runs == 4


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_anyio(copyai_emulator, anyio_backend):
    assert await count(copyai_emulator) == 0
"""


PLAIN_TESTS = """
def test_emulator(copyai_emulator):
    assert copyai_emulator.url
"""
RUNS = """
import sys

import pytest


def run(*arguments):
    assert pytest.main(["-q", "-W", "error", "-p", "no:cacheprovider", *arguments]) == pytest.ExitCode.OK

"""
"""The beginning of a script that runs pytest several times, because to start a process takes longest."""


def run_script(code: str, folder: Path, **tests: str) -> str:
    """Run the end of the script in a folder with these test files; return its output."""
    for name, text in tests.items():
        (folder / f"{name}.py").write_text(text)
    # pytest loads only the plugins that the script names, and this package.
    environment = {"PYTHONPATH": str(Path(aiocopyai.__file__).parents[1]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", RUNS + code]
    done = subprocess.run(  # noqa: S603 (our own script)
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_fixture_in_any_test(tmp_path: Path) -> None:
    """The fixture works in synchronous tests, with any loop scope, and under anyio, in both modes of pytest-asyncio."""
    code = """
for mode in ("auto", "strict"):
    run("-p", "aiocopyai.emulator.pytest_plugin", "-p", "pytest_asyncio.plugin", "-p", "anyio.pytest_plugin",
        "-o", "asyncio_default_fixture_loop_scope=function", f"--asyncio-mode={mode}")
"""
    assert run_script(code, tmp_path, test_any=TESTS).count("6 passed") == 2


def test_unused_plugin_loads_three_modules(tmp_path: Path) -> None:
    """A pytest run that does not use the fixture loads only the plugin and its two packages."""
    code = """
run("test_other.py")
before = {*sys.modules}
run("-p", "aiocopyai.emulator.pytest_plugin", "test_other.py")
print(sorted({*sys.modules} - before))
run("-p", "aiocopyai.emulator.pytest_plugin", "test_plain.py")
"""
    printed = run_script(code, tmp_path, test_other="def test_other(): pass", test_plain=PLAIN_TESTS)
    assert "['aiocopyai', 'aiocopyai.emulator', 'aiocopyai.emulator.pytest_plugin']" in printed.splitlines()
    assert printed.count("1 passed") == 3
