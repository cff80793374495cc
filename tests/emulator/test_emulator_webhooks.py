"""The emulator's webhooks: the four calls, and what is delivered when, by bare aiohttp."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import pytest
from aiohttp import web

from aiocopyai.emulator import Delivery, Emulator, Quirks, Script
from aiocopyai.emulator._http import is_loopback_url
from tests.support.bare import Bare, Receiver, asking, receiving, travel, until


# Values that a parametrized test passes on to a literal type.
Odd: TypeAlias = Any

NOT_FOUND = (404, {"status": "error", "errorCode": "NOT_FOUND"})
STARTED, COMPLETED, FAILED = "workflowRun.started", "workflowRun.completed", "workflowRun.failed"
LIMIT_REACHED = "workflowCreditLimit.reached"
ALL = (STARTED, COMPLETED, FAILED, LIMIT_REACHED)
FAR_AWAY = "https://hooks.example.com/x"


@pytest.fixture(name="receiver")
async def _receiver() -> AsyncIterator[Receiver]:
    """A server that webhooks may be delivered to."""
    async with receiving() as receiver:
        yield receiver


async def inbox(receiver: Receiver, count: int) -> list[dict[str, Any]]:
    """Wait for deliveries."""
    async with asyncio.timeout(5):
        return [await receiver.inbox.get() for _ in range(count)]


# The four calls


@pytest.mark.parametrize("event_type", ALL)
async def test_register(bare: Bare, event_type: str) -> None:
    """A registration answers the webhook with its id, for one workflow or the whole workspace."""
    for workflow_id in (None, bare.emulator.workflow_id):
        sent = {"url": FAR_AWAY, "eventType": event_type, "workflowId": workflow_id}
        status, answer = await bare.call("POST", "/webhook", json=sent)
        assert (status, answer["status"]) == (200, "success")
        assert answer["data"] == {"id": answer["data"]["id"], **sent}
        assert bare.emulator.webhooks[-1] == answer["data"]


async def test_get(bare: Bare) -> None:
    """A registered webhook can be asked for, with or without a slash at the end."""
    await bare.register(FAR_AWAY, STARTED)
    hook_id = await bare.register(FAR_AWAY, COMPLETED)
    for slash in ("", "/"):
        answer = await bare.call("GET", f"/webhook/{hook_id}{slash}")
        assert answer == (200, {"status": "success", "data": bare.emulator.webhooks[1]})
    assert await bare.call("GET", "/webhook/none") == NOT_FOUND


async def test_delete(bare: Bare) -> None:
    """A deletion is a 202 with an empty object, and a second one a 404."""
    hook_id = await bare.register(FAR_AWAY, STARTED)
    kept = await bare.register(FAR_AWAY, STARTED)
    assert await bare.call("DELETE", f"/webhook/{hook_id}/") == (202, {})
    assert await bare.call("DELETE", f"/webhook/{hook_id}") == NOT_FOUND
    assert [hook["id"] for hook in bare.emulator.webhooks] == [kept]


async def test_list(bare: Bare) -> None:
    """The list has no envelope, counts pages from 0, and gives 10 a page unless told."""
    ids = [await bare.register(f"{FAR_AWAY}/{number}", STARTED) for number in range(12)]
    status, first = await bare.call("GET", "/webhook")
    assert (status, set(first), first["total"]) == (200, {"total", "data"}, 12)
    _, second = await bare.call("GET", "/webhook/", params={"page": 1})
    assert [hook["id"] for hook in first["data"] + second["data"]] == ids
    _, middle = await bare.call("GET", "/webhook", params={"page": 2, "size": 5})
    assert [hook["id"] for hook in middle["data"]] == ids[10:]
    assert await bare.call("GET", "/webhook", params={"page": 9}) == (200, {"total": 12, "data": []})


@pytest.mark.parametrize("params", [{"page": -1}, {"page": "x"}, {"size": 0}, {"size": ""}])
async def test_bad_numbers(bare: Bare, params: dict[str, str | int]) -> None:
    """A `size` or `page` that is no number, or too small, gets 400 with an empty object."""
    assert await bare.call("GET", "/webhook", params=params) == (400, {})


async def test_quirks_of_the_list(bare: Bare) -> None:
    """The total, the largest page and ignored pages are quirks of this list, too."""
    for _ in range(3):
        await bare.register(FAR_AWAY, STARTED)
    bare.emulator.quirks = Quirks(total="string", max_size=2, ignore_page=True)
    _, answer = await bare.call("GET", "/webhook", params={"size": 50, "page": 1})
    assert (answer["total"], len(answer["data"])) == ("3", 2)
    bare.emulator.quirks = Quirks(total="absent", max_size=2, oversize="reject")
    assert await bare.call("GET", "/webhook", params={"size": 3}) == (400, {})
    assert set((await bare.call("GET", "/webhook", params={"size": 2}))[1]) == {"data"}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"url", "eventType"}),
        ({"url": FAR_AWAY, "eventType": "run.done"}, {"eventType"}),
        ({"url": FAR_AWAY, "eventType": []}, {"eventType"}),
        ({"url": "/hook", "eventType": STARTED}, {"url"}),
        ({"url": "ftp://127.0.0.1", "eventType": STARTED}, {"url"}),
        ({"url": "http://[", "eventType": STARTED}, {"url"}),
        ({"url": 5, "eventType": STARTED, "workflowId": 5}, {"url", "workflowId"}),
        ([], {"body"}),
    ],
)
async def test_invalid_registration(bare: Bare, body: object, fields: set[str]) -> None:
    """A body that won't do is a 422 that names each field with its reasons, and registers nothing."""
    status, answer = await bare.call("POST", "/webhook", json=body)
    assert (status, answer["errorCode"], set(answer["details"])) == (422, "REQUEST_INVALID", fields)
    assert bare.emulator.webhooks == []


async def test_registration_for_an_unknown_workflow(bare: Bare) -> None:
    """A webhook for a workflow that isn't there is a 404."""
    body = {"url": FAR_AWAY, "eventType": STARTED, "workflowId": "none"}
    assert await bare.call("POST", "/webhook", json=body) == NOT_FOUND


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
async def test_no_such_call(bare: Bare, method: str) -> None:
    """There is no call to change a webhook."""
    hook_id = await bare.register(FAR_AWAY, STARTED)
    assert await bare.call(method, f"/webhook/{hook_id}") == NOT_FOUND


# Deliveries


async def test_start_and_end_are_delivered(bare: Bare, receiver: Receiver) -> None:
    """A run's start and its end are POSTed as JSON, though nobody polls, and recorded with the answer's status."""
    for event_type in ALL:
        await bare.register(receiver.url, event_type)
    bare.emulator.run_time = 60
    run_id = await bare.start(metadata={"k": "v"})
    bodies = await inbox(receiver, 1)
    travel(bare.emulator, 60)
    bodies += await inbox(receiver, 1)
    plain = {"workflowRunId": run_id, "workflowId": bare.emulator.workflow_id, "metadata": {"k": "v"}}
    [run] = bare.emulator.runs()
    assert bodies == [
        {"type": STARTED, **plain},
        {"type": COMPLETED, **plain, "result": run["output"], "credits": 3},
    ]
    assert {(http.method, http.content_type) for http in receiver.requests} == {("POST", "application/json")}
    await until(lambda: len(bare.emulator.deliveries) == 2)
    assert bare.emulator.deliveries[-1] == Delivery(receiver.url, COMPLETED, bodies[1], 204)


async def test_failure_is_delivered(bare: Bare, receiver: Receiver) -> None:
    """The end of a failed run is a failure, and no completion."""
    for event_type in (COMPLETED, FAILED):
        await bare.register(receiver.url, event_type)
    bare.emulator.script_next_runs(Script(states=("NEW", "FAILED"), error={"message": "No."}))
    run_id = await bare.start()
    [body] = await inbox(receiver, 1)
    assert (body["type"], body["workflowRunId"], body["error"]) == (FAILED, run_id, {"message": "No."})


async def test_credit_limit_is_delivered(bare: Bare, receiver: Receiver) -> None:
    """A start that can't be paid for is told of, with no run in it."""
    await bare.register(receiver.url, LIMIT_REACHED)
    bare.emulator.credits = 0
    await bare.call("POST", bare.runs_path, json={"startVariables": {}})
    assert await inbox(receiver, 1) == [{"type": LIMIT_REACHED, "workflowId": bare.emulator.workflow_id}]


@pytest.mark.parametrize("variant", ["today", "older", "run"])
async def test_bodies_of_completed(bare: Bare, receiver: Receiver, variant: Odd) -> None:
    """The body of a completed run comes in each of the three forms that were seen."""
    bare.emulator.quirks = Quirks(delivery=variant)
    await bare.register(receiver.url, COMPLETED)
    await bare.start()
    [body] = await inbox(receiver, 1)
    [run] = bare.emulator.runs()
    plain = {"type": COMPLETED, "workflowRunId": run["id"], "workflowId": run["workflowId"], "metadata": {"api": True}}
    assert (
        body
        == {
            "today": {**plain, "result": run["output"], "credits": 3},
            "older": {**plain, "result": {"output": run["output"]}},
            "run": {**run, "type": COMPLETED},
        }[variant]
    )


async def test_who_is_told(bare: Bare, receiver: Receiver) -> None:
    """A webhook for another workflow hears nothing; each of several for the same event does."""
    bare.emulator.add_runs(0, workflow_id="other")
    await bare.register(receiver.url + "/other", STARTED, "other")
    for _ in range(2):
        await bare.register(receiver.url + "/this", STARTED, bare.emulator.workflow_id)
    await bare.register(receiver.url + "/all", STARTED)
    await bare.start()
    await inbox(receiver, 3)
    assert sorted(http.path for http in receiver.requests) == ["/hook/all", "/hook/this", "/hook/this"]


async def test_registered_while_the_run_is_under_way(bare: Bare, receiver: Receiver) -> None:
    """What counts is who is registered at the moment of the event."""
    bare.emulator.run_time = 60
    gone = await bare.register(receiver.url + "/gone", COMPLETED)
    await bare.start()
    await bare.call("DELETE", f"/webhook/{gone}")
    await bare.register(receiver.url, COMPLETED)
    travel(bare.emulator, 60)
    await inbox(receiver, 1)
    assert [http.path for http in receiver.requests] == ["/hook"]


async def test_ends_come_in_their_order(bare: Bare, receiver: Receiver) -> None:
    """A run that ends sooner is told of sooner, though it was started later."""
    await bare.register(receiver.url, COMPLETED)
    ids: list[str] = []
    for run_time in (200, 0, 100):
        bare.emulator.run_time = run_time
        ids.append(await bare.start())
    order: list[str] = []
    for _ in ids:
        order += [body["workflowRunId"] for body in await inbox(receiver, 1)]
        travel(bare.emulator, 100)
    assert order == [ids[1], ids[2], ids[0]]


async def test_removed_and_endless_runs(bare: Bare, receiver: Receiver) -> None:
    """A run that was removed, or stays in a state that is no end, is never told of."""
    await bare.register(receiver.url, COMPLETED)
    bare.emulator.run_time = 60
    bare.emulator.script_next_runs(Script(states=("NEW", "PROCESSING")))
    await bare.start()
    bare.emulator.remove_runs([await bare.start()])
    bare.emulator.run_time = float("inf")
    await bare.start()
    bare.emulator.run_time = 60
    last = await bare.start()
    travel(bare.emulator, 61)
    assert [body["workflowRunId"] for body in await inbox(receiver, 1)] == [last]
    assert receiver.inbox.empty()


async def test_only_this_machine_is_sent_to(bare: Bare) -> None:
    """A webhook that leads off the machine can be registered, and its deliveries are recorded but not sent."""
    await bare.register(FAR_AWAY, STARTED)
    run_id = await bare.start()
    await until(lambda: bool(bare.emulator.deliveries))
    [delivery] = bare.emulator.deliveries
    assert (delivery.url, delivery.status, delivery.body["workflowRunId"]) == (FAR_AWAY, None, run_id)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1/x", True), ("http://127.9.9.9", True), ("http://[::1]:8/", True),
        ("http://localhost/", True), ("http://localhost.example.com/", False), ("http://10.0.0.1/", False),
        ("http://0.0.0.0/", False), ("http://127.0.0.1.example.com/", False), ("http://127.0.0.1@example.com/", False),
    ],
)  # fmt: skip
def test_what_this_machine_is(url: str, here: bool) -> None:  # noqa: FBT001 (a table's column)
    """Only loopback addresses, and localhost, are this machine."""
    assert is_loopback_url(url) is here


async def test_redirects_are_not_followed(bare: Bare, receiver: Receiver) -> None:
    """A receiver can't send a delivery elsewhere."""

    async def redirect() -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/again"})

    receiver.answer = redirect
    await bare.register(receiver.url, STARTED)
    await bare.start()
    await until(lambda: bool(bare.emulator.deliveries))
    assert (bare.emulator.deliveries[0].status, len(receiver.requests)) == (307, 1)


async def test_nobody_listens(bare: Bare) -> None:
    """A delivery that nobody takes is recorded without a status, and not sent again."""
    async with receiving() as receiver:
        pass
    await bare.register(receiver.url, STARTED)
    await bare.start()
    await until(lambda: bool(bare.emulator.deliveries))
    assert bare.emulator.deliveries[0].status is None


# By hand, and the end


async def test_deliver(bare: Bare, receiver: Receiver) -> None:
    """An event can be delivered by hand, for any run, with fields of one's own."""
    [run_id] = bare.emulator.add_runs(status="COMPLETE")
    await bare.register(receiver.url, COMPLETED)
    [delivery] = await bare.emulator.deliver(COMPLETED, run_id=run_id, credits="many", odd=[1])
    [body] = await inbox(receiver, 1)
    [run] = bare.emulator.runs()
    assert delivery == Delivery(receiver.url, COMPLETED, body, 204)
    assert (body["result"], body["credits"], body["odd"]) == (run["output"], "many", [1])
    assert bare.emulator.deliveries == [delivery]


async def test_deliver_for_a_run_of_another_workflow(bare: Bare, receiver: Receiver) -> None:
    """By hand, too, a webhook hears of its own workflow only, and one for another event of nothing."""
    [run_id] = bare.emulator.add_runs(workflow_id="other")
    await bare.register(receiver.url, STARTED, bare.emulator.workflow_id)
    assert await bare.emulator.deliver(STARTED, run_id=run_id) == []
    assert await bare.emulator.deliver(FAILED) == []
    assert len(await bare.emulator.deliver(STARTED, run_id="WRUN-gone")) == 1
    assert (await inbox(receiver, 1))[0]["workflowRunId"] == "WRUN-gone"


async def test_deliver_in_vain() -> None:
    """An event that isn't one, and an emulator that isn't started, are mistakes."""
    with pytest.raises(ValueError, match="event_type must be one of"):
        await Emulator().deliver("workflowRun.done")
    with pytest.raises(RuntimeError, match="not started"):
        await Emulator().deliver(STARTED)


async def test_stop_ends_deliveries(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Stopping waits for no delivery, leaves no task, and tells of no run that ends afterwards."""
    asked = asyncio.Event()

    async def never_answer() -> web.StreamResponse:
        asked.set()
        await asyncio.sleep(60)
        return web.Response()

    before = asyncio.all_tasks()
    async with Emulator() as emulator, asking(emulator) as bare:
        receiver.answer = never_answer
        await bare.register(receiver.url, STARTED)
        await bare.register(receiver.url, COMPLETED)
        await bare.start()
        await asked.wait()
    assert emulator.deliveries == []
    await until(lambda: asyncio.all_tasks() == before)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_start_again(receiver: Receiver) -> None:
    """A run under way when the emulator stops is told of if it ends after the next start, and only then."""
    async with Emulator(run_time=60) as emulator, asking(emulator) as bare:
        await bare.register(receiver.url, COMPLETED)
        await bare.start()
        emulator.run_time = 120
        later = await bare.start()
    travel(emulator, 90)
    async with emulator:
        travel(emulator, 30)
        assert [body["workflowRunId"] for body in await inbox(receiver, 1)] == [later]
    assert receiver.inbox.empty()
