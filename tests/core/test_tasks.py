"""Tests of the set of running tasks."""

from __future__ import annotations

import asyncio

import pytest

from aiocopyai._tasks import TaskSet


async def fail() -> None:
    raise LookupError


async def test_finished_tasks_are_removed() -> None:
    """A task is removed from the set when it returns, raises or is cancelled, and has the result of the coroutine."""
    tasks = TaskSet()
    returned = tasks.spawn(asyncio.sleep(0, "result"))
    failed = tasks.spawn(fail())
    cancelled = tasks.spawn(asyncio.sleep(60))
    assert len(tasks) == 3
    cancelled.cancel()
    await asyncio.wait([returned, failed, cancelled])
    await asyncio.sleep(0)

    assert (len(tasks), returned.result()) == (0, "result")
    with pytest.raises(LookupError):
        failed.result()


async def test_cancel() -> None:
    """Cancelling waits until all tasks are done, even if one delays its end and one raises."""
    tasks = TaskSet()
    done: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            done.append(name)
            if name == "raises":
                raise LookupError

    for name in ("slow", "raises"):
        tasks.spawn(work(name))
    await asyncio.sleep(0)
    await tasks.cancel()

    assert sorted(done) == ["raises", "slow"]
    assert len(tasks) == 0
