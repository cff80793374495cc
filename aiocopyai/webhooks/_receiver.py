"""`WebhookReceiver`: receives webhook deliveries in aiohttp.web, in ASGI, or from any caller of `accept`.

Copy.ai does not sign deliveries. Two things replace a signature: a secret in the path, and reading the run from the API
before an event is handled.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterable, Mapping
from contextlib import nullcontext
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from aiocopyai._redaction import Secret
from aiocopyai._validation import check_integer, check_positive
from aiocopyai.webhooks._asgi import ASGIApp
from aiocopyai.webhooks._confirmation import RunReader
from aiocopyai.webhooks._event import WebhookEvent
from aiocopyai.webhooks._queue import EventQueue, Handler


if TYPE_CHECKING:
    from aiohttp import web


__all__ = ["WebhookReceiver"]

_PREFIX: Final = "/copyai"
_SECRET: Final = re.compile(r"[A-Za-z0-9_.~-]{16,}")
_MAX_ID_LENGTH: Final = 512
"""The maximum number of characters in a type or an id. Those of Copy.ai are much shorter."""


class WebhookReceiver:
    """Receives deliveries, and calls a handler once for each confirmed event, with one event at a time.

    Use it as ``async with WebhookReceiver(session, handler) as receiver``, inside the session. Outside of the block, it
    responds with 503. On exit, waiting events are processed for at most `grace` seconds, and then dropped and logged.

    By default, an event is confirmed by reading its run from the API: the run must be complete or failed, according to
    the event, and for other events it must exist. The handler receives the event with the API's content and its `run`.
    A delivery may be faster than the API, so a run that is unknown, not finished or without output is read again for
    31 seconds, while other events are handled. An event that is not confirmed by then is dropped and logged. An event
    without a run id or a workflow id is dropped, too. This may apply to ``workflowCreditLimit.reached``, whose body is
    not documented. With ``confirm=False``, the handler receives all events, including forged ones.

    The response is 202 for a queued event, 200 for a repeated one, 404 for a wrong secret, 405 for a method other than
    POST, 413 for a body that is too large, 400 for a body that is not an event in JSON or is nested more than 500
    levels deep, and 503 if the queue is full or the receiver is not running.

    Args:
        session: the `CopyAISession` that reads the runs.
        handler: an async function that takes a `WebhookEvent`. If it raises an exception, the exception is logged, and
            the next event is handled.
        secret: the last segment of the path: at least 16 letters, digits and ``-._~``. Use the same secret after each
            restart, so that existing webhooks remain valid; None generates a new one. Servers log paths, so disable the
            access log for this path.
        confirm: whether to read each event's run before the handler receives the event.
        max_body: the maximum size of a body, in bytes after decompression.
        queue_size: the maximum number of waiting events; more are rejected with 503.
        grace: the maximum number of seconds to process waiting events on exit.

    Attributes:
        asgi: an ASGI application. If you mount it in another application, use ``async with receiver:`` in the lifespan
            of the other application. If you serve it on its own, it starts and stops the receiver.

    Raises:
        ValueError: the secret is too short or has other characters, or a number is out of range.
    """

    def __init__(
        self,
        session: RunReader,
        handler: Handler,
        *,
        secret: str | None = None,
        confirm: bool = True,
        max_body: int = 2**20,
        queue_size: int = 1000,
        grace: float = 5.0,
    ) -> None:
        # First, before anything can raise: some tools show the variables of each frame of a traceback.
        self._secret = secret = Secret(secrets.token_urlsafe() if secret is None else secret)
        if not _SECRET.fullmatch(secret):
            raise ValueError("secret must be at least 16 characters, only letters, digits and -._~")
        check_integer("max_body", max_body, 1)
        check_integer("queue_size", queue_size, 1)
        check_positive("grace", grace, zero=True)
        self._confirm = confirm
        self._max_body = max_body
        self._grace = grace
        self._events = EventQueue(session if confirm else None, handler, queue_size)
        # If the receiver is already open, the application that serves it has started it, and also stops it.
        self.asgi = ASGIApp(self.accept, lambda: nullcontext() if self._events.is_open else self)

    def __repr__(self) -> str:
        return f"<WebhookReceiver: {_PREFIX}/***>"

    @property
    def path(self) -> str:
        """The path to append to your public URL when you create the webhook; it contains the secret."""
        return f"{_PREFIX}/{self._secret}"

    def route(self) -> web.RouteDef:
        """Return the route for aiohttp.web: ``app.add_routes([receiver.route()])``."""
        from aiocopyai.webhooks._aiohttp import make_route  # noqa: PLC0415 (loads aiohttp's server)

        return make_route(_PREFIX, self.accept)

    async def __aenter__(self) -> Self:
        self._events.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._events.stop(self._grace)

    async def accept(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | AsyncIterable[bytes]
    ) -> int:
        """Accept one delivery from any server, and return the HTTP status to respond with.

        Args:
            method: the request's method.
            path: the request's decoded path; only its last segment, the secret, is checked.
            headers: the request's headers. The content type is ignored.
            body: the decompressed body, or its chunks, which are read only if the secret and the method are correct,
                and only up to `max_body`. If the iteration raises `ValueError`, the status is 400.

        Returns:
            202, 200, 400, 404, 405, 413 or 503, as described for the class.
        """
        try:
            status = self._check_head(method, path, headers)
            if status is not None:
                return status
            raw = await self._read(body)
            if raw is None:
                return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            event = WebhookEvent.parse(raw)
        except ValueError:
            return HTTPStatus.BAD_REQUEST
        if any(len(text or "") > _MAX_ID_LENGTH for text in (event.type, event.run_id, event.workflow_id)):
            return HTTPStatus.BAD_REQUEST
        if self._confirm:
            # The other fields are read from the API. Until then, they would only use memory.
            event = WebhookEvent(event.type, event.run_id, event.workflow_id)
        return self._events.put(event)

    def _check_head(self, method: str, path: str, headers: Mapping[str, str]) -> HTTPStatus | None:
        """Return the status if a delivery is rejected before its body is read. The secret is checked first."""
        received_secret = path.removesuffix("/").rpartition("/")[2].encode(errors="replace")
        if not secrets.compare_digest(received_secret, self._secret.encode()):
            return HTTPStatus.NOT_FOUND
        if method.upper() != "POST":
            return HTTPStatus.METHOD_NOT_ALLOWED
        length = next((value for name, value in headers.items() if name.lower() == "content-length"), 0)
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if int(length) > self._max_body else None

    async def _read(self, body: bytes | AsyncIterable[bytes]) -> bytes | None:
        """Read a body. Return None if it is too large."""
        if isinstance(body, bytes):
            return body if len(body) <= self._max_body else None
        received = bytearray()
        async for chunk in body:
            received += chunk
            if len(received) > self._max_body:
                return None
        return bytes(received)
