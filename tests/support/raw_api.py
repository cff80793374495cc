"""Calls with plain aiohttp, because the tests of the emulator must not depend on the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import aiohttp
from aiohttp import web
from attrs import define, field

from aiocopyai.emulator import Emulator


KEY_HEADER = "x-copy-ai-api-key"
PATIENCE = 40
"""Seconds to wait for something that takes milliseconds on an idle machine."""
AnyValue: TypeAlias = Any
"""The type of a test's parameter that is passed as a literal."""
NOT_FOUND = (404, {"status": "error", "errorCode": "NOT_FOUND"})


def emulator_ids(emulator: Emulator) -> list[Any]:
    """Return the ids of the emulator's runs."""
    return [run["id"] for run in emulator.runs()]


@define
class RawAPI:
    """Calls of the API without the client; `call` and `get_page` return the status and the decoded body."""

    emulator: Emulator
    http: aiohttp.ClientSession

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        data: bytes | None = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Send any request; the path is relative to the base URL."""
        url = self.emulator.url + path
        async with self.http.request(method, url, json=json, data=data, params=params, headers=headers) as response:
            return response.status, await response.json()

    @property
    def runs_path(self) -> str:
        """The path of the list of runs."""
        return f"/workflow/{self.emulator.workflow_id}/run"

    @property
    def runs_url(self) -> str:
        """The URL of the list of runs."""
        return self.emulator.url + self.runs_path

    async def get_page(self, **params: str | int) -> tuple[int, Any]:
        """Request a page of runs."""
        return await self.call("GET", self.runs_path, params=params)

    async def list_runs(self, **params: str | int) -> list[Any]:
        """Request a page of runs that must exist."""
        status, body = await self.get_page(**params)
        assert (status, body["status"]) == (200, "success")
        runs: list[Any] = body["data"]["data"]
        return runs

    async def list_ids(self, **params: str | int) -> list[str]:
        """Return the ids of a page that must exist."""
        return [run["id"] for run in await self.list_runs(**params)]

    async def get_run(self, run_id: str) -> dict[str, Any]:
        """Request a run that must exist."""
        status, body = await self.call("GET", f"{self.runs_path}/{run_id}")
        assert (status, body["status"]) == (200, "success")
        run: dict[str, Any] = body["data"]
        return run

    async def start_run(self, **fields: object) -> str:
        """Start a run, which must succeed, and return its id."""
        status, body = await self.call("POST", self.runs_path, json={"startVariables": {}, **fields})
        assert (status, body["status"]) == (200, "success")
        run_id: str = body["data"]["id"]
        return run_id

    async def create_webhook(self, url: str, event_type: str, workflow_id: str | None = None) -> str:
        """Register a webhook, which must succeed, and return its id."""
        sent = {"url": url, "eventType": event_type}
        if workflow_id is not None:
            sent["workflowId"] = workflow_id
        status, body = await self.call("POST", "/webhook", json=sent)
        assert (status, body["status"]) == (200, "success")
        webhook_id: str = body["data"]["id"]
        return webhook_id


@asynccontextmanager
async def raw_api(emulator: Emulator) -> AsyncIterator[RawAPI]:
    """Yield the calls of a started emulator, sent with its key."""
    async with aiohttp.ClientSession(headers={KEY_HEADER: emulator.api_key}) as http:
        yield RawAPI(emulator, http)


async def _no_content() -> web.StreamResponse:
    return web.Response(status=204)


@define
class DeliveryServer:
    """A server that receives and stores deliveries."""

    url: str = ""
    respond: Callable[[], Awaitable[web.StreamResponse]] = _no_content
    bodies: asyncio.Queue[dict[str, Any]] = field(factory=asyncio.Queue[dict[str, Any]])
    requests: list[web.BaseRequest] = field(factory=list[web.BaseRequest])

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Store a delivery, and respond to it."""
        self.requests.append(http)
        self.bodies.put_nowait(await http.json())
        return await self.respond()

    async def next_bodies(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for deliveries and return their bodies."""
        async with asyncio.timeout(PATIENCE):
            return [await self.bodies.get() for _ in range(count)]


@asynccontextmanager
async def delivery_server() -> AsyncIterator[DeliveryServer]:
    """Yield a server that is listening."""
    receiver = DeliveryServer()
    server = web.Server(receiver.handle, access_log=None, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def advance_clock(emulator: Emulator, seconds: float) -> None:
    """Advance the clock of an emulator's runs."""
    emulator._state.clock.advance(seconds)
    emulator._sender.schedule()
