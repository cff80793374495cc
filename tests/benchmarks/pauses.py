"""Measure the longest pause of the event loop for one response: ``python pauses.py BASE_URL`` prints seconds."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

from measure import longest_pause
from pages import WORKFLOW

from aiocopyai import CopyAIError, CopyAISession, RetryPolicy


async def main(base_url: str) -> float:
    """Read one page of runs, and return the longest pause of the event loop in seconds."""
    async with CopyAISession("benchmark-key", base_url=base_url, retry=RetryPolicy(attempts=1)) as session:

        async def read() -> None:
            with suppress(CopyAIError):
                await session.runs_page(WORKFLOW)

        await read()  # imports modules and opens the connection
        return await longest_pause(read)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1]))))
