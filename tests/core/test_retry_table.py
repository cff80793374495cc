"""Tests of the table in docs/retries.md: the client does what each row says."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from aiocopyai import CopyAIError, CopyAISession, RetryPolicy, _transport
from aiocopyai.emulator import Emulator, Fault
from tests.support.pages import ROOT
from tests.support.proxying import Authority, tls_front


TWICE = RetryPolicy(attempts=2, timeout=30, wait_initial=0, wait_max=0)
METHODS: dict[str, Callable[[CopyAISession, str], Awaitable[object]]] = {
    "GET": lambda session, workflow_id: session.runs_page(workflow_id),
    "DELETE": lambda session, _: session.delete_webhook("any"),
    "POST": lambda session, _: session.create_webhook("https://bot.example.com", "workflowRun.failed"),
}
ROWS = re.findall(
    r"^\| (.+?) \| (\w.+?) \| (\w.+?) \| (\w.+?) \|$", (ROOT / "docs" / "retries.md").read_text("utf-8"), re.MULTILINE
)
TABLE = {what: dict(zip(METHODS, cells, strict=True)) for what, *cells in ROWS[1:]}
"""The column of the page for each cause and method."""

Cause = Callable[[Emulator], AbstractAsyncContextManager[CopyAISession]]


def session(emulator: Emulator, base_url: str | None = None, timeout: float = 10) -> CopyAISession:
    return CopyAISession(emulator.api_key, base_url=base_url or emulator.url, retry=TWICE, timeout=timeout)


def fault(**what: object) -> Cause:
    """Inject a fault into every response."""

    @asynccontextmanager
    async def cause(emulator: Emulator) -> AsyncIterator[CopyAISession]:
        emulator.inject(Fault(**what), times=None)
        async with session(emulator, timeout=0.05 if "delay" in what else 10) as opened:
            yield opened

    return cause


@asynccontextmanager
async def no_server(emulator: Emulator) -> AsyncIterator[CopyAISession]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    async with session(emulator, f"http://127.0.0.1:{port}/api") as opened:
        yield opened


@asynccontextmanager
async def untrusted_certificate(emulator: Emulator) -> AsyncIterator[CopyAISession]:
    async with tls_front(emulator, Authority().server_context()) as url, session(emulator, url) as opened:
        yield opened


@asynccontextmanager
async def rate_limit(emulator: Emulator) -> AsyncIterator[CopyAISession]:
    """Respond with a 429, and then with one whose Retry-After is longer than the policy's time-out."""
    emulator.inject(Fault(status=429), times=1)
    emulator.inject(Fault(status=429, headers={"Retry-After": "3600"}), times=None)
    async with session(emulator) as opened:
        yield opened


CAUSES: dict[str, list[Cause]] = {
    "no connection was made": [no_server],
    "the server's certificate is not trusted": [untrusted_certificate],
    "the connection broke before the response was complete": [
        *(fault(reset="before"), fault(reset="after"), fault(truncate=1, body={})),
    ],
    "no complete response within `timeout`": [fault(delay=5)],
    "success, but the body is not JSON": [fault(body=b"<html>"), fault(body=b"")],
    "success, but the JSON is not as documented": [fault(body=[])],
    "success, but the body is larger than 64 MiB": [fault(body=b" " * 2_000)],
    "any other 3xx": [
        fault(status=status, headers={"Location": "https://elsewhere.example.com"}) for status in (301, 307)
    ],
    "400, 401, 403, 404, 422": [fault(status=status) for status in (400, 401, 403, 404, 422)],
    "any other 4xx": [fault(status=status) for status in (402, 409, 418, 451)],
    "408": [fault(status=408)],
    "425": [fault(status=425)],
    "429": [rate_limit],
    "5xx": [fault(status=status) for status in (500, 502, 503, 504, 529, 599)],
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cause", CAUSES)
async def test_the_client_behaves_as_documented(cause: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is retried, raised or unconfirmed as documented on the page."""
    monkeypatch.setattr(_transport, "MAX_BODY", 1_000)
    for prepare in CAUSES[cause]:
        async with Emulator() as emulator, prepare(emulator) as opened:
            assert await outcome(METHODS[method](opened, emulator.workflow_id)) == TABLE[cause][method]


async def outcome(request: Awaitable[object]) -> str:
    """Describe the outcome of a request in the page's words."""
    try:
        await request
    except CopyAIError as error:
        is_sent_again = error.attempts > 1
        assert is_sent_again is (error.retryable and not error.ambiguous)
        return "unconfirmed" if error.ambiguous else "retried" if is_sent_again else "raised"
    return "success"


def test_every_row_is_tested() -> None:
    """Each row of the page's table is tested here, except the redirect of a slash, and no other row."""
    assert [cause for cause in TABLE if not cause.startswith("307 or 308")] == list(CAUSES)
