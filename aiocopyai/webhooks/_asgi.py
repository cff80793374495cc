"""The receiver as an ASGI application: messages to calls of `accept`, and its status to messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from http import HTTPStatus
from typing import TypeAlias, cast

from attrs import frozen

from aiocopyai._decompression import decompress


Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, object]]]
Send: TypeAlias = Callable[[MutableMapping[str, object]], Awaitable[None]]


class _GoneError(Exception):
    """The sender hung up before its body was through."""


@frozen
class ASGIApp:
    """An application to be run on its own or mounted in another. It answers http and lifespan.

    An object and not a function, as servers tell ASGI 3 by that; and no path of its own but the secret at its end,
    as servers and frameworks differ on whether ``path`` begins with ``root_path``.
    """

    accept: Callable[[str, str, Mapping[str, str], AsyncIterable[bytes]], Awaitable[int]]
    lifespan: Callable[[], AbstractAsyncContextManager[object]]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection.

        Raises:
            ValueError: it is of a kind that is not known, as ASGI asks.
        """
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            raise ValueError(f"not a kind of connection that is served here: {scope['type']!r}")

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        encoding = headers.get("content-encoding", "")
        try:
            async with aclosing(_chunks(receive)) as chunks, aclosing(decompress(chunks, encoding)) as body:
                status = await self.accept(str(scope["method"]), str(scope["path"]), headers, body)
        except _GoneError:
            return
        answer = [(b"content-length", b"0")]
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.append((b"allow", b"POST"))
        await send({"type": "http.response.start", "status": int(status), "headers": answer})
        await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            await receive()
            await stack.enter_async_context(self.lifespan())
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _headers(scope: Message) -> dict[str, str]:
    pairs = cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}


async def _chunks(receive: Receive) -> AsyncGenerator[bytes, None]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        yield cast("bytes", message.get("body", b""))
        if not message.get("more_body", False):
            return
