"""The table of docs/retries.md: what is sent again, and what never, as it is told and as it is done."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from aiocopyai import CopyAIError, CopyAISession, RetryPolicy, _transport
from aiocopyai.emulator import Emulator, Fault
from tests.support.pages import ROOT
from tests.support.proxying import Authority, tls_front


TWICE = RetryPolicy(attempts=2, wait_initial=0, wait_max=0)
METHODS: dict[str, Callable[[CopyAISession, str], object]] = {
    "GET": lambda session, workflow_id: session.runs_page(workflow_id),
    "DELETE": lambda session, _: session.delete_webhook("any"),
    "POST": lambda session, _: session.create_webhook("https://bot.example.com", "workflowRun.failed"),
}
ROWS = re.findall(
    r"^\| (.+?) \| (\w.+?) \| (\w.+?) \| (\w.+?) \|$", (ROOT / "docs" / "retries.md").read_text("utf-8"), re.MULTILINE
)
TABLE = {what: dict(zip(METHODS, cells, strict=True)) for what, *cells in ROWS[1:]}
"""What the page tells: of each thing that happens, for each method."""

Cause = Callable[[Emulator], AbstractAsyncContextManager[CopyAISession]]


def session(emulator: Emulator, base_url: str | None = None, timeout: float = 10) -> CopyAISession:
    return CopyAISession(emulator.api_key, base_url=base_url or emulator.url, retry=TWICE, timeout=timeout)


def fault(**what: object) -> Cause:
    """Let every answer be one that went wrong so."""

    @asynccontextmanager
    async def cause(emulator: Emulator) -> AsyncIterator[CopyAISession]:
        emulator.inject(Fault(**what), times=None)
        async with session(emulator, timeout=0.05 if "delay" in what else 10) as opened:
            yield opened

    return cause


@asynccontextmanager
async def nobody_listens(emulator: Emulator) -> AsyncIterator[CopyAISession]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    async with session(emulator, f"http://127.0.0.1:{port}/api") as opened:
        yield opened


@asynccontextmanager
async def nobody_vouches(emulator: Emulator) -> AsyncIterator[CopyAISession]:
    async with tls_front(emulator, Authority().serving()) as url, session(emulator, url) as opened:
        yield opened


CAUSES: dict[str, list[Cause]] = {
    "no connection was made": [nobody_listens],
    "the server's certificate can't be trusted": [nobody_vouches],
    "the connection broke before the whole answer was there": [
        *(fault(reset="before"), fault(reset="after"), fault(truncate=1, body={})),
    ],
    "no whole answer within `timeout`": [fault(delay=5)],
    "success, but the body is no JSON": [fault(body=b"<html>"), fault(body=b"")],
    "success, but the JSON is not what is documented": [fault(body=[])],
    "success, but the body is larger than 64 MiB": [fault(body=b" " * 2_000)],
    "3xx: redirects are not followed, as the key would follow them": [
        fault(status=status, headers={"Location": "https://elsewhere.example.com"}) for status in (301, 307)
    ],
    "400, 401, 403, 404, 422": [fault(status=status) for status in (400, 401, 403, 404, 422)],
    "any other 4xx": [fault(status=status) for status in (402, 409, 418, 451)],
    "408": [fault(status=408)],
    "429": [fault(status=429)],
    "5xx": [fault(status=status) for status in (500, 502, 503, 504, 529, 599)],
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", CAUSES)
async def test_what_is_told_is_done(what: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request goes again, not at all, or is in doubt, as the page says."""
    monkeypatch.setattr(_transport, "MAX_BODY", 1_000)
    for cause in CAUSES[what]:
        async with Emulator() as emulator, cause(emulator) as opened:
            assert await outcome(METHODS[method](opened, emulator.workflow_id)) == TABLE[what][method]


async def outcome(request: object) -> str:
    """Tell in the page's words what becomes of a request."""
    try:
        await request
    except CopyAIError as error:
        sent_again = error.attempts > 1
        assert sent_again is (error.retryable and not error.ambiguous)
        return "in doubt" if error.ambiguous else "again" if sent_again else "never"
    return "fine"


def test_every_row_is_held() -> None:
    """Each row of the page's table has its causes here, and no other has."""
    assert list(TABLE) == list(CAUSES)
