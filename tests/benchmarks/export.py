"""Compare an export with the bare walk over the same list; print one line for each format.

``python tests/benchmarks/export.py`` takes about a minute. The server is a process of its own that has every page ready
and answers at once, which no real one does: what is measured is the work of the client. With ``--latency 0.02`` each
answer is 20 ms late, as from a server that is near. Each figure is the best of some rounds in fresh processes; the peak
of memory is that of a whole process, its interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from attrs import asdict, frozen
from pages import WORKFLOW
from servers import slow_server


RUNS: Final = 100_000
FORMATS: Final = ("jsonl", "jsonl.gz", "csv", "parquet")
BARE: Final = "bare walk"


@frozen
class Sample:
    """What one process measured."""

    runs: int
    seconds: float
    peak: int
    """KiB."""


async def walk(base_url: str) -> int:
    """Read the list, and keep nothing."""
    from aiocopyai import CopyAISession  # noqa: PLC0415 (only where it is measured)

    count = 0
    async with CopyAISession("benchmark-key", base_url=base_url) as session:
        async for _ in session.runs(WORKFLOW):
            count += 1
    return count


async def export(base_url: str, path: Path) -> int:
    """Read the list into a file."""
    from aiocopyai import CopyAISession  # noqa: PLC0415 (the same)
    from aiocopyai.export import export_runs  # noqa: PLC0415 (the same)

    async with CopyAISession("benchmark-key", base_url=base_url) as session:
        exported = await export_runs(session, [WORKFLOW], path)
    return exported.runs


def measure(base_url: str, what: str) -> Sample:
    """Do one thing, warmed up by nothing: imports count on both sides."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as the command line does
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        runs = asyncio.run(walk(base_url) if what == BARE else export(base_url, Path(folder, f"runs.{what}")))
        return Sample(runs, time.perf_counter() - started, _peak())


def _peak() -> int:
    # Not getrusage: what Linux tells there begins with the peak of whoever started the process.
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    return int(found[1]) if found else 0


def _in_a_process(base_url: str, what: str) -> Sample:
    command = [sys.executable, __file__, "--measure", what, "--url", base_url]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 (ourselves)
    return Sample(**json.loads(done.stdout))


def compare(runs: int, latency: float, rounds: int) -> None:
    """Print the table."""
    with slow_server(runs, latency) as base_url:
        best: dict[str, Sample] = {}
        for what in [BARE, *FORMATS] * rounds:
            sample = _in_a_process(base_url, what)
            if sample.runs != runs:
                raise RuntimeError(f"{what} met {sample.runs} runs of {runs}")
            best[what] = min(sample, best.get(what, sample), key=lambda each: each.seconds)
    for what, sample in best.items():
        speed, ratio = runs / sample.seconds, best[BARE].seconds / sample.seconds
        line = (
            f"{what:10} {sample.seconds:7.2f} s {speed:10,.0f} runs/s {ratio:6.2f} x bare {sample.peak / 1024:6.0f} MiB"
        )
        sys.stdout.write(f"{line}\n")


def main() -> None:
    """Compare, or do one measurement in a process that was started for it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        sys.stdout.write(json.dumps(asdict(measure(options.url, options.measure))))
    else:
        compare(options.runs, options.latency, options.rounds)


if __name__ == "__main__":
    main()
