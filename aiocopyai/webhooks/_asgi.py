"""The receiver as an ASGI application, which calls `accept` for each request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from http import HTTPStatus
from typing import TypeAlias, cast

from attrs import frozen

from aiocopyai._decompression import decompress


Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class _DisconnectedError(Exception):
    """The sender disconnected before its body was complete."""


@frozen
class ASGIApp:
    """An ASGI application that can run on its own or be mounted in another one.

    Servers recognize an object with an async ``__call__`` as ASGI 3. The path before the secret is not checked, because
    servers and frameworks differ on whether ``path`` starts with ``root_path``.
    """

    accept: Callable[[str, str, Mapping[str, str], AsyncIterable[bytes]], Awaitable[int]]
    lifespan: Callable[[], AbstractAsyncContextManager[object]]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection.

        Raises:
            ValueError: the connection type is unknown. ASGI requires an exception.
        """
        if scope["type"] == "http":
            await self._respond(scope, receive, send)
        elif scope["type"] == "lifespan":
            async with AsyncExitStack() as stack:
                await receive()
                await stack.enter_async_context(self.lifespan())
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            raise ValueError(f"connection type must be http, lifespan or websocket, got {scope['type']!r}")

    async def _respond(self, scope: Message, receive: Receive, send: Send) -> None:
        pairs = cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
        encoding = headers.get("content-encoding", "")
        try:
            async with aclosing(_chunks(receive)) as chunks, aclosing(decompress(chunks, encoding)) as body:
                status = await self.accept(str(scope["method"]), str(scope["path"]), headers, body)
        except _DisconnectedError:
            return
        response_headers = [(b"content-length", b"0")]
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            response_headers.append((b"allow", b"POST"))
        await send({"type": "http.response.start", "status": int(status), "headers": response_headers})
        await send({"type": "http.response.body", "body": b""})


async def _chunks(receive: Receive) -> AsyncGenerator[bytes, None]:
    """Yield the body as it is received."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        yield cast("bytes", message.get("body", b""))
        if not message.get("more_body", False):
            return
