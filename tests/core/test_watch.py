"""Tests of watching a run and a workflow: each new run and each change is reported once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from aiocopyai import AuthenticationError, CopyAISession, NotFoundError, Run, RunEvent, RunStatus, RunWatch
from aiocopyai._tasks import TaskSet
from aiocopyai._waiting import RunPoller, WaitOptions
from aiocopyai._watch import Watch, _KnownRuns
from aiocopyai.emulator import Emulator, Fault, Quirks, Request, Script


SOON = 0.005
LIMIT = 30.0
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def watch(session: CopyAISession, emulator: Emulator, **arguments: Any) -> Watch:  # noqa: ANN401 (any argument of watch)
    return session.watch(emulator.workflow_id, **{"interval": SOON, **arguments})


def watch_run(session: CopyAISession, emulator: Emulator, **arguments: Any) -> RunWatch:  # noqa: ANN401 (any argument)
    return session.watch_run(emulator.workflow_id, **{"run_id": "WRUN-1", "max_poll_interval": SOON, **arguments})


async def take(events: Watch, count: int) -> list[tuple[str, str | None]]:
    async with asyncio.timeout(LIMIT):
        return [(event.run.id, event.run.status) for event in [await anext(events) for _ in range(count)]]


async def nothing(events: Watch, emulator: Emulator, rounds: int = 2) -> None:
    """Check that nothing is reported in this many whole rounds.

    A round begins with a request of the list's first page; the first round sends two of them. Of the rounds that begin
    from now on, all but the last one are whole.
    """
    start = len(emulator.requests)
    next_event = asyncio.ensure_future(anext(events))
    async with asyncio.timeout(LIMIT):
        while sum(request.page == 1 for request in emulator.requests[start:]) < rounds + 2:
            if next_event.done():
                pytest.fail(f"reported {next_event.result()}")
            await asyncio.sleep(0.001)
    next_event.cancel()
    await asyncio.wait({next_event})
    assert next_event.cancelled(), f"reported {next_event}"


async def requested(emulator: Emulator, count: int) -> None:
    """Wait until the emulator has received this many requests."""
    async with asyncio.timeout(LIMIT):
        while len(emulator.requests) < count:
            await asyncio.sleep(0.001)


def a_run(name: str, status: str | None = "COMPLETE", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (any JSON)
    """Return a run as a list shows it, created now unless `createdAt` is given."""
    return {"id": f"WRUN-{name}", "status": status, "createdAt": datetime.now(UTC).isoformat(), **fields}


async def test_new_runs_and_changes(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Runs that exist at the beginning are not reported; a later run is reported once in each of its states."""
    copyai_emulator.add_runs(120, status="COMPLETE")
    older = copyai_emulator.runs()
    events = watch(session, copyai_emulator)
    first = asyncio.ensure_future(anext(events))
    await requested(copyai_emulator, 3)
    copyai_emulator.replace_runs([a_run("new", "NEW"), *older])

    event = await first
    assert (event.kind, event.run.id, event.run.status, event.previous_status) == ("new", "WRUN-new", "NEW", None)
    for previous, status in pairwise(("NEW", "PROCESSING", "COMPLETE")):
        copyai_emulator.replace_runs([a_run("new", status), *older])
        event = await anext(events)
        assert (event.kind, event.run.status, event.previous_status) == ("changed", status, previous)
    await nothing(events, copyai_emulator)


async def test_statuses(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Only events whose run has one of the statuses are yielded, with the status before them."""
    events = watch(session, copyai_emulator, since=LONG_AGO, statuses={"COMPLETE", "failed"})
    (run_id,) = copyai_emulator.add_runs(1, status="PROCESSING")
    await nothing(events, copyai_emulator)
    copyai_emulator.replace_runs([{**copyai_emulator.runs()[0], "status": "FAILED"}])

    event = await anext(events)
    assert (event.kind, event.run.id, event.run.status) == ("changed", run_id, "FAILED")
    assert event.previous_status == "PROCESSING"


async def test_slow_responses(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A consumer whose time-out for a step is shorter than a request receives the run."""
    (run_id,) = copyai_emulator.add_runs(1, status="COMPLETE")
    copyai_emulator.inject(Fault(delay=0.05), times=None)
    watches = (
        watch(session, copyai_emulator, since=LONG_AGO),
        session.watch_run(copyai_emulator.workflow_id, run_id),
    )
    for iterator in watches:
        got: list[RunEvent | Run] = []
        async with asyncio.timeout(LIMIT):
            while not got:
                with suppress(TimeoutError):
                    got.append(await asyncio.wait_for(anext(iterator), 0.01))
        assert [item.run.id if isinstance(item, RunEvent) else item.id for item in got] == [run_id]


async def test_watch_run(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run is yielded at each change of its status, output, error or credits, and last when it is finished."""
    states = [
        {"status": "NEW"},
        {"status": "PROCESSING"},
        {"status": "PROCESSING", "output": {"Draft": "a"}},
        {"status": "NEW"},  # an outdated replica
        {"status": "PROCESSING", "output": {"Draft": "a"}, "error": "a step failed"},
        {"status": "COMPLETE"},  # the output is late
        {"status": "COMPLETE", "output": {"Draft": "a", "Email": "b"}, "credits": 2},
    ]

    def next_state(emulator: Emulator, _request: Request) -> None:
        emulator.replace_runs([{"id": "WRUN-1", **states[len(emulator.requests) - 1]}])

    copyai_emulator.on_request = next_state
    async with asyncio.timeout(LIMIT), aclosing(watch_run(session, copyai_emulator)) as watched:
        runs = [run async for run in watched]

    assert [(run.status, dict(run.output)) for run in runs] == [
        ("NEW", {}),
        ("PROCESSING", {}),
        ("PROCESSING", {"Draft": "a"}),
        ("PROCESSING", {"Draft": "a"}),
        ("COMPLETE", {"Draft": "a", "Email": "b"}),
    ]
    assert [run async for run in watched] == []


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED"])
async def test_watch_run_ends(session: CopyAISession, copyai_emulator: Emulator, status: str) -> None:
    """The iteration ends with a run that has failed, or has one of the caller's final statuses."""
    copyai_emulator.script_next_runs(Script(states=("NEW", status)))
    started = await session.start_run(copyai_emulator.workflow_id, {})
    async with asyncio.timeout(LIMIT):
        watched = watch_run(session, copyai_emulator, run_id=started.id, final_statuses={"CANCELLED"})
        statuses = [run.status async for run in watched]

    assert statuses[-1] == status


async def test_watch_run_errors(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An outage, an HTML page and a first 404 are tolerated. After a rejected key, the watch can continue."""
    copyai_emulator.add_runs(1, id="WRUN-1", workflowRunId="WRUN-1", status="COMPLETE")
    for fault in (Fault(status=404), Fault(status=403, body=b"<html>"), *[Fault(status=503)] * 6, Fault(status=401)):
        copyai_emulator.inject(fault)
    watched = watch_run(session, copyai_emulator)
    async with asyncio.timeout(LIMIT):
        with pytest.raises(AuthenticationError):
            await anext(watched)
        assert [run.status async for run in watched] == ["COMPLETE"]


async def test_aclose_of_watch_run(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Closing the watch or the session ends an iteration that awaits a response."""
    copyai_emulator.inject(Fault(delay=60), times=None)
    watched = watch_run(session, copyai_emulator)
    next_run = asyncio.ensure_future(anext(watched, None))
    await requested(copyai_emulator, 1)
    await watched.aclose()
    assert await next_run is None

    next_run = asyncio.ensure_future(anext(watch_run(session, copyai_emulator), None))
    await requested(copyai_emulator, 2)
    await session.close()
    with pytest.raises(RuntimeError, match="closed while it was watching"):
        await next_run


@pytest.mark.parametrize("ending", ["aclose", "next step"])
async def test_request_that_ends_slowly(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """A cancelled request ends before another request is sent, and before `aclose` returns."""
    monkeypatch.setattr("aiocopyai._watch._CONSUMER_GRACE", 0)
    cancelled, proceed = asyncio.Event(), asyncio.Event()
    requests = in_progress = most = 0

    async def get(_workflow_id: str, run_id: str) -> Run:
        nonlocal requests, in_progress, most
        requests, in_progress = requests + 1, in_progress + 1
        most = max(most, in_progress)
        try:
            if requests == 1:
                await asyncio.sleep(3600)
        except asyncio.CancelledError:  # as in a middleware of the caller's own session
            cancelled.set()
            while not proceed.is_set():
                with suppress(asyncio.CancelledError):
                    await proceed.wait()
            raise
        finally:
            in_progress -= 1
        return Run(run_id, status=RunStatus.FAILED)

    events = RunWatch(RunPoller(get, "WCFG-1", "WRUN-1", WaitOptions(None, 0.01)), TaskSet())
    step = asyncio.create_task(anext(events, None))
    while not in_progress:
        await asyncio.sleep(0)
    step.cancel()
    try:
        async with asyncio.timeout(LIMIT):
            await cancelled.wait()
            last_step = asyncio.ensure_future(anext(events, None) if ending == "next step" else events.aclose())
            for _ in range(10):
                await asyncio.sleep(0)
            assert (in_progress, most, last_step.done()) == (1, 1, False)
            proceed.set()
            run = await last_step
    finally:
        proceed.set()

    assert in_progress == 0
    assert (run is None) is (ending == "aclose")


async def test_since(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """With `since`, a watch starts with the runs created since then, and continues with new runs."""
    since = datetime(2026, 1, 1, tzinfo=UTC)
    copyai_emulator.replace_runs(
        [a_run(str(n), createdAt=(since - timedelta(days=n - 5)).isoformat()) for n in range(10)]
    )
    events = watch(session, copyai_emulator, since=since)

    assert await take(events, 6) == [(f"WRUN-{n}", "COMPLETE") for n in range(6)]
    (late,) = copyai_emulator.add_runs(1, status="NEW", createdAt="2026-02-01T00:00:00Z")
    assert await take(events, 1) == [(late, "NEW")]


async def test_outage(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Runs created during an outage are reported after it."""
    events = watch(session, copyai_emulator, since=LONG_AGO)
    (first,) = copyai_emulator.add_runs(1, status="COMPLETE")
    assert await take(events, 1) == [(first, "COMPLETE")]
    copyai_emulator.inject(Fault(status=503), times=14)
    copyai_emulator.inject(Fault(reset="before"), times=6)
    (second,) = copyai_emulator.add_runs(1, status="COMPLETE")

    assert await take(events, 1) == [(second, "COMPLETE")]


async def test_old_unfinished_run(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An unfinished run that is older than the runs listed in each round is reported when it changes."""
    old = a_run("old", "PROCESSING", createdAt="2026-01-01T00:00:00Z")
    new = a_run("new", createdAt="2026-03-01T00:00:00Z")
    copyai_emulator.replace_runs([new, old])
    events = watch(session, copyai_emulator, since=datetime(2025, 1, 1, tzinfo=UTC))
    assert await take(events, 2) == [("WRUN-new", "COMPLETE"), ("WRUN-old", "PROCESSING")]
    copyai_emulator.replace_runs([new, {**old, "status": "FAILED"}])

    assert await take(events, 1) == [("WRUN-old", "FAILED")]


async def test_list_without_status(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """If the list shows no status, each run is read by its id, and no event is reported twice."""
    copyai_emulator.quirks = Quirks(sparse=True)
    events = watch(session, copyai_emulator, since=LONG_AGO)
    (run_id,) = copyai_emulator.add_runs(1, status="COMPLETE")

    assert await take(events, 2) == [(run_id, None), (run_id, "COMPLETE")]
    await nothing(events, copyai_emulator)


async def test_deleted_run(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An unfinished run that is deleted does not end the watch."""
    copyai_emulator.replace_runs([a_run("old", "NEW", createdAt="2026-01-01T00:00:00Z")])
    events = watch(session, copyai_emulator, since=datetime(2025, 1, 1, tzinfo=UTC))
    assert await take(events, 1) == [("WRUN-old", "NEW")]
    copyai_emulator.replace_runs([a_run("new", createdAt="2026-03-01T00:00:00Z")])

    assert await take(events, 1) == [("WRUN-new", "COMPLETE")]


async def test_permanent_errors(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An unknown workflow and a rejected key are raised."""
    with pytest.raises(NotFoundError):
        await anext(session.watch("WCFG-none", interval=SOON))
    copyai_emulator.inject(Fault(status=401))
    with pytest.raises(AuthenticationError):
        await anext(watch(session, copyai_emulator))


async def test_many_runs(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Of 40 runs started during faults, each status of each run is reported once."""
    seen: Counter[tuple[str, str | None]] = Counter()
    copyai_emulator.run_time = 0.06

    async def follow() -> None:
        async for event in watch(session, copyai_emulator, since=LONG_AGO):
            seen[event.run.id, event.run.status] += 1

    task = asyncio.create_task(follow())
    ids = []
    for number in range(40):
        if number % 5 == 0:
            copyai_emulator.inject(Fault(truncate=20), method="GET")
        ids.append((await session.start_run(copyai_emulator.workflow_id, {})).id)
    async with asyncio.timeout(LIMIT):
        while not all((run_id, "COMPLETE") in seen for run_id in ids):
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert set(seen.values()) == {1}
    assert {run_id for run_id, _ in seen} == set(ids)
    assert not session._tasks


async def test_short_polls(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A consumer whose time-out for a step is shorter than the interval receives each run once."""
    events = watch(session, copyai_emulator, interval=0.1, since=LONG_AGO)
    (first,) = copyai_emulator.add_runs(1, status="COMPLETE")
    assert await take(events, 1) == [(first, "COMPLETE")]
    (second,) = copyai_emulator.add_runs(1, status="COMPLETE")
    got: list[str] = []
    async with asyncio.timeout(LIMIT):
        while not got:
            with suppress(TimeoutError):
                got.append((await asyncio.wait_for(anext(events), 0.02)).run.id)

    assert got == [second]


async def test_run_dated_in_the_future(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run with a creation time in the future does not hide the runs that are created until then."""
    future = a_run("future", createdAt="2999-01-01T00:00:00Z")
    copyai_emulator.replace_runs([future, a_run("old", createdAt="2026-01-01T00:00:00Z")])
    events = watch(session, copyai_emulator)
    await nothing(events, copyai_emulator)
    copyai_emulator.replace_runs([future, a_run("new"), a_run("old", createdAt="2026-01-01T00:00:00Z")])

    assert await take(events, 1) == [("WRUN-new", "COMPLETE")]
    await nothing(events, copyai_emulator)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(body={"status": "success", "data": {"data": "none"}}),
        Fault(body=[]),
        Fault(body=b"<html>"),
        Fault(body={"status": "error"}),
        Fault(status=403, body=b"<html>Blocked</html>"),
        Fault(status=404),
        Fault(status=400, body={}),
    ],
    ids=repr,
)
async def test_single_invalid_response(session: CopyAISession, copyai_emulator: Emulator, fault: Fault) -> None:
    """A single invalid response, HTML page of a gateway, 404 or 400 does not end the watch."""
    events = watch(session, copyai_emulator, since=LONG_AGO)
    (first,) = copyai_emulator.add_runs(1, status="COMPLETE")
    assert await take(events, 1) == [(first, "COMPLETE")]
    copyai_emulator.inject(fault)
    (second,) = copyai_emulator.add_runs(1, status="COMPLETE")

    assert await take(events, 1) == [(second, "COMPLETE")]


@pytest.mark.parametrize("status", [400, 403, 422, 500])
async def test_unreadable_run(session: CopyAISession, copyai_emulator: Emulator, status: int) -> None:
    """New runs and other unfinished runs are reported even if one unfinished run can never be read."""
    old = [a_run(name, "PROCESSING", createdAt="2026-01-01T00:00:00Z") for name in ("odd", "other")]
    new = a_run("new", createdAt="2026-03-01T00:00:00Z")
    copyai_emulator.replace_runs([new, *old])
    copyai_emulator.inject(Fault(status=status), path="/run/WRUN-odd", times=None)
    events = watch(session, copyai_emulator, since=datetime(2025, 1, 1, tzinfo=UTC))
    assert len(await take(events, 3)) == 3
    copyai_emulator.replace_runs([new, old[0], {**old[1], "status": "COMPLETE"}])
    assert await take(events, 1) == [("WRUN-other", "COMPLETE")]
    copyai_emulator.replace_runs([a_run("newer"), new, old[0]])

    assert await take(events, 1) == [("WRUN-newer", "COMPLETE")]


async def test_aclose_between_rounds(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Closing a watch ends an iteration that waits for its next round."""
    events = watch(session, copyai_emulator, interval=60)
    next_event = asyncio.ensure_future(anext(events, None))
    await requested(copyai_emulator, 2)
    async with asyncio.timeout(LIMIT):
        while session._tasks:  # the first round is not finished
            await asyncio.sleep(0.001)
        await events.aclose()
        assert await next_event is None


async def test_unreadable_run_is_read_less_often(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run that cannot be read is requested again after 1, 2, 4, ... rounds."""
    copyai_emulator.replace_runs(
        [a_run("new", createdAt="2026-03-01T00:00:00Z"), a_run("odd", "NEW", createdAt="2026-01-01T00:00:00Z")]
    )
    copyai_emulator.inject(Fault(status=422), path="/run/WRUN-odd", times=None)
    events = watch(session, copyai_emulator, since=datetime(2025, 1, 1, tzinfo=UTC), interval=0.001)
    await take(events, 2)
    await nothing(events, copyai_emulator, rounds=30)
    lists = sum("/run/" not in request.path for request in copyai_emulator.requests)

    assert 2 <= len(copyai_emulator.requests) - lists <= lists.bit_length() + 1


@pytest.mark.parametrize("odd", [{"status": "NEW"}, "odd"], ids=["no id", "not an object"])
async def test_unreadable_listed_run(session: CopyAISession, copyai_emulator: Emulator, odd: Any) -> None:  # noqa: ANN401 (raw JSON)
    """An item that makes its page unreadable does not hide the other runs of the list, in any round."""
    runs = [a_run(str(n)) for n in range(130)]
    copyai_emulator.replace_runs([*runs[:3], odd, *runs[3:]])
    events = watch(session, copyai_emulator, since=LONG_AGO, interval=0.001)
    assert Counter(await take(events, 130)) == Counter((run["id"], "COMPLETE") for run in runs)
    copyai_emulator.replace_runs([a_run("new"), *runs[:3], odd, *runs[3:]])

    assert await take(events, 1) == [("WRUN-new", "COMPLETE")]


@pytest.mark.parametrize("odd", [{"status": "NEW"}, "odd"], ids=["no id", "not an object"])
@pytest.mark.parametrize("position", [0, 3, 20])
async def test_unreadable_run_at_the_beginning(
    session: CopyAISession,
    copyai_emulator: Emulator,
    odd: Any,  # noqa: ANN401 (raw JSON)
    position: int,
) -> None:
    """Runs that exist at the beginning are not reported, even if one of the newest items is unreadable."""
    runs = [a_run(str(n)) for n in range(30)]
    copyai_emulator.replace_runs([*runs[:position], odd, *runs[position:]])
    events = watch(session, copyai_emulator, interval=0.001)
    await nothing(events, copyai_emulator, rounds=9)
    copyai_emulator.replace_runs([a_run("new"), *runs[:position], odd, *runs[position:]])

    assert await take(events, 1) == [("WRUN-new", "COMPLETE")]


async def test_workflow_that_disappears(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A watch raises a 404 that is repeated in five attempts."""
    events = watch(session, copyai_emulator, since=LONG_AGO, interval=0.001)
    copyai_emulator.add_runs(1)
    await take(events, 1)
    copyai_emulator.inject(Fault(status=404), times=None)
    with pytest.raises(NotFoundError):
        await anext(events)

    assert len(copyai_emulator.requests) == 6


async def test_known_runs_without_status(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """If the list shows no status, the first status of a run that existed at the beginning is not reported."""
    copyai_emulator.quirks = Quirks(sparse=True)
    runs = [a_run("old"), a_run("open", "PROCESSING")]
    copyai_emulator.replace_runs(runs)
    events = watch(session, copyai_emulator)
    await nothing(events, copyai_emulator)
    copyai_emulator.replace_runs([runs[0], {**runs[1], "status": "COMPLETE"}])

    event = await anext(events)
    assert (event.kind, event.run.id, event.previous_status) == ("changed", "WRUN-open", "PROCESSING")


async def test_404_at_first(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run that is listed without a status, and is first a 404, is reported as new once."""
    copyai_emulator.quirks = Quirks(sparse=True)
    (run_id,) = copyai_emulator.add_runs(1, status="COMPLETE")
    copyai_emulator.inject(Fault(status=404), path=f"/run/{run_id}", times=3)
    events = watch(session, copyai_emulator, since=LONG_AGO)

    assert await take(events, 2) == [(run_id, None), (run_id, "COMPLETE")]
    await nothing(events, copyai_emulator)


async def test_lagging_replica(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """If every second response is from an outdated replica, each status of each run is reported once."""
    old = a_run("old", "PROCESSING")
    states = [
        [old],
        [a_run("new", "NEW"), old],
        [a_run("new", "PROCESSING"), old],
        [a_run("new", "COMPLETE"), {**old, "status": "COMPLETE"}],
    ]
    newest = 0

    def lag(emulator: Emulator, request: Request) -> None:
        emulator.replace_runs(states[max(0, newest - request.number % 2)])

    copyai_emulator.on_request = lag
    events = watch(session, copyai_emulator, since=LONG_AGO)
    expected = [
        {("WRUN-old", "PROCESSING")},
        {("WRUN-new", "NEW")},
        {("WRUN-new", "PROCESSING")},
        {("WRUN-new", "COMPLETE"), ("WRUN-old", "COMPLETE")},
    ]
    for newest, events_of_state in enumerate(expected):  # noqa: B007 (read by the handler)
        assert set(await take(events, len(events_of_state))) == events_of_state
        await nothing(events, copyai_emulator, rounds=4)


async def test_run_during_the_first_round(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run created while the first round fails is reported once, and no older run is reported."""
    hours_ago = [datetime.now(UTC) - timedelta(hours=1 + n) for n in range(150)]
    copyai_emulator.replace_runs([a_run(str(n), createdAt=time.isoformat()) for n, time in enumerate(hours_ago)])

    def fail(emulator: Emulator, _request: Request) -> None:
        if len(emulator.requests) == 2:  # the first one shows the existing runs
            emulator.replace_runs([a_run("during"), *emulator.runs()])
            emulator.inject(Fault(status=503), times=6)

    copyai_emulator.on_request = fail
    events = watch(session, copyai_emulator)

    assert await take(events, 1) == [("WRUN-during", "COMPLETE")]
    await nothing(events, copyai_emulator)


async def test_empty_workflow(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """If no run exists at the beginning, the first run is reported."""

    def add(emulator: Emulator, _request: Request) -> None:
        if len(emulator.requests) == 2:
            emulator.replace_runs([a_run("first")])

    copyai_emulator.on_request = add

    assert await take(watch(session, copyai_emulator), 1) == [("WRUN-first", "COMPLETE")]


@pytest.mark.parametrize("dates", ["oldest first", "none"])
async def test_other_lists(session: CopyAISession, copyai_emulator: Emulator, dates: str) -> None:
    """If the list is not newest first, or shows no dates, only runs created after the beginning are reported."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    runs = [a_run(str(n), createdAt=(start + timedelta(hours=n)).isoformat()) for n in range(30)]
    if dates == "none":
        runs = [{**run, "createdAt": None} for run in runs]
    copyai_emulator.replace_runs(runs)
    events = watch(session, copyai_emulator)
    await nothing(events, copyai_emulator)
    copyai_emulator.replace_runs([*runs, a_run("new", createdAt=None if dates == "none" else "2026-05-01T00:00:00Z")])

    assert await take(events, 1) == [("WRUN-new", "COMPLETE")]


@pytest.mark.parametrize("quirks", [Quirks(), Quirks(sparse=True)], ids=["status listed", "no status listed"])
async def test_many_unfinished_runs(session: CopyAISession, copyai_emulator: Emulator, quirks: Quirks) -> None:
    """If there are more unfinished runs than can be read in a round, each is read in a later round."""
    copyai_emulator.quirks = quirks
    runs = [a_run(str(n), "PROCESSING", createdAt="2026-01-01T00:00:00Z") for n in range(90)]
    newest = a_run("new", createdAt="2026-03-01T00:00:00Z")
    copyai_emulator.replace_runs([newest, *runs])
    events = watch(session, copyai_emulator, since=datetime(2025, 1, 1, tzinfo=UTC), interval=0.001)
    await take(events, 91)
    copyai_emulator.replace_runs([newest, *({**run, "status": "COMPLETE"} for run in runs)])
    finished: set[str] = set()
    async with asyncio.timeout(LIMIT):
        while len(finished) < 91 - (not quirks.sparse):
            ((run_id, status),) = await take(events, 1)
            if status == "COMPLETE":
                finished.add(run_id)

    assert finished >= {str(run["id"]) for run in runs}


async def test_aclosing(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A closed watch yields no more events."""
    copyai_emulator.add_runs(3, status="COMPLETE")
    async with aclosing(watch(session, copyai_emulator, since=LONG_AGO)) as events:
        assert len(await take(events, 1)) == 1

    assert [run async for run in events] == []


def test_memory_is_bounded() -> None:
    """Finished runs are remembered only while the list may show them again."""
    known_runs = _KnownRuns()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(20_000):
        created_at = start + timedelta(seconds=number)
        known_runs.update(Run(f"WRUN-{number}", created_at=created_at, status=None))
        known_runs.update(Run(f"WRUN-{number}", created_at=created_at, status=RunStatus.COMPLETE))

    assert len(known_runs.runs) < 2_500


@pytest.mark.parametrize("arguments", [{"interval": 0}, {"since": datetime(2026, 1, 1)}, {"statuses": []}])  # noqa: DTZ001 (invalid on purpose)
def test_invalid_arguments(arguments: Any) -> None:  # noqa: ANN401 (invalid on purpose)
    """An invalid argument raises ValueError at the call."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        CopyAISession("key").watch("WCFG-1", **arguments)
