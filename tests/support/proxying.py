"""TLS and proxies on the loopback interface: a front that speaks TLS for the emulator, and a proxy that cuts."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import trustme
from attrs import define, field
from yarl import URL

from aiocopyai.emulator import Emulator


HOST = "127.0.0.1"
Handle: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handle, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve connections by a function, each until that returns; give the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(meet, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks)


@define
class Line:
    """What may still go over a connection, in bytes of both directions; None for no end."""

    left: int | None = None

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes one way until there are no more, or the line is cut."""
        while data := await reader.read(2**16):
            if self.left is not None:
                data, self.left = data[: self.left], max(0, self.left - len(data))
            writer.write(data)
            await writer.drain()
            if self.left == 0:
                return

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        """Join a connection to a port, until either side ends it or the line is cut."""
        far_reader, far_writer = await asyncio.open_connection(HOST, port)
        ways = [
            asyncio.ensure_future(self.carry(reader, far_writer)),
            asyncio.ensure_future(self.carry(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


@define
class CutProxy:
    """A proxy for CONNECT that cuts connections after a random number of bytes."""

    dice: random.Random
    rate: float = 0.0
    """Which part of the connections is cut."""
    most: int = 20_000
    """Bytes after which it is cut at the latest."""
    cuts: int = 0
    heads: list[bytes] = field(factory=list[bytes])
    """What it was asked, as it came."""

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        line = Line(self.dice.randrange(self.most) if self.dice.random() < self.rate else None)
        self.cuts += line.left is not None
        if line.left == 0:
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await line.join(reader, writer, URL(f"//{head.split()[1].decode()}").port or 0)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Listen; give the address."""
        async with listening(self.meet) as port:
            yield f"http://{HOST}:{port}"


@define
class Authority:
    """Who vouches for servers, and who believes that."""

    ca: trustme.CA = field(factory=trustme.CA)

    def trusting(self) -> ssl.SSLContext:
        """Make the context of a client that believes it."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def serving(self, host: str = HOST, *, days: int = 1) -> ssl.SSLContext:
        """Make the context of a server whose certificate names a host, and is good for so many days from now."""
        now = datetime.now(UTC)
        certificate = self.ca.issue_cert(
            host, not_before=now - timedelta(days=30), not_after=now + timedelta(days=days)
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        return context


@asynccontextmanager
async def tls_front(emulator: Emulator, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Let an emulator be spoken to by TLS; give the base URL."""
    inner = URL(emulator.url)

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Line().join(reader, writer, inner.port or 0)

    async with listening(meet, context) as port:
        yield str(inner.with_scheme("https").with_port(port))
