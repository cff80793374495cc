"""Tests of all calls except the list of runs: one run, webhooks, and the check of the key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aiocopyai import (
    JSON,
    AuthenticationError,
    CopyAISession,
    InvalidResponseError,
    NotFoundError,
    Run,
    ServerError,
    Webhook,
    WebhookEventType,
)
from aiocopyai.emulator import Emulator, Fault, Quirks


URL = "http://127.0.0.1:9/hook"
COMPLETED = WebhookEventType.RUN_COMPLETED


async def test_get_run(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run that is read by its id equals the same run in the list."""
    copyai_emulator.add_runs(3)
    for listed in [run async for run in session.runs(copyai_emulator.workflow_id)]:
        assert await session.get_run(copyai_emulator.workflow_id, listed.id) == listed


async def test_a_run_with_missing_and_invalid_fields(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run without a workflow id has the requested one. Invalid and unknown fields are kept."""
    copyai_emulator.inject(
        Fault(body={"status": "success", "data": {"workflowRunId": "WRUN-1", "credits": "many", "x": 1}})
    )
    run = await session.get_run("WCFG-1", "WRUN-1")

    assert run == Run("WRUN-1", "WCFG-1", extra={"workflowRunId": "WRUN-1", "credits": "many", "x": 1})


@pytest.mark.parametrize("body", [[], {"data": []}, {"status": "success"}, {"data": {"status": "NEW"}}])
async def test_a_response_without_a_run(session: CopyAISession, copyai_emulator: Emulator, body: Any) -> None:  # noqa: ANN401 (raw JSON)
    """A response without a run raises `InvalidResponseError`."""
    copyai_emulator.inject(Fault(body=body, status=200))
    with pytest.raises(InvalidResponseError):
        await session.get_run("WCFG-1", "WRUN-1")


async def test_an_unknown_run(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An unknown run raises `NotFoundError`."""
    with pytest.raises(NotFoundError):
        await session.get_run(copyai_emulator.workflow_id, "WRUN-0")


@pytest.mark.parametrize(
    ("value", "expected"),
    [('{"a": [1]}', {"a": [1]}), ("3", 3), ('"x"', "x"), (["as", "it", "is"], ["as", "it", "is"]), (None, None)],
)
def test_output_json(value: Any, expected: Any) -> None:  # noqa: ANN401 (raw JSON)
    """JSON in a string is parsed, and any other value is returned unchanged."""
    assert Run("WRUN-1", output={"Step": value}).output_json("Step") == expected


def test_output_that_is_not_json() -> None:
    """An output that is a string, but not JSON, raises a `ValueError` that shows it."""
    run = Run("WRUN-1", output={"Step": "Dear Ada,", "Other": "NaN"})
    with pytest.raises(ValueError, match=r"output 'Step' of run WRUN-1 is not JSON .*: 'Dear Ada,'"):
        run.output_json("Step")
    with pytest.raises(ValueError, match="NaN is not valid JSON"):
        run.output_json("Other")


def test_an_unknown_output() -> None:
    """An output that the run does not have raises a `KeyError` that lists the existing outputs."""
    run = Run("WRUN-1", output={"Step": "a", "Other": "b"})
    with pytest.raises(KeyError, match="has no output 'step', only: 'Step', 'Other'"):
        run.output_json("step")


async def test_a_run_as_json(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """`to_dict` and `to_json` return the documented shape. The caller may change the dict."""
    copyai_emulator.inject(
        Fault(
            status=200,
            body={"data": {"id": "W", "status": "COMPLETE", "createdAt": "2026-01-31T10:00:00+01:00", "new": 1}},
        )
    )
    run = await session.get_run("WCFG-1", "W")
    shown = run.to_dict()

    assert shown == {
        "id": "W",
        "workflow_id": "WCFG-1",
        "status": "COMPLETE",
        "created_at": "2026-01-31T09:00:00Z",
        "credits": None,
        "input": {},
        "output": {},
        "metadata": {},
        "error": None,
        "extra": {"new": 1},
    }
    assert type(shown["status"]) is str
    assert json.loads(run.to_json()) == shown
    shown["output"]["a"] = "b"
    assert run.output == {}
    assert json.dumps(run.output) == "{}"
    assert Run("W\n", output={"a": ["ü", 10**30]}).to_json().isprintable()


async def test_webhooks(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A webhook is created, read, listed and deleted with the documented calls."""
    hook = await session.create_webhook(URL, COMPLETED, copyai_emulator.workflow_id)

    assert hook == Webhook(hook.id, URL, COMPLETED, copyai_emulator.workflow_id)
    assert copyai_emulator.requests[-1].body == {
        "url": URL,
        "eventType": "workflowRun.completed",
        "workflowId": copyai_emulator.workflow_id,
    }
    assert await session.get_webhook(hook.id) == hook
    assert [webhook async for webhook in session.webhooks()] == [hook]
    assert (copyai_emulator.requests[-1].page, copyai_emulator.requests[-1].size) == (0, 100)
    await session.delete_webhook(hook.id)
    assert copyai_emulator.webhooks == []
    with pytest.raises(NotFoundError):
        await session.delete_webhook(hook.id)


@pytest.mark.parametrize("quirks", [Quirks(), Quirks(max_size=30), Quirks(total="string")], ids=repr)
async def test_many_webhooks(session: CopyAISession, copyai_emulator: Emulator, quirks: Quirks) -> None:
    """All webhooks are listed once, although the pages of this list start at 0."""
    copyai_emulator.quirks = quirks
    made = [(await session.create_webhook(f"{URL}/{number}", COMPLETED)).id for number in range(215)]

    assert [webhook.id async for webhook in session.webhooks()] == made


async def test_ensure_webhook(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """The same webhook is created once. Another webhook is created for another URL, event or workflow."""
    first = await session.ensure_webhook(URL, COMPLETED)

    assert await session.ensure_webhook(URL, "workflowRun.completed") == first
    await session.ensure_webhook(f"{URL}/2", COMPLETED)
    await session.ensure_webhook(URL, WebhookEventType.RUN_FAILED)
    await session.ensure_webhook(URL, COMPLETED, copyai_emulator.workflow_id)
    assert len(copyai_emulator.webhooks) == 4


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("https://example.com/hook", "HTTPS://Example.COM:443/hook"),
        ("https://example.com/", "https://example.com"),
        ("https://example.com/hook", "https://example.com/a/../hook#part"),
        ("https://example.com/~bot/%C3%BC", "https://example.com/%7ebot/ü"),
        ("https://xn--bcher-kva.example.com/", "https://bücher.example.com/"),
        ("HTTPS://EXAMPLE.com:443", "https://example.com/"),
    ],
)
@pytest.mark.parametrize("workflow", [{"workflowId": ""}, {"workflowId": None}, {}])
@pytest.mark.parametrize("workflow_id", [None, ""])
async def test_ensure_webhook_compares_normalized_values(
    session: CopyAISession, copyai_emulator: Emulator, listed: str, url: str, workflow: dict[str, JSON],
    workflow_id: str | None,
) -> None:  # fmt: skip
    """A webhook with an equivalent URL, or for all workflows, is found in any form that the API may list."""
    item: dict[str, JSON] = {"id": "1", "eventType": COMPLETED, "url": listed, **workflow}
    copyai_emulator.inject(Fault(body={"total": 1, "data": [item]}))

    assert (await session.ensure_webhook(url, COMPLETED, workflow_id)).id == "1"
    assert len(copyai_emulator.requests) == 1


@pytest.mark.parametrize(
    "url",
    ["http://example.com/hook", "https://example.com/hook/", "https://example.com/Hook", "https://example.com/hook?a"],
)
async def test_ensure_webhook_distinguishes_other_urls(
    session: CopyAISession, copyai_emulator: Emulator, url: str
) -> None:
    """Another webhook is created if the listed URL is invalid, or may be that of another resource."""
    items: list[JSON] = [
        {"id": str(number), "eventType": COMPLETED, "url": listed}
        for number, listed in enumerate(["https://example.com/hook", "http://[", "", None, 5])
    ]
    copyai_emulator.inject(Fault(body={"total": 5, "data": items}))
    await session.ensure_webhook(url, COMPLETED)

    assert [webhook["url"] for webhook in copyai_emulator.webhooks] == [url]


async def test_ensure_webhook_after_a_lost_response(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """After a lost response, a created webhook is found, and one that was not created raises the error."""
    copyai_emulator.inject(Fault(reset="after"), method="POST")
    await session.ensure_webhook(URL, COMPLETED)
    copyai_emulator.inject(Fault(status=503), method="POST")
    with pytest.raises(ServerError) as caught:
        await session.ensure_webhook(f"{URL}/2", COMPLETED)

    assert caught.value.ambiguous
    assert len(copyai_emulator.webhooks) == 1


async def test_a_deletion_after_a_lost_response(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A deletion whose response is lost succeeds if the webhook no longer exists."""
    hook = await session.create_webhook(URL, COMPLETED)
    copyai_emulator.inject(Fault(truncate=1), method="DELETE")
    await session.delete_webhook(hook.id)

    assert copyai_emulator.webhooks == []


async def test_an_unknown_event_is_kept(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A webhook for an undocumented event is listed."""
    copyai_emulator.inject(
        Fault(body={"total": 1, "data": [{"id": "1", "eventType": "step.done", "url": 5, "createdAt": "x"}]})
    )
    (hook,) = [webhook async for webhook in session.webhooks()]

    assert (hook.event_type, hook.url, hook.extra) == ("step.done", None, {"url": 5, "createdAt": "x"})


@pytest.mark.parametrize("body", [[], {"total": 0}, {"total": 1, "data": [{"url": "x"}]}, {"total": 1, "data": [3]}])
async def test_a_response_without_webhooks(session: CopyAISession, copyai_emulator: Emulator, body: Any) -> None:  # noqa: ANN401 (raw JSON)
    """A response without a list of webhooks raises `InvalidResponseError`."""
    copyai_emulator.inject(Fault(body=body, status=200))
    with pytest.raises(InvalidResponseError):
        [webhook async for webhook in session.webhooks()]


@pytest.mark.parametrize("url", ["", "example.com", "ftp://example.com/x", "http://", 3, "http://[x"])
async def test_invalid_urls(session: CopyAISession, copyai_emulator: Emulator, url: Any) -> None:  # noqa: ANN401 (bad on purpose)
    """A URL that cannot receive deliveries raises `ValueError` before anything is sent."""
    with pytest.raises(ValueError, match="url must be"):
        await session.ensure_webhook(url, COMPLETED)

    assert copyai_emulator.requests == []


async def test_a_webhook_for_an_invalid_workflow(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An invalid workflow id raises `ValueError` before the list of webhooks is requested."""
    for call in (session.ensure_webhook, session.create_webhook):
        with pytest.raises(ValueError, match="workflow_id"):
            await call(URL, COMPLETED, "..")

    assert copyai_emulator.requests == []


async def test_check_key(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A valid key is confirmed with one request that costs nothing; an invalid one raises `AuthenticationError`."""
    await session.check_key()

    assert [(request.method, request.page, request.size) for request in copyai_emulator.requests] == [("GET", 0, 1)]
    async with CopyAISession("wrong", base_url=copyai_emulator.url) as other:
        with pytest.raises(AuthenticationError):
            await other.check_key()
