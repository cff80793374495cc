"""Fixtures of the export tests: a list of eleven pages, and paths of exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiocopyai.emulator import Emulator
from aiocopyai.export import _list_reader, _resume
from tests.support.exporting import FORMATS, raw_run


@pytest.fixture(name="emulator")
async def _emulator(copyai_emulator: Emulator) -> Emulator:
    """The emulator that `session` is connected to, with a list of eleven pages."""
    copyai_emulator.replace_runs([raw_run(number) for number in range(1050, 0, -1)])
    return copyai_emulator


@pytest.fixture(name="path", params=FORMATS)
def _path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A path of each format."""
    return tmp_path / f"runs.{request.param}"


@pytest.fixture(name="lines")
def _lines(tmp_path: Path) -> Path:
    """A path of one format, for tests that do not depend on the format."""
    return tmp_path / "runs.jsonl"


@pytest.fixture(name="small_steps")
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prove and commit each page, and read only the required pages again when an export is resumed."""
    monkeypatch.setattr(_resume, "_PREFETCH", 0)
    monkeypatch.setattr(_list_reader, "_COMMIT_RUNS", 1)
    monkeypatch.setattr(_list_reader, "_BATCH_BYTES", 1)
    monkeypatch.setattr(_resume, "MARGIN", 0)
