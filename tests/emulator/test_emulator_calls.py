"""The emulator's calls for one run and for starting runs, asked by bare aiohttp."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import Any, TypeAlias

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai.emulator import Emulator, Fault, Quirks, Script
from aiocopyai.emulator._scenarios import StartedRun
from tests.support.bare import Bare, asking, travel


# Values that a parametrized test passes on to a literal type.
Odd: TypeAlias = Any

NOT_FOUND = (404, {"status": "error", "errorCode": "NOT_FOUND"})


# One run


async def test_get_run(bare: Bare) -> None:
    """A run is `{"status": "success", "data": {run}}`, with or without a slash at the end."""
    [run_id] = bare.emulator.add_runs()
    [run] = bare.emulator.runs()
    for slash in ("", "/"):
        answer = await bare.call("GET", f"{bare.runs_path}/{run_id}{slash}")
        assert answer == (200, {"status": "success", "data": run})


async def test_get_unknown_run(bare: Bare) -> None:
    """A run, or a workflow, that isn't there is a 404, and so is another workflow's run."""
    [elsewhere] = bare.emulator.add_runs(workflow_id="other")
    assert await bare.call("GET", f"{bare.runs_path}/WRUN-none") == NOT_FOUND
    assert await bare.call("GET", f"{bare.runs_path}/{elsewhere}") == NOT_FOUND
    assert await bare.call("GET", f"/workflow/none/run/{elsewhere}") == NOT_FOUND


async def test_get_run_of_a_moving_list(bare: Bare) -> None:
    """Every run in the list can be asked for, added at either end, put in by hand or started; none removed."""
    first = bare.emulator.add_runs(2)
    await bare.run(first[0])
    added = [*bare.emulator.add_runs(), *bare.emulator.add_runs(at="tail"), await bare.start()]
    for run_id in [*first, *added]:
        assert (await bare.run(run_id))["id"] == run_id
    bare.emulator.remove_runs([first[0], added[-1]])
    for run_id in (first[0], added[-1]):
        assert await bare.call("GET", f"{bare.runs_path}/{run_id}") == NOT_FOUND
    bare.emulator.replace_runs([{"id": "mine", "odd": []}, None])
    assert await bare.run("mine") == {"id": "mine", "odd": []}
    assert await bare.call("GET", f"{bare.runs_path}/{added[0]}") == NOT_FOUND


async def test_quirks_of_one_run(bare: Bare) -> None:
    """Credits as text and short dates are quirks of one run, too; what only a list lacks is there."""
    [run_id] = bare.emulator.add_runs(createdAt="2025-01-01T00:00:00.002Z", credits=4)
    bare.emulator.quirks = Quirks(sparse=True, lists_metadata=False, mixed_dates=True, credits="string")
    run = await bare.run(run_id)
    assert (run["createdAt"], run["credits"]) == ("2025-01-01T00:00:00Z", "4")
    assert {"status", "input", "output", "metadata"} <= set(run)
    assert {"status", "input", "output", "metadata"} & set((await bare.listed())[0]) == set()


async def test_lists_without_metadata(bare: Bare) -> None:
    """A list may leave out the metadata alone."""
    bare.emulator.add_runs()
    bare.emulator.quirks = Quirks(lists_metadata=False)
    [run] = await bare.listed()
    assert set(bare.emulator.runs()[0]) - set(run) == {"metadata"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
async def test_no_such_call_for_one_run(bare: Bare, method: str) -> None:
    """There is no call to change or delete a run."""
    [run_id] = bare.emulator.add_runs()
    assert await bare.call(method, f"{bare.runs_path}/{run_id}") == NOT_FOUND


# Starting a run


async def test_start(bare: Bare) -> None:
    """A start answers the id alone, and makes exactly one run, which echoes what was sent."""
    body = {"startVariables": {"Tone": "ü", "n": [1]}, "metadata": {"k": {"v": 1}}}
    status, answer = await bare.call("POST", bare.runs_path + "/", json=body)
    assert (status, list(answer["data"])) == (200, ["id"])
    [run] = bare.emulator.runs()
    assert run["id"] == run["workflowRunId"] == answer["data"]["id"]
    assert (run["input"], run["metadata"]) == (body["startVariables"], body["metadata"])
    assert run["workflowId"] == bare.emulator.workflow_id


@pytest.mark.parametrize(("sent", "kept"), [({}, {"api": True}), ({"metadata": None}, {"api": True}),
                                            ({"metadata": {}}, {})])  # fmt: skip
async def test_metadata(bare: Bare, sent: Odd, kept: object) -> None:
    """A run started without metadata has the mark of the API, and an empty one stays empty."""
    assert (await bare.run(await bare.start(**sent)))["metadata"] == kept


async def test_created_at(bare: Bare) -> None:
    """A started run is dated by the true time, in the vendor's form."""
    before = datetime.now(UTC)
    run = await bare.run(await bare.start())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", run["createdAt"])
    assert abs((datetime.fromisoformat(run["createdAt"]) - before).total_seconds()) < 5


async def test_started_runs_come_first(bare: Bare) -> None:
    """The list shows started runs newest first, then the others, over the borders of pages."""
    others = bare.emulator.add_runs(3)
    started = [await bare.start() for _ in range(4)]
    expected = [*reversed(started), *others]
    assert [run["id"] for run in bare.emulator.runs()] == expected
    for size in range(1, 8):
        pages = [await bare.listed(size=size, page=page) for page in range(1, 9)]
        assert [run["id"] for page in pages for run in page] == expected


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"startVariables"}),
        ({"startVariables": []}, {"startVariables"}),
        ({"startVariables": None, "metadata": "x"}, {"startVariables", "metadata"}),
        ({"startVariables": {}, "metadata": []}, {"metadata"}),
        ([], {"body"}),
        ("x", {"body"}),
    ],
)
async def test_invalid_start(bare: Bare, body: Odd, fields: set[str]) -> None:
    """A body that won't do is a 422 that names each field with its reasons, and starts nothing."""
    status, answer = await bare.call("POST", bare.runs_path, json=body)
    assert (status, answer["status"], answer["errorCode"]) == (422, "error", "REQUEST_INVALID")
    assert set(answer["details"]) == fields
    assert all(isinstance(reason, str) for reasons in answer["details"].values() for reason in reasons)
    assert bare.emulator.runs() == []


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"null"])
async def test_start_without_json(bare: Bare, data: bytes) -> None:
    """A body that is missing, null or no JSON is a 422."""
    assert (await bare.call("POST", bare.runs_path, data=data))[0] == 422


async def test_start_of_unknown_workflow(bare: Bare) -> None:
    """A workflow that isn't there can't be started, and is not there afterwards."""
    for _ in range(2):
        assert await bare.call("POST", "/workflow/none/run", json={"startVariables": {}}) == NOT_FOUND


async def test_started_runs_are_found_at_once(bare: Bare) -> None:
    """Asking for a started run looks at none of the 100,000 others, whose ids have to be worked out."""
    bare.emulator.add_runs(100_000)
    await bare.run(await bare.start())
    workflow = bare.emulator._state.workflow(bare.emulator.workflow_id)
    assert workflow._entries_by_id is None


async def test_starts_side_by_side(bare: Bare) -> None:
    """Concurrent starts make one run each, in the order of the log."""
    sent = range(50)
    ids = await asyncio.gather(*(bare.start(metadata={"n": n}) for n in sent))
    logged: list[Any] = [request.body for request in bare.emulator.requests]
    kept = [run["metadata"] for run in reversed(bare.emulator.runs())]
    assert kept == [body["metadata"] for body in logged]
    assert len(set(ids)) == 50


# Faults


async def test_reset_after_a_start(bare: Bare) -> None:
    """A connection reset after the work leaves a run that was started, one reset before it none."""
    bare.emulator.inject(Fault(reset="before"), method="POST")
    with pytest.raises(aiohttp.ClientOSError):
        await bare.start()
    assert bare.emulator.runs() == []
    bare.emulator.inject(Fault(reset="after"), method="POST")
    with pytest.raises(aiohttp.ClientOSError):
        await bare.start()
    assert len(bare.emulator.runs()) == 1


@pytest.mark.parametrize(("fault", "runs"), [(Fault(status=503), 0), (Fault(headers={"x": "1"}), 1)])
async def test_faulty_starts(bare: Bare, fault: Fault, runs: int) -> None:
    """A status fault starts no run, and one of the answer alone does."""
    bare.emulator.inject(fault)
    await bare.call("POST", bare.runs_path, json={"startVariables": {}})
    assert len(bare.emulator.runs()) == runs


async def test_truncated_start(bare: Bare) -> None:
    """A truncated answer belongs to a run that was started."""
    bare.emulator.inject(Fault(truncate=5))
    with pytest.raises(aiohttp.ClientPayloadError):
        await bare.start()
    assert len(bare.emulator.runs()) == 1


# Runs on their way


async def test_passing_through_the_states(bare: Bare) -> None:
    """Without a plan, a run passes through four statuses in equal parts of its time and completes."""
    bare.emulator.run_time = 300
    run_id = await bare.start()
    seen: list[str] = []
    for _ in range(4):
        seen.append((await bare.run(run_id))["status"])
        travel(bare.emulator, 101)
    assert seen == ["NEW", "WAITING", "PROCESSING", "COMPLETE"]
    run = await bare.run(run_id)
    assert (run["error"], run["credits"], len(run["output"])) == (None, 3, 5)
    assert [run] == await bare.listed()


async def test_real_time_passes(bare: Bare) -> None:
    """A run ends by the clock alone."""
    bare.emulator.run_time = 0.01
    run_id = await bare.start()
    async with asyncio.timeout(5):
        while (await bare.run(run_id))["status"] != "COMPLETE":
            await asyncio.sleep(0.001)


async def test_plan(bare: Bare) -> None:
    """Plans are met in their order, each as often as asked for, and then runs complete again."""
    bare.emulator.run_time = 0
    failing = Script(states=("NEW", "FAILED"), error={"message": "No."}, credits=1)
    bare.emulator.script_next_runs(failing, times=2)
    bare.emulator.script_next_runs(Script(states=["ODD"], output={"a": 1}))
    runs = [await bare.run(await bare.start()) for _ in range(4)]
    assert [run["status"] for run in runs] == ["FAILED", "FAILED", "ODD", "COMPLETE"]
    assert [run["error"] for run in runs] == [{"message": "No."}] * 2 + [None] * 2
    assert [run["credits"] for run in runs] == [1, 1, 3, 3]
    assert runs[2]["output"] == {"a": 1}


async def test_plan_for_all(bare: Bare) -> None:
    """A plan without a number of times is there to stay."""
    bare.emulator.script_next_runs(Script(states=("STUCK",)), times=None)
    assert [(await bare.run(await bare.start()))["status"] for _ in range(3)] == ["STUCK"] * 3


async def test_refused_starts_use_no_plan(bare: Bare) -> None:
    """A start that is refused leaves the plan to the next one."""
    bare.emulator.script_next_runs(Script(states=("ODD",)))
    await bare.call("POST", bare.runs_path, json={})
    assert (await bare.run(await bare.start()))["status"] == "ODD"


def test_wrong_plans() -> None:
    """No states, a text for several, negative credits, fewer than one run and a negative time are mistakes."""
    with pytest.raises(ValueError, match="at least one state"):
        Script(states=())
    with pytest.raises(TypeError, match=r"write \('FAILED',\)"):
        Script(states="FAILED")
    with pytest.raises(ValueError, match="negative"):
        Script(credits=-1)
    with pytest.raises(ValueError, match="at least 1"):
        Emulator().script_next_runs(Script(), times=0)
    with pytest.raises(ValueError, match="negative"):
        Emulator(run_time=-1)


async def test_outputs_repeat(bare: Bare) -> None:
    """The same seed invents the same outputs for the first started run, and others for the second."""
    async with Emulator(run_time=0) as other, asking(other) as there:
        bare.emulator.run_time = 0
        outputs = [(await each.run(await each.start()))["output"] for each in (bare, there, there)]
    assert outputs[0] == outputs[1] != outputs[2]


def _started(script: Script, run_time: float) -> StartedRun:
    return StartedRun(id="r", workflow_id="w", inputs={}, metadata=None, started=1e9, run_time=run_time, script=script)


STATUSES = st.sampled_from(["NEW", "WAITING", "PROCESSING", "RETRYING", "COMPLETE", "FAILED"])


@given(
    states=st.lists(STATUSES, min_size=1, max_size=8),
    steps=st.integers(0, 12),
    cost=st.integers(0, 50),
    run_time=st.floats(0, 1e5),
    times=st.lists(st.floats(-1, 2), min_size=2).map(sorted),
)
def test_a_run_only_goes_forward(states: list[str], steps: int, cost: int, run_time: float, times: list[float]) -> None:
    """Whatever the script: states come in order, steps and credits only grow, and at the end all is there."""
    script = Script(states=states, output={str(step): step for step in range(steps)}, error="E", credits=cost)
    run = _started(script, run_time)
    seen: list[Any] = [run.to_json(run.started + run_time * part) for part in times]
    for earlier, later in pairwise(seen):
        assert list(later["output"])[: len(earlier["output"])] == list(earlier["output"])
        assert earlier["credits"] <= later["credits"] <= cost
    statuses = iter(states)
    assert all(status in statuses for status, _ in groupby(run["status"] for run in seen))
    last: Any = run.to_json(run.ends)
    assert (last["status"], len(last["output"]), last["credits"]) == (states[-1], steps, cost)
    assert last["error"] == "E"


# In sixteenths, which no sum of them and a date rounds.
@given(steps=st.integers(1, 20), part=st.integers(0, 15).map(lambda sixteenths: sixteenths / 16))
def test_steps_fill_while_processing(steps: int, part: float) -> None:
    """Before it is at work a run has put out nothing, then step by step, and nothing more while retrying."""
    states = ("NEW", "PROCESSING", "RETRYING", "PROCESSING", "FAILED")
    run = _started(Script(states=states, output={str(step): step for step in range(steps)}), 4)
    filled = [_filled(run, at) for at in (part, 1 + part, 2 + part, 3 + part, 4)]
    assert filled[0] == 0
    assert filled[1] == int(steps * part / 2)
    assert filled[2] == int(steps / 2)
    assert filled[3] == int(steps * (1 + part) / 2)
    assert filled[4] == steps


def _filled(run: StartedRun, seconds: float) -> int:
    output = run.to_json(run.started + seconds)["output"]
    assert isinstance(output, dict)
    return len(output)


async def test_late_runs(bare: Bare) -> None:
    """For a while after its start, neither the list nor the call for one run may know a run."""
    bare.emulator.add_runs()
    bare.emulator.quirks = Quirks(late_runs=60)
    early = await bare.start()
    travel(bare.emulator, 40)
    late = await bare.start()
    assert await bare.call("GET", f"{bare.runs_path}/{early}") == NOT_FOUND
    travel(bare.emulator, 40)
    assert (await bare.run(early))["status"] == "COMPLETE"
    assert await bare.call("GET", f"{bare.runs_path}/{late}") == NOT_FOUND
    _, answer = await bare.call("GET", bare.runs_path)
    assert answer["data"]["total"] == 2
    assert [run["id"] for run in answer["data"]["data"]][:-1] == [early]
    assert len(bare.emulator.runs()) == 3


# Credits


async def test_credit_limit(bare: Bare) -> None:
    """A start that the rest can't pay for is a 400 that says so, and starts nothing."""
    bare.emulator.credits = 7
    await bare.start()
    await bare.start()
    assert bare.emulator.credits == 1
    answer = await bare.call("POST", bare.runs_path, json={"startVariables": {}})
    assert answer == (400, {"status": "error", "errorCode": "WORKFLOW_CREDIT_LIMIT_REACHED"})
    bare.emulator.script_next_runs(Script(credits=1))
    await bare.start()
    assert (bare.emulator.credits, len(bare.emulator.runs())) == (0, 3)


async def test_no_credit_limit() -> None:
    """Credits can be given from the start, and the limit taken away."""
    async with Emulator(credits=0) as emulator, asking(emulator) as bare:
        assert (await bare.call("POST", bare.runs_path, json={"startVariables": {}}))[0] == 400
        emulator.credits = None
        await bare.start()
        assert emulator.credits is None
