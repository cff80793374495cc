"""Count leftovers: tasks of the event loop, and open files and sockets of the process."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from attrs import define


def open_files() -> int:
    """Count this process's open files and sockets; 0 if the system does not list them."""
    with suppress(OSError):
        return len(os.listdir("/dev/fd"))  # noqa: PTH208 (a folder that changes as it is read)
    return 0


def other_tasks() -> int:
    """Count the tasks of the event loop except this one."""
    return len(asyncio.all_tasks()) - 1


@define
class Leftovers:
    """The tasks and files that were left when `counting_leftovers` ended."""

    tasks: int = 0
    files: int = 0


@asynccontextmanager
async def counting_leftovers(patience: float = 5.0) -> AsyncIterator[Leftovers]:
    """Count the tasks and files that exist only after the block; sockets have `patience` seconds to close."""
    gc.collect()
    tasks, files = other_tasks(), open_files()
    left = Leftovers()
    yield left
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while other_tasks() > tasks or open_files() > files:
                await asyncio.sleep(0.001)
    gc.collect()
    left.tasks = max(0, other_tasks() - tasks)
    left.files = max(0, open_files() - files)


@asynccontextmanager
async def leaving_nothing(patience: float = 5.0) -> AsyncIterator[None]:
    """Assert that no task or file is left."""
    async with counting_leftovers(patience) as left:
        yield
    assert left == Leftovers(), f"{left}: {asyncio.all_tasks()}"
