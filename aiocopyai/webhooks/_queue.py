"""A queue of events, which confirms each event and passes it to the handler once.

A forged event must never prevent a genuine one from being handled. Therefore, a delivery counts as a repeat only while
an equal one waits to be read, or after the API has confirmed one. A delivery that arrives while an equal one is being
read causes another read, because the first read may have been too early.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, TypeAlias

from attrs import define

from aiocopyai.webhooks._confirmation import RunReader, UnconfirmedError, confirm, describe
from aiocopyai.webhooks._event import WebhookEvent


logger = logging.getLogger("aiocopyai")

Handler: TypeAlias = Callable[[WebhookEvent], Awaitable[None]]
_Key: TypeAlias = tuple[str, str | None, str | None]

_RETRY_DELAYS: Final = (0.5, 1, 2, 4, 8, 16)
"""The seconds to wait before each repeated read of an unconfirmed event: a delivery may be faster than the API."""
_CONCURRENT_READS: Final = 8
"""The maximum number of events that are confirmed at the same time, so that a slow read does not delay the others."""
_MAX_RETRYING: Final = 1_000
"""The maximum number of events that wait for a repeated read. If there are more, the one with most reads is dropped."""
_MAX_SEEN: Final = 10_000
"""The maximum number of handled events that are remembered, to recognize repeats."""
_CANCEL_TIMEOUT: Final = 5.0
"""The seconds in which a handler must react to its cancellation."""


@define(eq=False)
class _QueuedEvent:
    """An event that waits to be confirmed or handled."""

    event: WebhookEvent
    reads: int = 0
    is_repeated: bool = False
    """Whether an equal event was delivered while this one is being read."""

    @property
    def key(self) -> _Key:
        """The key of the event. Equal deliveries have equal keys.

        It includes the workflow. Otherwise, a forged event with a wrong workflow would replace the genuine event.
        """
        return self.event.type, self.event.run_id, self.event.workflow_id


class EventQueue:
    """A bounded queue of events, and the tasks that confirm them and call the handler.

    Args:
        reader: reads runs to confirm events; None to handle events without confirmation.
        handler: receives the events, one at a time.
        size: the maximum number of waiting events.
    """

    def __init__(self, reader: RunReader | None, handler: Handler, size: int) -> None:
        self._reader = reader
        self._handler = handler
        self._size = size
        self._queue: asyncio.Queue[_QueuedEvent] = asyncio.Queue()
        self._waiting: set[_Key] = set()
        self._reading: dict[_Key, _QueuedEvent] = {}
        self._retrying: dict[_Key, tuple[_QueuedEvent, asyncio.TimerHandle]] = {}
        self._seen: dict[tuple[str, str | None], None] = {}
        self._handling = asyncio.Lock()
        self._processing = 0  # events that were taken from the queue and are not finished
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether events are accepted."""
        return any(not worker.done() for worker in self._workers)

    def put(self, event: WebhookEvent) -> HTTPStatus:
        """Accept an event, and return the status to respond with: 202, 200 for a repeat, 503 if it is rejected."""
        if not self.is_open:
            logger.warning("webhook event rejected: %s: the receiver is not running", describe(event))
            return HTTPStatus.SERVICE_UNAVAILABLE
        queued = _QueuedEvent(event)
        if event.run_id is not None and (queued.key in self._waiting or self._was_seen(event)):
            return HTTPStatus.OK
        if (equal := self._reading.get(queued.key)) is not None:
            status = HTTPStatus.OK if equal.is_repeated else HTTPStatus.ACCEPTED
            equal.is_repeated = True
            return status
        if self._queue.qsize() >= self._size:
            logger.warning("webhook event rejected: %s: %d events are waiting", describe(event), self._queue.qsize())
            return HTTPStatus.SERVICE_UNAVAILABLE
        self._enqueue(queued)
        return HTTPStatus.ACCEPTED

    def start(self) -> None:
        """Start accepting events.

        Raises:
            RuntimeError: the queue is already open.
        """
        if self.is_open:
            raise RuntimeError("this WebhookReceiver is already running")
        self._queue = asyncio.Queue()
        self._waiting.clear()
        self._reading.clear()
        self._handling = asyncio.Lock()
        # Without reads, one worker is enough, and keeps the order.
        count = 1 if self._reader is None else _CONCURRENT_READS
        self._workers = {asyncio.create_task(self._work(self._queue), name="aiocopyai webhooks") for _ in range(count)}

    async def stop(self, grace: float) -> None:
        """Stop accepting events, process the waiting ones for at most `grace` seconds, and drop the rest.

        Events that are not confirmed yet are read again immediately.
        """
        workers, self._workers = self._workers, set()
        if not workers:
            return
        for key in list(self._retrying):
            self._retry_now(key)
        try:
            async with asyncio.timeout(grace):
                await self._queue.join()
        except TimeoutError:
            count = self._queue.qsize() + self._processing
            logger.warning("webhook events dropped: %d were not processed within %g s", count, grace)
        finally:
            for worker in workers:
                worker.cancel()
            _, running = await asyncio.wait(workers, timeout=_CANCEL_TIMEOUT)
            if running:
                logger.error("webhook handler still running %g s after its cancellation", _CANCEL_TIMEOUT)

    async def _work(self, queue: asyncio.Queue[_QueuedEvent]) -> None:
        # A handler may suppress its cancellation.
        while not _is_cancelled():
            queued = await queue.get()
            self._waiting.discard(queued.key)
            self._processing += 1
            try:
                await self._process(queued)
            except (Exception, asyncio.CancelledError) as error:
                # If this task is not cancelled, the handler awaited something that was.
                if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                    raise
                logger.exception("webhook handler failed for %s", describe(queued.event))
            finally:
                self._processing -= 1
                queue.task_done()

    async def _process(self, queued: _QueuedEvent) -> None:
        """Call the handler with an event, unless it is a repeat or not confirmed."""
        event = queued.event
        if self._was_seen(event):
            return
        if self._reader is not None:
            queued.reads += 1
            self._reading[queued.key] = queued
            is_last = not self.is_open
            try:
                event = await confirm(self._reader, event, accept_empty_output=is_last or queued.reads > 1)
            except UnconfirmedError as error:
                self._retry_or_drop(queued, error, is_last=is_last)
                return
            finally:
                self._reading.pop(queued.key, None)
            # The API may return the id in another form.
            if self._was_seen(event):
                return
        if event.run_id is not None:
            self._seen[event.type, event.run_id] = None
            if len(self._seen) > _MAX_SEEN:
                del self._seen[next(iter(self._seen))]
        async with self._handling:
            await self._handler(event)

    def _retry_or_drop(self, queued: _QueuedEvent, error: UnconfirmedError, *, is_last: bool) -> None:
        """Read an unconfirmed event again, now or later, or drop it."""
        if queued.is_repeated:
            self._enqueue(_QueuedEvent(queued.event))
        elif error.may_change and not self.is_open and not is_last:
            self._enqueue(queued)  # `stop()` was called during the read
        elif error.may_change and self.is_open and queued.reads <= len(_RETRY_DELAYS):
            delay = _RETRY_DELAYS[queued.reads - 1]
            logger.debug("webhook event not confirmed yet: %s: %s; reading again in %g s",
                         describe(queued.event), error.reason, delay)  # fmt: skip
            timer = asyncio.get_running_loop().call_later(delay, self._retry_now, queued.key)
            self._waiting.add(queued.key)
            self._retrying[queued.key] = queued, timer
            if len(self._retrying) > _MAX_RETRYING:
                self._drop_most_read()
        else:
            logger.log(error.level, "webhook event dropped: %s: %s", describe(queued.event), error.reason)

    def _retry_now(self, key: _Key) -> None:
        queued, timer = self._retrying.pop(key)
        timer.cancel()
        self._enqueue(queued)

    def _drop_most_read(self) -> None:
        """Drop the event that is least likely to be confirmed."""
        queued, timer = max(self._retrying.values(), key=lambda retrying: retrying[0].reads)
        timer.cancel()
        del self._retrying[queued.key]
        self._waiting.discard(queued.key)
        logger.warning("webhook event dropped: %s: not confirmed after %d reads, and %d others wait to be read again",
                       describe(queued.event), queued.reads, _MAX_RETRYING)  # fmt: skip

    def _enqueue(self, queued: _QueuedEvent) -> None:
        self._waiting.add(queued.key)
        self._queue.put_nowait(queued)

    def _was_seen(self, event: WebhookEvent) -> bool:
        return event.run_id is not None and (event.type, event.run_id) in self._seen


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
