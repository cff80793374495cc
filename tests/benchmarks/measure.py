"""Measure one client in a new process: ``python measure.py baseline http://127.0.0.1:8000/api`` prints JSON.

The first reading imports modules, generates code and opens connections. The second reading is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path

from attrs import asdict, frozen
from contenders import Read, Reader


@frozen
class Sample:
    """The measurements of one process."""

    runs: int
    """Runs in one reading."""
    first_wall: float
    """Seconds of the first reading."""
    cpu: float = 0.0
    """CPU seconds of the second reading, including the kernel's; 0 if there was only one reading."""
    wall: float = 0.0
    """Seconds of the second reading; 0 if there was only one reading."""
    peak: int = 0
    """Peak memory of the process in bytes."""


async def measure(reader: Reader, base_url: str, prefetch: int | None, *, only_once: bool) -> Sample:
    """Read the list twice over the same connections, or once to measure only memory or the first reading."""
    async with reader(base_url, prefetch) as read:
        runs, _, first_wall = await _timed(read)
        cpu = wall = 0.0
        if not only_once:
            runs, cpu, wall = await _timed(read)
    return Sample(runs, first_wall, cpu, wall, peak_memory())


async def _timed(read: Read) -> tuple[int, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    runs = await read()
    return runs, time.process_time() - cpu, time.perf_counter() - wall


async def longest_pause(work: Callable[[], Awaitable[object]], beat: float = 0.001) -> float:
    """Await `work`, and return the longest time in seconds for which it blocked the event loop.

    A heartbeat task, which should run every `beat` seconds, measures it.
    """
    longest = 0.0

    async def heartbeat() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(beat)
            longest = max(longest, time.perf_counter() - before - beat)

    beating = asyncio.create_task(heartbeat())
    await asyncio.sleep(10 * beat)  # so that its start is not measured
    longest = 0.0
    try:
        await work()
        await asyncio.sleep(2 * beat)
    finally:
        beating.cancel()
    return longest


def peak_memory() -> int:
    """Return the peak memory of this process in bytes, including its interpreter and libraries."""
    if sys.platform == "linux":
        # On Linux, getrusage() starts with the peak of the parent process.
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
        return int(found[1]) * 1024 if found else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main() -> None:
    parser = argparse.ArgumentParser(description="Measure one contender; print JSON.")
    parser.add_argument("contender", help="a module of contenders/")
    parser.add_argument("base_url")
    parser.add_argument("--prefetch", type=int)
    parser.add_argument("--once", action="store_true", help="read the list once")
    options = parser.parse_args()
    reader: Reader = import_module(f"contenders.{options.contender}").reader
    sample = asyncio.run(measure(reader, options.base_url, options.prefetch, only_once=options.once))
    sys.stdout.write(json.dumps(asdict(sample)))


if __name__ == "__main__":
    _main()
