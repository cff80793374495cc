"""The fixture `copyai_emulator`, found by pytest wherever the package is installed.

pytest imports this module in every one of its runs, so it imports next to nothing: the emulator,
and aiohttp with it, is loaded inside the fixture.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    from aiocopyai.emulator import Emulator


async def copyai_emulator() -> AsyncIterator[Emulator]:
    """A started `aiocopyai.emulator.Emulator` without runs, for an asynchronous test."""
    from aiocopyai.emulator import Emulator  # noqa: PLC0415 (only where the fixture is used)

    async with Emulator() as emulator:
        yield emulator


def pytest_configure(config: pytest.Config) -> None:
    """Register the fixture, in the way that the plugin which runs asynchronous tests wants it."""
    # A module, since pytest looks for fixtures in modules, and on the class of anything else.
    fixtures = ModuleType("aiocopyai_fixtures")
    vars(fixtures)["copyai_emulator"] = _as_fixture()(copyai_emulator)
    config.pluginmanager.register(fixtures)


def _as_fixture() -> Callable[[object], object]:
    # By now every plugin is loaded. pytest-asyncio's strict mode wants its own decorator; other
    # runners, anyio for one, want pytest's.
    module = sys.modules.get("pytest_asyncio", pytest)
    decorate: Callable[[object], object] = module.fixture
    return decorate
