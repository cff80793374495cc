"""Tests of the receiver as an ASGI application: by itself, mounted, and with raw messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import aiohttp
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from aiocopyai import CopyAISession
from aiocopyai.emulator import Emulator
from aiocopyai.webhooks import WebhookReceiver
from tests.support.raw_api import wait_until
from tests.support.receivers import COMPLETED, SECRET, HTTPClient, RecordingHandler, serve_asgi


DELIVERY: dict[str, object] = {"type": COMPLETED, "workflowRunId": "WRUN-1", "workflowId": "WCFG-1"}
Message: TypeAlias = MutableMapping[str, Any]


@pytest.fixture(name="receiver")
def _receiver(session: CopyAISession, handler: RecordingHandler) -> WebhookReceiver:
    """A receiver that is not running yet, and that handles deliveries without confirmation."""
    return WebhookReceiver(session, handler, secret=SECRET, confirm=False)


@asynccontextmanager
async def serve(app: Any, **settings: Any) -> AsyncIterator[HTTPClient]:  # noqa: ANN401 (any application)
    """Serve an application; yield a client for it."""
    async with aiohttp.ClientSession() as http, serve_asgi(app, **settings) as base:
        yield HTTPClient(base, http)


async def test_own_server(receiver: WebhookReceiver, handler: RecordingHandler) -> None:
    """A server of only this application starts the receiver, and stops it after the waiting events are handled."""
    async with serve(receiver.asgi, lifespan="on") as client:
        assert receiver._events.is_open
        assert await client.post(receiver.path, json=DELIVERY) == 202

    assert not receiver._events.is_open
    assert handler.run_ids == ["WRUN-1"]


async def test_own_server_of_a_running_receiver(receiver: WebhookReceiver) -> None:
    """If the receiver is already running, the server of its application neither starts nor stops it."""
    async with receiver:
        async with serve(receiver.asgi, lifespan="on") as client:
            assert await client.post(receiver.path, json=DELIVERY) == 202
        assert receiver._events.is_open


@pytest.mark.parametrize("framework", ["fastapi", "starlette"])
@pytest.mark.parametrize(
    ("mount", "path"),
    [
        ("/copyai", "/copyai/{}"),
        ("/hooks", "/hooks/copyai/{}"),
        ("/hooks/{tenant}", "/hooks/acme/copyai/{}"),
        ("", "/copyai/{}"),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/behind/a/proxy"])
async def test_mounted(
    receiver: WebhookReceiver, handler: RecordingHandler, framework: str, mount: str, path: str, root_path: str
) -> None:
    """A receiver that is mounted in FastAPI or Starlette, with or without a proxy, accepts only its secret."""

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        async with receiver:
            yield

    app: FastAPI | Starlette
    if framework == "fastapi":
        app = FastAPI(lifespan=lifespan)
        app.mount(mount, receiver.asgi)
    else:
        app = Starlette(lifespan=lifespan, routes=[Mount(mount, receiver.asgi)])
    async with serve(app, lifespan="on", root_path=root_path) as client:
        assert await client.post(path.format("another-secret-altogether"), json=DELIVERY) == 404
        assert await client.post(path.format(SECRET), method="GET") == 405
        assert await client.post(path.format(SECRET), json=DELIVERY) == 202

    assert handler.run_ids == ["WRUN-1"]


async def test_registration_to_handler(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler
) -> None:
    """A mounted receiver receives the end of a run at the public URL with its path."""
    receiver = WebhookReceiver(session, handler)
    app = FastAPI()
    app.mount("/copyai", receiver.asgi)
    async with receiver, serve(app) as client:
        await session.ensure_webhook(client.base + receiver.path, COMPLETED)
        run = await session.run_workflow(copyai_emulator.workflow_id, {}, max_poll_interval=0.01)
        await wait_until(lambda: bool(handler.events))

    assert [event.run for event in handler.events] == [run]


def scope_of(receiver: WebhookReceiver, **fields: object) -> Message:
    """Return the scope of a valid delivery."""
    headers = [(b"content-type", b"application/json")]
    return {"type": "http", "method": "POST", "path": receiver.path, "headers": headers, **fields}


async def exchange(receiver: WebhookReceiver, scope: Message, *messages: Message) -> list[Message]:
    """Call the application with raw messages; return the messages that it sends."""
    pending, sent = list(messages), list[Message]()

    async def receive() -> Message:
        return pending.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await receiver.asgi(scope, receive, send)
    return sent


async def test_body_in_pieces(receiver: WebhookReceiver, handler: RecordingHandler) -> None:
    """A body may be sent in any number of messages, some of which are empty."""
    pieces: list[Message] = [
        {"type": "http.request", "body": b'{"type":', "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b'"workflowCreditLimit.reached"}'},
    ]
    async with receiver:
        start, body = await exchange(receiver, scope_of(receiver), *pieces)

    assert (start["type"], start["status"], start["headers"]) == (
        "http.response.start",
        202,
        [(b"content-length", b"0")],
    )
    assert body == {"type": "http.response.body", "body": b""}
    assert len(handler.events) == 1


async def test_sender_disconnects(receiver: WebhookReceiver, handler: RecordingHandler) -> None:
    """Nothing is sent to a sender that has disconnected."""
    async with receiver:
        sent = await exchange(
            receiver,
            scope_of(receiver),
            {"type": "http.request", "body": b'{"type": "x"}', "more_body": True},
            {"type": "http.disconnect"},
        )

    assert (sent, handler.events) == ([], [])


async def test_body_is_not_requested(receiver: WebhookReceiver) -> None:
    """A delivery with the wrong path, method or length is rejected before its body is requested."""
    for fields, status in (
        ({"path": "/copyai/not-the-secret"}, 404),
        ({"method": "PUT"}, 405),
        ({"headers": [(b"content-type", b"application/json"), (b"content-length", b"1048577")]}, 413),
    ):
        start, _ = await exchange(receiver, scope_of(receiver, **fields))
        assert start["status"] == status


async def test_other_connections(receiver: WebhookReceiver) -> None:
    """A websocket is closed, and an unknown kind of connection raises an error."""
    assert await exchange(receiver, {"type": "websocket"}) == [{"type": "websocket.close"}]
    with pytest.raises(ValueError, match="carrier-pigeon"):
        await exchange(receiver, {"type": "carrier-pigeon"})


async def test_cancelled_lifespan(receiver: WebhookReceiver) -> None:
    """A cancelled lifespan stops the receiver."""
    started = asyncio.Event()

    async def receive() -> Message:
        if started.is_set():
            await asyncio.Event().wait()
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        assert message == {"type": "lifespan.startup.complete"}
        started.set()

    task = asyncio.ensure_future(receiver.asgi({"type": "lifespan"}, receive, send))
    await started.wait()
    assert receiver._events.is_open
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert not receiver._events.is_open
