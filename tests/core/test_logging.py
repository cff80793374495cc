"""Tests of ``COPYAI_LOG``, which prints the library's log without a change to the program."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from aiocopyai import ConfigurationError, CopyAISession
from aiocopyai.emulator import Emulator, Fault
from tests.conftest import AT_ONCE


@pytest.fixture(autouse=True)
def _logger() -> Iterator[None]:
    """Restore the logger of the library."""
    logger = logging.getLogger("aiocopyai")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:] = []
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate


async def count_twice(emulator: Emulator) -> None:
    """Count runs with two sessions, and one retry in each."""
    for _ in range(2):
        async with CopyAISession(emulator.api_key, base_url=emulator.url, retry=AT_ONCE) as session:
            emulator.inject(Fault(status=503))
            await session.count_runs(emulator.workflow_id)


@pytest.mark.parametrize(
    ("value", "levels"),
    [("", []), ("warning", ["WARNING"]), ("info", ["WARNING"]), ("DEBUG", ["DEBUG", "WARNING", "DEBUG"])],
)
async def test_levels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str, levels: list[str]
) -> None:
    """Each message of the chosen level or above is one line on standard error, for any number of sessions."""
    monkeypatch.setenv("COPYAI_LOG", value)
    async with Emulator(7) as emulator:
        await count_twice(emulator)
    shown = capsys.readouterr().err

    assert re.findall(r" aiocopyai (\w+) ", shown) == levels * 2
    assert emulator.api_key not in shown


async def test_requests(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """At `debug`, a request is logged with method, path, status, time and attempt, but no key, query or body."""
    monkeypatch.setenv("COPYAI_LOG", "debug")
    async with Emulator(7) as emulator, CopyAISession(emulator.api_key, base_url=emulator.url) as session:
        run = await session.start_run(emulator.workflow_id, {"Name": "confidential"})
        await session.count_runs(emulator.workflow_id)
    shown = capsys.readouterr().err
    path = f"/workflow/{emulator.workflow_id}/run"
    requests = re.findall(r"DEBUG (.*) after \d+ ms (.*)", shown)

    assert requests == [(f"POST {path}: 200", "(attempt 1)"), (f"GET {path}: 200", "(attempt 1)")]
    assert run.id in shown
    assert "confidential" not in shown
    assert "?" not in shown
    assert emulator.api_key not in shown


async def test_own_handlers_have_priority(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A program that has set up the library's logger keeps its handlers and its level."""
    monkeypatch.setenv("COPYAI_LOG", "debug")
    logger = logging.getLogger("aiocopyai")
    logger.addHandler(logging.NullHandler())
    level = logger.level
    async with CopyAISession("key"):
        pass

    assert len(logger.handlers) == 1
    assert logger.level == level
    assert capsys.readouterr().err == ""


def test_invalid_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level that does not exist raises `ConfigurationError`."""
    monkeypatch.setenv("COPYAI_LOG", "verbose")
    with pytest.raises(ConfigurationError, match="COPYAI_LOG must be debug, info, warning or not set, got 'verbose'"):
        CopyAISession("key")
