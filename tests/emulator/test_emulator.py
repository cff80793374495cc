"""Tests of the emulator: its log, its list, starting and stopping, its public names, and its JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiocopyai import emulator as package
from aiocopyai.emulator import Emulator, Fault, Request, _messages
from tests.support.raw_api import KEY_HEADER, PATIENCE, RawAPI, delivery_server, emulator_ids, raw_api, wait_until


# The log and the changing list


async def test_requests(api: RawAPI) -> None:
    """Every request is logged as it was sent, including rejected ones."""
    await api.get_page(size=20, page="x")
    await api.call("POST", "/no?a=1&a=2&b=", json={"k": [1]})
    await api.call("PUT", "/no", data=b"no json")
    first, second, third = api.emulator.requests
    assert (first.number, first.method, first.size, first.page) == (1, "GET", 20, None)
    assert first.query == {"size": "20", "page": "x"}
    assert first.headers[KEY_HEADER] == "emulator-key"
    assert (second.path, second.query) == ("/api/no", {"a": "2", "b": ""})
    assert (second.method, second.body) == ("POST", {"k": [1]})
    assert (third.number, third.body) == (3, None)


async def test_on_request_changes_the_list(api: RawAPI) -> None:
    """A run that is added before each response moves the other runs down by one."""

    def add_run(emulator: Emulator, request: Request) -> None:
        emulator.add_runs()
        assert request is emulator.requests[-1]

    api.emulator.add_runs(4)
    before = emulator_ids(api.emulator)
    api.emulator.on_request = add_run
    assert await api.list_ids(size=2, page=1) == [emulator_ids(api.emulator)[0], before[0]]
    assert await api.list_ids(size=2, page=2) == before[0:2]


async def test_on_request_may_inject_a_fault(api: RawAPI) -> None:
    """A fault injected in `on_request` applies to the same request."""
    api.emulator.on_request = lambda emulator, _: emulator.inject(Fault(status=503))
    assert (await api.get_page())[0] == 503


async def test_on_request_raises(api: RawAPI, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in `on_request` results in a 500, and is logged."""

    def fail(_emulator: Emulator, _request: Request) -> None:
        raise RuntimeError("mine")

    api.emulator.on_request = fail
    async with api.http.get(api.runs_url) as response:
        assert response.status == 500
    assert "mine" in caplog.text


def test_add_runs() -> None:
    """Runs that are added at the head are newer, and runs at the tail are older. Ids are in the order of the list."""
    emulator = Emulator(2)
    middle = emulator_ids(emulator)
    head = emulator.add_runs(2)
    tail = emulator.add_runs(2, at="tail")
    assert emulator_ids(emulator) == head + middle + tail
    dates = [str(run["createdAt"]) for run in emulator.runs()]
    assert dates == sorted(dates, reverse=True)


def test_add_runs_one_by_one() -> None:
    """Adding runs one at a time results in the same list as adding them together."""
    emulator = Emulator()
    for _ in range(5):
        emulator.add_runs()
    assert emulator.runs() == Emulator(5).runs()


def test_add_runs_with_fields() -> None:
    """Fields that are passed replace generated fields."""
    emulator = Emulator()
    assert emulator.add_runs(id="mine", status="FAILED", other=[1]) == ["mine"]
    [run] = emulator.runs()
    assert (run["id"], run["workflowRunId"], run["status"], run["other"]) == ("mine", "mine", "FAILED", [1])


def test_negative_count() -> None:
    """A negative number of runs is rejected."""
    with pytest.raises(ValueError, match="runs must be between 0 and 10000000, got -1"):
        Emulator(-1)


async def test_remove_runs(api: RawAPI) -> None:
    """Removed runs are not in the next response; unknown ids and malformed items are ignored."""
    first, second, third = api.emulator.add_runs(3)
    api.emulator.remove_runs([second, "unknown"])
    assert await api.list_ids() == [first, third]
    api.emulator.replace_runs([None, {"id": "a"}, {"id": 5}])
    api.emulator.remove_runs(["a"])
    assert api.emulator.runs() == [{"id": 5}]


async def test_replace_runs(api: RawAPI) -> None:
    """Raw items are sent unchanged, even if they are malformed."""
    items: list[Any] = [{"id": "a", "credits": 10**30, "text": "\ud800"}, [], None]
    api.emulator.replace_runs(items)
    _, body = await api.get_page()
    assert body["data"] == {"total": 3, "data": items}
    assert len(api.emulator.runs()) == 1


async def test_other_workflow(api: RawAPI) -> None:
    """A workflow is created by adding runs to it, and has its own list."""
    api.emulator.add_runs(1)
    ids = api.emulator.add_runs(2, workflow_id="other")
    _, body = await api.call("GET", "/workflow/other/run")
    listed = body["data"]["data"]
    assert [run["id"] for run in listed] == ids
    assert {run["workflowId"] for run in listed} == {"other"}
    api.emulator.remove_runs(ids, workflow_id="other")
    assert api.emulator.runs("other") == []
    assert len(api.emulator.runs()) == 1


def test_runs_are_copies() -> None:
    """Changing the result of `runs()` does not change the emulator's runs."""
    emulator = Emulator([{"id": "a", "output": {"x": [1]}}])
    runs: list[dict[str, Any]] = emulator.runs()
    runs[0]["output"]["x"].append(2)
    assert emulator.runs() == [{"id": "a", "output": {"x": [1]}}]


async def test_many_runs(api: RawAPI) -> None:
    """The last page of a list of 100,000 runs can be read."""
    api.emulator.add_runs(100_000)
    assert len(await api.list_ids(size=100, page=1000)) == 100


# Starting and stopping


async def test_start_twice() -> None:
    """Starting an emulator twice raises an error."""
    async with Emulator() as emulator:
        with pytest.raises(RuntimeError, match="already started"):
            await emulator.start()


async def test_restart() -> None:
    """A stopped emulator has no URL, can be stopped again, and keeps its runs when it is restarted."""
    emulator = Emulator(1)
    await emulator.start()
    await emulator.stop()
    await emulator.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = emulator.url
    async with emulator, raw_api(emulator) as api:
        assert len(await api.list_ids()) == 1


def _port(emulator: Emulator) -> int:
    port = URL(emulator.url).port
    assert port is not None
    return port


async def test_port_in_use() -> None:
    """A port in use raises `OSError`, and the emulator remains stopped."""
    async with Emulator() as first:
        second = Emulator(port=_port(first))
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        assert repr(second) == "<Emulator stopped>"


async def test_repr() -> None:
    """The repr shows the URL, but not the key."""
    async with Emulator() as emulator:
        assert repr(emulator) == f"<Emulator {emulator.url}>"


@pytest.mark.parametrize("fault", [Fault(delay=60), Fault(drip=60), Fault(delay=60, status=500)])
async def test_stop_is_prompt(caplog: pytest.LogCaptureFixture, fault: Fault) -> None:
    """Stopping does not wait for requests that hang, leaves no task and logs nothing."""
    async with asyncio.timeout(PATIENCE), Emulator(1) as emulator, raw_api(emulator) as api:
        emulator.inject(fault, times=None)
        received = asyncio.Event()
        emulator.on_request = lambda *_: received.set()
        request = asyncio.create_task(api.get_page())
        await received.wait()
        await emulator.stop()
        with pytest.raises(aiohttp.ClientError):
            await request
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("fault", [Fault(delay=60), Fault(drip=60), Fault(delay=60, reset="after")])
async def test_client_disconnects(caplog: pytest.LogCaptureFixture, fault: Fault) -> None:
    """A client that disconnects during a request ends it, and causes no log line."""
    async with Emulator(1) as emulator:
        before = asyncio.all_tasks()
        emulator.inject(fault)
        received = asyncio.Event()
        emulator.on_request = lambda *_: received.set()
        async with raw_api(emulator) as api:
            request = asyncio.create_task(api.get_page())
            await received.wait()
            assert asyncio.all_tasks() > before | {request}
            request.cancel()
        await wait_until(lambda: asyncio.all_tasks() == before)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


# In its own thread


def test_thread() -> None:
    """In a `with` statement, the emulator runs in a thread, and its methods can be called from other threads."""
    events: list[int] = []

    async def use(emulator: Emulator) -> None:
        async with raw_api(emulator) as api:
            assert len(await api.list_ids()) == 2
            await api.start_run()

    with Emulator(1) as emulator:
        emulator.on_request = lambda *_: events.append(threading.get_ident())
        emulator.add_runs()
        asyncio.run(use(emulator))
        assert emulator.runs()[0]["input"] == {}
        assert len(emulator.requests) == 2
        thread = next(each for each in threading.enumerate() if each.ident == events[0])
        assert thread is not threading.current_thread()
    assert not thread.is_alive()
    assert repr(emulator) == "<Emulator stopped>"
    with emulator:
        assert len(emulator.runs()) == 3


def test_thread_cannot_start() -> None:
    """An error at the start is raised by `with`, and no thread remains."""
    with Emulator() as first, pytest.raises(OSError, match="address already in use"), Emulator(port=_port(first)):
        pass
    with Emulator() as first:
        with pytest.raises(RuntimeError, match="already started"), first:
            pass
        assert first.url
    assert not [thread for thread in threading.enumerate() if thread.name == "aiocopyai emulator"]


async def test_stop_of_a_thread() -> None:
    """An emulator in a thread is stopped only at the end of its `with` block."""
    with Emulator() as emulator:
        with pytest.raises(RuntimeError, match="leave its `with` block"):
            await emulator.stop()
        assert emulator.url


async def test_deliver_from_another_loop() -> None:
    """An emulator in a thread delivers events to a server in another event loop."""
    async with delivery_server() as receiver:
        with Emulator(1) as emulator:
            async with raw_api(emulator) as api:
                await api.create_webhook(receiver.url, "workflowRun.started")
            [delivery] = await emulator.deliver("workflowRun.started")
    assert delivery.status == 204


def test_threads_change_the_list(tmp_path: Path) -> None:
    """All runs that several threads add and start at the same time are in the list and in the state file."""

    async def start_runs(emulator: Emulator) -> None:
        async with raw_api(emulator) as api:
            for _ in range(20):
                await api.start_run()
                await api.list_ids()

    with Emulator(state=tmp_path / "state.db") as emulator:
        threads = [
            threading.Thread(target=lambda: [emulator.add_runs() for _ in range(20)]),
            *(threading.Thread(target=lambda: asyncio.run(start_runs(emulator))) for _ in range(2)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=PATIENCE)
        assert len(set(emulator_ids(emulator))) == 60
    assert emulator_ids(Emulator(state=tmp_path / "state.db")) == emulator_ids(emulator)


# The package


def test_public_names() -> None:
    """Every name in `__all__` can be imported from the package, and an unknown name raises `AttributeError`."""
    assert all(getattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        getattr(package, "Nothing")  # noqa: B009 (the name does not exist)


# JSON


def test_encoders_agree() -> None:
    """Both JSON encoders write the same value."""

    class Text(str):
        __slots__ = ()

    value: Any = {"a": [1, 2.5, None, True, "ü\u2028", Text("b"), "\ud800"]}
    assert json.loads(_messages.encode_json(value)) == json.loads(_messages.encode_with_stdlib(value)) == value


@given(st.integers(0, 400), st.sampled_from(["[", '{"a":']))
def test_nesting_is_limited(depth: int, opening: str) -> None:
    """A body is decoded if it is nested at most 200 levels deep."""
    closing = {"[": "]", '{"a":': "}"}[opening]
    for inner in ("1", '"[[[["', "[]"):
        decoded = _messages.decode_json((opening * depth + inner + closing * depth).encode())
        assert (decoded is not None) == (depth + (inner == "[]") <= 200)


def test_extreme_nesting() -> None:
    """A body that is nested too deeply for the JSON parser is not decoded."""
    assert _messages.decode_json(b"[" * 100_000) is None
    assert _messages.decode_json(b"[" * 100_000 + b"]" * 100_000) is None
