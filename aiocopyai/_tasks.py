"""`TaskSet`: running tasks that can be cancelled together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar


T = TypeVar("T")


class TaskSet:
    """The running tasks of an event loop. Finished tasks are removed automatically."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Create a task for a coroutine, and add it to the set."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._remove)
        return task

    async def cancel(self) -> None:
        """Cancel all tasks, and wait until they are done."""
        await cancel_and_wait(*self._tasks)

    def _remove(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # asyncio logs an exception that is never retrieved


async def cancel_and_wait(*tasks: asyncio.Task[object]) -> None:
    """Cancel tasks, and wait until they are done, even if one delays its end or raises."""
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
