"""Tests of blocking work in a thread."""

from __future__ import annotations

import asyncio
import gc
from threading import Event

import pytest

from aiocopyai._threads import FileThread
from tests.support.raw_api import PATIENCE


async def test_a_cancelled_wait_keeps_the_error_of_the_call() -> None:
    """If the call of a cancelled task fails, its error is the cause of the cancellation, and is not logged."""
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    started, may_end = Event(), Event()

    def fail() -> None:
        started.set()
        may_end.wait(PATIENCE)
        raise OSError("no space")

    with FileThread() as thread:
        task = asyncio.create_task(thread.wait(thread.submit(fail)))
        await asyncio.to_thread(started.wait, PATIENCE)
        task.cancel()
        asyncio.get_running_loop().call_soon(may_end.set)
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    cause = str(caught.value.__cause__)
    del task, caught
    gc.collect()

    assert cause == "no space"
    assert problems == []
