"""What the tests of the webhook receiver serve it by, and deliver to it with: real sockets, aiohttp.web and uvicorn."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import uvicorn
from aiohttp import web
from attrs import define, field

from aiocopyai.emulator import Emulator
from aiocopyai.webhooks import WebhookReceiver
from aiocopyai.webhooks._event import WebhookEvent


SECRET = "a-secret-nobody-guesses"
COMPLETED = "workflowRun.completed"
JSON_TYPE = {"Content-Type": "application/json"}


@define
class Handled:
    """A handler that keeps what it gets, and fails at the runs it is told to."""

    events: list[WebhookEvent] = field(factory=list[WebhookEvent])
    failures: dict[str | None, BaseException] = field(factory=dict[str | None, BaseException])

    async def __call__(self, event: WebhookEvent) -> None:
        """Keep an event."""
        self.events.append(event)
        if event.run_id in self.failures:
            raise self.failures[event.run_id]

    @property
    def run_ids(self) -> list[str | None]:
        """The runs of the events, in the order they came."""
        return [event.run_id for event in self.events]


@define
class Door:
    """The way to a served receiver."""

    base: str
    http: aiohttp.ClientSession

    async def post(self, path: str, *, method: str = "POST", **arguments: Any) -> int:  # noqa: ANN401 (any argument of `request`)
        """Send a request, and give the status."""
        async with self.http.request(method, self.base + path, **arguments) as response:
            await response.read()
            return response.status

    async def raw(self, head: str) -> bytes:
        """Send the head of a request and nothing after it; give the answer's first line."""
        host, _, port = self.base.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line


@asynccontextmanager
async def serving_aiohttp(receiver: WebhookReceiver) -> AsyncIterator[str]:
    """Serve a receiver's route by aiohttp.web; give the address."""
    app = web.Application()
    app.add_routes([receiver.route()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_asgi(app: Callable[..., Any], **settings: Any) -> AsyncIterator[str]:  # noqa: ANN401 (any setting of uvicorn)
    """Serve an ASGI application by uvicorn; give the address."""
    config = uvicorn.Config(app, ws="none", access_log=False, log_config=None, timeout_graceful_shutdown=1, **settings)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await server.startup(sockets=[listening])
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            await server.shutdown(sockets=[listening])


@asynccontextmanager
async def opening(serving: str, receiver: WebhookReceiver) -> AsyncIterator[Door]:
    """Serve a receiver one way or the other; give the way to it."""
    served = serving_aiohttp(receiver) if serving == "aiohttp" else serving_asgi(receiver.asgi, lifespan="off")
    async with aiohttp.ClientSession() as http, served as base:
        yield Door(base, http)


def body_of(run: Mapping[str, Any], kind: str = COMPLETED, **fields: object) -> dict[str, object]:
    """Make a delivery about a run as the emulator holds it."""
    return {"type": kind, "workflowRunId": run["id"], "workflowId": run["workflowId"], **fields}


def make_run(emulator: Emulator, status: str = "COMPLETE", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (any JSON)
    """Invent a run of this status; give it as the API sends it."""
    emulator.add_runs(1, status=status, **fields)
    return emulator.runs()[0]


def set_status(emulator: Emulator, run: dict[str, Any], status: str) -> None:
    """Let a run have come further."""
    others = [other for other in emulator.runs() if other["id"] != run["id"]]
    emulator.replace_runs([{**run, "status": status}, *others])


def reads(emulator: Emulator) -> int:
    """Count the requests that asked for one run."""
    return sum("/run/" in request.path for request in emulator.requests)


async def deliver(receiver: WebhookReceiver, body: dict[str, Any]) -> int:
    """Let a delivery in."""
    return await receiver.accept("POST", receiver.path, JSON_TYPE, json.dumps(body).encode())
