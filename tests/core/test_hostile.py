"""Answers that mean harm, or as good as: what they hold steers no log, fills no memory, and ends no loop of ours."""

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
    """Give our log lines."""
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
async def test_no_error_controls_a_log(
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
def test_every_errors_text_is_one_line(error: CopyAIError) -> None:
    """An error's text is one printable line of bounded length, whatever it is made of."""
    assert error.message.isprintable()
    assert str(error) == error.message
    assert len(str(error)) <= 1_001


async def test_an_id_steers_no_log(
    session: CopyAISession, copyai_emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A run's id that breaks lines is escaped in the log, also where many runs are left under way."""
    caplog.set_level(logging.DEBUG, "aiocopyai")
    copyai_emulator.inject(Fault(body={"status": "success", "data": {"id": EVIL}}), method="POST", times=None)
    results = session.run_many(copyai_emulator.workflow_id, [{}, {}])
    failed = [result.error async for result in results]
    await session.start_run(copyai_emulator.workflow_id, {})

    assert [type(error) for error in failed] == [ValueError, ValueError]
    assert [run.id for run in results.in_progress] == [EVIL, EVIL]
    assert len(printed(caplog)) == 3
    assert all(line.isprintable() for line in printed(caplog))


@pytest.mark.parametrize("run_id", ["..", ".", EVIL])
async def test_an_id_that_no_path_holds(session: CopyAISession, copyai_emulator: Emulator, run_id: str) -> None:
    """A run whose id can't be asked for is given by a walk and a watch, and costs none of the others."""
    old = {"status": "PROCESSING", "createdAt": "2026-01-01T00:00:00Z", "metadata": None, "input": {}}
    new = {"id": "WRUN-new", "status": "COMPLETE", "createdAt": "2026-03-01T00:00:00Z", "input": {"a": 1}}
    copyai_emulator.replace_runs([new, {**old, "id": run_id}, {**old, "id": "WRUN-old"}])
    news = session.watch(copyai_emulator.workflow_id, interval=0.001, since=LONG_AGO)
    first = [(await anext(news)).id for _ in range(3)]
    copyai_emulator.replace_runs([new, {**old, "id": run_id}, {**old, "id": "WRUN-old", "status": "FAILED"}])
    async with asyncio.timeout(10):
        last = await anext(news)
    with pytest.raises(AmbiguousStartError):
        await session.find_run(copyai_emulator.workflow_id, "key-1")

    assert sorted(first) == sorted(["WRUN-new", run_id, "WRUN-old"])
    assert (last.id, last.status) == ("WRUN-old", "FAILED")


@pytest.mark.parametrize("status", [200, 422, 500])
@pytest.mark.parametrize("body", [DEEP, b'{"data":' + DEEP + b"}", b'{"errorCode":"E","details":' + DEEP + b"}"])
async def test_deep_json(session: CopyAISession, copyai_emulator: Emulator, status: int, body: bytes) -> None:
    """JSON that is nested very deeply is an error like any other, that can be shown and pickled."""
    copyai_emulator.inject(Fault(status=status, body=body), times=None)
    with pytest.raises(CopyAIError) as caught:
        await session.count_runs("W")

    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 (our own)
    assert "W" in repr(caught.value)


def packed(size: int, wbits: int) -> bytes:
    """Pack very many spaces into few bytes."""
    packer = zlib.compressobj(9, wbits=wbits)
    return b"".join([*(packer.compress(b" " * 2**20) for _ in range(size // 2**20)), packer.flush()])


BOMBS = {"gzip": 31, "deflate": 15, "Deflate": -15}


@pytest.mark.parametrize("encoding", BOMBS)
@pytest.mark.parametrize("status", [200, 500])
async def test_a_bomb_never_stands_in_memory(
    copyai_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, encoding: str, status: int
) -> None:
    """A few bytes that unpack to very many are refused at the bound, and no more than a piece above it is ever held."""
    monkeypatch.setattr(_transport, "MAX_BODY", 2**20)
    bomb = packed(64 * 2**20, BOMBS[encoding])
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
async def test_what_was_not_asked_for_is_not_unpacked(
    session: CopyAISession, copyai_emulator: Emulator, encoding: str
) -> None:
    """Only gzip and deflate are asked for, and what is packed otherwise is refused, not unpacked."""
    copyai_emulator.inject(Fault(body=gzip.compress(b"{}"), headers={"Content-Encoding": encoding}))
    with pytest.raises(InvalidResponseError, match="compressed in a way that was not requested"):
        await session.count_runs("W")

    (request,) = copyai_emulator.requests
    assert request.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_packed_errors_are_read(session: CopyAISession, copyai_emulator: Emulator, encoding: str) -> None:
    """An error's body may be packed as well; where that went wrong, its status still tells."""
    body = b'{"errorCode":"REQUEST_INVALID"}'
    whole = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    codes = []
    for sent in (whole, whole[:-9], b"not packed"):
        copyai_emulator.inject(Fault(status=422, body=sent, headers={"Content-Encoding": encoding}))
        with pytest.raises(RequestInvalidError) as caught:
            await session.count_runs("W")
        codes.append(caught.value.error_code)

    assert codes[0] == "REQUEST_INVALID"
    assert codes[2] is None


async def test_a_wide_answer_is_shown_in_part(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Of a very large answer that is not what it should be, only a piece is looked at for the error."""
    wide: Any = {str(number): [number] * 10 for number in range(20_000)}
    copyai_emulator.inject(Fault(body=wide))
    with pytest.raises(InvalidResponseError) as caught:
        await session.count_runs("W")

    assert len(str(caught.value)) < 300


async def test_endless_states_end_with_the_deadline(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A server that never lets a run end is waited for no longer than told."""
    copyai_emulator.script_next_runs(Script(states=(EVIL,)))
    run = await session.start_run(copyai_emulator.workflow_id, {})
    with pytest.raises(RunTimeoutError) as caught:
        await session.wait_run(copyai_emulator.workflow_id, run.id, timeout=0.02, max_poll_interval=0.005)

    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "path", ["../admin", "..%2fadmin", "%2e%2e", "a/../../b", "a?b=c", "a#b", "a;b", "//h/x", "\\"]
)
async def test_no_id_leads_elsewhere(session: CopyAISession, copyai_emulator: Emulator, path: str) -> None:
    """An id from anywhere reaches the server as one segment of the path: no other path, no query, no other host."""
    ids: list[JSON] = [{"id": path, "status": "COMPLETE"}]
    copyai_emulator.replace_runs(ids, workflow_id=path)
    run = await session.get_run(path, path)
    with pytest.raises(CopyAIError):
        await session.get_webhook(path)

    assert run.id == path
    shown = copyai_emulator.requests[0].path.removeprefix("/api/workflow/")
    assert shown.count("/") == 2
    assert all(request.path.startswith("/api/") for request in copyai_emulator.requests)


@pytest.mark.parametrize("bad", ["a\r\nX-Evil: 1", "a\nb", "\x00", "\x1b[2J"])
async def test_no_id_ends_a_header(session: CopyAISession, copyai_emulator: Emulator, bad: str) -> None:
    """An id with a line break or another control character is refused before anything is sent."""
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
