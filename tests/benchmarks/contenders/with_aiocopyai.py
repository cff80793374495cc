"""aiocopyai, used as its README shows."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pages import WORKFLOW

from aiocopyai import CopyAISession
from contenders import Read


@asynccontextmanager
async def reader(base_url: str, prefetch: int | None) -> AsyncGenerator[Read]:
    """Open a session."""
    logging.getLogger("aiocopyai").setLevel(logging.ERROR)  # the warnings about a rate limit are expected
    options = {} if prefetch is None else {"prefetch": prefetch}
    async with CopyAISession("benchmark-key", base_url=base_url) as session:

        async def read() -> int:
            count = 0
            async for _ in session.runs(WORKFLOW, **options):
                count += 1
            return count

        yield read
