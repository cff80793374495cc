"""Tests of accepted deliveries: they are confirmed by the API and handled once, or dropped with a log line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import CopyAISession, NotFoundError
from aiocopyai.emulator import Emulator, Fault, Quirks
from aiocopyai.models import Run, RunStatus, WebhookEventType
from aiocopyai.webhooks import WebhookReceiver
from aiocopyai.webhooks import _queue as queue_module
from aiocopyai.webhooks._event import WebhookEvent
from tests.support.raw_api import PATIENCE, wait_until
from tests.support.receivers import (
    COMPLETED,
    SECRET,
    RecordingHandler,
    add_run,
    change_run,
    count_reads,
    deliver,
    delivery_body,
)


Log: TypeAlias = pytest.LogCaptureFixture
Ids: TypeAlias = dict[str, str]

FAILED, STARTED, LIMIT_REACHED = "workflowRun.failed", "workflowRun.started", "workflowCreditLimit.reached"
DEFAULT_DELAYS = queue_module._RETRY_DELAYS
FAST = (0.002, 0.004, 0.008)


@pytest.fixture(autouse=True)
def _fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read runs again after milliseconds."""
    monkeypatch.setattr(queue_module, "_RETRY_DELAYS", FAST)


@define
class DelayedReader:
    """Reads runs with a session, and returns each run only after `release()`."""

    session: CopyAISession
    run_ids: list[str] = field(factory=list[str])
    released: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(0))

    async def get_run(self, workflow_id: str, run_id: str) -> Run:
        """Read a run now, and return it later."""
        self.run_ids.append(run_id)
        try:
            return await self.session.get_run(workflow_id, run_id)
        finally:
            await self.released.acquire()


def messages(caplog: Log, level: int = logging.WARNING) -> list[str]:
    """Return the package's log lines of at least this level."""
    return [each.getMessage() for each in caplog.records if each.name == "aiocopyai" and each.levelno >= level]


# Confirmation


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (COMPLETED, "COMPLETE"),
        (FAILED, "FAILED"),
        (STARTED, "NEW"),
        (STARTED, "COMPLETE"),
        ("workflowRun.paused", "PAUSED"),
    ],
)
async def test_confirmed_events(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, kind: str, status: str
) -> None:
    """`completed` requires a complete run, `failed` a failed run, and any other event a run. Each takes one read."""
    run = add_run(copyai_emulator, status)
    async with WebhookReceiver(session, handler) as receiver:
        assert await deliver(receiver, delivery_body(run, kind)) == 202

    assert [(event.type, event.run_id) for event in handler.events] == [(kind, run["id"])]
    assert count_reads(copyai_emulator) == 1


@pytest.mark.parametrize(
    ("kind", "status", "is_final"),
    [
        (COMPLETED, "FAILED", True),
        (FAILED, "COMPLETE", True),
        (COMPLETED, "PROCESSING", False),
        (COMPLETED, "COMPLETED", False),
        (COMPLETED, None, False),
        (FAILED, "RETRYING", False),
    ],
)
async def test_forged_events(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, caplog: Log, kind: str, status: str,
    *, is_final: bool,
) -> None:  # fmt: skip
    """If the run has another final status, its event is dropped after one read. Otherwise it is read a few times."""
    run = add_run(copyai_emulator, status)
    async with WebhookReceiver(session, handler) as receiver:
        await deliver(receiver, delivery_body(run, kind))
        await wait_until(lambda: bool(messages(caplog)))

    assert handler.events == []
    assert count_reads(copyai_emulator) == (1 if is_final else 1 + len(FAST))
    [message] = messages(caplog)
    assert message.endswith(f"the run's status is {status!r}")
    assert receiver._events._waiting == set()


async def test_only_the_type_is_taken_from_a_delivery(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler
) -> None:
    """A confirmed event has output, metadata, credits and other fields from the API, regardless of the delivery."""
    run = add_run(copyai_emulator, output={"Email": "true"}, metadata={"chat": 1}, credits=3, toolKey="t")
    forged = delivery_body(run, result={"Email": "forged"}, metadata={"chat": 2}, credits=0, toolKey="f", more="forged")
    async with WebhookReceiver(session, handler) as receiver:
        await deliver(receiver, forged)

    [event] = handler.events
    read = await session.get_run(copyai_emulator.workflow_id, run["id"])
    assert event == WebhookEvent(
        WebhookEventType.RUN_COMPLETED, read.id, read.workflow_id, read.output, {"chat": 1}, 3, read, read.extra
    )
    assert (event.output, event.extra["toolKey"]) == ({"Email": "true"}, "t")


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ({}, "no run id or no workflow id"),
        ({"workflowRunId": "WRUN-1"}, "no run id or no workflow id"),
        ({"workflowId": "WCFG-1"}, "no run id or no workflow id"),
        ({"workflowRunId": "WRUN-none", "workflowId": "WCFG-none"}, "404"),
        ({"workflowRunId": "../x?y#z", "workflowId": ".."}, "must be an id"),
        ({"workflowRunId": "WRUN-1\r\nINJECTED", "workflowId": "WCFG-1"}, "must be an id"),
        ({"workflowRunId": "\ud800", "workflowId": "WCFG-1\u2028"}, "surrogate"),
        ({"workflowRunId": "😀" * 512, "workflowId": "😀" * 512}, ""),
    ],
)
@pytest.mark.parametrize("kind", [COMPLETED, "x\n\x1b[31mINJECTED\u2028"])
async def test_invalid_ids(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, caplog: Log, kind: str, ids: Ids,
    reason: str,
) -> None:  # fmt: skip
    """An event whose ids are missing, unknown or invalid is dropped with one line, and the next event is handled."""
    run = add_run(copyai_emulator)
    async with WebhookReceiver(session, handler, secret=SECRET) as receiver:
        assert await deliver(receiver, {"type": kind, **ids}) == 202
        await deliver(receiver, delivery_body(run))

    assert handler.run_ids == [run["id"]]
    [line] = messages(caplog)
    assert reason in line
    assert line.isprintable()
    assert len(line) < 700
    assert SECRET not in line


async def test_rejected_read(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, caplog: Log
) -> None:
    """If the API rejects a read, the event is dropped with an error, and is handled if it is delivered again."""
    run = add_run(copyai_emulator)
    copyai_emulator.inject(Fault(status=403))
    async with WebhookReceiver(session, handler, secret=SECRET) as receiver:
        await deliver(receiver, delivery_body(run))
        await wait_until(lambda: bool(messages(caplog)))
        assert await deliver(receiver, delivery_body(run)) == 202

    assert handler.run_ids == [run["id"]]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert run["id"] in caplog.text
    assert SECRET not in caplog.text
    assert copyai_emulator.api_key not in caplog.text


async def test_read_retried_by_the_session(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler
) -> None:
    """An event whose read is retried by the session is handled."""
    run = add_run(copyai_emulator)
    copyai_emulator.inject(Fault(status=503), times=2)
    async with WebhookReceiver(session, handler) as receiver:
        await deliver(receiver, delivery_body(run))

    assert handler.run_ids == [run["id"]]


async def test_closed_session(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, caplog: Log
) -> None:
    """If the session is closed, each event is dropped with an error."""
    run = add_run(copyai_emulator)
    await session.close()
    async with WebhookReceiver(session, handler) as receiver:
        await deliver(receiver, delivery_body(run))
        await deliver(receiver, delivery_body(run, STARTED))

    assert handler.events == []
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


# Deliveries that are faster than the API


def _unknown(emulator: Emulator, run: dict[str, Any]) -> None:
    emulator.remove_runs([run["id"]])


def _running(emulator: Emulator, run: dict[str, Any]) -> None:
    change_run(emulator, run, status="PROCESSING")


def _without_output(emulator: Emulator, run: dict[str, Any]) -> None:
    change_run(emulator, run, output={})


def _unavailable(emulator: Emulator, _run: dict[str, Any]) -> None:
    emulator.inject(Fault(status=503), times=5)  # as many as the session sends


@pytest.mark.parametrize("delay_api", [_unknown, _running, _without_output, _unavailable])
async def test_delivery_before_the_api_is_up_to_date(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, caplog: Log,
    monkeypatch: pytest.MonkeyPatch, delay_api: Callable[[Emulator, dict[str, Any]], None],
) -> None:  # fmt: skip
    """A run is read again while it is unknown, not finished or without output, or while the API is not available."""
    monkeypatch.setattr(queue_module, "_RETRY_DELAYS", (60,))
    run = add_run(copyai_emulator)
    delay_api(copyai_emulator, run)
    async with WebhookReceiver(session, handler) as receiver:
        await deliver(receiver, delivery_body(run))
        await wait_until(lambda: bool(receiver._events._retrying))
        assert handler.events == []
        copyai_emulator.replace_runs([run])
        [key] = receiver._events._retrying
        receiver._events._retry_now(key)
        await wait_until(lambda: bool(handler.events))

    assert handler.run_ids == [run["id"]]
    assert handler.events[0].output == run["output"]
    assert all("dropped" not in message for message in messages(caplog))


async def test_late_runs(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All events are handled if the API finds runs only some time after their start."""
    monkeypatch.setattr(queue_module, "_RETRY_DELAYS", (0.005,) * 1_000)
    copyai_emulator.quirks = Quirks(late_runs=0.02)
    async with WebhookReceiver(session, handler) as receiver:
        ids = [(await session.start_run(copyai_emulator.workflow_id, {})).id for _ in range(10)]
        for run_id in ids:
            body = {"type": STARTED, "workflowRunId": run_id, "workflowId": copyai_emulator.workflow_id}
            assert await deliver(receiver, body) == 202
        await wait_until(lambda: len(handler.events) == 10)

    assert sorted(map(str, handler.run_ids)) == sorted(ids)


def test_reads_continue_for_30_seconds() -> None:
    """By default, the last read is at least 30 s after the first, and the delays grow."""
    assert sum(DEFAULT_DELAYS) >= 30
    assert list(DEFAULT_DELAYS) == sorted(DEFAULT_DELAYS)
    assert len(DEFAULT_DELAYS) < 10


async def test_other_events_do_not_wait(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that wait for another read do not delay other events."""
    monkeypatch.setattr(queue_module, "_RETRY_DELAYS", (60,))
    early = [add_run(copyai_emulator, "PROCESSING") for _ in range(3)]
    run = add_run(copyai_emulator)
    async with WebhookReceiver(session, handler, grace=0) as receiver:
        for each in [*early, run]:
            await deliver(receiver, delivery_body(each))
        await wait_until(lambda: bool(handler.events))

    assert handler.run_ids == [run["id"]]


async def test_slow_read(session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler) -> None:
    """A slow read does not delay other events."""
    slow, run = add_run(copyai_emulator), add_run(copyai_emulator)
    copyai_emulator.inject(Fault(delay=60), path=slow["id"], times=None)
    async with WebhookReceiver(session, handler, grace=0) as receiver:
        for each in (slow, run):
            await deliver(receiver, delivery_body(each))
        await wait_until(lambda: bool(handler.events))

    assert handler.run_ids == [run["id"]]


async def test_repeat_of_an_event_that_is_read_again(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeat of an event that waits for another read does not cause another read."""
    monkeypatch.setattr(queue_module, "_RETRY_DELAYS", (60,))
    run = add_run(copyai_emulator, "PROCESSING")
    async with WebhookReceiver(session, handler) as receiver:
        await deliver(receiver, delivery_body(run))
        await wait_until(lambda: bool(receiver._events._retrying))
        assert await deliver(receiver, delivery_body(run)) == 200
        assert count_reads(copyai_emulator) == 1


async def test_last_read_on_exit(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch,
    caplog: Log,
) -> None:  # fmt: skip
    """On exit, events that wait for another read are read again at once, and handled or dropped."""
    monkeypatch.setattr(queue_module, "_RETRY_DELAYS", (60,))
    confirmed, forged = (add_run(copyai_emulator, "PROCESSING") for _ in range(2))
    async with asyncio.timeout(PATIENCE), WebhookReceiver(session, handler, grace=60) as receiver:
        for run in (confirmed, forged):
            await deliver(receiver, delivery_body(run))
        await wait_until(lambda: len(receiver._events._retrying) == 2)
        change_run(copyai_emulator, confirmed, status="COMPLETE")

    assert handler.run_ids == [confirmed["id"]]
    assert [forged["id"] in message for message in messages(caplog)] == [True]
    assert count_reads(copyai_emulator) == 4


@pytest.mark.parametrize("delay_api", [_unknown, _running, _without_output])
async def test_exit_during_a_read(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler,
    delay_api: Callable[[Emulator, dict[str, Any]], None],
) -> None:  # fmt: skip
    """If a read that started before the exit does not confirm its event, the run is read again."""
    run = add_run(copyai_emulator)
    delay_api(copyai_emulator, run)
    reader = DelayedReader(session)
    async with WebhookReceiver(reader, handler, grace=PATIENCE) as receiver:
        await deliver(receiver, delivery_body(run))
        await wait_until(lambda: count_reads(copyai_emulator) == 1)
        if delay_api is not _without_output:
            copyai_emulator.replace_runs([run])
        for _ in range(2):
            asyncio.get_running_loop().call_soon(reader.released.release)

    assert handler.run_ids == [run["id"]]
    assert reader.run_ids == [run["id"]] * 2


async def test_forged_events_are_bounded(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch,
    caplog: Log,
) -> None:  # fmt: skip
    """A limited number of events waits for another read. Above it, the events with the most reads are dropped."""
    monkeypatch.setattr(queue_module, "_RETRY_DELAYS", (0.001, 60, 60))
    monkeypatch.setattr(queue_module, "_MAX_RETRYING", 5)
    workflow_id = copyai_emulator.workflow_id
    true = add_run(copyai_emulator, "PROCESSING")
    async with WebhookReceiver(session, handler, grace=60) as receiver:
        for number in range(5):
            await deliver(receiver, {"type": COMPLETED, "workflowRunId": f"WRUN-{number}", "workflowId": workflow_id})
        retrying = receiver._events._retrying
        await wait_until(lambda: [queued.reads for queued, _ in retrying.values()] == [2] * 5)
        await deliver(receiver, delivery_body(true))
        await wait_until(
            lambda: [queued.reads for queued, _ in retrying.values()] == [2] * 5 and bool(messages(caplog))
        )
        assert len(messages(caplog)) == 1
        assert count_reads(copyai_emulator) == 12
        change_run(copyai_emulator, true, status="COMPLETE")

    assert handler.run_ids == [true["id"]]
    assert count_reads(copyai_emulator) == 12 + 5


# Repeats


async def test_repeats(session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler) -> None:
    """The same event of the same run is handled once, whether it is delivered again at once or later."""
    run = add_run(copyai_emulator)
    async with WebhookReceiver(session, handler) as receiver:
        first = [await deliver(receiver, delivery_body(run)) for _ in range(3)]
        await wait_until(lambda: bool(handler.events))
        later = await deliver(receiver, delivery_body(run, metadata={"other": 1}))
        other_event = await deliver(receiver, delivery_body(run, STARTED))

    assert (first, later, other_event) == ([202, 200, 200], 200, 202)
    assert [event.type for event in handler.events] == [COMPLETED, STARTED]
    assert count_reads(copyai_emulator) == 2


@pytest.mark.parametrize("status", ["FAILED", "PROCESSING"])
async def test_forged_event_before_the_true_event(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, status: str
) -> None:
    """A true event that is delivered during the read of an equal forged event causes one more read."""
    run = add_run(copyai_emulator, status)
    reader = DelayedReader(session)
    async with WebhookReceiver(reader, handler) as receiver:
        await deliver(receiver, delivery_body(run))
        await wait_until(lambda: count_reads(copyai_emulator) == 1)
        change_run(copyai_emulator, run, status="COMPLETE")
        assert await deliver(receiver, delivery_body(run)) == 202
        assert await deliver(receiver, delivery_body(run)) == 200
        reader.released.release()
        reader.released.release()
        await wait_until(lambda: bool(handler.events))
        assert receiver._events._retrying == {}

    assert handler.run_ids == [run["id"]]
    assert count_reads(copyai_emulator) == 2


async def test_forged_workflow(session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler) -> None:
    """A forged event with the true run and a wrong workflow does not replace the true event in the queue."""
    run = add_run(copyai_emulator)
    async with WebhookReceiver(session, handler) as receiver:
        await deliver(receiver, delivery_body({**run, "workflowId": "WCFG-wrong"}))
        assert await deliver(receiver, delivery_body(run)) == 202

    assert handler.run_ids == [run["id"]]


async def test_repeat_during_the_read(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler
) -> None:
    """A repeat that is delivered while the first event is confirmed is accepted, and dropped without a read."""
    run = add_run(copyai_emulator)
    reader = DelayedReader(session)
    async with WebhookReceiver(reader, handler) as receiver:
        await deliver(receiver, delivery_body(run))
        await wait_until(lambda: bool(reader.run_ids))
        assert await deliver(receiver, delivery_body(run)) == 202
        reader.released.release()

    assert handler.run_ids == [run["id"]] == reader.run_ids


async def test_other_forms_of_the_id(handler: RecordingHandler) -> None:
    """A run that the API finds under several forms of its id is handled once."""

    class Lenient:
        async def get_run(self, workflow_id: str, run_id: str) -> Run:
            return Run(run_id.upper(), workflow_id.upper(), RunStatus.COMPLETE, output={"a": 1})

    async with WebhookReceiver(Lenient(), handler) as receiver:
        for run_id in ("wrun-1", "WRUN-1", "wRUN-1"):
            await deliver(receiver, delivery_body({"id": run_id, "workflowId": "wcfg-1"}))

    assert [(event.run_id, event.workflow_id) for event in handler.events] == [("WRUN-1", "WCFG-1")]


async def test_memory_of_repeats_is_bounded(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limited number of handled events is remembered, and the oldest is forgotten first."""
    monkeypatch.setattr(queue_module, "_MAX_SEEN", 2)
    first, second, third = (add_run(copyai_emulator) for _ in range(3))
    async with WebhookReceiver(session, handler) as receiver:
        for run in (first, second, third, second, first):
            await deliver(receiver, delivery_body(run))
            await receiver._events._queue.join()

    assert handler.run_ids == [run["id"] for run in (first, second, third, first)]


# The queue and the handler


async def test_full_queue(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, caplog: Log
) -> None:
    """While the queue is full, the response is a 503. The event is handled if it is delivered again."""
    runs = [add_run(copyai_emulator) for _ in range(4)]
    reader = DelayedReader(session)
    async with WebhookReceiver(reader, handler, queue_size=2) as receiver:
        await deliver(receiver, delivery_body(runs[0]))
        await wait_until(lambda: bool(reader.run_ids))
        statuses = [await deliver(receiver, delivery_body(run)) for run in runs[1:]]
        for _ in runs:
            reader.released.release()
        await wait_until(lambda: len(handler.events) == 3)
        again = await deliver(receiver, delivery_body(runs[3]))

    assert (statuses, again) == ([202, 202, 503], 202)
    assert handler.run_ids == [run["id"] for run in runs]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert runs[3]["id"] in caplog.text


@pytest.mark.parametrize(
    "error", [ValueError("no space left"), asyncio.CancelledError(), ExceptionGroup("both", [OSError()])]
)
async def test_handler_raises(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, caplog: Log, error: BaseException
) -> None:
    """An exception in the handler is logged with the ids and the traceback, and the next event is handled."""
    first, second = add_run(copyai_emulator), add_run(copyai_emulator)
    handler.failures[first["id"]] = error
    async with WebhookReceiver(session, handler, secret=SECRET) as receiver:
        for run in (first, first, second):
            await deliver(receiver, delivery_body(run))

    assert handler.run_ids == [first["id"], second["id"]]
    [record] = caplog.records
    assert first["id"] in record.getMessage()
    assert copyai_emulator.workflow_id in record.getMessage()
    assert record.exc_info is not None
    assert type(error).__name__ in caplog.text
    assert SECRET not in caplog.text
    assert copyai_emulator.api_key not in caplog.text


async def test_without_confirmation(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler
) -> None:
    """With `confirm=False`, events are handled as delivered, without a read, and repeats for a run are ignored."""
    completed = delivery_body({"id": "WRUN-1", "workflowId": "WCFG-1"}, result={"a": 1}, credits="7", more=2)
    async with WebhookReceiver(session, handler, confirm=False) as receiver:
        statuses = [
            await deliver(receiver, body)
            for body in (completed, completed, {"type": LIMIT_REACHED}, {"type": LIMIT_REACHED})
        ]
        other_workflow = await deliver(receiver, completed | {"workflowId": "WCFG-2"})

    assert (statuses, other_workflow) == ([202, 200, 202, 202], 202)
    limit = WebhookEvent(WebhookEventType.CREDIT_LIMIT_REACHED)
    expected: Any = completed
    assert handler.events == [WebhookEvent.parse(expected), limit, limit]
    assert handler.events[0].extra == {"more": 2}
    assert copyai_emulator.requests == []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["WRUN-1", "WRUN-2", "WRUN-3"]),
        st.sampled_from([COMPLETED, FAILED]),
        st.sampled_from([None, RunStatus.PROCESSING, RunStatus.COMPLETE]),
        st.sampled_from(["WCFG-1", "WCFG-forged"]),
        st.integers(0, 4),
    ),
    max_size=20,
)


@given(STEPS, st.integers(0, 3), st.integers(0, 4))
def test_any_order_of_deliveries_and_reads(
    steps: list[tuple[str, str, RunStatus | None, str, int]], read: int, last_pause: int
) -> None:
    """A run that is complete at its last delivery is handled once, for any order of deliveries and reads.

    Pauses, and the duration of a read, are in turns of the event loop.
    """
    statuses: dict[str, RunStatus] = {}
    handler = RecordingHandler()

    class Reader:
        async def get_run(self, workflow_id: str, run_id: str) -> Run:
            status = statuses.get(run_id)
            for _ in range(read):
                await asyncio.sleep(0)
            if status is None or workflow_id != "WCFG-1":
                raise NotFoundError(404)
            return Run(run_id, workflow_id, status)

    async def run() -> list[tuple[str, str | None]]:
        async with WebhookReceiver(Reader(), handler, grace=PATIENCE) as receiver:
            for run_id, kind, status, workflow_id, pause in steps:
                if status is not None and statuses.get(run_id) != RunStatus.COMPLETE:
                    statuses[run_id] = status
                await deliver(receiver, delivery_body({"id": run_id, "workflowId": workflow_id}, kind))
                for _ in range(pause):
                    await asyncio.sleep(0)
            complete = [run_id for run_id, status in statuses.items() if status == RunStatus.COMPLETE]
            for run_id in complete:
                await deliver(receiver, delivery_body({"id": run_id, "workflowId": "WCFG-1"}))
            for _ in range(last_pause):
                await asyncio.sleep(0)
        return [(COMPLETED, run_id) for run_id in complete]

    expected = asyncio.run(run())
    assert sorted((event.type, event.run_id) for event in handler.events) == sorted(expected)


# Exit


async def test_waiting_events_are_processed_on_exit(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler
) -> None:
    """Leaving the receiver processes the waiting events, and leaves no task."""
    runs = [add_run(copyai_emulator) for _ in range(5)]
    before = asyncio.all_tasks()
    async with WebhookReceiver(session, handler) as receiver:
        for run in runs:
            await deliver(receiver, delivery_body(run))

    assert sorted(map(str, handler.run_ids)) == sorted(run["id"] for run in runs)
    assert [task for task in asyncio.all_tasks() - before if "webhooks" in task.get_name()] == []


async def test_exit_is_bounded(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler, caplog: Log
) -> None:
    """After `grace`, the remaining events are dropped with a warning, and a handler that hangs is cancelled."""
    runs = [add_run(copyai_emulator) for _ in range(3)]
    ended = asyncio.Event()

    async def hang(event: WebhookEvent) -> None:
        handler.events.append(event)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with WebhookReceiver(session, hang, grace=0) as receiver:
        for run in runs:
            await deliver(receiver, delivery_body(run))
        await wait_until(lambda: bool(handler.events))

    assert ended.is_set()
    assert len(handler.events) == 1
    assert messages(caplog) == ["webhook events dropped: 3 were not processed within 0 s"]


async def test_handler_that_suppresses_its_cancellation(
    session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler
) -> None:
    """A handler that suppresses its cancellation receives no further event, and the receiver ends."""
    runs = [add_run(copyai_emulator) for _ in range(2)]

    async def swallow(event: WebhookEvent) -> None:
        handler.events.append(event)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE), WebhookReceiver(session, swallow, grace=0) as receiver:
        for run in runs:
            await deliver(receiver, delivery_body(run))
        await wait_until(lambda: bool(handler.events))

    assert len(handler.run_ids) == 1
    assert [task for task in asyncio.all_tasks() if "webhooks" in task.get_name()] == []


async def test_handler_that_ignores_its_cancellation(
    session: CopyAISession, copyai_emulator: Emulator, caplog: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver does not wait for a handler that continues after its cancellation."""
    monkeypatch.setattr(queue_module, "_CANCEL_TIMEOUT", 0.01)
    run = add_run(copyai_emulator)
    started, release = asyncio.Event(), asyncio.Event()

    async def ignore(_event: WebhookEvent) -> None:
        while not release.is_set():
            started.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with asyncio.timeout(PATIENCE), WebhookReceiver(session, ignore, grace=0) as receiver:
        await deliver(receiver, delivery_body(run))
        await started.wait()
    assert messages(caplog)[-1] == "webhook handler still running 0.01 s after its cancellation"
    release.set()
    await wait_until(lambda: not [task for task in asyncio.all_tasks() if "webhooks" in task.get_name()])


async def test_exit_is_cancelled(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An exit that is cancelled while it waits for the handler leaves no task."""
    run = add_run(copyai_emulator)
    started = asyncio.Event()

    async def hang(_event: WebhookEvent) -> None:
        started.set()
        await asyncio.Event().wait()

    receiver = WebhookReceiver(session, hang)

    async def use_receiver() -> None:
        async with receiver:
            await deliver(receiver, delivery_body(run))
            await started.wait()

    task = asyncio.create_task(use_receiver())
    await started.wait()
    await wait_until(lambda: not receiver._events.is_open)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [each for each in asyncio.all_tasks() if "webhooks" in each.get_name()] == []


async def test_reuse(session: CopyAISession, copyai_emulator: Emulator, handler: RecordingHandler) -> None:
    """A receiver can be entered again after its exit, but not while it is running, and still recognizes repeats."""
    run = add_run(copyai_emulator)
    receiver = WebhookReceiver(session, handler)
    for status in (202, 200):
        async with receiver:
            with pytest.raises(RuntimeError, match="already"):
                await receiver.__aenter__()
            assert await deliver(receiver, delivery_body(run)) == status

    assert handler.run_ids == [run["id"]]
