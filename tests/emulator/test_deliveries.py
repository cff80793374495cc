"""Tests of the webhook calls and the deliveries."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web

from aiocopyai.emulator import Delivery, Emulator, Quirks, Script
from aiocopyai.emulator._messages import is_loopback_url
from tests.support.raw_api import (
    NOT_FOUND,
    AnyValue,
    DeliveryServer,
    RawAPI,
    advance_clock,
    delivery_server,
    raw_api,
    wait_until,
)


STARTED, COMPLETED, FAILED = "workflowRun.started", "workflowRun.completed", "workflowRun.failed"
LIMIT_REACHED = "workflowCreditLimit.reached"
ALL = (STARTED, COMPLETED, FAILED, LIMIT_REACHED)
EXTERNAL = "https://hooks.example.com/x"


# The four calls


@pytest.mark.parametrize("event_type", ALL)
async def test_create(api: RawAPI, event_type: str) -> None:
    """The response to a registration is the webhook with its id, for one workflow or for all."""
    for workflow_id in (None, api.emulator.workflow_id):
        sent = {"url": EXTERNAL, "eventType": event_type, "workflowId": workflow_id}
        status, response = await api.call("POST", "/webhook", json=sent)
        assert (status, response["status"]) == (200, "success")
        assert response["data"] == {"id": response["data"]["id"], **sent}
        assert api.emulator.webhooks[-1] == response["data"]


async def test_empty_workflow_id(api: RawAPI) -> None:
    """An empty workflow id registers a webhook for all workflows."""
    await api.call("POST", "/webhook", json={"url": EXTERNAL, "eventType": STARTED, "workflowId": ""})
    assert api.emulator.webhooks[0]["workflowId"] is None


async def test_get_webhook(api: RawAPI) -> None:
    """A registered webhook can be read, with or without a slash at the end of the path."""
    await api.create_webhook(EXTERNAL, STARTED)
    webhook_id = await api.create_webhook(EXTERNAL, COMPLETED)
    for slash in ("", "/"):
        response = await api.call("GET", f"/webhook/{webhook_id}{slash}")
        assert response == (200, {"status": "success", "data": api.emulator.webhooks[1]})
    assert await api.call("GET", "/webhook/none") == NOT_FOUND


async def test_delete_webhook(api: RawAPI) -> None:
    """The response to a deletion is a 202 with an empty object. The response to a second deletion is a 404."""
    webhook_id = await api.create_webhook(EXTERNAL, STARTED)
    kept = await api.create_webhook(EXTERNAL, STARTED)
    assert await api.call("DELETE", f"/webhook/{webhook_id}/") == (202, {})
    assert await api.call("DELETE", f"/webhook/{webhook_id}") == NOT_FOUND
    assert [webhook["id"] for webhook in api.emulator.webhooks] == [kept]


async def test_list_webhooks(api: RawAPI) -> None:
    """The list has no envelope, its pages start at 0, and the default size is 10."""
    ids = [await api.create_webhook(f"{EXTERNAL}/{number}", STARTED) for number in range(12)]
    status, first = await api.call("GET", "/webhook")
    assert (status, set(first), first["total"]) == (200, {"total", "data"}, 12)
    _, second = await api.call("GET", "/webhook/", params={"page": 1})
    assert [webhook["id"] for webhook in first["data"] + second["data"]] == ids
    _, middle = await api.call("GET", "/webhook", params={"page": 2, "size": 5})
    assert [webhook["id"] for webhook in middle["data"]] == ids[10:]
    assert await api.call("GET", "/webhook", params={"page": 9}) == (200, {"total": 12, "data": []})


@pytest.mark.parametrize("params", [{"page": -1}, {"page": "x"}, {"size": 0}, {"size": ""}])
async def test_invalid_numbers(api: RawAPI, params: dict[str, str | int]) -> None:
    """The response to a `size` or `page` that is not an integer, or too small, is a 400 with an empty object."""
    assert await api.call("GET", "/webhook", params=params) == (400, {})


async def test_quirks_of_the_list(api: RawAPI) -> None:
    """The quirks for the total, the maximum size and ignored pages also apply to this list."""
    for _ in range(3):
        await api.create_webhook(EXTERNAL, STARTED)
    api.emulator.quirks = Quirks(total="string", max_size=2, ignore_page=True)
    _, response = await api.call("GET", "/webhook", params={"size": 50, "page": 1})
    assert (response["total"], len(response["data"])) == ("3", 2)
    api.emulator.quirks = Quirks(total="absent", max_size=2, oversize="reject")
    assert await api.call("GET", "/webhook", params={"size": 3}) == (400, {})
    assert set((await api.call("GET", "/webhook", params={"size": 2}))[1]) == {"data"}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"url", "eventType"}),
        ({"url": EXTERNAL, "eventType": "run.done"}, {"eventType"}),
        ({"url": EXTERNAL, "eventType": []}, {"eventType"}),
        ({"url": "/hook", "eventType": STARTED}, {"url"}),
        ({"url": "ftp://127.0.0.1", "eventType": STARTED}, {"url"}),
        ({"url": "http://[", "eventType": STARTED}, {"url"}),
        ({"url": 5, "eventType": STARTED, "workflowId": 5}, {"url", "workflowId"}),
        ([], {"body"}),
    ],
)
async def test_invalid_registration(api: RawAPI, body: object, fields: set[str]) -> None:
    """The response to an invalid body is a 422 that lists reasons for each field, and nothing is registered."""
    status, response = await api.call("POST", "/webhook", json=body)
    assert (status, response["errorCode"], set(response["details"])) == (422, "REQUEST_INVALID", fields)
    assert api.emulator.webhooks == []


async def test_registration_for_an_unknown_workflow(api: RawAPI) -> None:
    """The response for an unknown workflow is a 404."""
    body = {"url": EXTERNAL, "eventType": STARTED, "workflowId": "none"}
    assert await api.call("POST", "/webhook", json=body) == NOT_FOUND


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
async def test_webhooks_cannot_be_changed(api: RawAPI, method: str) -> None:
    """The API has no call that changes a webhook."""
    webhook_id = await api.create_webhook(EXTERNAL, STARTED)
    assert await api.call(method, f"/webhook/{webhook_id}") == NOT_FOUND


# Deliveries


async def test_start_and_end_are_delivered(api: RawAPI, receiver: DeliveryServer) -> None:
    """The start and the end of a run are delivered as JSON, and recorded with the status of the response."""
    for event_type in ALL:
        await api.create_webhook(receiver.url, event_type)
    api.emulator.run_time = 60
    run_id = await api.start_run(metadata={"k": "v"})
    bodies = await receiver.next_bodies(1)
    advance_clock(api.emulator, 60)
    bodies += await receiver.next_bodies(1)
    common = {"workflowRunId": run_id, "workflowId": api.emulator.workflow_id, "metadata": {"k": "v"}}
    [run] = api.emulator.runs()
    assert bodies == [
        {"type": STARTED, **common},
        {"type": COMPLETED, **common, "result": run["output"], "credits": 3},
    ]
    assert {(http.method, http.content_type) for http in receiver.requests} == {("POST", "application/json")}
    await wait_until(lambda: len(api.emulator.deliveries) == 2)
    assert api.emulator.deliveries[-1] == Delivery(receiver.url, COMPLETED, bodies[1], 204)


async def test_failure_is_delivered(api: RawAPI, receiver: DeliveryServer) -> None:
    """The end of a failed run is delivered as `workflowRun.failed` only."""
    for event_type in (COMPLETED, FAILED):
        await api.create_webhook(receiver.url, event_type)
    api.emulator.script_next_runs(Script(states=("NEW", "FAILED"), error={"message": "No."}))
    run_id = await api.start_run()
    [body] = await receiver.next_bodies(1)
    assert (body["type"], body["workflowRunId"], body["error"]) == (FAILED, run_id, {"message": "No."})


async def test_credit_limit_is_delivered(api: RawAPI, receiver: DeliveryServer) -> None:
    """A start that costs more than the remaining credits is delivered without a run."""
    await api.create_webhook(receiver.url, LIMIT_REACHED)
    api.emulator.credits = 0
    await api.call("POST", api.runs_path, json={"startVariables": {}})
    assert await receiver.next_bodies(1) == [{"type": LIMIT_REACHED, "workflowId": api.emulator.workflow_id}]


@pytest.mark.parametrize("variant", ["today", "older", "run"])
async def test_bodies_of_completed_runs(api: RawAPI, receiver: DeliveryServer, variant: AnyValue) -> None:
    """The body for a completed run has one of the three known forms."""
    api.emulator.quirks = Quirks(delivery=variant)
    await api.create_webhook(receiver.url, COMPLETED)
    await api.start_run()
    [body] = await receiver.next_bodies(1)
    [run] = api.emulator.runs()
    common = {"type": COMPLETED, "workflowRunId": run["id"], "workflowId": run["workflowId"], "metadata": {"api": True}}
    assert (
        body
        == {
            "today": {**common, "result": run["output"], "credits": 3},
            "older": {**common, "result": {"output": run["output"]}},
            "run": {**run, "type": COMPLETED},
        }[variant]
    )


async def test_subscribers(api: RawAPI, receiver: DeliveryServer) -> None:
    """Each webhook for an event receives it, and a webhook for another workflow does not."""
    api.emulator.add_runs(0, workflow_id="other")
    await api.create_webhook(receiver.url + "/other", STARTED, "other")
    for _ in range(2):
        await api.create_webhook(receiver.url + "/this", STARTED, api.emulator.workflow_id)
    await api.create_webhook(receiver.url + "/all", STARTED)
    await api.start_run()
    await receiver.next_bodies(3)
    assert sorted(http.path for http in receiver.requests) == ["/hook/all", "/hook/this", "/hook/this"]


async def test_webhooks_changed_during_a_run(api: RawAPI, receiver: DeliveryServer) -> None:
    """An event is sent to the webhooks that are registered when it happens."""
    api.emulator.run_time = 60
    gone = await api.create_webhook(receiver.url + "/gone", COMPLETED)
    await api.start_run()
    await api.call("DELETE", f"/webhook/{gone}")
    await api.create_webhook(receiver.url, COMPLETED)
    advance_clock(api.emulator, 60)
    await receiver.next_bodies(1)
    assert [http.path for http in receiver.requests] == ["/hook"]


async def test_order_of_ends(api: RawAPI, receiver: DeliveryServer) -> None:
    """The ends of runs are delivered in their order, even if a run that ends earlier was started later."""
    await api.create_webhook(receiver.url, COMPLETED)
    ids: list[str] = []
    for run_time in (200, 0, 100):
        api.emulator.run_time = run_time
        ids.append(await api.start_run())
    order: list[str] = []
    for _ in ids:
        order += [body["workflowRunId"] for body in await receiver.next_bodies(1)]
        advance_clock(api.emulator, 100)
    assert order == [ids[1], ids[2], ids[0]]


async def test_removed_and_endless_runs(api: RawAPI, receiver: DeliveryServer) -> None:
    """The end of a run that was removed, or whose last state is not final, is never delivered."""
    await api.create_webhook(receiver.url, COMPLETED)
    api.emulator.run_time = 60
    api.emulator.script_next_runs(Script(states=("NEW", "PROCESSING")))
    await api.start_run()
    api.emulator.remove_runs([await api.start_run()])
    api.emulator.run_time = float("inf")
    await api.start_run()
    api.emulator.run_time = 60
    last = await api.start_run()
    advance_clock(api.emulator, 61)
    assert [body["workflowRunId"] for body in await receiver.next_bodies(1)] == [last]
    assert receiver.bodies.empty()


async def test_only_loopback_urls_receive_deliveries(api: RawAPI, receiver: DeliveryServer) -> None:
    """A webhook with another URL can be registered. Its deliveries are recorded, but not sent."""
    # Not a loopback address, although most systems would connect it to this machine.
    url = receiver.url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 (nothing listens at it)
    await api.create_webhook(url, STARTED)
    run_id = await api.start_run()
    await wait_until(lambda: bool(api.emulator.deliveries))
    [delivery] = api.emulator.deliveries
    assert (delivery.url, delivery.status, delivery.body["workflowRunId"]) == (url, None, run_id)
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1/x", True), ("http://127.9.9.9", True), ("http://[::1]:8/", True),
        ("http://localhost/", True), ("http://localhost.example.com/", False), ("http://10.0.0.1/", False),
        ("http://0.0.0.0/", False), ("http://127.0.0.1.example.com/", False), ("http://127.0.0.1@example.com/", False),
    ],
)  # fmt: skip
def test_loopback_urls(url: str, expected: bool) -> None:  # noqa: FBT001 (a table's column)
    """Only loopback addresses and localhost are loopback URLs."""
    assert is_loopback_url(url) is expected


async def test_redirects_are_not_followed(api: RawAPI, receiver: DeliveryServer) -> None:
    """Redirects of a delivery are not followed."""

    async def redirect() -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/again"})

    receiver.respond = redirect
    await api.create_webhook(receiver.url, STARTED)
    await api.start_run()
    await wait_until(lambda: bool(api.emulator.deliveries))
    assert (api.emulator.deliveries[0].status, len(receiver.requests)) == (307, 1)


async def test_delivery_to_a_closed_port(api: RawAPI) -> None:
    """A delivery to a closed port is recorded without a status."""
    async with delivery_server() as receiver:
        pass
    await api.create_webhook(receiver.url, STARTED)
    await api.start_run()
    await wait_until(lambda: bool(api.emulator.deliveries))
    assert api.emulator.deliveries[0].status is None


# Manual deliveries, stop and restart


async def test_deliver(api: RawAPI, receiver: DeliveryServer) -> None:
    """An event can be delivered on demand, for any run and with any fields."""
    [run_id] = api.emulator.add_runs(status="COMPLETE")
    await api.create_webhook(receiver.url, COMPLETED)
    [delivery] = await api.emulator.deliver(COMPLETED, run_id=run_id, credits="many", other=[1])
    [body] = await receiver.next_bodies(1)
    [run] = api.emulator.runs()
    assert delivery == Delivery(receiver.url, COMPLETED, body, 204)
    assert (body["result"], body["credits"], body["other"]) == (run["output"], "many", [1])
    assert api.emulator.deliveries == [delivery]


async def test_subscribers_of_manual_deliveries(api: RawAPI, receiver: DeliveryServer) -> None:
    """A manual delivery is sent only to webhooks for its workflow and event."""
    [run_id] = api.emulator.add_runs(workflow_id="other")
    await api.create_webhook(receiver.url, STARTED, api.emulator.workflow_id)
    assert await api.emulator.deliver(STARTED, run_id=run_id) == []
    assert await api.emulator.deliver(FAILED) == []
    assert len(await api.emulator.deliver(STARTED, run_id="WRUN-gone")) == 1
    assert (await receiver.next_bodies(1))[0]["workflowRunId"] == "WRUN-gone"


async def test_invalid_delivery() -> None:
    """`deliver` raises an error for an unknown event type, or if the emulator is not started."""
    with pytest.raises(ValueError, match="event_type must be 'workflowRun"):
        await Emulator().deliver("workflowRun.done")
    with pytest.raises(RuntimeError, match="not started"):
        await Emulator().deliver(STARTED)


async def test_stop_ends_deliveries(receiver: DeliveryServer, caplog: pytest.LogCaptureFixture) -> None:
    """Stopping does not wait for deliveries, leaves no task and logs nothing."""
    received = asyncio.Event()

    async def never_respond() -> web.StreamResponse:
        received.set()
        await asyncio.sleep(60)
        return web.Response()

    before = asyncio.all_tasks()
    async with Emulator() as emulator, raw_api(emulator) as api:
        receiver.respond = never_respond
        await api.create_webhook(receiver.url, STARTED)
        await api.start_run()
        await received.wait()
    assert emulator.deliveries == []
    await wait_until(lambda: asyncio.all_tasks() == before)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_ends_after_a_restart(receiver: DeliveryServer) -> None:
    """If a run is in progress when the emulator stops, its end is delivered only if it is after the next start."""
    async with Emulator(run_time=60) as emulator, raw_api(emulator) as api:
        await api.create_webhook(receiver.url, COMPLETED)
        await api.start_run()
        emulator.run_time = 120
        later = await api.start_run()
    advance_clock(emulator, 90)
    async with emulator:
        advance_clock(emulator, 30)
        assert [body["workflowRunId"] for body in await receiver.next_bodies(1)] == [later]
    assert receiver.bodies.empty()
