"""Run a workflow for each row of a file, and write each result when its run ends.

A row is read only when a run can be started for it.
Settings come from the environment: COPYAI_API_KEY and COPYAI_WORKFLOW_ID.

    python docs/examples/pipeline.py companies.txt results.jsonl
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aiocopyai import JSON, CopyAISession, RunResult


async def read(path: Path) -> AsyncIterator[dict[str, JSON]]:
    """Yield a row for each line that is not empty."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if company := line.strip():
                yield {"Company": company}


def as_line(result: RunResult) -> str:
    """Format a result as a JSON line."""
    run = result.run
    row = {
        "row": result.index,
        "inputs": dict(result.inputs),
        "run": run.id if run else None,
        "output": dict(run.output) if run else {},
        "error": str(result.error) if result.error else None,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


async def main(source: Path, target: Path) -> None:
    """Run a workflow for each line of a file."""
    async with CopyAISession() as session:
        results = session.run_many(
            os.environ["COPYAI_WORKFLOW_ID"], read(source), concurrency=8
        )
        with target.open("a", encoding="utf-8") as out:
            async for result in results:
                out.write(as_line(result))
                out.flush()
    if results.stopped_by is not None:
        raise SystemExit(f"stopped early: {results.stopped_by}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
