"""Fixtures of the export's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiocopyai.emulator import Emulator
from tests.support.exporting import FORMATS, raw_run


@pytest.fixture(name="emulator")
def _emulator(copyai_emulator: Emulator) -> Emulator:
    """The emulator that `session` talks to, with eleven pages of runs."""
    copyai_emulator.replace_runs([raw_run(number) for number in range(1050, 0, -1)])
    return copyai_emulator


@pytest.fixture(name="path", params=FORMATS)
def _path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The path of an export, in each format."""
    return tmp_path / f"runs.{request.param}"


@pytest.fixture(name="lines")
def _lines(tmp_path: Path) -> Path:
    """The path of an export where the format does not matter."""
    return tmp_path / "runs.jsonl"
