"""Tests of the calls that read one run and start runs."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aiocopyai.emulator import Emulator, Fault, Quirks, Script
from tests.support.raw_api import NOT_FOUND, PATIENCE, AnyValue, RawAPI, advance_clock, raw_api


# Reading one run


async def test_get_run(api: RawAPI) -> None:
    """A run is `{"status": "success", "data": {run}}`, with or without a slash at the end of the path."""
    [run_id] = api.emulator.add_runs()
    [run] = api.emulator.runs()
    for slash in ("", "/"):
        response = await api.call("GET", f"{api.runs_path}/{run_id}{slash}")
        assert response == (200, {"status": "success", "data": run})


async def test_unknown_run(api: RawAPI) -> None:
    """The response for an unknown run or workflow, or for a run of another workflow, is a 404."""
    [other] = api.emulator.add_runs(workflow_id="other")
    assert await api.call("GET", f"{api.runs_path}/WRUN-none") == NOT_FOUND
    assert await api.call("GET", f"{api.runs_path}/{other}") == NOT_FOUND
    assert await api.call("GET", f"/workflow/none/run/{other}") == NOT_FOUND


async def test_runs_of_a_changing_list(api: RawAPI) -> None:
    """Every run in the list can be read, and a removed run cannot."""
    first = api.emulator.add_runs(2)
    await api.get_run(first[0])
    added = [*api.emulator.add_runs(), *api.emulator.add_runs(at="tail"), await api.start_run()]
    for run_id in [*first, *added]:
        assert (await api.get_run(run_id))["id"] == run_id
    api.emulator.remove_runs([first[0], added[-1]])
    for run_id in (first[0], added[-1]):
        assert await api.call("GET", f"{api.runs_path}/{run_id}") == NOT_FOUND
    api.emulator.replace_runs([{"id": "mine", "other": []}, None])
    assert await api.get_run("mine") == {"id": "mine", "other": []}
    assert await api.call("GET", f"{api.runs_path}/{added[0]}") == NOT_FOUND


async def test_quirks_of_one_run(api: RawAPI) -> None:
    """The quirks for credits and dates also apply to one run. Fields that are only missing in lists are present."""
    [run_id] = api.emulator.add_runs(createdAt="2025-01-01T00:00:00.002Z", credits=4)
    api.emulator.quirks = Quirks(sparse=True, lists_metadata=False, mixed_dates=True, credits="string")
    run = await api.get_run(run_id)
    assert (run["createdAt"], run["credits"]) == ("2025-01-01T00:00:00Z", "4")
    assert {"status", "input", "output", "metadata"} <= set(run)
    assert {"status", "input", "output", "metadata"} & set((await api.list_runs())[0]) == set()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
async def test_runs_cannot_be_changed(api: RawAPI, method: str) -> None:
    """The API has no call that changes or deletes a run."""
    [run_id] = api.emulator.add_runs()
    assert await api.call(method, f"{api.runs_path}/{run_id}") == NOT_FOUND


# Starting a run


async def test_start(api: RawAPI) -> None:
    """The response to a start has only the id, and one run is started with the inputs and metadata of the request."""
    sent = {"startVariables": {"Tone": "ü", "n": [1]}, "metadata": {"k": {"v": 1}}}
    status, body = await api.call("POST", api.runs_path + "/", json=sent)
    assert (status, list(body["data"])) == (200, ["id"])
    [run] = api.emulator.runs()
    assert run["id"] == run["workflowRunId"] == body["data"]["id"]
    assert (run["input"], run["metadata"]) == (sent["startVariables"], sent["metadata"])
    assert run["workflowId"] == api.emulator.workflow_id


@pytest.mark.parametrize(("sent", "kept"), [({}, {"api": True}), ({"metadata": None}, {"api": True}),
                                            ({"metadata": {}}, {})])  # fmt: skip
async def test_metadata(api: RawAPI, sent: AnyValue, kept: object) -> None:
    """A run that is started without metadata is marked as an API run. Empty metadata remains empty."""
    assert (await api.get_run(await api.start_run(**sent)))["metadata"] == kept


async def test_created_at(api: RawAPI) -> None:
    """The date of a started run is the current time, in the vendor's form."""
    before = datetime.now(UTC)
    run = await api.get_run(await api.start_run())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", run["createdAt"])
    created_at = datetime.fromisoformat(run["createdAt"])
    assert before - timedelta(milliseconds=1) <= created_at <= datetime.now(UTC)


async def test_started_runs_come_first(api: RawAPI) -> None:
    """The list has started runs, newest first, and then the other runs, even if a page has both."""
    others = api.emulator.add_runs(3)
    started = [await api.start_run() for _ in range(4)]
    expected = [*reversed(started), *others]
    assert [run["id"] for run in api.emulator.runs()] == expected
    for size in range(1, 8):
        pages = [await api.list_ids(size=size, page=page) for page in range(1, 9)]
        assert [run_id for page in pages for run_id in page] == expected


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({}, {"startVariables"}),
        ({"startVariables": []}, {"startVariables"}),
        ({"startVariables": None, "metadata": "x"}, {"startVariables", "metadata"}),
        ({"startVariables": {}, "metadata": []}, {"metadata"}),
        ([], {"body"}),
        ("x", {"body"}),
    ],
)
async def test_invalid_start(api: RawAPI, sent: AnyValue, fields: set[str]) -> None:
    """The response to an invalid body is a 422 that lists reasons for each field, and no run is started."""
    status, body = await api.call("POST", api.runs_path, json=sent)
    assert (status, body["status"], body["errorCode"]) == (422, "error", "REQUEST_INVALID")
    assert set(body["details"]) == fields
    assert all(isinstance(reason, str) for reasons in body["details"].values() for reason in reasons)
    assert api.emulator.runs() == []


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"null", b"[" * 100_000, b'{"startVariables":' * 201 + b"{}" + b"}" * 201]
)
async def test_start_without_json(api: RawAPI, data: bytes) -> None:
    """The response to a body that is missing, null, not JSON or nested too deeply is a 422."""
    assert (await api.call("POST", api.runs_path, data=data))[0] == 422


async def test_deepest_start(tmp_path: Path) -> None:
    """A run whose inputs are nested 200 levels deep can be started, listed, copied and saved."""
    data = b'{"startVariables":' * 200 + b"1" + b"}" * 200
    async with Emulator(run_time=0, state=tmp_path / "state.db") as emulator, raw_api(emulator) as api:
        assert (await api.call("POST", api.runs_path, data=data))[0] == 200
        assert await api.list_runs() == emulator.runs() != []
    assert Emulator(state=tmp_path / "state.db").runs() == emulator.runs()


async def test_start_of_an_unknown_workflow(api: RawAPI) -> None:
    """An unknown workflow cannot be started, and is not created."""
    for _ in range(2):
        assert await api.call("POST", "/workflow/none/run", json={"startVariables": {}}) == NOT_FOUND


async def test_reading_a_started_run_is_fast(api: RawAPI) -> None:
    """Reading a started run does not compute the ids of the 100,000 sample runs."""
    api.emulator.add_runs(100_000)
    await api.get_run(await api.start_run())
    workflow = api.emulator._state.workflow(api.emulator.workflow_id)
    assert workflow._entries_by_id is None


async def test_concurrent_starts(api: RawAPI) -> None:
    """Concurrent starts create one run each, in the order of the log."""
    ids = await asyncio.gather(*(api.start_run(metadata={"n": n}) for n in range(50)))
    logged: list[Any] = [request.body for request in api.emulator.requests]
    kept = [run["metadata"] for run in reversed(api.emulator.runs())]
    assert kept == [body["metadata"] for body in logged]
    assert len(set(ids)) == 50


# Faults of a start


async def test_reset_of_a_start(api: RawAPI) -> None:
    """If the connection is reset after the call, the run is started. If it is reset before the call, it is not."""
    api.emulator.inject(Fault(reset="before"), method="POST")
    with pytest.raises(aiohttp.ClientOSError):
        await api.start_run()
    assert api.emulator.runs() == []
    api.emulator.inject(Fault(reset="after"), method="POST")
    with pytest.raises(aiohttp.ClientOSError):
        await api.start_run()
    assert len(api.emulator.runs()) == 1


@pytest.mark.parametrize(("fault", "runs"), [(Fault(status=503), 0), (Fault(headers={"x": "1"}), 1)])
async def test_faulty_starts(api: RawAPI, fault: Fault, runs: int) -> None:
    """With a fault that has a status, no run is started. With a fault that only changes the response, it is started."""
    api.emulator.inject(fault)
    await api.call("POST", api.runs_path, json={"startVariables": {}})
    assert len(api.emulator.runs()) == runs


async def test_truncated_start(api: RawAPI) -> None:
    """If the response to a start is truncated, the run is started."""
    api.emulator.inject(Fault(truncate=5))
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.start_run()
    assert len(api.emulator.runs()) == 1


# Started runs


async def test_default_states(api: RawAPI) -> None:
    """Without a script, a run has three statuses for equal times, and is then COMPLETE."""
    api.emulator.run_time = 300
    run_id = await api.start_run()
    statuses: list[str] = []
    for _ in range(4):
        statuses.append((await api.get_run(run_id))["status"])
        advance_clock(api.emulator, 101)
    assert statuses == ["NEW", "WAITING", "PROCESSING", "COMPLETE"]
    run = await api.get_run(run_id)
    assert (run["error"], run["credits"], len(run["output"])) == (None, 3, 5)
    assert [run] == await api.list_runs()


async def test_runs_end_by_the_clock(api: RawAPI) -> None:
    """A run ends after its run time."""
    api.emulator.run_time = 0.01
    run_id = await api.start_run()
    async with asyncio.timeout(PATIENCE):
        while (await api.get_run(run_id))["status"] != "COMPLETE":
            await asyncio.sleep(0.001)


async def test_scripts_are_used_in_order(api: RawAPI) -> None:
    """Each script applies to its number of runs, in the order of the calls. Later runs complete again."""
    api.emulator.run_time = 0
    failing = Script(states=("NEW", "FAILED"), error={"message": "No."}, credits=1)
    api.emulator.script_next_runs(failing, times=2)
    api.emulator.script_next_runs(Script(states=["OTHER"], output={"a": 1}))
    runs = [await api.get_run(await api.start_run()) for _ in range(4)]
    assert [run["status"] for run in runs] == ["FAILED", "FAILED", "OTHER", "COMPLETE"]
    assert [run["error"] for run in runs] == [{"message": "No."}] * 2 + [None] * 2
    assert [run["credits"] for run in runs] == [1, 1, 3, 3]
    assert runs[2]["output"] == {"a": 1}


async def test_script_for_all_runs(api: RawAPI) -> None:
    """With `times=None` a script applies to all following runs."""
    api.emulator.script_next_runs(Script(states=("STUCK",)), times=None)
    assert [(await api.get_run(await api.start_run()))["status"] for _ in range(3)] == ["STUCK"] * 3


async def test_rejected_starts_do_not_use_a_script(api: RawAPI) -> None:
    """A rejected start does not use a script."""
    api.emulator.script_next_runs(Script(states=("OTHER",)))
    await api.call("POST", api.runs_path, json={})
    assert (await api.get_run(await api.start_run()))["status"] == "OTHER"


async def test_outputs_are_reproducible(api: RawAPI) -> None:
    """The same seed generates the same output for the first started run, and another for the second."""
    api.emulator.run_time = 0
    async with Emulator(run_time=0) as other, raw_api(other) as other_api:
        outputs = [(await each.get_run(await each.start_run()))["output"] for each in (api, other_api, other_api)]
    assert outputs[0] == outputs[1] != outputs[2]


async def test_outputs_are_about_the_inputs(api: RawAPI) -> None:
    """The output of a run contains its first input that is a non-empty string."""
    api.emulator.run_time = 0
    run = await api.get_run(await api.start_run(startVariables={"n": 1, "empty": "", "Company": "Northwind", "b": "x"}))
    assert run["output"]["Research"].startswith("Northwind looks for ")
    assert run["output"]["Email"]["subject"].startswith("Northwind: ")


async def test_late_runs(api: RawAPI) -> None:
    """With a quirk, a run is neither listed nor found for some time after its start."""
    api.emulator.add_runs()
    api.emulator.quirks = Quirks(late_runs=60)
    early = await api.start_run()
    advance_clock(api.emulator, 40)
    late = await api.start_run()
    assert await api.call("GET", f"{api.runs_path}/{early}") == NOT_FOUND
    advance_clock(api.emulator, 40)
    assert (await api.get_run(early))["status"] == "COMPLETE"
    assert await api.call("GET", f"{api.runs_path}/{late}") == NOT_FOUND
    _, body = await api.get_page()
    assert body["data"]["total"] == 2
    assert [run["id"] for run in body["data"]["data"]][:-1] == [early]
    assert len(api.emulator.runs()) == 3


# Credits


async def test_credit_limit(api: RawAPI) -> None:
    """A start that costs more than the remaining credits is rejected with a 400, and no run is started."""
    api.emulator.credits = 7
    await api.start_run()
    await api.start_run()
    assert api.emulator.credits == 1
    response = await api.call("POST", api.runs_path, json={"startVariables": {}})
    assert response == (400, {"status": "error", "errorCode": "WORKFLOW_CREDIT_LIMIT_REACHED"})
    api.emulator.script_next_runs(Script(credits=1))
    await api.start_run()
    assert (api.emulator.credits, len(api.emulator.runs())) == (0, 3)


async def test_removed_credit_limit() -> None:
    """Credits can be limited at construction, and the limit can be removed."""
    async with Emulator(credits=0) as emulator, raw_api(emulator) as api:
        assert (await api.call("POST", api.runs_path, json={"startVariables": {}}))[0] == 400
        emulator.credits = None
        await api.start_run()
        assert emulator.credits is None
