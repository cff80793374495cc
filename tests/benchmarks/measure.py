"""One measurement in a process of its own: ``python measure.py ours http://127.0.0.1:8000/api`` prints it as JSON.

The first walk warms up: imports that happen at first use, generated code, connections. The second is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from importlib import import_module

from attrs import asdict, frozen
from contenders import Walk, Walker


@frozen
class Sample:
    """What one process measured."""

    runs: int
    """How many runs a walk met."""
    first_wall: float
    """Seconds that the first walk took."""
    cpu: float
    """Seconds of CPU, the kernel's included, that the second took; 0 if there was only one."""
    wall: float
    """Seconds that the second took; 0 if there was only one."""
    peak: int
    """Bytes that the process held at its peak."""


async def measure(walker: Walker, base_url: str, prefetch: int, *, only_once: bool) -> Sample:
    """Walk twice over the same connections, or once where only memory matters."""
    async with walker(base_url, prefetch) as walk:
        runs, _, first_wall = await _timed(walk)
        cpu = wall = 0.0
        if not only_once:
            runs, cpu, wall = await _timed(walk)
    return Sample(runs, first_wall, cpu, wall, _peak())


async def _timed(walk: Walk) -> tuple[int, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    runs = await walk()
    return runs, time.process_time() - cpu, time.perf_counter() - wall


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main() -> None:
    parser = argparse.ArgumentParser(description="Measure one contender; print JSON.")
    parser.add_argument("contender", help="a module of contenders/")
    parser.add_argument("base_url")
    parser.add_argument("--prefetch", type=int, default=4)
    parser.add_argument("--once", action="store_true", help="walk once, for the peak of memory")
    options = parser.parse_args()
    walker: Walker = import_module(f"contenders.{options.contender}").walker
    sample = asyncio.run(measure(walker, options.base_url, options.prefetch, only_once=options.once))
    sys.stdout.write(json.dumps(asdict(sample)))


if __name__ == "__main__":
    _main()
