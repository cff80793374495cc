"""Test an installed aiocopyai with only its own dependencies: ``python tests/support/smoke.py``."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import sys
from pathlib import Path

import aiocopyai
from aiocopyai import CopyAISession
from aiocopyai.emulator import Emulator


async def main() -> None:
    """List runs and start one, over a socket."""
    async with Emulator(250) as emulator, CopyAISession(emulator.api_key, base_url=emulator.url) as session:
        ids = [run.id async for run in session.runs(emulator.workflow_id)]
        run = await session.run_workflow(emulator.workflow_id, {"Tone": "Formal"}, max_poll_interval=0.01)
    if len(set(ids)) != len(ids) or len(ids) != 250 or run.status != "COMPLETE":
        raise SystemExit(f"listed {len(ids)} of 250 runs, and the started run is {run.status}")


if __name__ == "__main__":
    package = Path(aiocopyai.__file__).parent
    if Path(__file__).parents[2] / "aiocopyai" == package or not (package / "py.typed").is_file():
        raise SystemExit(f"{package} is not the installed package, or has no types")
    # PyPI shows the description without the files that a relative link refers to.
    if relative := re.findall(r"\]\((?!https?:|#)[^)]*\)", str(importlib.metadata.metadata("aiocopyai").get_payload())):
        raise SystemExit(f"the description has relative links: {relative}")
    asyncio.run(main())
    sys.stdout.write(f"aiocopyai {importlib.metadata.version('aiocopyai')} works\n")
