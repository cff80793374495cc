"""The pytest plugin: the `copyai_emulator` fixture, and what loading the plugin costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import aiocopyai


pytest_plugins = ["pytester"]


PLUGINS = ["-p", "aiocopyai.emulator.pytest_plugin", "-p", "pytest_asyncio.plugin", "-p", "anyio.pytest_plugin"]
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


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pytest runs load this package, and only the plugins that they name."""
    monkeypatch.setenv("PYTHONPATH", str(Path(aiocopyai.__file__).parents[1]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_fixture_in_any_test(pytester: pytest.Pytester, mode: str) -> None:
    """The fixture works in synchronous tests, with any loop scope, and under anyio, in both modes of pytest-asyncio."""
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess(
        *PLUGINS,
        "-W",
        "error",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        f"--asyncio-mode={mode}",
        timeout=60,
    )
    result.assert_outcomes(passed=6)


def test_fixture_without_other_plugins(pytester: pytest.Pytester) -> None:
    """The fixture needs no plugin for asynchronous tests."""
    pytester.makepyfile("def test_it(copyai_emulator): assert copyai_emulator.url")
    result = pytester.runpytest_subprocess("-p", "aiocopyai.emulator.pytest_plugin", "-W", "error", timeout=60)
    result.assert_outcomes(passed=1)


def test_unused_plugin_loads_three_modules(tmp_path: Path) -> None:
    """A pytest run that does not use the fixture loads the plugin, its two packages, and nothing else."""
    (tmp_path / "test_other.py").write_text("def test_other(): pass")
    without = _modules_after_a_run(tmp_path)
    assert "_pytest.python" in without
    assert _modules_after_a_run(tmp_path, "-p", "aiocopyai.emulator.pytest_plugin") - without == {
        "aiocopyai",
        "aiocopyai.emulator",
        "aiocopyai.emulator.pytest_plugin",
    }


def _modules_after_a_run(path: Path, *arguments: str) -> set[str]:
    code = f"import sys, pytest; pytest.main({['-q', str(path), *arguments]}); print(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603 (our own script)
    return set(done.stdout.splitlines()[-1].split())
