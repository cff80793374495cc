"""What the tests of the emulator speak to it with: bare aiohttp, never the client it is there to test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from attrs import define, field

from aiocopyai.emulator import Emulator


KEY_HEADER = "x-copy-ai-api-key"


def runs_url(emulator: Emulator, *, workflow_id: str | None = None) -> str:
    """Give the URL of a list of runs."""
    return f"{emulator.url}/workflow/{workflow_id or emulator.workflow_id}/run"


async def ask(http: aiohttp.ClientSession, emulator: Emulator, **params: str | int) -> tuple[int, Any]:
    """Ask for a page; give the status and the decoded body."""
    async with http.get(runs_url(emulator), params=params) as response:
        return response.status, await response.json()


async def ask_ids(http: aiohttp.ClientSession, emulator: Emulator, **params: str | int) -> list[str]:
    """Ask for a page that is expected to be there; give its ids."""
    _, answer = await ask(http, emulator, **params)
    return [run["id"] for run in answer["data"]["data"]]


def ids_of(emulator: Emulator) -> list[Any]:
    """Give the ids that the emulator holds."""
    return [run["id"] for run in emulator.runs()]


@define
class Bare:
    """Calls of the API without a client; each gives the status and the decoded body."""

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
    ) -> tuple[int, Any]:
        """Send any request; the path begins below the base URL."""
        url = self.emulator.url + path
        async with self.http.request(method, url, json=json, data=data, params=params) as response:
            return response.status, await response.json()

    @property
    def runs_path(self) -> str:
        """The path of the list of runs."""
        return f"/workflow/{self.emulator.workflow_id}/run"

    async def start(self, **body: object) -> str:
        """Start a run that is expected to be accepted; give its id."""
        status, answer = await self.call("POST", self.runs_path, json={"startVariables": {}, **body})
        assert (status, answer["status"]) == (200, "success")
        run_id: str = answer["data"]["id"]
        return run_id

    async def run(self, run_id: str) -> dict[str, Any]:
        """Ask for one run that is expected to be there."""
        status, answer = await self.call("GET", f"{self.runs_path}/{run_id}")
        assert (status, answer["status"]) == (200, "success")
        run: dict[str, Any] = answer["data"]
        return run

    async def listed(self, **params: str | int) -> list[Any]:
        """Ask for a page of runs that is expected to be there."""
        _, answer = await self.call("GET", self.runs_path, params=params)
        runs: list[Any] = answer["data"]["data"]
        return runs

    async def register(self, url: str, event_type: str, workflow_id: str | None = None) -> str:
        """Register a webhook that is expected to be accepted; give its id."""
        body = {"url": url, "eventType": event_type}
        if workflow_id is not None:
            body["workflowId"] = workflow_id
        status, answer = await self.call("POST", "/webhook", json=body)
        assert (status, answer["status"]) == (200, "success")
        hook_id: str = answer["data"]["id"]
        return hook_id


@asynccontextmanager
async def asking(emulator: Emulator) -> AsyncIterator[Bare]:
    """Give the calls of a started emulator, with its key."""
    async with aiohttp.ClientSession(headers={KEY_HEADER: emulator.api_key}) as http:
        yield Bare(emulator, http)


async def _no_content() -> web.StreamResponse:
    return web.Response(status=204)


@define
class Receiver:
    """The far end of webhooks: a server that keeps what it is sent."""

    url: str = ""
    answer: Callable[[], Awaitable[web.StreamResponse]] = _no_content
    inbox: asyncio.Queue[dict[str, Any]] = field(factory=asyncio.Queue[dict[str, Any]])
    requests: list[web.BaseRequest] = field(factory=list[web.BaseRequest])

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Keep a delivery and answer it."""
        self.requests.append(http)
        self.inbox.put_nowait(await http.json())
        return await self.answer()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Give a receiver that listens."""
    receiver = Receiver()
    runner = web.ServerRunner(
        web.Server(receiver.handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.01
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the far side of a socket, or of a clock."""
    while not condition():
        await asyncio.sleep(0.001)


def travel(emulator: Emulator, seconds: float) -> None:
    """Let time pass for an emulator's runs."""
    emulator._state.clock.advance(seconds)
    emulator._sender.schedule()
