"""The pytest plugin: the `copyai_emulator` fixture, and what loading the plugin costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiocopyai.emulator import Emulator, pytest_plugin
from tests.support.raw_api import raw_api


pytest_plugins = ["pytester"]


async def test_fixture(copyai_emulator: Emulator) -> None:
    """The fixture is a started emulator without runs."""
    async with raw_api(copyai_emulator) as api:
        assert await api.list_ids() == []


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_fixture_in_mode(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The fixture works in both modes of pytest-asyncio."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.asyncio
        async def test_it(copyai_emulator):
            assert copyai_emulator.url
    """)
    result = pytester.runpytest_subprocess(
        "-p", "aiocopyai.emulator.pytest_plugin", "-p", "pytest_asyncio.plugin",
        "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function", f"--asyncio-mode={mode}",
    )  # fmt: skip
    result.assert_outcomes(passed=1)


def test_fixture_without_pytest_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pytest-asyncio is not loaded, the fixture is a plain one for other plugins."""
    monkeypatch.delitem(sys.modules, "pytest_asyncio", raising=False)
    assert pytest_plugin._fixture_decorator() is pytest.fixture


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
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)  # noqa: S603 (our own script)
    return set(done.stdout.splitlines()[-1].split())
