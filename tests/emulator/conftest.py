"""Fixtures of the emulator's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiocopyai.emulator import Emulator
from tests.support.raw_api import DeliveryServer, RawAPI, delivery_server, raw_api


@pytest.fixture(name="api")
async def _api(copyai_emulator: Emulator) -> AsyncIterator[RawAPI]:
    """The API of an emulator without runs."""
    async with raw_api(copyai_emulator) as api:
        yield api


@pytest.fixture(name="receiver")
async def _receiver() -> AsyncIterator[DeliveryServer]:
    """A server that receives deliveries."""
    async with delivery_server() as receiver:
        yield receiver
