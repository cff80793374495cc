"""What becomes of a delivery that was let in: confirmed by the API, handed over once, or dropped with a log line."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import pytest
from attrs import define, field

from aiocopyai import CopyAISession
from aiocopyai.emulator import Emulator, Fault
from aiocopyai.models import Run, RunStatus, WebhookEventType
from aiocopyai.webhooks import WebhookReceiver
from aiocopyai.webhooks import _queue as inbox_module
from aiocopyai.webhooks._event import WebhookEvent
from tests.support.bare import until
from tests.support.serving import COMPLETED, SECRET, Handled, body_of, deliver, make_run, reads, set_status


Log: TypeAlias = pytest.LogCaptureFixture
Ids: TypeAlias = dict[str, str]

FAILED, STARTED, LIMIT_REACHED = "workflowRun.failed", "workflowRun.started", "workflowCreditLimit.reached"


@define
class Gated:
    """Reads runs by a session, and holds each answer back until it is let go."""

    session: CopyAISession
    asked: list[str] = field(factory=list[str])
    gate: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(0))

    async def get_run(self, workflow_id: str, run_id: str) -> Run:
        """Read a run now, and give it later."""
        self.asked.append(run_id)
        try:
            return await self.session.get_run(workflow_id, run_id)
        finally:
            await self.gate.acquire()


@pytest.mark.parametrize(
    ("kind", "status", "true"),
    [
        (COMPLETED, "COMPLETE", True),
        (COMPLETED, "PROCESSING", False),
        (COMPLETED, "FAILED", False),
        (COMPLETED, "COMPLETED", False),
        (COMPLETED, None, False),
        (FAILED, "FAILED", True),
        (FAILED, "COMPLETE", False),
        (STARTED, "NEW", True),
        (STARTED, "COMPLETE", True),
        ("workflowRun.paused", "PAUSED", True),
    ],
)
async def test_an_event_must_be_met_by_its_run(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled, kind: str, status: str, *, true: bool
) -> None:
    """`completed` wants a complete run, `failed` a failed one, any other a run at all; each costs one read."""
    run = make_run(copyai_emulator, status)
    async with WebhookReceiver(session, handled) as receiver:
        assert await deliver(receiver, body_of(run, kind)) == 202

    assert [(event.type, event.run_id) for event in handled.events] == ([(kind, run["id"])] if true else [])
    assert reads(copyai_emulator) == 1


async def test_nothing_but_the_type_is_believed(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled
) -> None:
    """A confirmed event has its output, metadata, credits and the rest from the API, whatever was delivered."""
    run = make_run(copyai_emulator, output={"Email": "true"}, metadata={"chat": 1}, credits=3, toolKey="t")
    forged = body_of(run, result={"Email": "forged"}, metadata={"chat": 2}, credits=0, toolKey="f", more="forged")
    async with WebhookReceiver(session, handled) as receiver:
        await deliver(receiver, forged)

    [event] = handled.events
    told = await session.get_run(copyai_emulator.workflow_id, run["id"])
    assert event == WebhookEvent(
        WebhookEventType.RUN_COMPLETED, told.id, told.workflow_id, told.output, {"chat": 1}, 3, told, told.extra
    )
    assert (event.output, event.extra["toolKey"]) == ({"Email": "true"}, "t")


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ({}, "both ids"),
        ({"workflowRunId": "WRUN-1"}, "both ids"),
        ({"workflowId": "WCFG-1"}, "both ids"),
        ({"workflowRunId": "WRUN-none", "workflowId": "WCFG-none"}, "404"),
        ({"workflowRunId": "../x?y#z", "workflowId": ".."}, "must be an id"),
        ({"workflowRunId": "WRUN-1\r\nINJECTED", "workflowId": "WCFG-1"}, "must be an id"),
        ({"workflowRunId": "\ud800", "workflowId": "WCFG-1\u2028"}, "surrogate"),
        ({"workflowRunId": "😀" * 512, "workflowId": "😀" * 512}, ""),
    ],
)
@pytest.mark.parametrize("kind", [COMPLETED, "x\n\x1b[31mINJECTED\u2028"])
async def test_ids_of_no_run(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled, caplog: Log, kind: str, ids: Ids, reason: str
) -> None:
    """Ids that are missing, unknown or none at all drop the event with one line, and the next event is handled."""
    run = make_run(copyai_emulator)
    async with WebhookReceiver(session, handled, secret=SECRET) as receiver:
        assert await deliver(receiver, {"type": kind, **ids}) == 202
        await deliver(receiver, body_of(run))

    lines = [record.getMessage() for record in caplog.records if record.name == "aiocopyai"]
    assert handled.run_ids == [run["id"]]
    assert len(lines) == 1
    assert reason in lines[0]
    assert lines[0].isprintable()
    assert len(lines[0]) < 700
    assert SECRET not in lines[0]


async def test_a_read_that_fails(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled, caplog: Log
) -> None:
    """An event whose read fails is dropped with an error, and handled if it comes again."""
    run = make_run(copyai_emulator)
    copyai_emulator.inject(Fault(status=403))
    async with WebhookReceiver(session, handled, secret=SECRET) as receiver:
        await deliver(receiver, body_of(run))
        await until(lambda: bool(caplog.records))
        assert await deliver(receiver, body_of(run)) == 202

    assert handled.run_ids == [run["id"]]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert run["id"] in caplog.text
    assert SECRET not in caplog.text
    assert copyai_emulator.api_key not in caplog.text


async def test_a_read_that_fails_for_a_moment(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled
) -> None:
    """What the session tries again costs no event."""
    run = make_run(copyai_emulator)
    copyai_emulator.inject(Fault(status=503), times=2)
    async with WebhookReceiver(session, handled) as receiver:
        await deliver(receiver, body_of(run))

    assert handled.run_ids == [run["id"]]


async def test_a_session_that_is_closed(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled, caplog: Log
) -> None:
    """A session that can't read any more costs the events, not the worker."""
    run = make_run(copyai_emulator)
    await session.close()
    async with WebhookReceiver(session, handled) as receiver:
        await deliver(receiver, body_of(run))
        await deliver(receiver, body_of(run, STARTED))

    assert handled.events == []
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


async def test_repeats(session: CopyAISession, copyai_emulator: Emulator, handled: Handled) -> None:
    """The same event of the same run is handed over once, whether it comes again at once or later."""
    run = make_run(copyai_emulator)
    async with WebhookReceiver(session, handled) as receiver:
        first = [await deliver(receiver, body_of(run)) for _ in range(3)]
        await until(lambda: bool(handled.events))
        later = await deliver(receiver, body_of(run, metadata={"other": 1}))
        other_event = await deliver(receiver, body_of(run, STARTED))

    assert (first, later, other_event) == ([202, 200, 200], 200, 202)
    assert [event.type for event in handled.events] == [COMPLETED, STARTED]
    assert reads(copyai_emulator) == 2


async def test_a_forged_event_that_comes_first(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled
) -> None:
    """A forged event doesn't make the true one a repeat, even if that comes while the forged one is being confirmed."""
    run = make_run(copyai_emulator, "PROCESSING")
    reader = Gated(session)
    async with WebhookReceiver(reader, handled) as receiver:
        await deliver(receiver, body_of(run))
        await until(lambda: reads(copyai_emulator) == 1)
        set_status(copyai_emulator, run, "COMPLETE")
        assert await deliver(receiver, body_of(run)) == 202
        assert await deliver(receiver, body_of(run)) == 200
        reader.gate.release()
        reader.gate.release()
        await until(lambda: bool(handled.events))

    assert handled.run_ids == [run["id"]]
    assert reads(copyai_emulator) == 2


async def test_a_forged_workflow(session: CopyAISession, copyai_emulator: Emulator, handled: Handled) -> None:
    """A forged event with the true run and a wrong workflow doesn't stand in the queue for the true one."""
    run = make_run(copyai_emulator)
    async with WebhookReceiver(session, handled) as receiver:
        await deliver(receiver, body_of({**run, "workflowId": "WCFG-wrong"}))
        assert await deliver(receiver, body_of(run)) == 202

    assert handled.run_ids == [run["id"]]


async def test_a_repeat_during_the_read(session: CopyAISession, copyai_emulator: Emulator, handled: Handled) -> None:
    """A repeat that comes while the first is being confirmed is queued, and dropped without a read of its own."""
    run = make_run(copyai_emulator)
    reader = Gated(session)
    async with WebhookReceiver(reader, handled) as receiver:
        await deliver(receiver, body_of(run))
        await until(lambda: bool(reader.asked))
        assert await deliver(receiver, body_of(run)) == 202
        reader.gate.release()

    assert handled.run_ids == [run["id"]] == reader.asked


async def test_another_form_of_the_id(handled: Handled) -> None:
    """A run that the API takes under several forms of its id is handed over once."""

    class Lenient:
        async def get_run(self, workflow_id: str, run_id: str) -> Run:
            return Run(run_id.upper(), workflow_id.upper(), RunStatus.COMPLETE)

    async with WebhookReceiver(Lenient(), handled) as receiver:
        for run_id in ("wrun-1", "WRUN-1", "wRUN-1"):
            await deliver(receiver, body_of({"id": run_id, "workflowId": "wcfg-1"}))

    assert [(event.run_id, event.workflow_id) for event in handled.events] == [("WRUN-1", "WCFG-1")]


async def test_the_memory_of_repeats_is_bounded(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many events are remembered, and the oldest are forgotten first."""
    monkeypatch.setattr(inbox_module, "_REMEMBERED", 2)
    first, second, third = (make_run(copyai_emulator) for _ in range(3))
    async with WebhookReceiver(session, handled) as receiver:
        for run in (first, second, third, second, first):
            await deliver(receiver, body_of(run))
            await receiver._inbox._queue.join()

    assert handled.run_ids == [run["id"] for run in (first, second, third, first)]


async def test_a_full_queue(session: CopyAISession, copyai_emulator: Emulator, handled: Handled, caplog: Log) -> None:
    """What finds the queue full gets 503 and a warning, and is handled if it comes again."""
    runs = [make_run(copyai_emulator) for _ in range(4)]
    reader = Gated(session)
    async with WebhookReceiver(reader, handled, queue_size=2) as receiver:
        await deliver(receiver, body_of(runs[0]))
        await until(lambda: bool(reader.asked))
        statuses = [await deliver(receiver, body_of(run)) for run in runs[1:]]
        for _ in runs:
            reader.gate.release()
        await until(lambda: len(handled.events) == 3)
        again = await deliver(receiver, body_of(runs[3]))

    assert (statuses, again) == ([202, 202, 503], 202)
    assert handled.run_ids == [run["id"] for run in runs]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert runs[3]["id"] in caplog.text


@pytest.mark.parametrize(
    "error", [ValueError("no room"), asyncio.CancelledError(), ExceptionGroup("both", [OSError()])]
)
async def test_a_handler_that_raises(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled, caplog: Log, error: BaseException
) -> None:
    """What a handler raises is logged with the ids and the trace, never the secret, and the next event is handled."""
    first, second = make_run(copyai_emulator), make_run(copyai_emulator)
    handled.failures[first["id"]] = error
    async with WebhookReceiver(session, handled, secret=SECRET) as receiver:
        for run in (first, first, second):
            await deliver(receiver, body_of(run))

    assert handled.run_ids == [first["id"], second["id"]]
    [record] = caplog.records
    assert first["id"] in record.getMessage()
    assert copyai_emulator.workflow_id in record.getMessage()
    assert record.exc_info is not None
    assert type(error).__name__ in caplog.text
    assert SECRET not in caplog.text
    assert copyai_emulator.api_key not in caplog.text


async def test_unconfirmed_events(handled: Handled, session: CopyAISession, copyai_emulator: Emulator) -> None:
    """With `confirm=False` events come as they were delivered, runs once, without any read."""
    completed = body_of({"id": "WRUN-1", "workflowId": "WCFG-1"}, result={"a": 1}, credits="7", more=2)
    async with WebhookReceiver(session, handled, confirm=False) as receiver:
        statuses = [
            await deliver(receiver, body)
            for body in (completed, completed, {"type": LIMIT_REACHED}, {"type": LIMIT_REACHED})
        ]
        other_workflow = await deliver(receiver, completed | {"workflowId": "WCFG-2"})

    assert (statuses, other_workflow) == ([202, 200, 202, 202], 202)
    limit = WebhookEvent(WebhookEventType.CREDIT_LIMIT_REACHED)
    assert handled.events == [WebhookEvent.parse(completed), limit, limit]
    assert handled.events[0].extra == {"more": 2}
    assert copyai_emulator.requests == []


async def test_what_waits_is_worked_off_at_the_end(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled
) -> None:
    """Leaving the receiver handles what waits, and leaves no task behind."""
    runs = [make_run(copyai_emulator) for _ in range(5)]
    before = asyncio.all_tasks()
    async with WebhookReceiver(session, handled) as receiver:
        for run in runs:
            await deliver(receiver, body_of(run))

    assert handled.run_ids == [run["id"] for run in runs]
    assert [task for task in asyncio.all_tasks() - before if "webhooks" in task.get_name()] == []


async def test_the_end_is_bounded(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled, caplog: Log
) -> None:
    """What is left after the grace is dropped with a warning, and nothing goes on, not even a handler that hangs."""
    runs = [make_run(copyai_emulator) for _ in range(3)]
    ended = asyncio.Event()

    async def hang(event: WebhookEvent) -> None:
        handled.events.append(event)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with WebhookReceiver(session, hang, grace=0) as receiver:
        for run in runs:
            await deliver(receiver, body_of(run))
        await until(lambda: bool(handled.events))

    assert ended.is_set()
    assert len(handled.events) == 1
    assert [record.getMessage() for record in caplog.records] == ["webhook events dropped: 3 were left after 0 s"]


async def test_an_end_that_is_cancelled(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A receiver whose end is cancelled while it waits for its handler has ended all the same."""
    run = make_run(copyai_emulator)
    started = asyncio.Event()

    async def hang(_event: WebhookEvent) -> None:
        started.set()
        await asyncio.Event().wait()

    receiver = WebhookReceiver(session, hang)

    async def live() -> None:
        async with receiver:
            await deliver(receiver, body_of(run))
            await started.wait()

    living = asyncio.create_task(live())
    await started.wait()
    await until(lambda: not receiver._inbox.is_open)
    living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living

    assert [task for task in asyncio.all_tasks() if "webhooks" in task.get_name()] == []


async def test_a_receiver_runs_once_at_a_time(
    session: CopyAISession, copyai_emulator: Emulator, handled: Handled
) -> None:
    """It can be started again after its end, knowing the repeats, and not while it runs."""
    run = make_run(copyai_emulator)
    receiver = WebhookReceiver(session, handled)
    for status in (202, 200):
        async with receiver:
            with pytest.raises(RuntimeError, match="already"):
                await receiver.__aenter__()
            assert await deliver(receiver, body_of(run)) == status

    assert handled.run_ids == [run["id"]]
