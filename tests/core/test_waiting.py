"""Tests of waiting for a run: its states, faults and the time-out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from aiocopyai import (
    AuthenticationError,
    CopyAISession,
    InvalidResponseError,
    NotFoundError,
    Run,
    RunFailedError,
    RunStatus,
    RunTimeoutError,
)
from aiocopyai._waiting import NOT_FOUND_GRACE, WaitOptions, wait_for_run
from aiocopyai.emulator import Emulator, Fault, Quirks, Request, Script
from tests.support.clock import Clock, skip_time


SOON = 0.01
"""Seconds between two polls."""


async def test_run_workflow(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run is started once, polled through its states, and returned when it is finished."""
    copyai_emulator.script_next_runs(
        Script(states=("NEW", "WAITING", "PROCESSING", "RETRYING", "PROCESSING", "COMPLETE"), output={"a": "b"})
    )
    run = await session.run_workflow(copyai_emulator.workflow_id, {"Input 1": "x"}, max_poll_interval=SOON)

    assert (run.status, run.output, run.credits) == (RunStatus.COMPLETE, {"a": "b"}, 3)
    assert run.input == {"Input 1": "x"}
    assert len(copyai_emulator.runs()) == 1


async def test_failed_run(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run that fails raises a RunFailedError with the run, its error, and a note of its id."""
    copyai_emulator.script_next_runs(Script(states=("NEW", "FAILED"), error={"why": "no such site"}))
    with pytest.raises(RunFailedError, match="no such site") as caught:
        await session.run_workflow(copyai_emulator.workflow_id, {}, max_poll_interval=SOON)

    assert caught.value.run.status == "FAILED"
    assert caught.value.error == {"why": "no such site"}
    assert caught.value.run.id in caught.value.__notes__[0]


async def test_timeout(monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run that is not finished in time raises a RunTimeoutError, and its ids can be used to keep waiting."""
    (run_id,) = copyai_emulator.add_runs(1, status="WAITING")

    def expire(emulator: Emulator, _request: Request) -> None:
        if len(emulator.requests) == 2:
            skip_time(monkeypatch, 20)

    copyai_emulator.on_request = expire
    with pytest.raises(RunTimeoutError, match=r"call wait_run\(\) to keep waiting") as caught:
        await session.wait_run(copyai_emulator.workflow_id, run_id, timeout=20, max_poll_interval=SOON)

    error = caught.value
    assert (error.run_id, error.workflow_id, error.seconds) == (run_id, copyai_emulator.workflow_id, 20)
    assert error.status == "WAITING"
    copyai_emulator.replace_runs([{**copyai_emulator.runs()[0], "status": "COMPLETE"}])
    assert (await session.wait_run(error.workflow_id, error.run_id, max_poll_interval=SOON)).status == "COMPLETE"


async def test_timeout_during_a_request(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A response that hangs does not delay the time-out."""
    (run_id,) = copyai_emulator.add_runs(1, status="PROCESSING")
    copyai_emulator.inject(Fault(delay=60))
    with pytest.raises(RunTimeoutError) as caught:
        await session.wait_run(copyai_emulator.workflow_id, run_id, timeout=0.05, max_poll_interval=SOON)

    assert caught.value.status is None


async def test_timeout_of_the_caller(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A time-out around the call raises a plain TimeoutError."""
    (run_id,) = copyai_emulator.add_runs(1, status="PROCESSING")
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.03):
            await session.wait_run(copyai_emulator.workflow_id, run_id, max_poll_interval=SOON)

    assert not isinstance(caught.value, RunTimeoutError)


async def test_temporary_errors(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An outage that lasts longer than the retries of one request does not end the wait."""
    run = await session.start_run(copyai_emulator.workflow_id, {})
    copyai_emulator.inject(Fault(status=503), times=12)

    assert (await session.wait_run(copyai_emulator.workflow_id, run.id, max_poll_interval=SOON)).status == "COMPLETE"


@pytest.mark.parametrize(
    "fault",
    [Fault(body=[]), Fault(body={"status": "error"}), Fault(status=403, body=b"<html>Blocked</html>")],
    ids=repr,
)
async def test_repeated_invalid_responses(session: CopyAISession, copyai_emulator: Emulator, fault: Fault) -> None:
    """A wait ends after three invalid responses in a row, unless the third is a gateway's page."""
    run = await session.start_run(copyai_emulator.workflow_id, {})
    copyai_emulator.inject(fault, times=2)
    assert (await session.wait_run(copyai_emulator.workflow_id, run.id, max_poll_interval=SOON)).status == "COMPLETE"
    copyai_emulator.inject(fault, times=None)
    expected, timeout = (RunTimeoutError, 0.05) if fault.status else (InvalidResponseError, 20)
    with pytest.raises(expected):
        await session.wait_run(copyai_emulator.workflow_id, run.id, max_poll_interval=0.001, timeout=timeout)


async def test_404_after_a_start(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A 404 right after the start is tolerated, by default for 60 s."""
    copyai_emulator.quirks = Quirks(late_runs=60)

    def show(emulator: Emulator, _request: Request) -> None:
        if len(emulator.requests) == 5:
            emulator.quirks = Quirks()

    copyai_emulator.on_request = show

    assert (await session.run_workflow(copyai_emulator.workflow_id, {}, max_poll_interval=SOON)).status == "COMPLETE"
    assert len(copyai_emulator.requests) >= 5
    assert NOT_FOUND_GRACE == 60


async def test_unknown_run(monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A 404 after the first minute is raised."""
    clock = Clock(monkeypatch, "aiocopyai._waiting")
    start = clock.now
    with pytest.raises(NotFoundError):
        await session.wait_run(copyai_emulator.workflow_id, "WRUN-0", max_poll_interval=20)

    assert 60 <= clock.now - start < 80


async def test_404_in_a_wait(
    monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator
) -> None:
    """A 404 from an outdated replica is tolerated at any time."""
    (run_id,) = copyai_emulator.add_runs(1, status="PROCESSING")
    clock = Clock(monkeypatch, "aiocopyai._waiting")

    def lag(emulator: Emulator, _request: Request) -> None:
        if len(emulator.requests) == 3:
            clock.now += NOT_FOUND_GRACE
        elif len(emulator.requests) == 4:
            emulator.inject(Fault(status=404), times=2)
        elif len(emulator.requests) == 6:
            emulator.replace_runs([{**emulator.runs()[0], "status": "COMPLETE"}])

    copyai_emulator.on_request = lag

    assert (await session.wait_run(copyai_emulator.workflow_id, run_id)).status == "COMPLETE"
    assert len(copyai_emulator.requests) == 6


async def test_permanent_error(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A rejected key ends the wait at once."""
    copyai_emulator.inject(Fault(status=401))
    with pytest.raises(AuthenticationError):
        await session.wait_run(copyai_emulator.workflow_id, "WRUN-0", max_poll_interval=SOON)

    assert len(copyai_emulator.requests) == 1


async def test_undocumented_status(
    monkeypatch: pytest.MonkeyPatch,
    session: CopyAISession,
    copyai_emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A status that the reference does not list is not final, is logged once, and is named in the RunTimeoutError."""
    (run_id,) = copyai_emulator.add_runs(1, status="CANCELLED")

    def expire(emulator: Emulator, _request: Request) -> None:
        if len(emulator.requests) == 4:
            skip_time(monkeypatch, 20)

    copyai_emulator.on_request = expire
    with pytest.raises(RunTimeoutError, match=r"is still CANCELLED .*final_statuses"):
        await session.wait_run(copyai_emulator.workflow_id, run_id, timeout=20, max_poll_interval=SOON)

    assert caplog.text.count("the undocumented status CANCELLED") == 1


@pytest.mark.parametrize("final_statuses", [{"cancelled"}, ("TIMED_OUT", "CANCELLED"), [RunStatus("CANCELLED")]])
async def test_final_statuses(session: CopyAISession, copyai_emulator: Emulator, final_statuses: Any) -> None:  # noqa: ANN401 (any collection)
    """Every method that waits returns a run with one of the caller's final statuses."""
    workflow_id = copyai_emulator.workflow_id
    copyai_emulator.script_next_runs(Script(states=("NEW", "CANCELLED")), times=None)
    options: Any = {"max_poll_interval": SOON, "final_statuses": final_statuses}
    started = await session.start_run(workflow_id, {})

    assert (await session.wait_run(workflow_id, started.id, **options)).status == "CANCELLED"
    assert (await session.run_workflow(workflow_id, {}, **options)).status == "CANCELLED"
    results = [result async for result in session.run_many(workflow_id, [{}], **options)]
    assert [result.run and result.run.status for result in results] == ["CANCELLED"]


async def test_poll_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first interval is less than 1 s. Each is 1.5 times as long as the one before it, up to the maximum."""
    clock = Clock(monkeypatch, "aiocopyai._waiting")
    runs = iter([Run("WRUN-1", status=RunStatus.PROCESSING)] * 9)

    async def get(_workflow_id: str, run_id: str) -> Run:
        return next(runs, Run(run_id, status=RunStatus.COMPLETE, output={"a": "b"}))

    await wait_for_run(get, "WCFG-1", "WRUN-1", WaitOptions(None, 5.0))

    for seconds, longest in zip(clock.sleeps[1:], [1.0, 1.5, 2.25, 3.375, 5.0, 5.0, 5.0, 5.0, 5.0], strict=True):
        assert 0.74 * longest <= seconds <= longest + 1e-6
    assert len(set(clock.sleeps[5:])) == 5


async def test_late_output(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run that is COMPLETE without output is polled again, and returned with the output if it has one then."""
    (run_id,) = copyai_emulator.add_runs(1, status="COMPLETE", output={})

    def add_output(emulator: Emulator, _request: Request) -> None:
        if len(emulator.requests) == 2:
            emulator.replace_runs([{**emulator.runs()[0], "output": {"text": "late"}}])

    copyai_emulator.on_request = add_output
    run = await session.wait_run(copyai_emulator.workflow_id, run_id, max_poll_interval=SOON)

    assert run.output == {"text": "late"}
    assert len(copyai_emulator.requests) == 2


@pytest.mark.parametrize("fault", [None, Fault(status=404), Fault(status=503), Fault(status=403), Fault(delay=60)])
async def test_no_output_at_all(
    monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator, fault: Fault | None
) -> None:
    """A run that is COMPLETE without output is returned after the second poll, even if that fails or times out."""
    (run_id,) = copyai_emulator.add_runs(1, status="COMPLETE", output={})

    def fail_second(emulator: Emulator, _request: Request) -> None:
        if fault is not None and len(emulator.requests) == 2:
            emulator.inject(fault, times=None)
            if fault.delay:
                skip_time(monkeypatch, 20)

    copyai_emulator.on_request = fail_second
    run = await session.wait_run(copyai_emulator.workflow_id, run_id, timeout=20, max_poll_interval=SOON)

    assert (run.id, run.status, run.output) == (run_id, "COMPLETE", {})


async def test_complete_stays_complete() -> None:
    """A COMPLETE run is returned even if the next poll reads an earlier status from an outdated replica."""
    complete = Run("WRUN-1", status=RunStatus.COMPLETE)
    responses = iter([complete, evolve(complete, status=RunStatus.PROCESSING)])

    async def get(_workflow_id: str, _run_id: str) -> Run:
        return next(responses)

    assert await wait_for_run(get, "WCFG-1", "WRUN-1", WaitOptions(None, SOON)) == complete


async def test_cancelling_a_wait(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """No task is left after a wait is cancelled."""
    copyai_emulator.run_time = 60
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(session.run_workflow(copyai_emulator.workflow_id, {}, max_poll_interval=SOON))
    async with asyncio.timeout(30):
        while len(copyai_emulator.requests) < 3:
            await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    remaining = asyncio.all_tasks() - before
    assert [task for task in remaining if "aiocopyai" in repr(task) and "emulator" not in repr(task)] == []


async def test_swapped_ids(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Swapped ids of a workflow and a run raise a ValueError that says so."""
    with pytest.raises(ValueError, match=r"workflow_id must be .*got a run's id"):
        await session.wait_run("WRUN-1", copyai_emulator.workflow_id)
    with pytest.raises(ValueError, match=r"workflow_id must be .*got a run's id"):
        await session.start_run("WRUN-1", {})
    with pytest.raises(ValueError, match=r"run_id must be .*got a workflow's id"):
        await session.wait_run(copyai_emulator.workflow_id, "WCFG-1")
    with pytest.raises(ValueError, match=r"run_id must be .*got a workflow's id"):
        await session.get_run(copyai_emulator.workflow_id, "PKGW-1")

    assert copyai_emulator.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"max_poll_interval": -1},
        {"max_poll_interval": True},
        {"final_statuses": "CANCELLED"},
        {"final_statuses": [1]},
        {"final_statuses": None},
        {"final_statuses": iter(["CANCELLED"])},
    ],
)
async def test_invalid_arguments(session: CopyAISession, copyai_emulator: Emulator, arguments: Any) -> None:  # noqa: ANN401 (invalid on purpose)
    """An invalid argument raises a ValueError that names it, before the run is started."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        await session.run_workflow(copyai_emulator.workflow_id, {}, **arguments)

    assert copyai_emulator.requests == []
