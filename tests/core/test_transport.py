"""Tests of one request over a socket: faults, retries, time-outs, limits, redirects, connections and the debug log."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import pickle
import re
import threading
import time
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict

from aiocopyai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    CopyAIError,
    CopyAISession,
    CreditLimitReachedError,
    InvalidResponseError,
    Page,
    PermissionDeniedError,
    RateLimitedError,
    RequestInvalidError,
    RetryPolicy,
    Run,
    ServerError,
    _transport,
)
from aiocopyai._run_pages import RunPageParser
from aiocopyai.emulator import Emulator, Fault
from tests.conftest import AT_ONCE
from tests.support.proxying import listening_in_thread, serving


KEY = "a-secret-key-0123456789"
ONCE = RetryPolicy(attempts=1)
NO_RUNS = {"status": "success", "data": {"total": 0, "data": []}}


def session_on(emulator: Emulator, **arguments: Any) -> CopyAISession:  # noqa: ANN401 (any argument of a session)
    return CopyAISession(**{"api_key": emulator.api_key, "base_url": emulator.url, "retry": AT_ONCE, **arguments})


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=502, body=b"<html>Bad gateway</html>"),
        Fault(status=503, headers={"Retry-After": "0"}),
        Fault(status=429),
        Fault(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Fault(status=408),
        Fault(reset="before"),
        Fault(reset="after"),
        Fault(truncate=40),
        Fault(truncate=0),
        Fault(body=b"<html>"),
        Fault(body=b""),
        Fault(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
    ids=repr,
)
async def test_temporary_faults(
    session: CopyAISession, copyai_emulator: Emulator, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """A temporary fault is retried, and each retry is one warning in the log."""
    copyai_emulator.add_runs(3)
    copyai_emulator.inject(fault, times=2)

    assert await session.count_runs(copyai_emulator.workflow_id) == 3
    assert len(copyai_emulator.requests) == 3
    logged = [(record.name, record.levelno) for record in caplog.records]
    # aiohttp itself sends a GET again on a kept-alive connection that turns out to be closed.
    assert logged == [("aiocopyai", logging.WARNING)] * (1 if fault.reset else 2)
    assert caplog.messages[0].startswith(f"Retrying GET /workflow/{copyai_emulator.workflow_id}/run in ")


@pytest.mark.parametrize(
    ("fault", "error", "attempts"),
    [
        (Fault(status=302, headers={"Location": "https://example.com"}), APIStatusError, 1),
        (
            Fault(status=400, body={"status": "error", "errorCode": "WORKFLOW_CREDIT_LIMIT_REACHED"}),
            CreditLimitReachedError,
            1,
        ),
        (Fault(status=401), AuthenticationError, 1),
        (Fault(status=403), PermissionDeniedError, 1),
        (Fault(status=422, body={"errorCode": "REQUEST_INVALID", "details": {"page": ["?"]}}), RequestInvalidError, 1),
        (Fault(status=500, truncate=1, body=b"<html>"), ServerError, 5),
        (Fault(reset="after"), APIConnectionError, 5),
        (Fault(body=[]), InvalidResponseError, 1),
        (Fault(body=b"<html>"), InvalidResponseError, 5),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_errors(
    session: CopyAISession, copyai_emulator: Emulator, fault: Fault, error: type[CopyAIError], attempts: int
) -> None:
    """Each kind of failure raises its own error after one or all attempts, and the error can be pickled."""
    copyai_emulator.inject(fault, times=None)
    with pytest.raises(error) as caught:
        await session.runs_page(copyai_emulator.workflow_id)

    assert type(caught.value) is error
    assert caught.value.attempts == attempts
    # aiohttp itself sends a GET again on a kept-alive connection that turns out to be closed.
    assert len(copyai_emulator.requests) == (2 * attempts if fault.reset else attempts)
    assert caught.value.page == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 (our own)


async def test_a_status_error_has_all_attributes(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A status error has the code, the details, the body, the headers and the request."""
    body = {"status": "error", "errorCode": "REQUEST_INVALID", "details": {"size": ["too small"]}}
    copyai_emulator.inject(Fault(status=422, body=body, headers={"X-Trace": "abc", "Retry-After": "3"}))
    with pytest.raises(RequestInvalidError) as caught:
        await session.runs_page("W", 2)
    error = caught.value

    assert (error.status, error.error_code, error.details) == (422, "REQUEST_INVALID", {"size": ["too small"]})
    assert (error.body, error.headers["x-trace"], error.retry_after) == (body, "abc", 3)
    assert (error.method, error.url) == ("GET", f"{copyai_emulator.url}/workflow/W/run?size=10&page=2")


async def test_only_listing_errors_name_a_page(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """The message of an error starts with "page N:" only if a list was being read."""
    copyai_emulator.inject(Fault(status=401), times=None)
    texts = []
    for call in (session.count_runs("W"), session.get_run("W", "R"), session.check_key(), session.runs_page("W", 2)):
        with pytest.raises(AuthenticationError) as caught:
            await call
        texts.append(str(caught.value))

    assert [text.partition(":")[0] for text in texts] == [
        *(f"HTTP 401 (GET {copyai_emulator.url[:4]}",) * 3,
        "page 2",
    ]


async def test_redirects_are_not_followed(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A redirect to another server raises an error that says so, and the key is not sent there."""
    async with Emulator(3) as other:
        target = f"{other.url}/workflow/{other.workflow_id}/run"
        copyai_emulator.inject(Fault(status=307, headers={"Location": target}))
        with pytest.raises(APIStatusError, match=re.escape(f"redirect to {target} not followed: check base_url")):
            await session.runs_page(copyai_emulator.workflow_id)

        assert other.requests == []


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("slash", [True, False], ids=["adds", "removes"])
async def test_a_redirect_that_changes_the_slash_is_followed(status: int, slash: bool) -> None:  # noqa: FBT001 (a parameter)
    """A GET follows a redirect that only adds or removes the slash at the end, with its query and its key."""
    paths: list[str] = []

    async def handle(http: web.BaseRequest) -> web.Response:
        paths.append(http.path_qs)
        assert http.headers["x-copy-ai-api-key"] == KEY
        if http.path.endswith("/") is slash:
            return web.json_response(NO_RUNS)
        path = f"{http.path}/" if slash else http.path.rstrip("/")
        return web.Response(status=status, headers={"Location": f"{path}?{http.query_string}"})

    async with serving(handle) as url, CopyAISession(KEY, base_url=url, retry=ONCE) as session:
        page = await session._transport.send(
            _transport.APIRequest("GET", f"workflow/W/run{'' if slash else '/'}?size=1&page=1"),
            json.loads,
        )

    assert page == NO_RUNS
    assert paths == [f"/api/workflow/W/run{end}?size=1&page=1" for end in (("", "/") if slash else ("/", ""))]


@pytest.mark.parametrize(
    "location",
    [
        "//127.0.0.2:{port}/api/workflow/W/run/?size=1&page=1",
        "https://127.0.0.1:{port}/api/workflow/W/run/?size=1&page=1",
        "http://localhost:{port}/api/workflow/W/run/?size=1&page=1",
        "http://user:password@127.0.0.1:{port}/api/workflow/W/run/?size=1&page=1",
        "/api/workflow/W/run?size=1&page=1",
        "/api/workflow/W/run//?size=1&page=1",
        "/api/workflow/W/RUN/?size=1&page=1",
        "/api/workflow/W/run/?size=1&page=2",
        "/api/workflow/W/run/",
        "http://[",
        "",
    ],
)
@pytest.mark.parametrize("status", [307, 308])
async def test_any_other_redirect_is_an_error(location: str, status: int) -> None:
    """A redirect to another origin, path or query raises an error after one request."""
    requests = 0

    async def handle(http: web.BaseRequest) -> web.Response:
        nonlocal requests
        requests += 1
        return web.Response(status=status, headers={"Location": location.format(port=http.url.port)})

    async with serving(handle) as url, CopyAISession(KEY, base_url=url, retry=ONCE) as session:
        with pytest.raises(APIStatusError, match=f"HTTP {status}.*redirect.* not followed"):
            await session.count_runs("W")

    assert requests == 1


async def test_a_slash_redirect_is_followed_once_and_never_for_a_post() -> None:
    """Two redirects to each other raise an error after two requests. A redirect of a POST is not followed."""
    methods: list[str] = []

    async def handle(http: web.BaseRequest) -> web.Response:
        methods.append(http.method)
        path = http.path.rstrip("/") if http.path.endswith("/") else f"{http.path}/"
        return web.Response(status=307, headers={"Location": f"{path}?{http.query_string}".rstrip("?")})

    async with serving(handle) as url, CopyAISession(KEY, base_url=url, retry=ONCE) as session:
        with pytest.raises(APIStatusError, match="HTTP 307"):
            await session.count_runs("W")
        with pytest.raises(APIStatusError, match="HTTP 307") as caught:
            await session.start_run("W", {})

    assert methods == ["GET", "GET", "POST"]
    assert not caught.value.ambiguous


async def test_no_server() -> None:
    """If no server is listening, a connection error with the host and the port is raised."""
    async with Emulator() as emulator:
        session = session_on(emulator)
    async with session:
        with pytest.raises(APIConnectionError, match=r"Cannot connect to host 127\.0\.0\.1") as caught:
            await session.runs_page("W")

    assert caught.value.attempts == 5


@pytest.mark.parametrize(
    ("timeout", "message"),
    [
        (0.03, r"no complete response within 0\.03 s \(GET"),
        (aiohttp.ClientTimeout(total=0.03), r"no complete response within 0\.03 s \(GET"),
        (aiohttp.ClientTimeout(sock_read=0.03), "no complete response in time: Timeout on reading data from socket"),
    ],
)
@pytest.mark.parametrize("fault", [Fault(delay=9), Fault(drip=9)], ids=["headers", "body"])
async def test_timeout(copyai_emulator: Emulator, fault: Fault, timeout: Any, message: str) -> None:  # noqa: ANN401, ASYNC109 (a parameter)
    """The time-out of an attempt includes the response's headers and body, and the error names it."""
    copyai_emulator.inject(fault, times=None)
    async with session_on(copyai_emulator, timeout=timeout, retry=ONCE) as session:
        with pytest.raises(APITimeoutError, match=message):
            await session.count_runs(copyai_emulator.workflow_id)


async def test_a_callers_own_timeout(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A caller's own time-out raises a plain `TimeoutError` at once, and the session remains usable."""
    copyai_emulator.add_runs(3)
    copyai_emulator.inject(Fault(delay=9))
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.03):
            await session.runs_page(copyai_emulator.workflow_id)

    assert not isinstance(caught.value, APITimeoutError)
    assert await session.count_runs(copyai_emulator.workflow_id) == 3


@pytest.mark.parametrize("limit", [4, 0], ids=["4 connections", "any number"])
async def test_waiting_for_a_connection_does_not_time_out(
    copyai_emulator: Emulator, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests that wait for a connection for longer than the time-out succeed without a retry."""
    copyai_emulator.add_runs(3)
    copyai_emulator.latency = 0.02
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=limit)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        session_on(copyai_emulator, http_session=http, timeout=5 if limit == 0 else 0.15) as session,
    ):
        counts = await asyncio.gather(*(session.count_runs(copyai_emulator.workflow_id) for _ in range(60)))

    assert counts == [3] * 60
    assert caplog.messages == []


async def test_a_connection_is_free_again_after_an_error(copyai_emulator: Emulator) -> None:
    """Failed, cancelled and retried requests release their connections."""
    copyai_emulator.add_runs(3)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http,
        session_on(copyai_emulator, http_session=http, retry=ONCE) as session,
    ):
        for fault in (Fault(status=500), Fault(reset="after"), Fault(body=[])):
            copyai_emulator.inject(fault, times=2 if fault.reset else 1)
            with pytest.raises(CopyAIError):
                await session.count_runs(copyai_emulator.workflow_id)
        copyai_emulator.inject(Fault(delay=60))
        received = len(copyai_emulator.requests)
        cancelled = asyncio.create_task(session.count_runs(copyai_emulator.workflow_id))
        async with asyncio.timeout(30):
            while len(copyai_emulator.requests) == received:
                await asyncio.sleep(0.001)
        cancelled.cancel()

        async with asyncio.timeout(30):
            assert await session.count_runs(copyai_emulator.workflow_id) == 3


async def test_a_post_after_a_closed_connection_succeeds() -> None:
    """If the server has closed the kept-alive connection, a POST is sent on a new connection, 10 out of 10 times."""
    starts = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal starts
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        await reader.readexactly(int(length[1]) if length else 0)
        starts += head.startswith(b"POST")
        body = b'{"status":"success","data":{"id":"WRUN-1","total":0,"data":[]}}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()
        writer.close()

    async with (
        listening_in_thread(handle) as port,
        CopyAISession(KEY, base_url=f"http://127.0.0.1:{port}/api", retry=ONCE) as session,
    ):
        for _ in range(10):
            await session.check_key()
            time.sleep(0.01)  # noqa: ASYNC251 (the event loop is blocked while the server closes the connection)
            assert (await session.start_run("W", {})).id == "WRUN-1"
            time.sleep(0.01)  # noqa: ASYNC251 (the same)

    assert starts == 10


async def test_a_callers_middleware_may_send_twice(copyai_emulator: Emulator) -> None:
    """A middleware of the caller's `aiohttp.ClientSession` can send the body of a POST again."""

    async def twice(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        (await handler(request)).close()
        return await handler(request)

    async with (
        aiohttp.ClientSession(middlewares=(twice,)) as http,
        session_on(copyai_emulator, http_session=http) as session,
    ):
        await session.start_run(copyai_emulator.workflow_id, {"Name": "Ada"})

    assert [request.body for request in copyai_emulator.requests] == [{"startVariables": {"Name": "Ada"}}] * 2


@pytest.mark.parametrize("size", [10, 2**21])
async def test_the_body_of_a_post(size: int) -> None:
    """A POST of any size has the headers Content-Type and Content-Length."""
    received: list[tuple[str, int | None, int]] = []

    async def handle(http: web.BaseRequest) -> web.Response:
        received.append((http.content_type, http.content_length, len(await http.content.read())))
        return web.json_response({"status": "success", "data": {"id": "WRUN-1"}})

    async with serving(handle) as url, CopyAISession(KEY, base_url=url, retry=ONCE) as session:
        await session.start_run("W", {"Text": "x" * size})
    length = size + len('{"startVariables":{"Text":""}}')

    assert received == [("application/json", length, length)]


async def test_a_rate_limit_pauses_the_whole_session(copyai_emulator: Emulator) -> None:
    """After a 429 all requests of the session wait."""
    copyai_emulator.add_runs(3)
    copyai_emulator.inject(Fault(status=429, headers={"Retry-After": "0.05"}), page=1)
    is_retrying = asyncio.Event()
    async with session_on(copyai_emulator, on_retry=lambda _: is_retrying.set()) as session:
        start = time.monotonic()
        first = asyncio.create_task(session.runs_page(copyai_emulator.workflow_id))
        async with asyncio.timeout(5):
            await is_retrying.wait()
        await session.runs_page(copyai_emulator.workflow_id, 2)

        assert time.monotonic() - start >= 0.05
        await first


async def test_a_retry_after_beyond_the_policy(copyai_emulator: Emulator) -> None:
    """If Retry-After is beyond the policy's time-out, the error is raised at once, and the session is not paused."""
    copyai_emulator.add_runs(3)
    copyai_emulator.inject(Fault(status=429, headers={"Retry-After": "3600"}))
    async with session_on(copyai_emulator, retry=RetryPolicy()) as session:
        with pytest.raises(RateLimitedError, match="the server asks to wait 3600 s") as caught:
            await session.count_runs(copyai_emulator.workflow_id)

        assert caught.value.retry_after == 3600
        assert await session.count_runs(copyai_emulator.workflow_id) == 3


async def test_the_last_429_still_pauses_the_session(copyai_emulator: Emulator) -> None:
    """A 429 that is not retried pauses the other requests for the time in Retry-After."""
    copyai_emulator.inject(Fault(status=429, headers={"Retry-After": "60"}))
    async with session_on(copyai_emulator, retry=ONCE) as session:
        with pytest.raises(RateLimitedError):
            await session.count_runs(copyai_emulator.workflow_id)

        assert 30 < session._transport._rate_limiter.delay < 60.2


@pytest.mark.parametrize("call", ["GET", "POST"])
async def test_the_retry_after_of_a_503(copyai_emulator: Emulator, call: str) -> None:
    """A Retry-After is respected with any retried status, including fractions of a second."""
    copyai_emulator.inject(Fault(status=503 if call == "GET" else 429, headers={"Retry-After": "0.1"}))
    async with session_on(copyai_emulator) as session:
        start = time.monotonic()
        if call == "GET":
            await session.count_runs(copyai_emulator.workflow_id)
        else:
            await session.start_run(copyai_emulator.workflow_id, {})

    assert time.monotonic() - start >= 0.1


async def test_the_longest_retry_after_is_used() -> None:
    """The longest of several valid Retry-After headers, which gateways may send, is used."""

    async def handle(_: web.BaseRequest) -> web.Response:
        headers = [("Retry-After", value) for value in ("soon", "1", "7", "2")]
        return web.Response(status=503, headers=CIMultiDict(headers))

    async with serving(handle) as url, CopyAISession(KEY, base_url=url, retry=ONCE) as session:
        with pytest.raises(ServerError) as caught:
            await session.count_runs("W")

    assert caught.value.retry_after == 7


@pytest.mark.parametrize("members", [1, 3])
async def test_gzip(session: CopyAISession, copyai_emulator: Emulator, members: int) -> None:
    """A response in gzip is read, even if it has several members and zeros after them."""
    body = b'{"status":"success","data":{"total":7,"data":[]}}'
    parts = [body[start : start + 20] for start in range(0, len(body), 20)] if members > 1 else [body]
    packed = b"".join(map(gzip.compress, parts)) + bytes(9 if members > 1 else 0)
    copyai_emulator.inject(Fault(body=packed, headers={"Content-Encoding": "gzip"}))

    assert await session.count_runs(copyai_emulator.workflow_id) == 7
    assert len(copyai_emulator.requests) == 1


@pytest.mark.parametrize(
    ("status", "body"), [(204, b""), (202, b""), (202, b"Accepted"), (200, b"<html>"), (202, b"{}")], ids=repr
)
async def test_the_body_of_a_deletion_does_not_matter(
    session: CopyAISession, copyai_emulator: Emulator, status: int, body: bytes
) -> None:
    """A DELETE succeeds after one request with any status of 2xx and any body."""
    copyai_emulator.inject(Fault(status=status, body=body), method="DELETE")
    await session.delete_webhook("any")

    assert [request.method for request in copyai_emulator.requests] == ["DELETE"]


async def test_a_large_response_is_rejected(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A response that is too large after decompression raises an error at the first attempt."""
    bomb = gzip.compress(b" " * (_transport.MAX_BODY + 1))
    copyai_emulator.inject(Fault(body=bomb, headers={"Content-Encoding": "gzip"}), times=None)
    with pytest.raises(InvalidResponseError, match="the response is larger than 64 MiB"):
        await session.count_runs(copyai_emulator.workflow_id)

    assert len(copyai_emulator.requests) == 1


async def test_a_large_body_is_read_in_a_thread(
    session: CopyAISession, copyai_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large response is parsed in a thread, with the same result and the same errors."""
    monkeypatch.setattr(_transport, "_LARGE_BODY", 1)
    copyai_emulator.add_runs(3)

    assert await session.count_runs(copyai_emulator.workflow_id) == 3
    copyai_emulator.inject(Fault(body=[]))
    with pytest.raises(InvalidResponseError, match="got \\[\\]"):
        await session.count_runs(copyai_emulator.workflow_id)


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"1,", b'"",', b'["[[[{{{ \\" ,,,"],'])
async def test_many_json_values_are_rejected(
    session: CopyAISession, copyai_emulator: Emulator, unit: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes of gzip that expand to very many JSON values raise an error that is not retried."""
    monkeypatch.setattr(_transport, "_MAX_CONTAINERS", 10_000)
    monkeypatch.setattr(_transport, "_MAX_VALUES", 40_000)
    body = b'{"status":"success","data":{"total":0,"data":[' + unit * (2**21 // len(unit)) + b"0]}}"
    copyai_emulator.inject(Fault(body=gzip.compress(body, 1), headers={"Content-Encoding": "gzip"}), times=None)
    with pytest.raises(InvalidResponseError, match="too many JSON values: request smaller pages"):
        await session.count_runs(copyai_emulator.workflow_id)

    assert len(copyai_emulator.requests) == 1


async def test_a_large_text_is_read(
    session: CopyAISession, copyai_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of runs with very long outputs is read, with any number of brackets and commas in strings."""
    monkeypatch.setattr(_transport, "_MAX_CONTAINERS", 100)
    monkeypatch.setattr(_transport, "_MAX_VALUES", 100)
    text = "Dear Ada, [this] is {text}. " * 100_000
    copyai_emulator.replace_runs([{"id": f"WRUN-{number}", "output": {"Text": text}} for number in range(5)])
    page = await session.runs_page(copyai_emulator.workflow_id)

    assert [run.output["Text"] for run in page.items] == [text] * 5


async def test_a_large_error_body(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Only the beginning of a large error body is kept."""
    copyai_emulator.inject(Fault(status=404, body=b"x" * 1_000_000))
    with pytest.raises(APIStatusError) as caught:
        await session.runs_page("W")

    assert caught.value.body == "x" * 2_000


async def test_a_server_without_tls(copyai_emulator: Emulator) -> None:
    """An https URL of a server without TLS raises a connection error."""
    url = copyai_emulator.url.replace("http://", "https://")
    async with session_on(copyai_emulator, base_url=url, retry=ONCE) as session:
        with pytest.raises(APIConnectionError):
            await session.runs_page("W")


async def test_no_cookies(copyai_emulator: Emulator) -> None:
    """The session ignores cookies from the server."""
    copyai_emulator.add_runs(1)
    copyai_emulator.inject(Fault(headers={"Set-Cookie": "a=b"}))
    # Not 127.0.0.1, because a cookie jar ignores cookies from IP addresses.
    url = copyai_emulator.url.replace("127.0.0.1", "localhost")
    async with CopyAISession(copyai_emulator.api_key, base_url=url) as session:
        await session.count_runs(copyai_emulator.workflow_id)
        await session.count_runs(copyai_emulator.workflow_id)

    assert "cookie" not in {name.lower() for name in copyai_emulator.requests[1].headers}


async def test_the_debug_log(
    session: CopyAISession, copyai_emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt is one debug line: method, path, status, milliseconds and number, without the query."""
    caplog.set_level(logging.DEBUG, "aiocopyai")
    copyai_emulator.add_runs(1)
    copyai_emulator.inject(Fault(status=503))
    copyai_emulator.inject(Fault(reset="after"), times=2)
    await session.count_runs(copyai_emulator.workflow_id)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    path = f"GET /workflow/{copyai_emulator.workflow_id}/run"

    assert [re.sub(r"\d+ ms", "N ms", line) for line in lines] == [
        f"{path}: 503 after N ms (attempt 1)",
        f"{path}: no response after N ms (attempt 2)",
        f"{path}: 200 after N ms (attempt 3)",
    ]


async def test_large_responses_are_parsed_one_by_one(
    copyai_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several large responses, one at a time is parsed in a thread, also in sessions that share connections."""
    monkeypatch.setattr(_transport, "_LARGE_BODY", 1)
    parse, in_progress, most = RunPageParser.parse, threading.Semaphore(1), list[bool]()

    def parse_and_note(parser: RunPageParser, body: bytes, number: int, size: int, workflow_id: str) -> Page[Run]:
        most.append(in_progress.acquire(blocking=False))
        time.sleep(0.005)  # other threads run meanwhile
        page = parse(parser, body, number, size, workflow_id)
        in_progress.release()
        return page

    monkeypatch.setattr(RunPageParser, "parse", parse_and_note)
    async with session_on(copyai_emulator) as session:
        sessions = (session, session.with_options(timeout=30))
        reads = [each.runs_page(copyai_emulator.workflow_id) for each in sessions * 4]
        async with asyncio.timeout(30):
            await asyncio.gather(*reads)

    assert most == [True] * 8
