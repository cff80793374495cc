"""The receiver as a route of aiohttp.web. This module is imported on demand, because it loads aiohttp's server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import aclosing
from http import HTTPStatus

from aiohttp import web


def make_route(
    prefix: str, accept: Callable[[str, str, Mapping[str, str], AsyncIterable[bytes]], Awaitable[int]]
) -> web.RouteDef:
    """Build the route below `prefix`, with or without a slash at the end.

    The route matches any last segment, because `accept` compares the secret in constant time, and the router does not.
    """

    async def receive(request: web.Request) -> web.Response:
        async with aclosing(_chunks(request)) as body:
            status = await accept(request.method, request.path, request.headers, body)
        headers = {"Allow": "POST"} if status == HTTPStatus.METHOD_NOT_ALLOWED else None
        response = web.Response(status=status, headers=headers)
        if request.content.exception() is not None:
            # Otherwise, aiohttp continues to read after the response, and logs the error as an error of the server.
            request.content.feed_eof()
            response.force_close()
        return response

    return web.route("*", f"{prefix}/{{secret:[^/]+/?}}", receive)


async def _chunks(request: web.Request) -> AsyncGenerator[bytes, None]:
    """Yield the body as aiohttp reads it from the socket, decompressed.

    Raises:
        ValueError: the body is incomplete, or does not have the encoding in its header.
    """
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (web.RequestPayloadError, OSError) as error:
        raise ValueError(str(error)) from None
