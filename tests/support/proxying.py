"""Servers on the loopback interface: raw, HTTP, an emulator with TLS, and a proxy that closes connections."""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import trustme
from aiohttp import web
from attrs import define, field
from yarl import URL

from aiocopyai.emulator import Emulator


HOST = "127.0.0.1"
Handle: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handle, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve each connection with a function, until it returns; yield the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(serve, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def listening_in_thread(handle: Handle) -> AsyncIterator[int]:
    """Serve connections in the event loop of another thread, which runs while the caller's loop is blocked."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(asyncio.start_server(handle, HOST, 0), loop)
        )
        yield server.sockets[0].getsockname()[1]
        loop.call_soon_threadsafe(server.close)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def serving(handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve a handler of aiohttp.web; yield the base URL."""
    runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    try:
        yield f"http://{HOST}:{runner.addresses[0][1]}/api"
    finally:
        await runner.cleanup()


@define
class Tunnel:
    """A connection to another port that is closed after a number of bytes in both directions; None for no limit."""

    left: int | None = None

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy bytes in one direction until the end, or until the tunnel is closed."""
        while data := await reader.read(2**16):
            if self.left is not None:
                data, self.left = data[: self.left], max(0, self.left - len(data))
            writer.write(data)
            await writer.drain()
            if self.left == 0:
                return

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        """Forward a connection to a port until either side or the tunnel closes it."""
        far_reader, far_writer = await asyncio.open_connection(HOST, port)
        directions = [
            asyncio.ensure_future(self.copy(reader, far_writer)),
            asyncio.ensure_future(self.copy(far_reader, writer)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.transport.abort()
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)


@define
class CutProxy:
    """A proxy for CONNECT that closes connections after a random number of bytes."""

    dice: random.Random
    rate: float = 0.0
    """The fraction of connections that are closed, from 0 to 1."""
    max_bytes: int = 20_000
    """The maximum number of bytes before a connection is closed."""
    cuts: int = 0
    heads: list[bytes] = field(factory=list[bytes])
    """The heads of the requests to the proxy, as they were received."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        tunnel = Tunnel(self.dice.randrange(self.max_bytes) if self.dice.random() < self.rate else None)
        self.cuts += tunnel.left is not None
        if tunnel.left == 0:
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await tunnel.connect(reader, writer, URL(f"//{head.split()[1].decode()}").port or 0)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Listen; yield the URL."""
        async with listening(self.handle) as port:
            yield f"http://{HOST}:{port}"


@asynccontextmanager
async def rejecting_proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """Serve a proxy that responds to each request with a 502; yield its URL, and the heads of the requests."""
    heads: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with listening(refuse) as port:
        yield f"http://{HOST}:{port}", heads


@define
class Authority:
    """A certificate authority for tests."""

    ca: trustme.CA = field(factory=trustme.CA)

    def client_context(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def server_context(self, host: str = HOST, *, days: int = 1) -> ssl.SSLContext:
        """Return the context of a server whose certificate names a host, and expires after a number of days."""
        now = datetime.now(UTC)
        certificate = self.ca.issue_cert(
            host, not_before=now - timedelta(days=30), not_after=now + timedelta(days=days)
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        return context


@asynccontextmanager
async def tls_front(emulator: Emulator, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Serve an emulator through TLS; yield the base URL."""
    inner = URL(emulator.url)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Tunnel().connect(reader, writer, inner.port or 0)

    async with listening(handle, context) as port:
        yield str(inner.with_scheme("https").with_port(port))
