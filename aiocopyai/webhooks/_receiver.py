"""`WebhookReceiver`: takes webhook deliveries in, for aiohttp.web, for ASGI, or for whatever calls `accept`.

Copy.ai signs nothing, so two things stand in for a signature: a secret in the path, and a read of the run from the
API before an event is believed.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from aiocopyai._text import Secret
from aiocopyai._validation import check_integer, check_positive
from aiocopyai.webhooks._asgi import ASGIApp
from aiocopyai.webhooks._confirmation import RunReader
from aiocopyai.webhooks._event import WebhookEvent
from aiocopyai.webhooks._queue import Handler, Inbox


if TYPE_CHECKING:
    from aiohttp import web


__all__ = ["WebhookReceiver"]

_PREFIX: Final = "/copyai"
_SECRET: Final = re.compile(r"[A-Za-z0-9_.~-]{16,}")
_LONGEST_NAME: Final = 512
"""Characters of a type or an id; whatever is longer is none of Copy.ai's."""


class WebhookReceiver:
    """Takes deliveries in, answers them at once, and calls a handler with each true event, once and one at a time.

    ``async with receiver:`` runs the worker that confirms events and calls the handler; outside of that, deliveries
    get 503. At its end the events that wait are worked off for `grace` seconds at the most, the rest is dropped with a
    log line, and nothing is left running. Leave it before the session is closed.

    By default an event is confirmed by reading its run from the API. An event ``completed`` or ``failed`` must find the
    run so, any other must find it at all, and the handler gets the event as the API tells it, with its `run`. Events
    that don't stand this test are dropped with a log line, and so are those that name no run and no workflow, as
    ``workflowCreditLimit.reached`` perhaps does: with ``confirm=False`` the handler gets these too, and forged ones.

    A delivery is answered with 202 if it was queued, 200 if it is a repeat, 404 for a wrong secret, 405 for another
    method than POST, 413 if it is too large, 400 if it is no event in JSON, 503 if the queue is full or nothing runs.

    Args:
        session: what reads runs: a `CopyAISession`.
        handler: an async function of one `WebhookEvent`. What it raises is logged, and the next event is handled.
        secret: the last segment of the path, 16 characters or more, letters, digits and ``-._~``. Keep it over
            restarts, so that the registered webhook stays good; None makes a new one. Servers log paths: switch
            their access log off for this one.
        confirm: whether to read each event's run before the handler sees the event.
        max_body: bytes of a body, after decompression, beyond which it is refused.
        queue_size: events that may wait; more are refused with 503.
        grace: seconds that the events that wait are worked off for at the end.

    Raises:
        ValueError: the secret can be guessed or doesn't fit a path, or a number is out of range.
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
        # Before anything can raise: some tools show the variables of each frame of a traceback.
        self._secret = secret = Secret(secrets.token_urlsafe() if secret is None else secret)
        if not _SECRET.fullmatch(secret):
            raise ValueError("secret must be at least 16 characters long, letters, digits and -._~ only")
        self._confirm = confirm
        check_integer("max_body", max_body, 1)
        check_integer("queue_size", queue_size, 1)
        check_positive("grace", grace, zero=True)
        self._max_body = max_body
        self._grace = grace
        self._inbox = Inbox(session if confirm else None, handler, queue_size)
        self.asgi = ASGIApp(self.accept, self._lifespan)
        """A plain ASGI application. Mounted in another, it needs ``async with receiver:`` in the other's lifespan; run
        on its own, it starts and stops the receiver by itself."""

    def __repr__(self) -> str:
        return f"<WebhookReceiver: {_PREFIX}/***>"

    @property
    def path(self) -> str:
        """The path to append to your public address when you register the webhook; it holds the secret."""
        return f"{_PREFIX}/{self._secret}"

    def route(self) -> web.RouteDef:
        """Make the route for aiohttp.web: ``app.add_routes([receiver.route()])``."""
        from aiocopyai.webhooks._aiohttp import make_route  # noqa: PLC0415 (loads aiohttp's server)

        return make_route(_PREFIX, self.accept)

    async def __aenter__(self) -> Self:
        self._inbox.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._inbox.stop(self._grace)

    async def accept(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | AsyncIterable[bytes]
    ) -> int:
        """Take one delivery, in whichever framework, and return the HTTP status to answer with.

        Args:
            method: the request's method.
            path: its path, decoded; what counts is the secret in its last segment.
            headers: its headers.
            body: its body, decompressed; or its chunks, which are not asked for unless secret, method and type are
                right, nor beyond `max_body`. An iteration that raises `ValueError` is answered with 400.
        """
        try:
            refusal = self._refusal(method, path, headers)
            if refusal is not None:
                return refusal
            raw = await self._read(body)
            if raw is None:
                return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            event = WebhookEvent.parse(raw)
        except ValueError:
            return HTTPStatus.BAD_REQUEST
        return self._take_in(event)

    def _refusal(self, method: str, path: str, headers: Mapping[str, str]) -> HTTPStatus | None:
        """Say what speaks against a delivery before its body is read, the secret first."""
        if not self._knows_secret(path):
            return HTTPStatus.NOT_FOUND
        if method.upper() != "POST":
            return HTTPStatus.METHOD_NOT_ALLOWED
        lower = {name.lower(): value for name, value in headers.items()}
        if not _is_json(lower.get("content-type", "")):
            return HTTPStatus.BAD_REQUEST
        if int(lower.get("content-length", 0)) > self._max_body:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return None

    def _knows_secret(self, path: str) -> bool:
        given = path.rpartition("/")[2].encode(errors="replace")
        return secrets.compare_digest(given, self._secret.encode())

    async def _read(self, body: bytes | AsyncIterable[bytes]) -> bytes | None:
        """Read a body, and give it up once it is too large."""
        if isinstance(body, bytes):
            return body if len(body) <= self._max_body else None
        read = bytearray()
        async for chunk in body:
            read += chunk
            if len(read) > self._max_body:
                return None
        return bytes(read)

    def _take_in(self, event: WebhookEvent) -> int:
        names = (event.type, event.run_id or "", event.workflow_id or "")
        if max(map(len, names)) > _LONGEST_NAME:
            return HTTPStatus.BAD_REQUEST
        if self._confirm:
            # The rest comes from the API, and is not held in memory until then.
            event = WebhookEvent(event.type, event.run_id, event.workflow_id)
        return self._inbox.put(event)

    def _lifespan(self) -> AbstractAsyncContextManager[object]:
        return nullcontext() if self._inbox.is_open else self


def _is_json(content_type: str) -> bool:
    essence = content_type.partition(";")[0].strip().lower()
    return essence == "application/json" or essence.endswith("+json")
