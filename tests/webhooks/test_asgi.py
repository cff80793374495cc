"""The receiver as an ASGI application: run on its own, mounted in others, and by bare messages."""

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
from tests.support.bare import until
from tests.support.serving import COMPLETED, SECRET, Door, Handled, serving_asgi


ORDINARY: dict[str, object] = {"type": COMPLETED, "workflowRunId": "WRUN-1", "workflowId": "WCFG-1"}
Message: TypeAlias = MutableMapping[str, Any]


@pytest.fixture(name="receiver")
def _receiver(session: CopyAISession, handled: Handled) -> WebhookReceiver:
    """A receiver that doesn't run yet, and takes deliveries for what they say."""
    return WebhookReceiver(session, handled, secret=SECRET, confirm=False)


@asynccontextmanager
async def opening(app: Any, **settings: Any) -> AsyncIterator[Door]:  # noqa: ANN401 (any application)
    """Serve an application; give the way to it."""
    async with aiohttp.ClientSession() as http, serving_asgi(app, **settings) as base:
        yield Door(base, http)


async def test_on_its_own(receiver: WebhookReceiver, handled: Handled) -> None:
    """Run on its own, the application starts the receiver, and ends it with what waits worked off."""
    async with opening(receiver.asgi, lifespan="on") as door:
        assert receiver._inbox.is_open
        assert await door.post(receiver.path, json=ORDINARY) == 202

    assert not receiver._inbox.is_open
    assert handled.run_ids == ["WRUN-1"]


async def test_on_its_own_in_a_receiver_that_runs(receiver: WebhookReceiver) -> None:
    """A receiver that runs already is neither started nor ended by its application's server."""
    async with receiver:
        async with opening(receiver.asgi, lifespan="on") as door:
            assert await door.post(receiver.path, json=ORDINARY) == 202
        assert receiver._inbox.is_open


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
    receiver: WebhookReceiver, handled: Handled, framework: str, mount: str, path: str, root_path: str
) -> None:
    """Mounted anywhere in FastAPI or Starlette, behind a proxy or not, it takes its secret and no other."""

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
    async with opening(app, lifespan="on", root_path=root_path) as door:
        assert await door.post(path.format("another-secret-altogether"), json=ORDINARY) == 404
        assert await door.post(path.format(SECRET), method="GET") == 405
        assert await door.post(path.format(SECRET), json=ORDINARY) == 202

    assert handled.run_ids == ["WRUN-1"]


async def test_registered_and_delivered(session: CopyAISession, copyai_emulator: Emulator, handled: Handled) -> None:
    """From a registration with the path appended to the public address, a run's end comes to a mounted receiver."""
    receiver = WebhookReceiver(session, handled)
    app = FastAPI()
    app.mount("/copyai", receiver.asgi)
    async with receiver, opening(app) as door:
        await session.ensure_webhook(door.base + receiver.path, COMPLETED)
        run = await session.run_workflow(copyai_emulator.workflow_id, {}, max_poll_interval=0.01)
        await until(lambda: bool(handled.events))

    assert [event.run for event in handled.events] == [run]


def scope_of(receiver: WebhookReceiver, **fields: object) -> Message:
    """Make the scope of a good delivery."""
    headers = [(b"content-type", b"application/json")]
    return {"type": "http", "method": "POST", "path": receiver.path, "headers": headers, **fields}


async def exchange(receiver: WebhookReceiver, scope: Message, *messages: Message) -> list[Message]:
    """Call the application by bare messages; give what it sent."""
    waiting, sent = list(messages), list[Message]()

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await receiver.asgi(scope, receive, send)
    return sent


async def test_a_body_that_comes_in_pieces(receiver: WebhookReceiver, handled: Handled) -> None:
    """A body may come in any number of messages, some of them empty."""
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
    assert len(handled.events) == 1


async def test_a_sender_that_is_gone(receiver: WebhookReceiver, handled: Handled) -> None:
    """Where the sender is gone there is nobody to answer."""
    async with receiver:
        sent = await exchange(
            receiver,
            scope_of(receiver),
            {"type": "http.request", "body": b'{"type": "x"}', "more_body": True},
            {"type": "http.disconnect"},
        )

    assert (sent, handled.events) == ([], [])


async def test_the_body_is_not_asked_for(receiver: WebhookReceiver) -> None:
    """What is refused by its path, method or headers is refused before the first piece of its body is asked for."""
    for fields, status in (
        ({"path": "/copyai/not-the-secret"}, 404),
        ({"method": "PUT"}, 405),
        ({"headers": [(b"Content-Type", b"text/plain")]}, 400),
        ({"headers": [(b"content-type", b"application/json"), (b"content-length", b"1048577")]}, 413),
    ):
        start, _ = await exchange(receiver, scope_of(receiver, **fields))
        assert start["status"] == status


async def test_other_connections(receiver: WebhookReceiver) -> None:
    """A websocket is closed, and a kind of connection that ASGI doesn't know yet is refused aloud."""
    assert await exchange(receiver, {"type": "websocket"}) == [{"type": "websocket.close"}]
    with pytest.raises(ValueError, match="carrier-pigeon"):
        await exchange(receiver, {"type": "carrier-pigeon"})


async def test_a_server_that_ends_the_lifespan_by_force(receiver: WebhookReceiver) -> None:
    """A lifespan that is cancelled ends the receiver, too."""
    started = asyncio.Event()

    async def receive() -> Message:
        if started.is_set():
            await asyncio.Event().wait()
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        assert message == {"type": "lifespan.startup.complete"}
        started.set()

    living = asyncio.ensure_future(receiver.asgi({"type": "lifespan"}, receive, send))
    await started.wait()
    assert receiver._inbox.is_open
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)

    assert not receiver._inbox.is_open
