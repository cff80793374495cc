"""Deliveries over a socket, to aiohttp.web and to ASGI alike: who gets in, and how the rest is answered."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import CopyAISession
from aiocopyai.emulator import Emulator, Quirks
from aiocopyai.models import Run
from aiocopyai.webhooks import WebhookReceiver
from tests.support.bare import until
from tests.support.serving import COMPLETED, JSON_TYPE, SECRET, Door, Handled, body_of, opening


# Values that a parametrized test passes on as they are.
Odd: TypeAlias = Any

ORDINARY: dict[str, object] = {"type": COMPLETED, "workflowRunId": "WRUN-1", "workflowId": "WCFG-1"}


class NoSession:
    """Reads nothing: these tests end before it."""

    async def get_run(self, workflow_id: str, run_id: str) -> Run:
        raise AssertionError((workflow_id, run_id))


@pytest.fixture(name="serving", params=["aiohttp", "asgi"])
def _serving(request: pytest.FixtureRequest) -> str:
    """What serves the receiver."""
    serving: str = request.param
    return serving


@pytest.fixture(name="receiver")
async def _receiver(handled: Handled) -> AsyncIterator[WebhookReceiver]:
    """A running receiver that takes deliveries for what they say."""
    async with WebhookReceiver(NoSession(), handled, secret=SECRET, confirm=False, max_body=1_000) as receiver:
        yield receiver


@pytest.fixture(name="door")
async def _door(serving: str, receiver: WebhookReceiver) -> AsyncIterator[Door]:
    """The way to that receiver."""
    async with opening(serving, receiver) as door:
        yield door


@pytest.mark.parametrize("delivery", ["today", "older", "run"])
async def test_from_the_registration_to_the_handler(
    serving: str, session: CopyAISession, copyai_emulator: Emulator, handled: Handled, delivery: Odd
) -> None:
    """A run that ends is handed over as the API tells it, whichever body the delivery has."""
    copyai_emulator.quirks = Quirks(delivery=delivery)
    copyai_emulator.run_time = 0.01
    async with WebhookReceiver(session, handled) as receiver, opening(serving, receiver) as door:
        await session.ensure_webhook(door.base + receiver.path, COMPLETED)
        run = await session.start_run(copyai_emulator.workflow_id, {"Tone": "Formal"}, metadata={"chat": 7})
        await until(lambda: bool(handled.events))
        await until(lambda: bool(copyai_emulator.deliveries))

    [event] = handled.events
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
        "/copyai/a-secret-nobody-guesseS",
        "/copyai/a-secret-nobody-guesses/",
        "/copyai/a-secret-nobody-guesses/x",
        "/copyai/",
        "/copyai",
        "/",
        "/copyai/%F0%9F%94%91",
        "/copyai/%FF",
        "/copyai/x?secret=a-secret-nobody-guesses",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_wrong_secret(door: Door, handled: Handled, path: str, method: str) -> None:
    """A wrong secret is a 404, whatever the method."""
    assert await door.post(path, method=method, json=ORDINARY) == 404
    assert handled.events == []


async def test_the_secret_comes_first(door: Door) -> None:
    """A wrong secret is answered without its body, nor is a body awaited that is announced as too large."""
    head = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"

    async with asyncio.timeout(5):
        assert b" 404 " in await door.raw(head.format("/copyai/not-the-secret", 500))
        assert b" 413 " in await door.raw(head.format(f"/copyai/{SECRET}", 1_001))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
async def test_other_methods(door: Door, receiver: WebhookReceiver, handled: Handled, method: str) -> None:
    """Only POST delivers; the answer to the rest says so."""
    async with door.http.request(method, door.base + receiver.path, json=ORDINARY) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert handled.events == []


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 202),
        ("Application/JSON; charset=utf-8", 202),
        ("application/cloudevents+json", 202),
        ("text/plain", 400),
        ("application/jsonp", 400),
        ("application/x-www-form-urlencoded", 400),
    ],
)
async def test_json_only(door: Door, receiver: WebhookReceiver, content_type: str, status: int) -> None:
    """A body must be declared as JSON."""
    headers = {"Content-Type": content_type}

    assert await door.post(receiver.path, data=json.dumps(ORDINARY).encode(), headers=headers) == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'"workflowRun.completed"',
        b"\xff",
        json.dumps(ORDINARY).encode("utf-16"),
        json.dumps({**ORDINARY, "type": "t" * 513}).encode(),
        json.dumps({**ORDINARY, "workflowRunId": "r" * 513}).encode(),
        json.dumps({**ORDINARY, "workflowId": "w" * 513}).encode(),
    ],
    ids=range(10),
)
async def test_malformed(door: Door, receiver: WebhookReceiver, handled: Handled, body: bytes) -> None:
    """What is no event, or names what can't be Copy.ai's, is a 400."""
    assert await door.post(receiver.path, data=body, headers=JSON_TYPE) == 400
    assert handled.events == []


async def test_mangled_bodies(
    door: Door, receiver: WebhookReceiver, handled: Handled, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the bytes on the socket, the server answers as documented, and is no worse for it."""
    dice = random.Random(11)  # noqa: S311 (repeatable, not secret)
    for number in range(60):
        body = bytearray(json.dumps(ORDINARY | {"workflowRunId": f"WRUN-x{number}"}).encode())
        for _ in range(dice.randrange(4)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        assert await door.post(receiver.path, data=bytes(body), headers=JSON_TYPE) in {200, 202, 400}
    assert await door.post(receiver.path, json=ORDINARY) == 202
    await until(lambda: "WRUN-1" in handled.run_ids)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def chunked(body: bytes) -> AsyncIterator[bytes]:
    """Send a body without saying how long it is."""
    for start in range(0, len(body), 400):
        yield body[start : start + 400]


def padded(size: int, run_id: str = "WRUN-1") -> bytes:
    """Make a good delivery of so many bytes."""
    return json.dumps(ORDINARY | {"workflowRunId": run_id}).encode().ljust(size)


@pytest.mark.parametrize(("size", "status"), [(1_000, 202), (1_001, 413), (500_000, 413)])
async def test_the_body_bound(door: Door, receiver: WebhookReceiver, size: int, status: int) -> None:
    """A body of `max_body` bytes is taken and no larger one, with a Content-Length or in chunks."""
    assert await door.post(receiver.path, data=padded(size), headers=JSON_TYPE) == status
    assert await door.post(receiver.path, data=chunked(padded(size, "WRUN-2")), headers=JSON_TYPE) == status


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_the_body_bound_of_compressed_bodies(door: Door, receiver: WebhookReceiver, encoding: str) -> None:
    """A compressed body is read, and what counts is its size when it is decompressed."""
    headers = {**JSON_TYPE, "Content-Encoding": encoding}
    compress = gzip.compress if encoding == "gzip" else zlib.compress

    assert await door.post(receiver.path, data=compress(padded(1_000)), headers=headers) == 202
    assert await door.post(receiver.path, data=compress(padded(1_001)), headers=headers) == 413
    assert await door.post(receiver.path, data=compress(padded(900_000)), headers=headers) == 413


@pytest.mark.parametrize("encoding", ["gzip", "x-unknown"])
async def test_wrongly_compressed(
    door: Door, receiver: WebhookReceiver, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that is not compressed as it says is a 400, and no error of the server."""
    headers = {**JSON_TYPE, "Content-Encoding": encoding}

    assert await door.post(receiver.path, data=b"no gzip at all", headers=headers) == 400
    assert await door.post(receiver.path, data=gzip.compress(padded(100))[:-30], headers=headers) == 400
    assert caplog.records == []


async def test_a_sender_that_hangs_up(door: Door, receiver: WebhookReceiver, handled: Handled) -> None:
    """A body that breaks off is no delivery, and the next one is."""
    host, _, port = door.base.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {receiver.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n"
    writer.write(head.encode() + b'{"type":')
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert await door.post(receiver.path, json=ORDINARY) == 202
    await until(lambda: bool(handled.events))
    assert len(handled.events) == 1


async def test_repeats_get_200(door: Door, receiver: WebhookReceiver, handled: Handled) -> None:
    """A repeat of the same run and event is taken, and not handed over again."""
    assert [await door.post(receiver.path, json=ORDINARY) for _ in range(3)] == [202, 200, 200]
    assert await door.post(receiver.path, json={**ORDINARY, "type": "workflowRun.failed"}) == 202
    await until(lambda: len(handled.events) == 2)


async def test_nothing_is_taken_unless_the_receiver_runs(serving: str, handled: Handled) -> None:
    """Before it runs, and after, deliveries get 503."""
    receiver = WebhookReceiver(NoSession(), handled, confirm=False)
    async with opening(serving, receiver) as door:
        assert await door.post(receiver.path, json=ORDINARY) == 503
        async with receiver:
            assert await door.post(receiver.path, json=ORDINARY) == 202
        assert await door.post(receiver.path, json=ORDINARY | {"workflowRunId": "WRUN-2"}) == 503

    assert handled.run_ids == ["WRUN-1"]


async def test_a_forged_delivery_causes_one_read(
    serving: str, session: CopyAISession, copyai_emulator: Emulator, handled: Handled
) -> None:
    """A delivery that is not true is read up once and dropped; one with a wrong secret not even that."""
    [run_id] = copyai_emulator.add_runs(1, status="PROCESSING")
    run = await session.get_run(copyai_emulator.workflow_id, run_id)
    before = len(copyai_emulator.requests)
    forged = body_of({"id": run.id, "workflowId": run.workflow_id})
    async with WebhookReceiver(session, handled) as receiver, opening(serving, receiver) as door:
        assert await door.post("/copyai/not-the-secret", json=forged) == 404
        assert await door.post(receiver.path, json=forged) == 202

    assert handled.events == []
    assert len(copyai_emulator.requests) == before + 1


HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "Content-Length", "content-encoding", "x"]),
    st.sampled_from(["application/json", "5", "9" * 5_000, "gzip", "-1", ""]) | st.text(max_size=8),
)


@given(st.lists(st.binary(max_size=40), max_size=4), HEADERS, st.sampled_from(["POST", "post", "GET", ""]))
def test_any_bytes_are_answered(chunks: list[bytes], headers: dict[str, str], method: str) -> None:
    """Whatever bytes, headers and method come, the answer is one of those documented, and nothing is raised."""

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def deliver() -> list[int]:
        async with WebhookReceiver(NoSession(), Handled(), secret=SECRET, confirm=False, max_body=50) as receiver:
            return [
                await receiver.accept(method, receiver.path, JSON_TYPE | headers, body()),
                await receiver.accept(method, receiver.path, headers, b"".join(chunks)),
            ]

    assert set(asyncio.run(deliver())) <= ({200, 202, 400, 413} if method.upper() == "POST" else {405})


@given(st.text())
def test_any_path_is_answered(path: str) -> None:
    """Whatever path comes, the answer is 404 unless its last segment is the secret."""
    receiver = WebhookReceiver(NoSession(), Handled(), secret=SECRET)

    assert asyncio.run(receiver.accept("POST", path, JSON_TYPE, b"{}")) == 404
    assert asyncio.run(receiver.accept("POST", f"{path}/{SECRET}", JSON_TYPE, b"{}")) == 400


def test_a_secret_is_made() -> None:
    """Without a secret of one's own, each receiver makes one that can't be guessed."""
    paths = {WebhookReceiver(NoSession(), Handled()).path for _ in range(3)}

    assert len(paths) == 3
    assert all(len(path.removeprefix("/copyai/")) >= 43 for path in paths)


def test_the_secret_is_not_shown() -> None:
    """A receiver's repr keeps the secret."""
    receiver = WebhookReceiver(NoSession(), Handled(), secret=SECRET)

    assert receiver.path == f"/copyai/{SECRET}"
    assert SECRET not in repr(receiver)


@pytest.mark.parametrize(
    "secret", ["", "short", "x" * 15, "a/slash-in-the-secret", "späte-umlaute-im-pfad", "x" * 16 + "\n"]
)
def test_a_secret_that_will_not_do(secret: str) -> None:
    """A secret that can be guessed or doesn't stand in a path is refused, and not shown."""
    with pytest.raises(ValueError, match="16 characters") as caught:
        WebhookReceiver(NoSession(), Handled(), secret=secret)

    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [{"max_body": 0}, {"max_body": 1.5}, {"queue_size": 0}, {"queue_size": True}, {"grace": -1}, {"grace": "5"}],
)
def test_numbers_out_of_range(arguments: Odd) -> None:
    """A bound that bounds nothing is refused by name."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        WebhookReceiver(NoSession(), Handled(), **arguments)


def test_the_server_is_loaded_only_for_the_route() -> None:
    """A program that serves by ASGI doesn't load aiohttp's server."""
    code = (
        "import sys; from aiocopyai.webhooks import WebhookReceiver as R; r = R(None, None); r.asgi, r.path; "
        "assert 'aiohttp.web' not in sys.modules; r.route(); assert 'aiohttp.web' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
