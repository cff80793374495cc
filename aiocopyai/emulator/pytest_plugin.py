"""The pytest plugin with the fixture `copyai_emulator`, which pytest finds wherever the package is installed.

pytest imports this module in every run, so that it imports next to nothing: the emulator, and aiohttp with it, is
loaded inside the fixture.
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
    """Register the fixture with the decorator of the plugin that runs asynchronous tests."""
    # A module, because pytest looks for fixtures in modules, but on the class of any other object.
    fixtures = ModuleType("aiocopyai_fixtures")
    vars(fixtures)["copyai_emulator"] = _fixture_decorator()(copyai_emulator)
    config.pluginmanager.register(fixtures)


def _fixture_decorator() -> Callable[[object], object]:
    # All plugins are loaded by now. pytest-asyncio's strict mode requires its own decorator; other plugins, such as
    # anyio's, require pytest's.
    module = sys.modules.get("pytest_asyncio", pytest)
    decorator: Callable[[object], object] = module.fixture
    return decorator
