"""One request over the emulator's socket: faults, retries, time-outs, bounds, and where the key goes."""

from __future__ import annotations

import asyncio
import gzip
import logging
import pickle
import traceback
from typing import Any

import aiohttp
import pytest

from aiocopyai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    CopyAIError,
    CopyAISession,
    CreditLimitReachedError,
    InvalidResponseError,
    PermissionDeniedError,
    RateLimitedError,
    RequestInvalidError,
    RetryPolicy,
    ServerError,
    _transport,
)
from aiocopyai.emulator import Emulator, Fault
from tests.conftest import AT_ONCE


ONCE = RetryPolicy(attempts=1)


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
async def test_transient_faults(
    session: CopyAISession, copyai_emulator: Emulator, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """What may pass is tried again, with one line in the log for each retry; nobody notices otherwise."""
    copyai_emulator.add_runs(3)
    copyai_emulator.inject(fault, times=2)

    assert await session.count_runs(copyai_emulator.workflow_id) == 3
    assert len(copyai_emulator.requests) == 3
    logged = [(record.name, record.levelno) for record in caplog.records]
    # aiohttp itself sends a GET once more on a kept-alive connection that turns out dead.
    assert logged == [("aiocopyai", logging.WARNING)] * (1 if fault.reset else 2)


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
        (Fault(status=429, headers={"Retry-After": "0"}), RateLimitedError, 5),
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
    """Each failure ends in its own error, after as many attempts as it is worth, and pickles."""
    copyai_emulator.inject(fault, times=None)
    with pytest.raises(error) as caught:
        await session.runs_page(copyai_emulator.workflow_id)

    assert type(caught.value) is error
    assert caught.value.attempts == attempts  # type: ignore[attr-defined]  # these have it
    # aiohttp itself sends a GET once more on a kept-alive connection that turns out dead.
    assert len(copyai_emulator.requests) == (2 * attempts if fault.reset else attempts)
    assert caught.value.page == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 (our own)


async def test_status_error_tells_all(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A status error holds the code, the details, the body, the headers and the request."""
    body = {"status": "error", "errorCode": "REQUEST_INVALID", "details": {"size": ["too small"]}}
    copyai_emulator.inject(Fault(status=422, body=body, headers={"X-Trace": "abc", "Retry-After": "3"}))
    with pytest.raises(RequestInvalidError) as caught:
        await session.runs_page("W", 2)
    error = caught.value

    assert (error.status, error.error_code, error.details) == (422, "REQUEST_INVALID", {"size": ["too small"]})
    assert (error.body, error.headers["x-trace"], error.retry_after) == (body, "abc", 3)
    assert (error.method, error.url) == ("GET", f"{copyai_emulator.url}/workflow/W/run?size=10&page=2")


async def test_redirects_are_not_followed(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A redirect is an error, and the key goes nowhere else."""
    async with Emulator(3) as other:
        copyai_emulator.inject(Fault(status=307, headers={"Location": f"{other.url}/workflow/{other.workflow_id}/run"}))
        with pytest.raises(APIStatusError, match="HTTP 307"):
            await session.runs_page(copyai_emulator.workflow_id)

        assert other.requests == []


async def test_nobody_there() -> None:
    """Where nothing listens, that is a connection error that says so."""
    async with Emulator() as emulator:
        session = session_on(emulator)
    async with session:
        with pytest.raises(APIConnectionError, match=r"Cannot connect to host 127\.0\.0\.1") as caught:
            await session.runs_page("W")

    assert caught.value.attempts == 5


@pytest.mark.parametrize("timeout", [0.03, aiohttp.ClientTimeout(sock_read=0.03)])
@pytest.mark.parametrize("fault", [Fault(delay=9), Fault(drip=9)])
async def test_timeout(copyai_emulator: Emulator, fault: Fault, timeout: Any) -> None:  # noqa: ANN401, ASYNC109 (a parameter)
    """The time-out of one attempt covers the wait for the answer and the reading of its body."""
    copyai_emulator.inject(fault, times=None)
    async with session_on(copyai_emulator, timeout=timeout, retry=ONCE) as session:
        with pytest.raises(APITimeoutError, match="no whole answer in time"):
            await session.runs_page(copyai_emulator.workflow_id)


async def test_callers_timeout(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A caller's own time-out is a plain `TimeoutError`, at once, and the session stays usable."""
    copyai_emulator.add_runs(3)
    copyai_emulator.inject(Fault(delay=9))
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.03):
            await session.runs_page(copyai_emulator.workflow_id)

    assert not isinstance(caught.value, APITimeoutError)
    assert await session.count_runs(copyai_emulator.workflow_id) == 3


async def test_rate_limit_holds_back_the_whole_session(copyai_emulator: Emulator) -> None:
    """After a 429 the other requests of the session wait as well."""
    copyai_emulator.add_runs(3)
    copyai_emulator.inject(Fault(status=429), page=1)
    loop = asyncio.get_running_loop()
    policy = RetryPolicy(wait_initial=0.04, wait_jitter=0)
    async with session_on(copyai_emulator, retry=policy) as session:
        first = asyncio.create_task(session.runs_page(copyai_emulator.workflow_id))
        while session._transport._gate._closed_until == 0:
            await asyncio.sleep(0.001)
        began = loop.time()
        await session.runs_page(copyai_emulator.workflow_id, 2)

        assert loop.time() - began >= 0.03
        await first


async def test_rate_limit_beyond_the_policy(copyai_emulator: Emulator) -> None:
    """A Retry-After beyond the policy's time is raised at once, and does not lock the session for so long."""
    copyai_emulator.add_runs(3)
    copyai_emulator.inject(Fault(status=429, headers={"Retry-After": "3600"}))
    async with session_on(copyai_emulator, retry=RetryPolicy()) as session:
        with pytest.raises(RateLimitedError) as caught:
            await session.count_runs(copyai_emulator.workflow_id)

        assert caught.value.retry_after == 3600
        assert await session.count_runs(copyai_emulator.workflow_id) == 3


async def test_last_rate_limit_still_holds_back(copyai_emulator: Emulator) -> None:
    """A 429 that is not retried any more holds back the others for as long as the server asks."""
    copyai_emulator.inject(Fault(status=429, headers={"Retry-After": "1"}))
    async with session_on(copyai_emulator, retry=ONCE) as session:
        with pytest.raises(RateLimitedError):
            await session.count_runs(copyai_emulator.workflow_id)

        assert repr(session._transport._gate) == "<Gate: cooling down>"


async def test_gzip(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A compressed answer is read."""
    body = gzip.compress(b'{"status":"success","data":{"total":7,"data":[]}}')
    copyai_emulator.inject(Fault(body=body, headers={"Content-Encoding": "gzip"}))

    assert await session.count_runs(copyai_emulator.workflow_id) == 7


async def test_gzip_bomb(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An answer that is too large once unpacked is refused, on the first attempt."""
    bomb = gzip.compress(b" " * (_transport.MAX_BODY + 1))
    copyai_emulator.inject(Fault(body=bomb, headers={"Content-Encoding": "gzip"}), times=None)
    with pytest.raises(InvalidResponseError, match="an answer of more than 64 MiB"):
        await session.count_runs(copyai_emulator.workflow_id)

    assert len(copyai_emulator.requests) == 1


async def test_large_error_body(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Of a large error page only the beginning is kept."""
    copyai_emulator.inject(Fault(status=404, body=b"x" * 1_000_000))
    with pytest.raises(APIStatusError) as caught:
        await session.runs_page("W")

    assert caught.value.body == "x" * 2_000


async def test_untrusted_certificate(copyai_emulator: Emulator) -> None:
    """A server that speaks no TLS where TLS is asked for is a connection error."""
    url = copyai_emulator.url.replace("http://", "https://")
    async with session_on(copyai_emulator, base_url=url, retry=ONCE) as session:
        with pytest.raises(APIConnectionError):
            await session.runs_page("W")


KEY = "a-secret-key-0123456789"
ECHO = {"errorCode": f"NO-{KEY}", "details": {"key": KEY}, "message": KEY}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=401, body=ECHO, headers={"X-Echo": KEY}),
        Fault(status=500, body=KEY.encode()),
        Fault(status=302, headers={"Location": f"https://example.com/?{KEY}"}),
        Fault(body=KEY.encode()),
        Fault(body={"data": KEY}),
        Fault(reset="after"),
        Fault(truncate=3),
        Fault(delay=9),
        Fault(status=200, headers={"Bad": "a\x00b"}, body=b"{}"),
    ],
    ids=repr,
)
async def test_the_key_shows_nowhere(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """The key is in no log, text, pickle or traceback of an error, nor in what it came from; nor in a repr."""
    caplog.set_level(logging.DEBUG)
    async with (
        Emulator(api_key=KEY) as emulator,
        session_on(emulator, timeout=0.05, retry=RetryPolicy(attempts=2, wait_initial=0, wait_max=0)) as session,
    ):
        emulator.inject(fault, times=None)
        with pytest.raises(CopyAIError) as caught:
            await session.count_runs("W")
        error = caught.value
        shown = [
            repr(session),
            repr(session._transport),
            str(error),
            repr(error),
            repr(error.__dict__),
            "".join(traceback.format_exception(error)),
            caplog.text,
            pickle.dumps(error).decode("latin-1"),
        ]

    assert not [text for text in shown if KEY in text]
    assert error.__context__ is None
    assert error.__cause__ is None


async def test_no_cookies(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A server can't make the session carry cookies."""
    copyai_emulator.add_runs(1)
    copyai_emulator.inject(Fault(body={"data": {"total": 1, "data": []}}, headers={"Set-Cookie": "a=b"}))
    await session.count_runs(copyai_emulator.workflow_id)
    await session.count_runs(copyai_emulator.workflow_id)

    assert "cookie" not in copyai_emulator.requests[1].headers
