"""Tests of injected faults: their effects, and the requests that they apply to."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from aiocopyai.emulator import Emulator, Fault
from tests.support.raw_api import AnyValue, RawAPI, emulator_ids, wait_until


async def test_status(api: RawAPI) -> None:
    """A fault with a status sends it once, with an empty object and the given headers."""
    api.emulator.inject(Fault(status=429, headers={"retry-after": "7"}))
    async with api.http.get(api.runs_url) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
        assert await response.json() == {}
    assert (await api.get_page())[0] == 200


@pytest.mark.parametrize(
    ("body", "sent"),
    [(b"<html>", b"<html>"), ({"a": ["ü"]}, '{"a":["ü"]}'.encode()), (b"", b""), (0, b"0")],
)
async def test_body(api: RawAPI, body: AnyValue, sent: bytes) -> None:
    """A fault with a body, as JSON or bytes, replaces the body of the response."""
    api.emulator.inject(Fault(body=body, headers={"Content-Type": "text/html"}))
    async with api.http.get(api.runs_url) as response:
        assert (response.status, response.headers.getall("content-type")) == (200, ["text/html"])
        assert await response.read() == sent


async def test_headers_keep_the_response(api: RawAPI) -> None:
    """A fault with only headers adds them to the normal response."""
    api.emulator.add_runs(2)
    api.emulator.inject(Fault(headers={"x-extra": "1"}))
    async with api.http.get(api.runs_url) as response:
        assert response.headers["x-extra"] == "1"
        assert (await response.json())["data"]["total"] == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_reset(api: RawAPI, when: AnyValue) -> None:
    """A reset ends the connection with an RST instead of a FIN."""
    api.emulator.inject(Fault(reset=when))
    # On a reused connection, aiohttp's client may send a GET again, but not a POST.
    with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
        await api.http.post(api.runs_url, json={})
    assert (await api.get_page())[0] == 200


@pytest.mark.parametrize("sent", [0, 30])
async def test_truncate(api: RawAPI, sent: int) -> None:
    """A truncated response ends before the length in its header."""
    api.emulator.inject(Fault(truncate=sent))
    async with api.http.get(api.runs_url) as response:
        with pytest.raises(aiohttp.ClientPayloadError, match=r"[Nn]ot enough data|not completed"):
            await response.read()
        assert response.content.total_bytes == sent


async def test_delay(api: RawAPI) -> None:
    """The call of a delayed response is executed before the delay."""
    api.emulator.add_runs()
    api.emulator.inject(Fault(delay=0.04))
    executed = asyncio.Event()
    api.emulator.on_request = lambda *_: executed.set()
    started = time.perf_counter()
    request = asyncio.create_task(api.list_ids())
    await executed.wait()
    api.emulator.add_runs()
    assert len(await request) == 1
    assert time.perf_counter() - started >= 0.04


async def test_drip(api: RawAPI) -> None:
    """A dripping body is sent completely, in pieces with 16 pauses."""
    api.emulator.add_runs(5)
    api.emulator.inject(Fault(drip=0.002))
    started = time.perf_counter()
    assert await api.list_ids() == emulator_ids(api.emulator)
    assert time.perf_counter() - started >= 0.03


async def test_drip_of_an_empty_body(api: RawAPI) -> None:
    """A dripping response may have an empty body."""
    api.emulator.inject(Fault(body=b"", drip=0.001))
    async with api.http.get(api.runs_url) as response:
        assert await response.read() == b""


@pytest.mark.parametrize("fault", [{"drip": 0.001}, {"truncate": 1}])
@pytest.mark.parametrize(("method", "status"), [("GET", 204), ("GET", 304), ("HEAD", 200)])
async def test_faults_of_responses_without_a_body(api: RawAPI, method: str, status: int, fault: AnyValue) -> None:
    """A fault for a response without a body sends no body, and the connection can be used again."""
    api.emulator.inject(Fault(status=status, **fault))
    async with api.http.request(method, api.runs_url) as response:
        assert (response.status, await response.read()) == (status, b"")
    assert (await api.get_page())[0] == 200


async def test_latency(api: RawAPI) -> None:
    """Latency delays each response, and concurrent requests wait at the same time."""
    api.emulator.latency = 0.05
    started = time.perf_counter()
    await api.get_page()
    assert time.perf_counter() - started >= 0.05
    api.emulator.latency = 60
    requests = [asyncio.create_task(api.get_page()) for _ in range(8)]
    await wait_until(lambda: len(api.emulator.requests) == 9)
    assert not any(task.done() for task in requests)
    for task in requests:
        task.cancel()


async def test_times(api: RawAPI) -> None:
    """A fault applies to the given number of requests, and the one injected first applies first."""
    api.emulator.inject(Fault(status=500), times=2)
    api.emulator.inject(Fault(status=503))
    assert [(await api.get_page())[0] for _ in range(4)] == [500, 500, 503, 200]


async def test_no_limit(api: RawAPI) -> None:
    """With `times=None` a fault applies to all following requests."""
    api.emulator.inject(Fault(status=500), times=None)
    assert [(await api.get_page())[0] for _ in range(3)] == [500] * 3


async def test_equal_faults(api: RawAPI) -> None:
    """The same fault injected twice applies twice."""
    api.emulator.inject(Fault(status=500))
    api.emulator.inject(Fault(status=500))
    assert [(await api.get_page())[0] for _ in range(3)] == [500, 500, 200]


async def test_clear_faults(api: RawAPI) -> None:
    """Cleared faults do not apply. Faults that are injected later do."""
    api.emulator.inject(Fault(status=500), times=None)
    api.emulator.clear_faults()
    assert (await api.get_page())[0] == 200
    api.emulator.inject(Fault(status=503))
    assert (await api.get_page())[0] == 503


@pytest.mark.parametrize("condition", [{"page": 2}, {"method": "post"}, {"path": "/other/"}])
async def test_other_requests(api: RawAPI, condition: AnyValue) -> None:
    """A fault for a page, a method or a path does not apply to other requests."""
    api.emulator.inject(Fault(status=500), **condition)
    assert (await api.get_page(page=1))[0] == 200


@pytest.mark.parametrize("condition", [{"page": 2}, {"method": "get"}, {"path": "/workflow/"}])
async def test_matching_requests(api: RawAPI, condition: AnyValue) -> None:
    """A fault for a page, a method or a path applies to a matching request."""
    api.emulator.inject(Fault(status=500), **condition)
    assert (await api.get_page(page=2))[0] == 500


def test_fault_for_no_request() -> None:
    """A fault for no request is rejected."""
    with pytest.raises(ValueError, match="times must be at least 1, got 0"):
        Emulator().inject(Fault(status=500), times=0)
