"""Tests of scripts, and of the states of started runs."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai.emulator import Emulator, Fault, Script
from aiocopyai.emulator._run_scripts import StartedRun


STATUSES = st.sampled_from(["NEW", "WAITING", "PROCESSING", "RETRYING", "COMPLETE", "FAILED"])


def started_run(script: Script, run_time: float) -> StartedRun:
    """Return a run that follows a script."""
    return StartedRun(id="r", workflow_id="w", inputs={}, metadata=None, started=1e9, run_time=run_time, script=script)


@given(
    states=st.lists(STATUSES, min_size=1, max_size=8),
    steps=st.integers(0, 12),
    cost=st.integers(0, 50),
    run_time=st.floats(0, 1e5),
    times=st.lists(st.floats(-1, 2), min_size=2).map(sorted),
)
def test_runs_advance_through_their_states(
    states: list[str], steps: int, cost: int, run_time: float, times: list[float]
) -> None:
    """For any script, the states are in order, steps and credits never decrease, and the last state is complete."""
    script = Script(states=states, output={str(step): step for step in range(steps)}, error="E", credits=cost)
    run = started_run(script, run_time)
    snapshots: list[Any] = [run.to_json(run.started + run_time * part) for part in times]
    for earlier, later in pairwise(snapshots):
        assert list(later["output"])[: len(earlier["output"])] == list(earlier["output"])
        assert earlier["credits"] <= later["credits"] <= cost
    statuses = iter(states)
    assert all(status in statuses for status, _ in groupby(run["status"] for run in snapshots))
    last: Any = run.to_json(run.ends)
    assert (last["status"], len(last["output"]), last["credits"]) == (states[-1], steps, cost)
    assert last["error"] == "E"


# Sixteenths are exact in any sum with a date.
@given(steps=st.integers(1, 20), part=st.integers(0, 15).map(lambda sixteenths: sixteenths / 16))
def test_steps_are_filled_in_while_processing(steps: int, part: float) -> None:
    """A run has no output before it is processed, then one more step at a time, and no new step while it is retried."""
    states = ("NEW", "PROCESSING", "RETRYING", "PROCESSING", "FAILED")
    run = started_run(Script(states=states, output={str(step): step for step in range(steps)}), 4)
    outputs: list[Any] = [
        run.to_json(run.started + seconds)["output"] for seconds in (part, 1 + part, 2 + part, 3 + part, 4)
    ]
    expected = [0, int(steps * part / 2), int(steps / 2), int(steps * (1 + part) / 2), steps]
    assert [len(output) for output in outputs] == expected


def test_invalid_scripts() -> None:
    """A script without states, with one string as its states, or with negative credits is rejected."""
    with pytest.raises(ValueError, match="at least one status"):
        Script(states=())
    with pytest.raises(TypeError, match=r"write \('FAILED',\)"):
        Script(states="FAILED")
    with pytest.raises(ValueError, match="credits must be at least 0, got -1"):
        Script(credits=-1)


def nested(depth: int) -> list[Any]:
    """Return nested lists."""
    outer: list[Any] = []
    for _ in range(depth):
        outer = [outer]
    return outer


async def test_values_that_are_not_json() -> None:
    """A value that is not JSON is rejected when it is passed, and the error names the argument."""
    with pytest.raises(ValueError, match="output must be JSON: Object of type datetime is not JSON serializable"):
        Script(output={"when": datetime.now(UTC)})
    with pytest.raises(ValueError, match="error must be JSON"):
        Script(error={1, 2})
    with pytest.raises(ValueError, match="body must be JSON"):
        Fault(body={"a": b""})
    with pytest.raises(ValueError, match="body must be JSON: maximum recursion depth"):
        Fault(body=nested(100_000))
    with pytest.raises(ValueError, match="fields must be JSON"):
        Emulator().add_runs(1, createdAt=datetime.now(UTC))
    with pytest.raises(ValueError, match="items must be JSON"):
        Emulator([{"id": "WRUN-1", "tags": {"a"}}])
    async with Emulator() as emulator:
        with pytest.raises(ValueError, match="fields must be JSON"):
            await emulator.deliver("workflowRun.started", at=datetime.now(UTC))


def test_invalid_numbers() -> None:
    """`times=0` for a script, and a negative run time, are rejected."""
    with pytest.raises(ValueError, match="times must be at least 1, got 0"):
        Emulator().script_next_runs(Script(), times=0)
    with pytest.raises(ValueError, match="run_time must be a number of seconds, 0 or more, got -1"):
        Emulator(run_time=-1)
