"""Measure the time of an iteration: ``python latency.py BASE_URL PREFETCH`` prints seconds as JSON.

For each of two iterations over the same connections, it prints the time until the last run was yielded, and until the
iteration ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from pages import WORKFLOW

from aiocopyai import CopyAISession


async def main(base_url: str, prefetch: int) -> list[tuple[float, float]]:
    """Read the list twice; only the first reading imports modules and opens connections."""
    times: list[tuple[float, float]] = []
    async with CopyAISession("benchmark-key", base_url=base_url) as session:
        for _ in range(2):
            started = last = time.perf_counter()
            async for _run in session.runs(WORKFLOW, prefetch=prefetch):
                last = time.perf_counter()
            times.append((last - started, time.perf_counter() - started))
    return times


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2])))))
