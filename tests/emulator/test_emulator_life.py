"""The emulator's log, its moving list and invented runs, its start and stop, and its package."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest
from yarl import URL

from aiocopyai import emulator as package
from aiocopyai.emulator import Emulator, Fault, Request, _http
from tests.support.bare import KEY_HEADER, ask, ask_ids, ids_of, runs_url


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
        emulator.replace_runs([None, {"id": "a"}, {"id": 5}])
        emulator.remove_runs(["a"])
        assert emulator.runs() == [{"id": 5}]


async def test_put_runs(http: aiohttp.ClientSession) -> None:
    """Raw items are sent as they are, however malformed."""
    items: list[Any] = [{"id": "a", "credits": 10**30, "text": "\ud800"}, [], None]
    async with Emulator() as emulator:
        emulator.replace_runs(items)
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
    """A list of 100,000 runs has its last page."""
    async with Emulator(100_000) as emulator:
        assert len(await ask_ids(http, emulator, size=100, page=1000)) == 100


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
    async with asyncio.timeout(30):  # of the minute that the request would take
        async with Emulator(1) as emulator:
            emulator.inject(fault, times=None)
            arrived = asyncio.Event()
            emulator.on_request = lambda *_: arrived.set()
            asking = asyncio.create_task(ask(http, emulator))
            await arrived.wait()
    with pytest.raises(aiohttp.ClientError):
        await asking
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("fault", [Fault(delay=0.03), Fault(drip=0.005), Fault(delay=0.03, reset="after")])
async def test_client_goes_away(caplog: pytest.LogCaptureFixture, fault: Fault) -> None:
    """A client that leaves in the middle of a request is no event."""
    async with Emulator(1) as emulator:
        emulator.inject(fault)
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
    assert json.loads(_http.encode_json(value)) == json.loads(_http.encode_plainly(value)) == value
