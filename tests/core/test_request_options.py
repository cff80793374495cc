"""Tests of `with_options`, headers and hooks, over a socket."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing

import aiohttp
import pytest

from aiocopyai import (
    APITimeoutError,
    AttemptInfo,
    ConfigurationError,
    CopyAISession,
    RetryInfo,
    RetryPolicy,
    ServerError,
)
from aiocopyai.emulator import Emulator, Fault
from tests.conftest import AT_ONCE


async def test_with_options_shares_connections(copyai_emulator: Emulator) -> None:
    """A view uses the connections of its session, and the options that it does not change."""
    async with CopyAISession(
        copyai_emulator.api_key, base_url=copyai_emulator.url, retry=AT_ONCE, user_agent="own/1"
    ) as session:
        assert await session.count_runs(copyai_emulator.workflow_id) == 0
        hasty = session.with_options(timeout=0.05, retry=1)
        copyai_emulator.inject(Fault(delay=5))
        with pytest.raises(APITimeoutError, match=r"within 0\.05 s") as caught:
            await hasty.count_runs(copyai_emulator.workflow_id)
        copyai_emulator.inject(Fault(status=503))
        with pytest.raises(ServerError):
            await hasty.count_runs(copyai_emulator.workflow_id)
        copyai_emulator.inject(Fault(status=503))
        assert await session.count_runs(copyai_emulator.workflow_id) == 0
        patient = hasty.with_options(timeout=None, retry=RetryPolicy(attempts=2, wait_initial=0, wait_max=0))
        copyai_emulator.inject(Fault(status=503))
        assert await patient.count_runs(copyai_emulator.workflow_id) == 0

        assert caught.value.attempts == 1
        assert session._transport._connections.http is patient._transport._connections.http
        assert {request.headers["user-agent"] for request in copyai_emulator.requests} == {"own/1"}
        with pytest.raises(ConfigurationError, match="timeout must be a positive number"):
            session.with_options(timeout=0)


async def test_with_options_shares_keys_and_rate(copyai_emulator: Emulator) -> None:
    """A session and its views share their idempotency keys and `max_rate`."""
    async with CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url, max_rate=100) as session:
        view = session.with_options(timeout=60)
        first, second = await asyncio.gather(
            *(each.start_run(copyai_emulator.workflow_id, {}, idempotency_key="k") for each in (session, view))
        )
        assert first.id == second.id
        with pytest.raises(ValueError, match="was used for other inputs"):
            await view.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="k")
        started = time.monotonic()
        await asyncio.gather(*(each.count_runs(copyai_emulator.workflow_id) for each in [session, view] * 10))
        assert time.monotonic() - started > 0.15


async def test_closing_a_view(copyai_emulator: Emulator) -> None:
    """Closing a view ends its iterations, but not its session. Closing the session closes its views."""
    copyai_emulator.add_runs(30)
    async with aclosing(CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url)) as session:
        async with session.with_options(retry=2) as view:
            runs = aiter(view.runs(copyai_emulator.workflow_id, page_size=10))
            await anext(runs)
        with pytest.raises(RuntimeError, match="this CopyAISession is closed"):
            await view.count_runs(copyai_emulator.workflow_id)
        assert await session.count_runs(copyai_emulator.workflow_id) == 30
        other = session.with_options()
    with pytest.raises(RuntimeError, match="this CopyAISession is closed"):
        await other.count_runs(copyai_emulator.workflow_id)


async def test_headers(copyai_emulator: Emulator) -> None:
    """Custom headers are sent in addition to those of the client, and no `repr` shows their values."""
    async with (
        aiohttp.ClientSession(headers={"X-Theirs": "2"}) as http,
        CopyAISession(
            copyai_emulator.api_key,
            base_url=copyai_emulator.url,
            http_session=http,
            default_headers={"X-Gateway": "gateway-secret"},
            user_agent="nightly/2 (ops@example.com)",
        ) as session,
    ):
        await session.check_key()
        await session.with_options(default_headers={"X-Other": "3"}).check_key()
        assert "gateway-secret" not in repr(session._transport.options.default_headers)
    first, second = (request.headers for request in copyai_emulator.requests)

    assert (first["x-gateway"], first["x-theirs"], first["x-copy-ai-api-key"]) == (
        "gateway-secret",
        "2",
        copyai_emulator.api_key,
    )
    assert first["user-agent"] == second["user-agent"] == "nightly/2 (ops@example.com)"
    assert (second["x-other"], "x-gateway" in second) == ("3", False)


async def test_hooks(copyai_emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """Hooks receive each attempt and each retry, but no query, key or body. Their exceptions are only logged."""
    attempts: list[AttemptInfo] = []
    retries: list[RetryInfo] = []

    def observe(attempt: AttemptInfo) -> None:
        attempts.append(attempt)
        raise ZeroDivisionError

    async with CopyAISession(
        copyai_emulator.api_key,
        base_url=copyai_emulator.url,
        retry=AT_ONCE,
        on_request=observe,
        on_retry=retries.append,
    ) as session:
        copyai_emulator.inject(Fault(status=503))
        copyai_emulator.inject(Fault(truncate=5))
        with caplog.at_level(logging.ERROR, "aiocopyai"):
            assert await session.count_runs(copyai_emulator.workflow_id) == 0
        copyai_emulator.inject(Fault(delay=5))
        task = asyncio.create_task(session.check_key())
        while len(copyai_emulator.requests) < 4:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await session.with_options(on_request=None).check_key()

    path = f"/workflow/{copyai_emulator.workflow_id}/run"
    assert [(each.method, each.path, each.attempt, each.status) for each in attempts] == [
        ("GET", path, 1, 503),
        ("GET", path, 2, None),
        ("GET", path, 3, 200),
        ("GET", "/webhook", 1, None),
    ]
    assert all(0 < each.seconds < 5 for each in attempts)
    assert [(each.method, each.path, each.attempt, each.status, each.wait) for each in retries] == [
        ("GET", path, 1, 503, 0.0),
        ("GET", path, 2, None, 0.0),
    ]
    assert retries[0].reason == "HTTP 503"
    assert copyai_emulator.api_key not in repr((attempts, retries)) + caplog.text
    assert [record.getMessage()[:13] for record in caplog.records] == ["a hook failed"] * 4
