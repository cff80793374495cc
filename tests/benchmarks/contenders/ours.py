"""aiocopyai, as its README tells to use it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pages import WORKFLOW

from aiocopyai import CopyAISession
from contenders import Walk


@asynccontextmanager
async def walker(base_url: str, prefetch: int) -> AsyncGenerator[Walk]:
    """Open a session."""
    async with CopyAISession("benchmark-key", base_url=base_url) as session:

        async def walk() -> int:
            count = 0
            async for _ in session.runs(WORKFLOW, prefetch=prefetch):
                count += 1
            return count

        yield walk
