"""Webhook receivers served over real sockets, with aiohttp.web and uvicorn, and requests to them."""

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
from aiocopyai.models import Run
from aiocopyai.webhooks import WebhookReceiver
from aiocopyai.webhooks._event import WebhookEvent


SECRET = "a-secret-hard-to-guess"
COMPLETED = "workflowRun.completed"
JSON_TYPE = {"Content-Type": "application/json"}


@define
class RecordingHandler:
    """A handler that stores the events that it receives, and raises the given exception for a run."""

    events: list[WebhookEvent] = field(factory=list[WebhookEvent])
    failures: dict[str | None, BaseException] = field(factory=dict[str | None, BaseException])

    async def __call__(self, event: WebhookEvent) -> None:
        """Store an event."""
        self.events.append(event)
        if event.run_id in self.failures:
            raise self.failures[event.run_id]

    @property
    def run_ids(self) -> list[str | None]:
        """The run ids of the events, in the order of their arrival."""
        return [event.run_id for event in self.events]


class NoReader:
    """Replaces a session in tests that must not read a run."""

    async def get_run(self, workflow_id: str, run_id: str) -> Run:
        """Fail."""
        raise AssertionError((workflow_id, run_id))


@define
class HTTPClient:
    """Sends requests to a served receiver."""

    base: str
    http: aiohttp.ClientSession

    async def post(self, path: str, *, method: str = "POST", **arguments: Any) -> int:  # noqa: ANN401 (any argument of `request`)
        """Send a request, and return the status."""
        async with self.http.request(method, self.base + path, **arguments) as response:
            await response.read()
            return response.status

    async def send_head(self, head: str) -> bytes:
        """Send the head of a request without its body, and return the first line of the response."""
        host, _, port = self.base.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line


@asynccontextmanager
async def serve_aiohttp(receiver: WebhookReceiver) -> AsyncIterator[str]:
    """Serve a receiver's route with aiohttp.web; yield the base URL."""
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
async def serve_asgi(app: Callable[..., Any], **settings: Any) -> AsyncIterator[str]:  # noqa: ANN401 (any setting of uvicorn)
    """Serve an ASGI application with uvicorn; yield the base URL."""
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
async def serve_receiver(server: str, receiver: WebhookReceiver) -> AsyncIterator[HTTPClient]:
    """Serve a receiver with aiohttp or with ASGI; yield a client for it."""
    served = serve_aiohttp(receiver) if server == "aiohttp" else serve_asgi(receiver.asgi, lifespan="off")
    async with aiohttp.ClientSession() as http, served as base:
        yield HTTPClient(base, http)


def delivery_body(run: Mapping[str, Any], kind: str = COMPLETED, **fields: object) -> dict[str, object]:
    """Return the body of a delivery about a run of the emulator."""
    return {"type": kind, "workflowRunId": run["id"], "workflowId": run["workflowId"], **fields}


def add_run(emulator: Emulator, status: str = "COMPLETE", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (any JSON)
    """Add a run with this status; return it as the API sends it."""
    emulator.add_runs(1, status=status, **{"output": {"Email": "Hello"}, **fields})
    return emulator.runs()[0]


def change_run(emulator: Emulator, run: dict[str, Any], **fields: object) -> None:
    """Change fields of a run."""
    others = [other for other in emulator.runs() if other["id"] != run["id"]]
    emulator.replace_runs([{**run, **fields}, *others])


def count_reads(emulator: Emulator) -> int:
    """Count the requests for one run."""
    return sum("/run/" in request.path for request in emulator.requests)


async def deliver(receiver: WebhookReceiver, body: Mapping[str, object]) -> int:
    """Pass a delivery to a receiver, and return the status."""
    return await receiver.accept("POST", receiver.path, JSON_TYPE, json.dumps(body).encode())
