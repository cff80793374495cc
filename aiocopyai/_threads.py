"""A thread for work that would block the event loop, and a thread that runs an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from threading import Thread
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar


P = ParamSpec("P")
T = TypeVar("T")

_END: Final = object()


class FileThread:
    """A context manager with a thread for work that would block the event loop."""

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(1, "aiocopyai-files")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in the thread, after the earlier calls."""
        return self._pool.submit(call, *args, **kwargs)

    async def wait(self, started: Future[T]) -> T:
        """Wait until a call is done, even if the task is cancelled, because the call may still use its files.

        Raises:
            CancelledError: the task was cancelled, and the call is done. If the call failed, its error is the cause.
            Exception: the call raised it.
        """
        waiter = asyncio.wrap_future(started)
        cancelled: asyncio.CancelledError | None = None
        while not waiter.done():
            try:
                await asyncio.wait([waiter])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled from waiter.exception()  # asyncio would log an exception that is never retrieved
        return waiter.result()

    async def run_steps(self, steps: Generator[None]) -> None:
        """Run each step of a generator as one call, so that a cancellation waits for one step only."""
        with closing(steps):
            while await self.wait(self.submit(next, steps, _END)) is not _END:
                pass


class LoopThread:
    """A context manager that runs an event loop in its own thread; tasks on it continue between calls.

    Use it if there is no event loop, or if it must not be blocked, as in a notebook.
    """

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="aiocopyai-loop", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result. An interrupt cancels the coroutine."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()
