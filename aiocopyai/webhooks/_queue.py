"""What was delivered waits here, each event once, until the one worker has confirmed it and called the handler.

An event that is not confirmed must never stand in the way of a true one. So two deliveries are repeats only while the
first still waits, with the very same ids, or once the API has confirmed it. A delivery that comes while an equal one
is being confirmed is confirmed by a read of its own: the first read may have come too early.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, TypeAlias

from aiocopyai.webhooks._confirmation import RunReader, confirm, label
from aiocopyai.webhooks._event import WebhookEvent


logger = logging.getLogger("aiocopyai")

Handler: TypeAlias = Callable[[WebhookEvent], Awaitable[None]]

_REMEMBERED: Final = 10_000
"""Events that are known as repeats when they come again."""


class Inbox:
    """A bounded queue of events and the one task that works it off.

    Args:
        reader: what confirms events; None to hand them over as they came.
        handler: what they are handed over to, one at a time.
        size: how many may wait.
    """

    def __init__(self, reader: RunReader | None, handler: Handler, size: int) -> None:
        self._reader = reader
        self._handler = handler
        self._size = size
        self._queue: asyncio.Queue[WebhookEvent] = asyncio.Queue(size)
        self._waiting: set[tuple[str, str | None, str | None]] = set()
        self._seen: dict[tuple[str, str | None], None] = {}
        self._worker: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether events are taken in."""
        return self._worker is not None and not self._worker.done()

    def put(self, event: WebhookEvent) -> HTTPStatus:
        """Take an event in, and return how to answer: 202, 200 for a repeat, 503 where it can't wait here."""
        if not self.is_open:
            logger.warning("webhook event refused: %s: the receiver is not running", label(event))
            return HTTPStatus.SERVICE_UNAVAILABLE
        if event.run_id is not None and (_place(event) in self._waiting or _name(event) in self._seen):
            return HTTPStatus.OK
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            logger.warning("webhook event refused: %s: %d events wait already", label(event), self._size)
            return HTTPStatus.SERVICE_UNAVAILABLE
        self._waiting.add(_place(event))
        return HTTPStatus.ACCEPTED

    def start(self) -> None:
        """Begin to take events in.

        Raises:
            RuntimeError: it has begun already.
        """
        if self.is_open:
            raise RuntimeError("this WebhookReceiver is running already")
        self._queue = asyncio.Queue(self._size)
        self._waiting.clear()
        self._worker = asyncio.create_task(self._work(self._queue), name="aiocopyai webhooks")

    async def stop(self, grace: float) -> None:
        """Take nothing in any more, work off what waits for `grace` seconds at the most, and drop the rest."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            async with asyncio.timeout(grace):
                await self._queue.join()
        except TimeoutError:
            logger.warning("webhook events dropped: %d were left after %g s", self._queue.qsize() + 1, grace)
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    async def _work(self, queue: asyncio.Queue[WebhookEvent]) -> None:
        while True:
            event = await queue.get()
            self._waiting.discard(_place(event))
            try:
                await self._process(event)
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                # The handler awaited something that was cancelled; that is no reason to end.
                logger.exception("webhook handler failed at %s", label(event))
            except Exception:
                logger.exception("webhook handler failed at %s", label(event))
            finally:
                queue.task_done()

    async def _process(self, event: WebhookEvent) -> None:
        """Hand an event over, unless it is a repeat or not true."""
        if self._has_seen(event):
            return
        if self._reader is not None:
            confirmed = await confirm(self._reader, event)
            # The API may know the run by another form of its id.
            if confirmed is None or self._has_seen(confirmed):
                return
            event = confirmed
        self._remember(event)
        await self._handler(event)

    def _has_seen(self, event: WebhookEvent) -> bool:
        return event.run_id is not None and _name(event) in self._seen

    def _remember(self, event: WebhookEvent) -> None:
        if event.run_id is None:
            return
        self._seen[_name(event)] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]


def _name(event: WebhookEvent) -> tuple[str, str | None]:
    """Return what two deliveries of the same event have in common."""
    return event.type, event.run_id


def _place(event: WebhookEvent) -> tuple[str, str | None, str | None]:
    # The workflow as well: with a wrong one a forged event would stand for the true one, and not be confirmed.
    return event.type, event.run_id, event.workflow_id


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
