"""Tests of hostile responses: they do not control a log, fill the memory or stop the client."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import pickle
import tracemalloc
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from aiocopyai import (
    JSON,
    AmbiguousStartError,
    APIConnectionError,
    APIStatusError,
    CopyAIError,
    CopyAISession,
    InvalidEventError,
    InvalidResponseError,
    PaginationError,
    RequestInfo,
    RequestInvalidError,
    RetryPolicy,
    Run,
    RunFailedError,
    RunTimeoutError,
    _transport,
)
from aiocopyai.emulator import Emulator, Fault, Script
from tests.support.strategies import EVIL


LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
DEEP = b"[" * 950 + b"]" * 950


def printed(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the package's log lines above DEBUG."""
    return [record.getMessage() for record in caplog.records if record.name == "aiocopyai" and record.levelno > 10]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, body={"errorCode": EVIL, "details": {EVIL: EVIL}}),
        Fault(status=429, body={"errorCode": EVIL, "details": EVIL}, headers={"Retry-After": "0"}),
        Fault(status=422, body={"errorCode": EVIL, "details": [EVIL]}),
        Fault(status=400, body=EVIL.encode(errors="replace")),
        Fault(body=EVIL.encode(errors="replace")),
        Fault(body={"data": {"data": [{"id": None, EVIL: EVIL}]}}),
        Fault(body={"status": "error", "errorCode": EVIL}),
    ],
    ids=range(7),
)
async def test_control_characters_in_an_error_are_escaped(
    copyai_emulator: Emulator, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors and log lines show a server's text on one line, with control characters escaped."""
    caplog.set_level(logging.DEBUG, "aiocopyai")
    copyai_emulator.inject(fault, times=None)
    policy = RetryPolicy(timeout=0.1, wait_initial=0, wait_max=0)
    async with CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url, retry=policy) as session:
        with pytest.raises(CopyAIError) as caught:
            await session.count_runs("W")
        with pytest.raises(CopyAIError) as started:
            await session.start_run("W", {}, idempotency_key="x")

    assert all(text.isprintable() for text in [*printed(caplog), str(caught.value), str(started.value)])


@pytest.mark.parametrize(
    "error",
    [
        RunFailedError(Run(EVIL, error={"why": EVIL})),
        RunFailedError(Run("WRUN-1", error=json.loads(b"[" * 500 + b"]" * 500))),
        RunTimeoutError(EVIL, EVIL, 1.0),
        AmbiguousStartError(EVIL, EVIL, EVIL),
        InvalidResponseError(EVIL, EVIL, EVIL),
        APIConnectionError(EVIL, RequestInfo("GET", EVIL)),
        InvalidEventError(EVIL, EVIL),
        PaginationError(EVIL),
        APIStatusError(418, EVIL, json.loads(b"[" * 500 + b"]" * 500), request=RequestInfo("GET", "https://h")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_message_is_one_line(error: CopyAIError) -> None:
    """A message is one printable line of bounded length, for any input."""
    assert error.message.isprintable()
    assert str(error) == error.message
    assert len(str(error)) <= 1_001


async def test_an_id_with_line_breaks_is_escaped_in_the_log(
    session: CopyAISession, copyai_emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A run's id with line breaks is escaped in the log, even in the warning about runs in progress."""
    caplog.set_level(logging.DEBUG, "aiocopyai")
    copyai_emulator.inject(Fault(body={"status": "success", "data": {"id": EVIL}}), method="POST", times=None)
    results = session.run_many(copyai_emulator.workflow_id, [{}, {}])
    failed = [result.error async for result in results]
    await session.start_run(copyai_emulator.workflow_id, {})

    assert [type(error) for error in failed] == [ValueError, ValueError]
    assert [run.id for run in results.in_progress] == [EVIL, EVIL]
    assert len(printed(caplog)) == 3
    assert all(line.isprintable() for line in printed(caplog))


async def test_huge_strings_are_shortened(
    session: CopyAISession, copyai_emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Ids, codes and details of a million characters are shortened in errors and log lines."""
    caplog.set_level(logging.DEBUG, "aiocopyai")
    huge = "x\x1b" * 500_000
    copyai_emulator.inject(Fault(body={"status": "success", "data": {"id": huge}}), method="POST")
    await session.start_run(copyai_emulator.workflow_id, {})
    copyai_emulator.inject(Fault(status=503, body={"errorCode": huge, "details": {huge: huge}}))
    copyai_emulator.inject(Fault(status=422, body={"errorCode": huge[:60_000], "details": [huge[:60_000]]}))
    with pytest.raises(RequestInvalidError) as caught:
        await session.count_runs(copyai_emulator.workflow_id)
    with pytest.raises(ValueError, match="must be an id") as rejected:
        await session.count_runs(huge)

    lines = [record.getMessage() for record in caplog.records if record.name == "aiocopyai"]
    assert len(lines) == 5
    assert max(map(len, [*lines, str(caught.value), str(rejected.value)])) <= 1_001


@pytest.mark.parametrize("run_id", ["..", ".", EVIL])
async def test_an_id_that_cannot_be_requested(session: CopyAISession, copyai_emulator: Emulator, run_id: str) -> None:
    """A run whose id cannot be sent in a URL is listed and watched, and does not affect other runs."""
    old = {"status": "PROCESSING", "createdAt": "2026-01-01T00:00:00Z", "metadata": None, "input": {}}
    new = {"id": "WRUN-new", "status": "COMPLETE", "createdAt": "2026-03-01T00:00:00Z", "input": {"a": 1}}
    copyai_emulator.replace_runs([new, {**old, "id": run_id}, {**old, "id": "WRUN-old"}])
    changes = session.watch(copyai_emulator.workflow_id, interval=0.001, since=LONG_AGO)
    first = [(await anext(changes)).run.id for _ in range(3)]
    copyai_emulator.replace_runs([new, {**old, "id": run_id}, {**old, "id": "WRUN-old", "status": "FAILED"}])
    async with asyncio.timeout(10):
        last = (await anext(changes)).run
    with pytest.raises(AmbiguousStartError):
        await session.find_run(copyai_emulator.workflow_id, "key-1")

    assert sorted(first) == sorted(["WRUN-new", run_id, "WRUN-old"])
    assert (last.id, last.status) == ("WRUN-old", "FAILED")


@pytest.mark.parametrize("status", [200, 422, 500])
@pytest.mark.parametrize("body", [DEEP, b'{"data":' + DEEP + b"}", b'{"errorCode":"E","details":' + DEEP + b"}"])
async def test_deep_json(session: CopyAISession, copyai_emulator: Emulator, status: int, body: bytes) -> None:
    """Very deeply nested JSON raises an error that can be shown and pickled."""
    copyai_emulator.inject(Fault(status=status, body=body), times=None)
    with pytest.raises(CopyAIError) as caught:
        await session.count_runs("W")

    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 (our own)
    assert "W" in repr(caught.value)


def compressed(size: int, wbits: int) -> bytes:
    """Compress a number of spaces."""
    packer = zlib.compressobj(9, wbits=wbits)
    return b"".join([*(packer.compress(b" " * 2**20) for _ in range(size // 2**20)), packer.flush()])


BOMBS = {"gzip": 31, "deflate": 15, "Deflate": -15}


@pytest.mark.parametrize("encoding", BOMBS)
@pytest.mark.parametrize("status", [200, 500])
async def test_a_decompression_bomb_is_not_held_in_memory(
    copyai_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, encoding: str, status: int
) -> None:
    """A small body that expands beyond the limit raises an error, and is not held in memory."""
    monkeypatch.setattr(_transport, "MAX_BODY", 2**20)
    bomb = compressed(64 * 2**20, BOMBS[encoding])
    copyai_emulator.inject(Fault(status=status, body=bomb, headers={"Content-Encoding": encoding}), times=None)
    once = CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url, retry=RetryPolicy(attempts=1))
    async with once as session:
        tracemalloc.start()
        try:
            with pytest.raises(CopyAIError):
                await session.count_runs("W")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak < 8 * 2**20


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip\tx"])
async def test_other_encodings_are_rejected(session: CopyAISession, copyai_emulator: Emulator, encoding: str) -> None:
    """Only gzip and deflate are requested, and a response with another encoding raises an error."""
    copyai_emulator.inject(Fault(body=gzip.compress(b"{}"), headers={"Content-Encoding": encoding}))
    with pytest.raises(InvalidResponseError, match="a Content-Encoding that was not requested"):
        await session.count_runs("W")

    (request,) = copyai_emulator.requests
    assert request.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_errors_are_read(session: CopyAISession, copyai_emulator: Emulator, encoding: str) -> None:
    """The body of an error may be compressed; if it is damaged, the status is still reported."""
    body = b'{"errorCode":"REQUEST_INVALID"}'
    complete = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    codes = []
    for sent in (complete, complete[:-9], b"not compressed"):
        copyai_emulator.inject(Fault(status=422, body=sent, headers={"Content-Encoding": encoding}))
        with pytest.raises(RequestInvalidError) as caught:
            await session.count_runs("W")
        codes.append(caught.value.error_code)

    assert codes[0] == "REQUEST_INVALID"
    assert codes[2] is None


async def test_a_wide_response_is_shown_in_part(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """The error for a very large invalid response shows only its beginning."""
    wide: Any = {str(number): [number] * 10 for number in range(20_000)}
    copyai_emulator.inject(Fault(body=wide))
    with pytest.raises(InvalidResponseError) as caught:
        await session.count_runs("W")

    assert len(str(caught.value)) < 300


async def test_a_run_that_never_finishes(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Waiting for a run that never finishes ends with the time-out."""
    copyai_emulator.script_next_runs(Script(states=(EVIL,)))
    run = await session.start_run(copyai_emulator.workflow_id, {})
    with pytest.raises(RunTimeoutError) as caught:
        await session.wait_run(copyai_emulator.workflow_id, run.id, timeout=0.02, max_poll_interval=0.005)

    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "path", ["../admin", "..%2fadmin", "%2e%2e", "a/../../b", "a?b=c", "a#b", "a;b", "//h/x", "\\"]
)
async def test_an_id_does_not_change_the_url(session: CopyAISession, copyai_emulator: Emulator, path: str) -> None:
    """Any id is sent as one segment of the path, and does not change the path, the query or the host."""
    ids: list[JSON] = [{"id": path, "status": "COMPLETE"}]
    copyai_emulator.replace_runs(ids, workflow_id=path)
    run = await session.get_run(path, path)
    with pytest.raises(CopyAIError):
        await session.get_webhook(path)

    assert run.id == path
    path_sent = copyai_emulator.requests[0].path.removeprefix("/api/workflow/")
    assert path_sent.count("/") == 2
    assert all(request.path.startswith("/api/") for request in copyai_emulator.requests)


@pytest.mark.parametrize("bad", ["a\r\nX-Evil: 1", "a\nb", "\x00", "\x1b[2J"])
async def test_control_characters_in_an_id_are_rejected(
    session: CopyAISession, copyai_emulator: Emulator, bad: str
) -> None:
    """An id with a line break or another control character raises an error before a request is sent."""
    for call in (
        session.count_runs(bad),
        session.get_run("W", bad),
        session.start_run(bad, {}),
        session.get_webhook(bad),
        session.delete_webhook(bad),
    ):
        with pytest.raises(ValueError, match="must be an id"):
            await call

    assert copyai_emulator.requests == []
