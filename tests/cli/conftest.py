"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiocopyai.emulator import Emulator


@pytest.fixture(name="emulator")
async def _emulator(request: pytest.FixtureRequest) -> AsyncIterator[Emulator]:
    """An emulator with the runs that the test module names in EMULATOR_RUNS: a list or a number of sample runs."""
    async with Emulator(getattr(request.module, "EMULATOR_RUNS", 0)) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run commands in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # child processes import this source tree
