"""What the emulator lets go wrong on demand, and which request it happens to."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeAlias

import aiohttp
import pytest

from aiocopyai.emulator import Emulator, Fault
from tests.support.bare import ask, ask_ids, ids_of, runs_url


# Values that a parametrized test passes on to a literal type.
Odd: TypeAlias = Any


# Faults


async def test_status_fault(http: aiohttp.ClientSession) -> None:
    """A status comes with an empty object and the headers asked for, once."""
    async with Emulator(1) as emulator:
        emulator.inject(Fault(status=429, headers={"retry-after": "7"}))
        async with http.get(runs_url(emulator)) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "7")
            assert await response.json() == {}
        assert (await ask(http, emulator))[0] == 200


@pytest.mark.parametrize(
    ("body", "sent"),
    [(b"<html>", b"<html>"), ({"a": ["ü"]}, '{"a":["ü"]}'.encode()), (b"", b""), (0, b"0")],
)
async def test_body_fault(http: aiohttp.ClientSession, body: Odd, sent: bytes) -> None:
    """A body replaces the answer's, JSON or bytes."""
    async with Emulator() as emulator:
        emulator.inject(Fault(body=body, headers={"Content-Type": "text/html"}))
        async with http.get(runs_url(emulator)) as response:
            assert (response.status, response.headers.getall("content-type")) == (200, ["text/html"])
            assert await response.read() == sent


async def test_headers_fault_keeps_the_answer(http: aiohttp.ClientSession) -> None:
    """With headers alone, the answer is the true one."""
    async with Emulator(2) as emulator:
        emulator.inject(Fault(headers={"x-extra": "1"}))
        async with http.get(runs_url(emulator)) as response:
            assert response.headers["x-extra"] == "1"
            assert (await response.json())["data"]["total"] == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_reset_fault(http: aiohttp.ClientSession, when: Odd) -> None:
    """A reset ends the connection with an RST, not with a quiet close."""
    async with Emulator(1) as emulator:
        # aiohttp's client sends a GET again by itself on a connection used before, a POST never.
        emulator.inject(Fault(reset=when))
        with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
            await http.post(runs_url(emulator), json={})
        assert (await ask(http, emulator))[0] == 200


@pytest.mark.parametrize("sent", [0, 30])
async def test_truncate_fault(http: aiohttp.ClientSession, sent: int) -> None:
    """A truncated answer promises its whole length and ends early."""
    async with Emulator(1) as emulator:
        emulator.inject(Fault(truncate=sent))
        async with http.get(runs_url(emulator)) as response:
            with pytest.raises(aiohttp.ClientPayloadError, match=r"[Nn]ot enough data|not completed"):
                await response.read()
            assert response.content.total_bytes == sent


async def test_delay_fault(http: aiohttp.ClientSession) -> None:
    """A delayed answer is what was true when it was asked for."""
    async with Emulator(1) as emulator:
        emulator.inject(Fault(delay=0.04))
        started = time.perf_counter()
        asking = asyncio.create_task(ask_ids(http, emulator))
        await asyncio.sleep(0.02)
        emulator.add_runs()
        assert len(await asking) == 1
        assert time.perf_counter() - started >= 0.04


async def test_drip_fault(http: aiohttp.ClientSession) -> None:
    """A dripping body comes whole, in pieces, over 16 pauses."""
    async with Emulator(5) as emulator:
        emulator.inject(Fault(drip=0.002))
        started = time.perf_counter()
        assert await ask_ids(http, emulator) == ids_of(emulator)
        assert time.perf_counter() - started >= 0.03


async def test_drip_of_nothing(http: aiohttp.ClientSession) -> None:
    """An empty body drips too."""
    async with Emulator() as emulator:
        emulator.inject(Fault(body=b"", drip=0.001))
        async with http.get(runs_url(emulator)) as response:
            assert await response.read() == b""


async def test_latency(http: aiohttp.ClientSession) -> None:
    """Latency holds back every answer, and concurrent requests wait side by side."""
    async with Emulator(1, latency=0.03) as emulator:
        started = time.perf_counter()
        asking = [asyncio.create_task(ask(http, emulator)) for _ in range(8)]
        while len(emulator.requests) < 8:
            assert not all(task.done() for task in asking)
            await asyncio.sleep(0.001)
        await asyncio.gather(*asking)
        assert time.perf_counter() - started >= 0.03


async def test_times(http: aiohttp.ClientSession) -> None:
    """A fault meets as many requests as asked for, and the first asked for comes first."""
    async with Emulator() as emulator:
        emulator.inject(Fault(status=500), times=2)
        emulator.inject(Fault(status=503))
        assert [(await ask(http, emulator))[0] for _ in range(4)] == [500, 500, 503, 200]


async def test_times_none(http: aiohttp.ClientSession) -> None:
    """Without a number of times a fault stays."""
    async with Emulator() as emulator:
        emulator.inject(Fault(status=500), times=None)
        assert [(await ask(http, emulator))[0] for _ in range(3)] == [500] * 3


async def test_faults_armed_alike(http: aiohttp.ClientSession) -> None:
    """The same fault asked for twice is met twice."""
    async with Emulator() as emulator:
        emulator.inject(Fault(status=500))
        emulator.inject(Fault(status=500))
        assert [(await ask(http, emulator))[0] for _ in range(3)] == [500, 500, 200]


@pytest.mark.parametrize("where", [{"page": 2}, {"method": "post"}, {"path": "/other/"}])
async def test_faults_pass_others_over(http: aiohttp.ClientSession, where: Odd) -> None:
    """A fault for a page, a method or a path leaves other requests alone."""
    async with Emulator(20) as emulator:
        emulator.inject(Fault(status=500), **where)
        assert (await ask(http, emulator, page=1))[0] == 200


@pytest.mark.parametrize("where", [{"page": 2}, {"method": "get"}, {"path": "/workflow/"}])
async def test_faults_find_theirs(http: aiohttp.ClientSession, where: Odd) -> None:
    """A fault for a page, a method or a path finds its request."""
    async with Emulator(20) as emulator:
        emulator.inject(Fault(status=500), **where)
        assert (await ask(http, emulator, page=2))[0] == 500


def test_fault_for_no_request() -> None:
    """A fault for fewer than one request is a mistake."""
    with pytest.raises(ValueError, match="at least 1"):
        Emulator().inject(Fault(status=500), times=0)
