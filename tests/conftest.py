"""Fixtures for all tests, and the profiles of Hypothesis."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from aiocopyai import CopyAISession, RetryPolicy
from aiocopyai.emulator import Emulator


settings.register_profile("local", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, max_examples=100)
settings.register_profile("quick", deadline=None, max_examples=15)
settings.register_profile("thorough", deadline=None, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "local"))

if "PYTEST_XDIST_WORKER" in os.environ:  # without coverage of processes that tests start, which takes too long to write
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


def pytest_collection_finish() -> None:
    """Exclude imported modules from later garbage collections, which many tests run."""
    gc.collect()
    gc.freeze()


AT_ONCE = RetryPolicy(wait_initial=0, wait_max=0)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's key and base URL from the environment."""
    monkeypatch.delenv("COPYAI_API_KEY", raising=False)
    monkeypatch.delenv("COPYAI_BASE_URL", raising=False)


@pytest.fixture(autouse=True)
def _search_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search for the run of a lost response once, and send the start again without a wait."""
    monkeypatch.setattr("aiocopyai._idempotency.SEARCH_DELAYS", (0.0,))


@pytest.fixture(name="copyai_emulator")
async def _copyai_emulator() -> AsyncIterator[Emulator]:
    """An emulator without runs, in the test's own event loop, so that `on_request` can use the test's tasks."""
    async with Emulator() as emulator:
        yield emulator


@pytest.fixture(name="session")
async def _session(copyai_emulator: Emulator) -> AsyncIterator[CopyAISession]:
    """A session on the emulator that retries without waiting."""
    async with CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url, retry=AT_ONCE) as session:
        yield session
