"""The baseline: aiohttp reads the pages in sequence and orjson parses them; no objects are created."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import orjson
from pages import PAGE_SIZE, WORKFLOW

from contenders import Read


@asynccontextmanager
async def reader(base_url: str, _prefetch: int | None) -> AsyncGenerator[Read]:
    """Open a session."""
    url = f"{base_url}/workflow/{WORKFLOW}/run?size={PAGE_SIZE}&page="

    async with aiohttp.ClientSession() as http:

        async def read() -> int:
            count, number, total = 0, 1, 1
            while count < total:
                async with http.get(f"{url}{number}") as response:
                    data = orjson.loads(await response.read())["data"]
                count += len(data["data"])
                number, total = number + 1, data["total"]
            return count

        yield read
