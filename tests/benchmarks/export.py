"""Measure one export in a new process: ``python export.py URL parquet`` prints a sample as JSON.

``python export.py URL iterate`` measures an iteration without an export. Both include the time of imports.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from attrs import asdict
from measure import Sample, peak_memory
from pages import WORKFLOW


async def iterate(base_url: str) -> int:
    """Iterate over the list, and return the number of runs."""
    from aiocopyai import CopyAISession  # noqa: PLC0415 (its import is measured)

    count = 0
    async with CopyAISession("benchmark-key", base_url=base_url) as session:
        async for _ in session.runs(WORKFLOW):
            count += 1
    return count


async def export(base_url: str, path: Path) -> int:
    """Export the list, and return the number of runs."""
    from aiocopyai import CopyAISession  # noqa: PLC0415 (the same)
    from aiocopyai.export import export_runs  # noqa: PLC0415 (the same)

    async with CopyAISession("benchmark-key", base_url=base_url) as session:
        exported = await export_runs(session, [WORKFLOW], path)
    return exported.runs


def main(base_url: str, format_: str) -> None:
    """Measure, and print the sample."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as the command line does
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        work = iterate(base_url) if format_ == "iterate" else export(base_url, Path(folder, f"runs.{format_}"))
        runs = asyncio.run(work)
        sample = Sample(runs, time.perf_counter() - started, peak=peak_memory())
    sys.stdout.write(json.dumps(asdict(sample)))


if __name__ == "__main__":
    main(*sys.argv[1:])
