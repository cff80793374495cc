"""The emulator against the facts, asked by bare aiohttp: never by the client it is there to test."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import pytest
from yarl import URL

from aiocopyai import emulator as package
from aiocopyai.emulator import Emulator, Fault, Quirks, Request, _json, pytest_plugin


pytest_plugins = ["pytester"]

# Values that a parametrized test passes on to a literal type.
Odd: TypeAlias = Any

KEY_HEADER = "x-copy-ai-api-key"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A bare client session that sends the emulator's default key."""
    async with aiohttp.ClientSession(headers={KEY_HEADER: "emulator-key"}) as session:
        yield session


def runs_url(emulator: Emulator, *, workflow_id: str | None = None) -> str:
    """Give the URL of a list of runs."""
    return f"{emulator.url}/workflow/{workflow_id or emulator.workflow_id}/run"


async def ask(http: aiohttp.ClientSession, emulator: Emulator, **params: str | int) -> tuple[int, Any]:
    """Ask for a page; give the status and the decoded body."""
    async with http.get(runs_url(emulator), params=params) as response:
        return response.status, await response.json()


async def ask_ids(http: aiohttp.ClientSession, emulator: Emulator, **params: str | int) -> list[str]:
    """Ask for a page that is expected to be there; give its ids."""
    _, answer = await ask(http, emulator, **params)
    return [run["id"] for run in answer["data"]["data"]]


def ids_of(emulator: Emulator) -> list[Any]:
    """Give the ids that the emulator holds."""
    return [run["id"] for run in emulator.runs()]


# The list call as documented


async def test_envelope(http: aiohttp.ClientSession) -> None:
    """A list is `{"status": "success", "data": {"total": N, "data": [...]}}`, runs as kept."""
    async with Emulator(3) as emulator:
        status, answer = await ask(http, emulator)
        assert status == 200
        assert answer == {"status": "success", "data": {"total": 3, "data": emulator.runs()}}


async def test_default_size_is_ten(http: aiohttp.ClientSession) -> None:
    """Without a `size`, a page holds 10 runs, and without a `page` it is the first."""
    async with Emulator(25) as emulator:
        assert await ask_ids(http, emulator) == ids_of(emulator)[:10]


async def test_pages_cover_the_list(http: aiohttp.ClientSession) -> None:
    """Pages count from 1 and join up without a gap."""
    async with Emulator(25) as emulator:
        pages = [await ask_ids(http, emulator, size=10, page=page) for page in (1, 2, 3, 4)]
        assert [len(page) for page in pages] == [10, 10, 5, 0]
        assert [*chain.from_iterable(pages)] == ids_of(emulator)


async def test_trailing_slash(http: aiohttp.ClientSession) -> None:
    """The path may end in a slash, since vendor pages show both."""
    async with Emulator(2) as emulator, http.get(runs_url(emulator) + "/") as response:
        assert (await response.json())["data"]["total"] == 2


async def test_content_type(http: aiohttp.ClientSession) -> None:
    """An answer is typed as JSON."""
    async with Emulator() as emulator, http.get(runs_url(emulator)) as response:
        assert response.content_type == "application/json"


@pytest.mark.parametrize("headers", [{}, {KEY_HEADER: "wrong"}, {"Authorization": "emulator-key"}])
async def test_key_is_checked(headers: dict[str, str]) -> None:
    """A missing or wrong key gets a 401."""
    async with (
        Emulator() as emulator,
        aiohttp.ClientSession(headers=headers) as http,
    ):
        assert await ask(http, emulator) == (
            401,
            {"status": "error", "errorCode": "UNAUTHORIZED"},
        )


async def test_own_key() -> None:
    """The key that is let in can be chosen."""
    async with (
        Emulator(api_key="another") as emulator,
        aiohttp.ClientSession(headers={KEY_HEADER: "another"}) as http,
    ):
        assert (await ask(http, emulator))[0] == 200


async def test_unknown_workflow(http: aiohttp.ClientSession) -> None:
    """A workflow that nobody mentioned is a 404 NOT_FOUND."""
    async with (
        Emulator() as emulator,
        http.get(runs_url(emulator, workflow_id="WCFG-none")) as response,
    ):
        assert response.status == 404
        assert await response.json() == {"status": "error", "errorCode": "NOT_FOUND"}


@pytest.mark.parametrize("path", ["", "/nothing", "/workflow//run", "/workflow"])
async def test_unknown_call(http: aiohttp.ClientSession, path: str) -> None:
    """A path that is no call is a 404."""
    async with Emulator() as emulator, http.get(emulator.url + path) as response:
        assert response.status == 404


async def test_encoded_workflow_id(http: aiohttp.ClientSession) -> None:
    """An encoded slash is a part of the id, and the log keeps the path as it was sent."""
    async with Emulator(2, workflow_id="a/b ü") as emulator:
        url = URL(f"{emulator.url}/workflow/a%2Fb%20%C3%BC/run", encoded=True)
        async with http.get(url) as response:
            assert (await response.json())["data"]["total"] == 2
        assert emulator.requests[0].path == "/api/workflow/a%2Fb%20%C3%BC/run"


@pytest.mark.parametrize("name", ["size", "page"])
@pytest.mark.parametrize("value", ["-1", "x", "", "1.5", "1_0"])
async def test_bad_numbers(http: aiohttp.ClientSession, name: str, value: str) -> None:
    """A `size` or `page` that is no whole number, or negative, gets 400 with an empty object."""
    async with Emulator(1) as emulator:
        assert await ask(http, emulator, **{name: value}) == (400, {})


async def test_size_zero(http: aiohttp.ClientSession) -> None:
    """A page of no runs is refused."""
    async with Emulator(1) as emulator:
        assert await ask(http, emulator, size=0) == (400, {})


# Quirks


@pytest.mark.parametrize(
    ("quirk", "sent"),
    [("int", 3), ("string", "3"), (lambda count: count + 7, 10), (lambda _: None, None)],
)
async def test_total(http: aiohttp.ClientSession, quirk: Odd, sent: object) -> None:
    """The total is a number, text, or whatever a function makes of the true one."""
    async with Emulator(3, quirks=Quirks(total=quirk)) as emulator:
        _, answer = await ask(http, emulator)
        assert answer["data"]["total"] == sent


async def test_total_absent(http: aiohttp.ClientSession) -> None:
    """The total may be missing."""
    async with Emulator(3, quirks=Quirks(total="absent")) as emulator:
        _, answer = await ask(http, emulator)
        assert list(answer["data"]) == ["data"]


async def test_oversize_clamps(http: aiohttp.ClientSession) -> None:
    """A size above the most is cut down to it, and pages are counted by the real size."""
    async with Emulator(250) as emulator:
        assert await ask_ids(http, emulator, size=200, page=2) == ids_of(emulator)[100:200]


async def test_oversize_rejects(http: aiohttp.ClientSession) -> None:
    """A size above the most may be refused, and the most itself is not."""
    async with Emulator(9, quirks=Quirks(max_size=5, oversize="reject")) as emulator:
        assert await ask(http, emulator, size=6) == (400, {})
        assert len(await ask_ids(http, emulator, size=5)) == 5


@pytest.mark.parametrize(
    ("quirk", "body"),
    [
        (400, {}),
        (404, {"status": "error", "errorCode": "NOT_FOUND"}),
        (
            422,
            {
                "status": "error",
                "errorCode": "REQUEST_INVALID",
                "details": {"page": ["is past the end"]},
            },
        ),
    ],
)
async def test_past_end_refused(http: aiohttp.ClientSession, quirk: Odd, body: object) -> None:
    """A page past the end may be refused, the last one never."""
    async with Emulator(20, quirks=Quirks(past_end=quirk)) as emulator:
        assert (await ask(http, emulator, page=2))[0] == 200
        assert await ask(http, emulator, page=3) == (quirk, body)


async def test_past_end_last(http: aiohttp.ClientSession) -> None:
    """A page past the end may be the last one again."""
    async with Emulator(15, quirks=Quirks(past_end="last")) as emulator:
        assert await ask_ids(http, emulator, page=9) == ids_of(emulator)[10:]


@pytest.mark.parametrize("quirk", ["empty", "last", 400, 404, 422])
async def test_empty_list_has_a_first_page(http: aiohttp.ClientSession, quirk: Odd) -> None:
    """Page 1 of an empty list is empty, and never past the end."""
    async with Emulator(quirks=Quirks(past_end=quirk)) as emulator:
        assert await ask(http, emulator, page=1) == (
            200,
            {"status": "success", "data": {"total": 0, "data": []}},
        )


async def test_page_zero(http: aiohttp.ClientSession) -> None:
    """Page 0 is the first page, or refused."""
    async with Emulator(15) as emulator:
        assert await ask_ids(http, emulator, page=0) == ids_of(emulator)[:10]
        emulator.quirks = Quirks(page_zero=400)
        assert await ask(http, emulator, page=0) == (400, {})


async def test_ignore_page(http: aiohttp.ClientSession) -> None:
    """A server may send the first page whatever is asked for."""
    async with Emulator(15, quirks=Quirks(ignore_page=True)) as emulator:
        assert await ask_ids(http, emulator, page=7) == ids_of(emulator)[:10]


async def test_sparse(http: aiohttp.ClientSession) -> None:
    """A listed run may lack its status, input and output."""
    async with Emulator(1, quirks=Quirks(sparse=True)) as emulator:
        _, answer = await ask(http, emulator)
        (run,) = answer["data"]["data"]
        assert set(emulator.runs()[0]) - set(run) == {"status", "input", "output"}


async def test_mixed_dates(http: aiohttp.ClientSession) -> None:
    """Some dates lack their milliseconds, always the same ones; the rest are untouched."""
    async with Emulator(40, quirks=Quirks(mixed_dates=True)) as emulator:
        _, answer = await ask(http, emulator, size=40)
        sent = [run["createdAt"] for run in answer["data"]["data"]]
        kept = [str(run["createdAt"]) for run in emulator.runs()]
        assert {len(date) for date in sent} == {20, 24}
        assert all(date in (whole, whole[:19] + "Z") for date, whole in zip(sent, kept, strict=True))


async def test_credits_as_text(http: aiohttp.ClientSession) -> None:
    """Credits may be text."""
    async with Emulator(2, quirks=Quirks(credits="string")) as emulator:
        _, answer = await ask(http, emulator)
        sent = [run["credits"] for run in answer["data"]["data"]]
        assert sent == [str(run["credits"]) for run in emulator.runs()]


async def test_quirks_pass_over_odd_items(http: aiohttp.ClientSession) -> None:
    """Items that are malformed already stay as they are under every quirk."""
    items: list[Any] = [None, 7, "x", {"id": "1", "createdAt": 5, "credits": "many"}]
    quirks = Quirks(sparse=True, mixed_dates=True, credits="string")
    async with Emulator(items, quirks=quirks) as emulator:
        _, answer = await ask(http, emulator)
        assert answer["data"]["data"] == items


async def test_vendor_example(http: aiohttp.ClientSession) -> None:
    """The vendor's own example, a total of "3" with two runs, can be had."""
    async with Emulator(3, quirks=Quirks(total="string", short_pages=1)) as emulator:
        _, answer = await ask(http, emulator)
        assert answer["data"]["total"] == "3"
        assert len(answer["data"]["data"]) == 2


async def test_short_pages_skip(http: aiohttp.ClientSession) -> None:
    """What a short page leaves out is not on the next one."""
    async with Emulator(6, quirks=Quirks(short_pages=1)) as emulator:
        ids = ids_of(emulator)
        assert await ask_ids(http, emulator, size=3, page=1) == ids[0:2]
        assert await ask_ids(http, emulator, size=3, page=2) == ids[3:5]


async def test_text_404(http: aiohttp.ClientSession) -> None:
    """A 404 may be plain text."""
    async with (
        Emulator(quirks=Quirks(text_404=True)) as emulator,
        http.get(emulator.url) as response,
    ):
        assert (response.status, response.content_type) == (404, "text/plain")
        assert await response.text() == "Not Found"


# Faults


async def test_status_fault(http: aiohttp.ClientSession) -> None:
    """A status comes with an empty object and the headers asked for, once."""
    async with Emulator(1) as emulator:
        emulator.fail(Fault(status=429, headers={"retry-after": "7"}))
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
        emulator.fail(Fault(body=body, headers={"Content-Type": "text/html"}))
        async with http.get(runs_url(emulator)) as response:
            assert (response.status, response.headers.getall("content-type")) == (200, ["text/html"])
            assert await response.read() == sent


async def test_headers_fault_keeps_the_answer(http: aiohttp.ClientSession) -> None:
    """With headers alone, the answer is the true one."""
    async with Emulator(2) as emulator:
        emulator.fail(Fault(headers={"x-extra": "1"}))
        async with http.get(runs_url(emulator)) as response:
            assert response.headers["x-extra"] == "1"
            assert (await response.json())["data"]["total"] == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_reset_fault(http: aiohttp.ClientSession, when: Odd) -> None:
    """A reset ends the connection with an RST, not with a quiet close."""
    async with Emulator(1) as emulator:
        # aiohttp's client sends a GET again by itself on a connection used before, a POST never.
        emulator.fail(Fault(reset=when))
        with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
            await http.post(runs_url(emulator), json={})
        assert (await ask(http, emulator))[0] == 200


@pytest.mark.parametrize("sent", [0, 30])
async def test_truncate_fault(http: aiohttp.ClientSession, sent: int) -> None:
    """A truncated answer promises its whole length and ends early."""
    async with Emulator(1) as emulator:
        emulator.fail(Fault(truncate=sent))
        async with http.get(runs_url(emulator)) as response:
            with pytest.raises(aiohttp.ClientPayloadError, match=r"[Nn]ot enough data|not completed"):
                await response.read()
            assert response.content.total_bytes == sent


async def test_delay_fault(http: aiohttp.ClientSession) -> None:
    """A delayed answer is what was true when it was asked for."""
    async with Emulator(1) as emulator:
        emulator.fail(Fault(delay=0.04))
        started = time.perf_counter()
        asking = asyncio.create_task(ask_ids(http, emulator))
        await asyncio.sleep(0.02)
        emulator.add_runs()
        assert len(await asking) == 1
        assert time.perf_counter() - started >= 0.04


async def test_drip_fault(http: aiohttp.ClientSession) -> None:
    """A dripping body comes whole, in pieces, over 16 pauses."""
    async with Emulator(5) as emulator:
        emulator.fail(Fault(drip=0.002))
        started = time.perf_counter()
        assert await ask_ids(http, emulator) == ids_of(emulator)
        assert time.perf_counter() - started >= 0.03


async def test_drip_of_nothing(http: aiohttp.ClientSession) -> None:
    """An empty body drips too."""
    async with Emulator() as emulator:
        emulator.fail(Fault(body=b"", drip=0.001))
        async with http.get(runs_url(emulator)) as response:
            assert await response.read() == b""


async def test_latency(http: aiohttp.ClientSession) -> None:
    """Latency holds back every answer, and concurrent requests wait side by side."""
    async with Emulator(1, latency=0.03) as emulator:
        started = time.perf_counter()
        await asyncio.gather(*(ask(http, emulator) for _ in range(8)))
        assert 0.03 <= time.perf_counter() - started < 0.2


async def test_times(http: aiohttp.ClientSession) -> None:
    """A fault meets as many requests as asked for, and the first asked for comes first."""
    async with Emulator() as emulator:
        emulator.fail(Fault(status=500), times=2)
        emulator.fail(Fault(status=503))
        assert [(await ask(http, emulator))[0] for _ in range(4)] == [500, 500, 503, 200]


async def test_times_none(http: aiohttp.ClientSession) -> None:
    """Without a number of times a fault stays."""
    async with Emulator() as emulator:
        emulator.fail(Fault(status=500), times=None)
        assert [(await ask(http, emulator))[0] for _ in range(3)] == [500] * 3


async def test_faults_armed_alike(http: aiohttp.ClientSession) -> None:
    """The same fault asked for twice is met twice."""
    async with Emulator() as emulator:
        emulator.fail(Fault(status=500))
        emulator.fail(Fault(status=500))
        assert [(await ask(http, emulator))[0] for _ in range(3)] == [500, 500, 200]


@pytest.mark.parametrize("where", [{"page": 2}, {"method": "post"}, {"path": "/other/"}])
async def test_faults_pass_others_over(http: aiohttp.ClientSession, where: Odd) -> None:
    """A fault for a page, a method or a path leaves other requests alone."""
    async with Emulator(20) as emulator:
        emulator.fail(Fault(status=500), **where)
        assert (await ask(http, emulator, page=1))[0] == 200


@pytest.mark.parametrize("where", [{"page": 2}, {"method": "get"}, {"path": "/workflow/"}])
async def test_faults_find_theirs(http: aiohttp.ClientSession, where: Odd) -> None:
    """A fault for a page, a method or a path finds its request."""
    async with Emulator(20) as emulator:
        emulator.fail(Fault(status=500), **where)
        assert (await ask(http, emulator, page=2))[0] == 500


def test_fault_for_no_request() -> None:
    """A fault for fewer than one request is a mistake."""
    with pytest.raises(ValueError, match="at least 1"):
        Emulator().fail(Fault(status=500), times=0)


# The log and the moving list


async def test_requests(http: aiohttp.ClientSession) -> None:
    """Every request is logged with what was sent, refused ones too."""
    async with Emulator() as emulator:
        await ask(http, emulator, size=20, page="x")
        async with http.post(f"{emulator.url}/no?a=1&a=2&b=", json={"k": [1]}):
            pass
        async with http.put(f"{emulator.url}/no", data=b"no json"):
            pass
        first, second, third = emulator.requests
    assert (first.number, first.method, first.size, first.page) == (1, "GET", 20, None)
    assert first.query == {"size": "20", "page": "x"}
    assert first.headers[KEY_HEADER] == "emulator-key"
    assert (second.path, second.query) == ("/api/no", {"a": "2", "b": ""})
    assert (second.method, second.body) == ("POST", {"k": [1]})
    assert (third.number, third.body) == (3, None)


async def test_moving_list(http: aiohttp.ClientSession) -> None:
    """A run added before each answer pushes the others down a page."""

    def move(emulator: Emulator, request: Request) -> None:
        emulator.add_runs()
        assert request is emulator.requests[-1]

    async with Emulator(4) as emulator:
        before = ids_of(emulator)
        emulator.on_request = move
        assert await ask_ids(http, emulator, size=2, page=1) == [ids_of(emulator)[0], before[0]]
        assert await ask_ids(http, emulator, size=2, page=2) == before[0:2]


async def test_failing_hook(http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    """An error in the hook is a 500 and in the server's log."""

    def fail(_emulator: Emulator, _request: Request) -> None:
        raise RuntimeError("mine")

    async with Emulator() as emulator:
        emulator.on_request = fail
        async with http.get(runs_url(emulator)) as response:
            assert response.status == 500
    assert "mine" in caplog.text


def test_add_runs() -> None:
    """Runs are added newer at the head and older at the tail, and their ids come in list order."""
    emulator = Emulator(2)
    middle = ids_of(emulator)
    head = emulator.add_runs(2)
    tail = emulator.add_runs(2, at="tail")
    assert ids_of(emulator) == head + middle + tail
    dates = [str(run["createdAt"]) for run in emulator.runs()]
    assert dates == sorted(dates, reverse=True)


def test_add_runs_one_by_one() -> None:
    """Adding one run at a time makes the same list as adding many."""
    emulator = Emulator()
    for _ in range(5):
        emulator.add_runs()
    assert emulator.runs() == Emulator(5).runs()


def test_add_runs_with_fields() -> None:
    """Given fields stand in place of invented ones."""
    emulator = Emulator()
    assert emulator.add_runs(id="mine", status="FAILED", odd=[1]) == ["mine"]
    (run,) = emulator.runs()
    assert (run["id"], run["workflowRunId"], run["status"], run["odd"]) == (
        "mine",
        "mine",
        "FAILED",
        [1],
    )


def test_negative_count() -> None:
    """Fewer than no runs is a mistake."""
    with pytest.raises(ValueError, match="negative"):
        Emulator(-1)


async def test_remove_runs(http: aiohttp.ClientSession) -> None:
    """Removed runs are gone from the next answer; unknown ids and odd items are no obstacle."""
    async with Emulator(3) as emulator:
        first, second, third = ids_of(emulator)
        emulator.remove_runs([second, "unknown"])
        assert await ask_ids(http, emulator) == [first, third]
        emulator.put_runs([None, {"id": "a"}, {"id": 5}])
        emulator.remove_runs(["a"])
        assert emulator.runs() == [{"id": 5}]


async def test_put_runs(http: aiohttp.ClientSession) -> None:
    """Raw items are sent as they are, however malformed."""
    items: list[Any] = [{"id": "a", "credits": 10**30, "text": "\ud800"}, [], None]
    async with Emulator() as emulator:
        emulator.put_runs(items)
        _, answer = await ask(http, emulator)
        assert answer["data"] == {"total": 3, "data": items}
        assert len(emulator.runs()) == 1


async def test_other_workflow(http: aiohttp.ClientSession) -> None:
    """A workflow becomes known by getting runs, and is a list of its own."""
    async with Emulator(1) as emulator:
        ids = emulator.add_runs(2, workflow_id="other")
        async with http.get(runs_url(emulator, workflow_id="other")) as response:
            sent = (await response.json())["data"]["data"]
        assert [run["id"] for run in sent] == ids
        assert {run["workflowId"] for run in sent} == {"other"}
        emulator.remove_runs(ids, workflow_id="other")
        assert emulator.runs("other") == []
        assert len(emulator.runs()) == 1


def test_runs_are_copies() -> None:
    """Changing what `runs()` gives changes nothing in the emulator."""
    emulator = Emulator([{"id": "a", "output": {"x": [1]}}])
    emulator.runs()[0]["output"]["x"].append(2)  # type: ignore[index,call-overload,union-attr]
    assert emulator.runs() == [{"id": "a", "output": {"x": [1]}}]


# Seeded runs


def test_seeded_runs_repeat() -> None:
    """The same seed makes the same runs, another seed others."""
    assert Emulator(20).runs() == Emulator(20).runs()
    assert ids_of(Emulator(20)) != ids_of(Emulator(20, seed=1))


def test_seeded_runs_vary() -> None:
    """A few hundred runs show every status, kind of output and kind of metadata."""
    runs: list[dict[str, Any]] = Emulator(400).runs()
    assert len({run["id"] for run in runs}) == 400
    assert {run["status"] for run in runs} == {
        "NEW", "WAITING", "PROCESSING", "RETRYING", "COMPLETE", "FAILED",
    }  # fmt: skip
    assert all((run["error"] is not None) == (run["status"] == "FAILED") for run in runs)
    kinds = {type(value) for run in runs for value in run["output"].values()}
    assert kinds == {str, list, dict}
    assert len({len(run["output"]) for run in runs if run["status"] == "PROCESSING"}) > 1
    assert {tuple(run["metadata"] or ()) for run in runs} == {
        (), ("api",), ("webapp",), ("api", "customer", "batch"),
    }  # fmt: skip


def test_seeded_json_output() -> None:
    """One step of a run that is complete holds JSON in a string, and one is empty."""
    runs: list[dict[str, Any]] = Emulator(40).runs()
    output = next(run["output"] for run in runs if run["status"] == "COMPLETE")
    assert set(json.loads(output["Fit (JSON)"])) == {"fit", "reasons"}
    assert "" in output.values()


async def test_many_runs(http: aiohttp.ClientSession) -> None:
    """A list of 100,000 runs is there at once, and its last page as quickly as its first."""
    started = time.perf_counter()
    async with Emulator(100_000) as emulator:
        assert len(await ask_ids(http, emulator, size=100, page=1000)) == 100
    assert time.perf_counter() - started < 2


# Starting and stopping


async def test_start_twice() -> None:
    """Starting what runs already is a mistake."""
    async with Emulator() as emulator:
        with pytest.raises(RuntimeError, match="already"):
            await emulator.start()


async def test_stop_and_start_again(http: aiohttp.ClientSession) -> None:
    """A stopped emulator has no address, may be stopped again, and keeps its runs when restarted."""
    emulator = Emulator(1)
    await emulator.start()
    await emulator.stop()
    await emulator.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = emulator.url
    async with emulator:
        assert len(await ask_ids(http, emulator)) == 1


async def test_port_taken() -> None:
    """A port that is taken is an `OSError`, and the emulator stays stopped."""
    async with Emulator() as first:
        port = URL(first.url).port
        second = Emulator(port=port or 0)
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        assert repr(second) == "<Emulator stopped>"


async def test_repr() -> None:
    """The text form shows where it listens, and no key."""
    async with Emulator() as emulator:
        assert repr(emulator) == f"<Emulator {emulator.url}>"


@pytest.mark.parametrize("fault", [Fault(delay=60), Fault(drip=60), Fault(delay=60, status=500)])
async def test_stop_is_prompt(http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, fault: Fault) -> None:
    """Stopping waits for no hanging request, leaves no task and logs nothing."""
    async with Emulator(1) as emulator:
        emulator.fail(fault, times=None)
        arrived = asyncio.Event()
        emulator.on_request = lambda *_: arrived.set()
        asking = asyncio.create_task(ask(http, emulator))
        await arrived.wait()
        started = time.perf_counter()
    assert time.perf_counter() - started < 0.5
    with pytest.raises(aiohttp.ClientError):
        await asking
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("fault", [Fault(delay=0.03), Fault(drip=0.005), Fault(delay=0.03, reset="after")])
async def test_client_goes_away(caplog: pytest.LogCaptureFixture, fault: Fault) -> None:
    """A client that leaves in the middle of a request is no event."""
    async with Emulator(1) as emulator:
        emulator.fail(fault)
        async with aiohttp.ClientSession(headers={KEY_HEADER: emulator.api_key}) as http:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await ask(http, emulator)
        await asyncio.sleep(0.05)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


# The package


def test_names() -> None:
    """Every public name can be had from the package, and no other."""
    assert all(getattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = package.Nothing


def test_encodings_agree() -> None:
    """Both encoders write JSON that reads the same."""
    value: Any = {"a": [1, 2.5, None, True, "ü\u2028"]}
    assert json.loads(_json.encode(value)) == json.loads(_json.encode_plainly(value)) == value


async def test_fixture(copyai_emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """The plugin's fixture is a started emulator without runs."""
    assert await ask_ids(http, copyai_emulator) == []


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_fixture_in_mode(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The fixture works in both modes of pytest-asyncio."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.asyncio
        async def test_it(copyai_emulator):
            assert copyai_emulator.url
    """)
    result = pytester.runpytest_subprocess(
        "-p", "aiocopyai.emulator.pytest_plugin", "-p", "pytest_asyncio.plugin",
        "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function", f"--asyncio-mode={mode}",
    )  # fmt: skip
    result.assert_outcomes(passed=1)


def test_fixture_without_pytest_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pytest-asyncio isn't loaded, the fixture is a plain one for other runners."""
    monkeypatch.delitem(sys.modules, "pytest_asyncio", raising=False)
    assert pytest_plugin._as_fixture() is pytest.fixture


def test_plugin_is_light() -> None:
    """The plugin, imported in every run of pytest, loads neither aiohttp nor attrs by itself."""
    code = f"""
import sys, types
parent = sys.modules["aiocopyai"] = types.ModuleType("aiocopyai")
parent.__path__ = [{str(Path(package.__file__).parents[1])!r}]
import aiocopyai.emulator.pytest_plugin
sys.exit(bool({{"aiohttp", "attrs", "attr"}} & (set(sys.modules))))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 (our own text)
