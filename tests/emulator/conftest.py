"""Fixtures of the emulator's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from aiocopyai.emulator import Emulator
from tests.support.bare import KEY_HEADER, Bare, asking


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain aiohttp session that sends the emulator's default key."""
    async with aiohttp.ClientSession(headers={KEY_HEADER: "emulator-key"}) as session:
        yield session


@pytest.fixture(name="bare")
async def _bare(copyai_emulator: Emulator) -> AsyncIterator[Bare]:
    """Requests to an emulator without runs."""
    async with asking(copyai_emulator) as bare:
        yield bare
