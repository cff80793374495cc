"""Tests of deliveries over a socket, to aiohttp.web and to ASGI."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import CopyAISession
from aiocopyai.emulator import Emulator, Quirks
from aiocopyai.webhooks import WebhookReceiver
from tests.support.raw_api import PATIENCE, AnyValue, wait_until
from tests.support.receivers import (
    COMPLETED,
    JSON_TYPE,
    SECRET,
    HTTPClient,
    NoReader,
    RecordingHandler,
    delivery_body,
    serve_receiver,
)


DELIVERY: dict[str, object] = {"type": COMPLETED, "workflowRunId": "WRUN-1", "workflowId": "WCFG-1"}


@pytest.fixture(name="server", params=["aiohttp", "asgi"])
def _server(request: pytest.FixtureRequest) -> str:
    """The kind of server."""
    server: str = request.param
    return server


@pytest.fixture(name="receiver")
async def _receiver(handler: RecordingHandler) -> AsyncIterator[WebhookReceiver]:
    """A running receiver that handles deliveries without confirmation."""
    async with WebhookReceiver(NoReader(), handler, secret=SECRET, confirm=False, max_body=1_000) as receiver:
        yield receiver


@pytest.fixture(name="client")
async def _client(server: str, receiver: WebhookReceiver) -> AsyncIterator[HTTPClient]:
    """A client for the receiver."""
    async with serve_receiver(server, receiver) as client:
        yield client


@pytest.mark.parametrize("delivery", ["today", "older", "run"])
async def test_registration_to_handler(
    server: str, session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, delivery: AnyValue
) -> None:
    """The handler receives a completed run with the API's content, for each known body of the delivery."""
    copyai_emulator.quirks = Quirks(delivery=delivery)
    copyai_emulator.run_time = 0.01
    async with WebhookReceiver(session, handler) as receiver, serve_receiver(server, receiver) as client:
        await session.ensure_webhook(client.base + receiver.path, COMPLETED)
        run = await session.start_run(copyai_emulator.workflow_id, {"Tone": "Formal"}, metadata={"chat": 7})
        await wait_until(lambda: bool(handler.events))
        await wait_until(lambda: bool(copyai_emulator.deliveries))

    [event] = handler.events
    [delivered] = copyai_emulator.deliveries
    assert delivered.status == 202
    assert event.run == await session.get_run(copyai_emulator.workflow_id, run.id)
    assert (event.type, event.run_id, event.workflow_id) == (COMPLETED, run.id, copyai_emulator.workflow_id)
    assert event.run is not None
    assert (event.output, event.credits) == (event.run.output, event.run.credits)
    assert event.metadata == {"chat": 7}


@pytest.mark.parametrize(
    "path",
    [
        "/copyai/a-secret-hard-to-guesS",
        "/copyai/a-secret-hard-to-guess//",
        "/copyai/a-secret-hard-to-guess/x",
        "/copyai/",
        "/copyai",
        "/",
        "/copyai/%F0%9F%94%91",
        "/copyai/%FF",
        "/copyai/x?secret=a-secret-hard-to-guess",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_wrong_secret(client: HTTPClient, handler: RecordingHandler, path: str, method: str) -> None:
    """The response to a wrong secret is a 404, for any method."""
    assert await client.post(path, method=method, json=DELIVERY) == 404
    assert handler.events == []


async def test_trailing_slash(client: HTTPClient, receiver: WebhookReceiver) -> None:
    """The path may end in a slash."""
    assert await client.post(receiver.path + "/", json=DELIVERY) == 202
    assert await client.post(receiver.path + "/", method="GET") == 405


async def test_secret_is_checked_first(client: HTTPClient) -> None:
    """The response to a wrong secret, or to a Content-Length that is too large, does not wait for the body."""
    head = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"

    async with asyncio.timeout(PATIENCE):
        assert b" 404 " in await client.send_head(head.format("/copyai/not-the-secret", 500))
        assert b" 413 " in await client.send_head(head.format(f"/copyai/{SECRET}", 1_001))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
async def test_other_methods(
    client: HTTPClient, receiver: WebhookReceiver, handler: RecordingHandler, method: str
) -> None:
    """The response to any method other than POST is a 405 that allows POST."""
    async with client.http.request(method, client.base + receiver.path, json=DELIVERY) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert handler.events == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "text/plain", "x", None]
)
async def test_content_type_is_ignored(client: HTTPClient, receiver: WebhookReceiver, content_type: str | None) -> None:
    """JSON is accepted with any content type, and without one."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = json.dumps(DELIVERY).encode()

    assert await client.post(receiver.path, data=body, headers=headers, skip_auto_headers=["Content-Type"]) == 202


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'"workflowRun.completed"',
        b"\xff",
        json.dumps(DELIVERY).encode("utf-16"),
        json.dumps({**DELIVERY, "type": "t" * 513}).encode(),
        json.dumps({**DELIVERY, "workflowRunId": "r" * 513}).encode(),
        json.dumps({**DELIVERY, "workflowId": "w" * 513}).encode(),
    ],
    ids=range(10),
)
async def test_invalid_bodies(
    client: HTTPClient, receiver: WebhookReceiver, handler: RecordingHandler, body: bytes
) -> None:
    """The response to a body that is not an event, or that has a very long field name, is a 400."""
    assert await client.post(receiver.path, data=body, headers=JSON_TYPE) == 400
    assert handler.events == []


async def test_corrupted_bodies(
    client: HTTPClient, receiver: WebhookReceiver, handler: RecordingHandler, caplog: pytest.LogCaptureFixture
) -> None:
    """For any bytes on the socket the server responds as documented, and continues to work."""
    random_source = random.Random(11)  # noqa: S311 (reproducible, not secret)
    for number in range(60):
        body = bytearray(json.dumps(DELIVERY | {"workflowRunId": f"WRUN-x{number}"}).encode())
        for _ in range(random_source.randrange(4)):
            body[random_source.randrange(len(body))] = random_source.randrange(256)
        assert await client.post(receiver.path, data=bytes(body), headers=JSON_TYPE) in {200, 202, 400}
    assert await client.post(receiver.path, json=DELIVERY) == 202
    await wait_until(lambda: "WRUN-1" in handler.run_ids)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def chunked(body: bytes) -> AsyncIterator[bytes]:
    """Yield a body in pieces, so that its length is not announced."""
    for start in range(0, len(body), 400):
        yield body[start : start + 400]


def padded(size: int, run_id: str = "WRUN-1") -> bytes:
    """Return a valid delivery of this size."""
    return json.dumps(DELIVERY | {"workflowRunId": run_id}).encode().ljust(size)


@pytest.mark.parametrize(("size", "status"), [(1_000, 202), (1_001, 413), (500_000, 413)])
async def test_limit_of_bodies(client: HTTPClient, receiver: WebhookReceiver, size: int, status: int) -> None:
    """A body of `max_body` bytes is accepted, and a larger body is not, with a Content-Length or in chunks."""
    assert await client.post(receiver.path, data=padded(size), headers=JSON_TYPE) == status
    assert await client.post(receiver.path, data=chunked(padded(size, "WRUN-2")), headers=JSON_TYPE) == status


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_limit_of_compressed_bodies(client: HTTPClient, receiver: WebhookReceiver, encoding: str) -> None:
    """A compressed body is accepted up to `max_body` bytes after decompression."""
    headers = {**JSON_TYPE, "Content-Encoding": encoding}
    compress = gzip.compress if encoding == "gzip" else zlib.compress

    assert await client.post(receiver.path, data=compress(padded(1_000)), headers=headers) == 202
    assert await client.post(receiver.path, data=compress(padded(1_001)), headers=headers) == 413
    assert await client.post(receiver.path, data=compress(padded(900_000)), headers=headers) == 413


@pytest.mark.parametrize("encoding", ["gzip", "x-unknown"])
async def test_invalid_compression(
    client: HTTPClient, receiver: WebhookReceiver, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The response to a body that is not in the encoding of its header is a 400, and no server error is logged."""
    headers = {**JSON_TYPE, "Content-Encoding": encoding}

    assert await client.post(receiver.path, data=b"no gzip at all", headers=headers) == 400
    assert await client.post(receiver.path, data=gzip.compress(padded(100))[:-30], headers=headers) == 400
    assert caplog.records == []


async def test_sender_disconnects(client: HTTPClient, receiver: WebhookReceiver, handler: RecordingHandler) -> None:
    """An incomplete body is ignored, and the next delivery is handled."""
    host, _, port = client.base.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {receiver.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n"
    writer.write(head.encode() + b'{"type":')
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert await client.post(receiver.path, json=DELIVERY) == 202
    await wait_until(lambda: bool(handler.events))
    assert len(handler.events) == 1


async def test_repeats_get_200(client: HTTPClient, receiver: WebhookReceiver, handler: RecordingHandler) -> None:
    """The response to a repeated event is a 200, and the event is not handled again."""
    assert [await client.post(receiver.path, json=DELIVERY) for _ in range(3)] == [202, 200, 200]
    assert await client.post(receiver.path, json={**DELIVERY, "type": "workflowRun.failed"}) == 202
    await wait_until(lambda: len(handler.events) == 2)


async def test_receiver_is_not_running(server: str, handler: RecordingHandler) -> None:
    """Before the receiver is entered and after its exit, the response is a 503."""
    receiver = WebhookReceiver(NoReader(), handler, confirm=False)
    async with serve_receiver(server, receiver) as client:
        assert await client.post(receiver.path, json=DELIVERY) == 503
        async with receiver:
            assert await client.post(receiver.path, json=DELIVERY) == 202
        assert await client.post(receiver.path, json=DELIVERY | {"workflowRunId": "WRUN-2"}) == 503

    assert handler.run_ids == ["WRUN-1"]


async def test_reads_of_forged_deliveries(
    server: str, session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler
) -> None:
    """A forged delivery causes one read, and one with a wrong secret causes none."""
    [run_id] = copyai_emulator.add_runs(1, status="FAILED")
    run = await session.get_run(copyai_emulator.workflow_id, run_id)
    before = len(copyai_emulator.requests)
    forged = delivery_body({"id": run.id, "workflowId": run.workflow_id})
    async with WebhookReceiver(session, handler) as receiver, serve_receiver(server, receiver) as client:
        assert await client.post("/copyai/not-the-secret", json=forged) == 404
        assert await client.post(receiver.path, json=forged) == 202

    assert handler.events == []
    assert len(copyai_emulator.requests) == before + 1


HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "Content-Length", "content-encoding", "x"]),
    st.sampled_from(["application/json", "5", "9" * 5_000, "gzip", "-1", ""]) | st.text(max_size=8),
)


@given(st.lists(st.binary(max_size=40), max_size=4), HEADERS, st.sampled_from(["POST", "post", "GET", ""]))
def test_any_bytes(chunks: list[bytes], headers: dict[str, str], method: str) -> None:
    """For any bytes, headers and method, the status is one of those documented, and nothing is raised."""

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def deliver() -> list[int]:
        async with WebhookReceiver(
            NoReader(), RecordingHandler(), secret=SECRET, confirm=False, max_body=50
        ) as receiver:
            return [
                await receiver.accept(method, receiver.path, JSON_TYPE | headers, body()),
                await receiver.accept(method, receiver.path, headers, b"".join(chunks)),
            ]

    assert set(asyncio.run(deliver())) <= ({200, 202, 400, 413} if method.upper() == "POST" else {405})


@given(st.text())
def test_any_path(path: str) -> None:
    """For any path, the status is 404 unless its last segment is the secret."""
    receiver = WebhookReceiver(NoReader(), RecordingHandler(), secret=SECRET)

    assert asyncio.run(receiver.accept("POST", path, JSON_TYPE, b"{}")) == 404
    assert asyncio.run(receiver.accept("POST", f"{path}/{SECRET}", JSON_TYPE, b"{}")) == 400


def test_generated_secret() -> None:
    """By default each receiver generates a secret that cannot be guessed."""
    paths = {WebhookReceiver(NoReader(), RecordingHandler()).path for _ in range(3)}

    assert len(paths) == 3
    assert all(len(path.removeprefix("/copyai/")) >= 43 for path in paths)


def test_secret_is_not_shown() -> None:
    """A receiver's repr does not show the secret."""
    receiver = WebhookReceiver(NoReader(), RecordingHandler(), secret=SECRET)

    assert receiver.path == f"/copyai/{SECRET}"
    assert SECRET not in repr(receiver)


@pytest.mark.parametrize(
    "secret", ["", "short", "x" * 15, "a/slash-in-the-secret", "späte-umlaute-im-pfad", "x" * 16 + "\n"]
)
def test_invalid_secret(secret: str) -> None:
    """A secret that can be guessed, or is not valid in a path, is rejected and not shown."""
    with pytest.raises(ValueError, match="16 characters") as caught:
        WebhookReceiver(NoReader(), RecordingHandler(), secret=secret)

    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [{"max_body": 0}, {"max_body": 1.5}, {"queue_size": 0}, {"queue_size": True}, {"grace": -1}, {"grace": "5"}],
)
def test_invalid_numbers(arguments: AnyValue) -> None:
    """A limit that is out of range is rejected, and the error names it."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        WebhookReceiver(NoReader(), RecordingHandler(), **arguments)


def test_server_is_loaded_on_demand() -> None:
    """A program that serves with ASGI does not load aiohttp's server."""
    code = (
        "import sys; from aiocopyai.webhooks import WebhookReceiver as R; r = R(None, None); r.asgi, r.path; "
        "assert 'aiohttp.web' not in sys.modules; r.route(); assert 'aiohttp.web' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
