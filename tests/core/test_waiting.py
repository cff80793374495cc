"""Waiting for runs over the emulator's socket: through every state, fault and deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiocopyai import (
    AuthenticationError,
    CopyAISession,
    NotFoundError,
    Run,
    RunFailedError,
    RunStatus,
    RunTimeoutError,
)
from aiocopyai._waiting import wait
from aiocopyai.emulator import Emulator, Fault, Quirks, Script


SOON = 0.01
"""Seconds between two looks."""


async def test_run_workflow(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run is started once, followed through its states, and returned as it ended."""
    copyai_emulator.script_next_runs(
        Script(states=("NEW", "WAITING", "PROCESSING", "RETRYING", "PROCESSING", "COMPLETE"), output={"a": "b"})
    )
    run = await session.run_workflow(copyai_emulator.workflow_id, {"Input 1": "x"}, max_poll_interval=SOON)

    assert (run.status, run.output, run.credits) == (RunStatus.COMPLETE, {"a": "b"}, 3)
    assert run.input == {"Input 1": "x"}
    assert len(copyai_emulator.runs()) == 1


async def test_a_failed_run(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run that fails is a RunFailedError with the run, its error, and a note of its id."""
    copyai_emulator.script_next_runs(Script(states=("NEW", "FAILED"), error={"why": "no such site"}))
    with pytest.raises(RunFailedError, match="no such site") as caught:
        await session.run_workflow(copyai_emulator.workflow_id, {}, max_poll_interval=SOON)

    assert caught.value.run.status == "FAILED"
    assert caught.value.error == {"why": "no such site"}
    assert caught.value.run.id in caught.value.__notes__[0]


async def test_the_deadline(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run that is not over in time is a RunTimeoutError, with which the waiting goes on."""
    copyai_emulator.run_time = 0.4
    run = await session.start_run(copyai_emulator.workflow_id, {})
    with pytest.raises(RunTimeoutError, match=r"call wait_run\(\) to keep waiting") as caught:
        await session.wait_run(copyai_emulator.workflow_id, run.id, timeout=0.05, max_poll_interval=SOON)

    late = caught.value
    assert (late.run_id, late.workflow_id, late.seconds) == (run.id, copyai_emulator.workflow_id, 0.05)
    assert late.status in {"NEW", "WAITING"}
    assert (await session.wait_run(late.workflow_id, late.run_id, max_poll_interval=SOON)).status == "COMPLETE"


async def test_the_deadline_cuts_a_request_short(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An answer that hangs doesn't hold up the deadline."""
    (run_id,) = copyai_emulator.add_runs(1, status="PROCESSING")
    copyai_emulator.inject(Fault(delay=60))
    with pytest.raises(RunTimeoutError) as caught:
        await session.wait_run(copyai_emulator.workflow_id, run_id, timeout=0.05, max_poll_interval=SOON)

    assert caught.value.status is None


async def test_transient_errors_are_survived(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An outage longer than the retries of one request ends no wait."""
    run = await session.start_run(copyai_emulator.workflow_id, {})
    copyai_emulator.inject(Fault(status=503), times=12)

    assert (await session.wait_run(copyai_emulator.workflow_id, run.id, max_poll_interval=SOON)).status == "COMPLETE"


async def test_a_run_that_is_not_known_yet(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A 404 in the first seconds after a start is waited out."""
    copyai_emulator.quirks = Quirks(late_runs=0.04)

    assert (await session.run_workflow(copyai_emulator.workflow_id, {}, max_poll_interval=SOON)).status == "COMPLETE"
    assert len(copyai_emulator.requests) > 3


async def test_a_run_that_never_gets_known(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A 404 after the first seconds is an error."""
    with pytest.raises(NotFoundError):
        await wait(
            session.get_run, copyai_emulator.workflow_id, "WRUN-0", timeout=9, max_poll_interval=SOON, grace=0.03
        )


async def test_what_will_not_pass(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A key that is refused ends the wait at once."""
    copyai_emulator.inject(Fault(status=401))
    with pytest.raises(AuthenticationError):
        await session.wait_run(copyai_emulator.workflow_id, "WRUN-0", max_poll_interval=SOON)

    assert len(copyai_emulator.requests) == 1


async def test_an_unknown_status_is_not_the_end(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A status that the reference doesn't know is waited through, and told at the deadline."""
    (run_id,) = copyai_emulator.add_runs(1, status="PAUSED")
    with pytest.raises(RunTimeoutError, match="is still PAUSED"):
        await session.wait_run(copyai_emulator.workflow_id, run_id, timeout=0.05, max_poll_interval=SOON)


async def test_looks_grow_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits begin at about a second, grow by half each time, and stay at the cap, with jitter."""
    waits: list[float] = []
    statuses = iter([RunStatus.PROCESSING] * 9 + [RunStatus.COMPLETE])

    async def get(_workflow_id: str, run_id: str) -> Run:
        return Run(run_id, status=next(statuses))

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await wait(get, "WCFG-1", "WRUN-1", timeout=None, max_poll_interval=5.0)

    for seconds, middle in zip(waits, [1.0, 1.5, 2.25, 3.375, 5.0, 5.0, 5.0, 5.0, 5.0], strict=True):
        assert 0.75 * middle <= seconds <= 1.25 * middle
    assert len(set(waits[4:])) == 5


async def test_cancelling_a_wait(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A wait that is cancelled leaves no task behind."""
    copyai_emulator.run_time = 60
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(session.run_workflow(copyai_emulator.workflow_id, {}, max_poll_interval=SOON))
    while len(copyai_emulator.requests) < 3:
        await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert {
        task for task in asyncio.all_tasks() - before if "aiocopyai" in repr(task) and "emulator" not in repr(task)
    } == set()


@pytest.mark.parametrize(
    "arguments", [{"timeout": 0}, {"timeout": float("nan")}, {"max_poll_interval": -1}, {"max_poll_interval": True}]
)
async def test_bad_arguments(session: CopyAISession, copyai_emulator: Emulator, arguments: Any) -> None:  # noqa: ANN401 (bad on purpose)
    """A time that is none is a ValueError before the run is started."""
    with pytest.raises(ValueError, match="positive number of seconds"):
        await session.run_workflow(copyai_emulator.workflow_id, {}, **arguments)

    assert copyai_emulator.requests == []
