"""`WebhookEvent.parse`: every known body, and whatever else may come."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai.errors import CopyAIError, InvalidEventError
from aiocopyai.models import JSON, WebhookEventType
from aiocopyai.webhooks._event import WebhookEvent
from tests.support.strategies import JSON_VALUES


IDS: dict[str, JSON] = {"workflowRunId": "WRUN-1", "workflowId": "WCFG-1"}
TODAY: dict[str, JSON] = {
    "type": "workflowRun.completed",
    **IDS,
    "result": {"Email": "Hello"},
    "metadata": {"api": True},
    "credits": 4,
}
OLDER: dict[str, JSON] = {"type": "workflowRun.completed", **IDS, "result": {"output": {"Email": "Hello"}}}
WHOLE_RUN: dict[str, JSON] = {
    "id": "WRUN-1",
    **IDS,
    "type": "workflowRun.completed",
    "status": "COMPLETE",
    "input": {"Tone": "Formal"},
    "output": {"Email": "Hello"},
    "metadata": None,
    "createdAt": "2025-04-29T15:08:01.326Z",
    "credits": "4",
    "error": None,
}
KNOWN = ("type", "workflowRunId", "workflowId", "id", "result", "output", "metadata", "credits")


@pytest.mark.parametrize("body", [TODAY, OLDER, WHOLE_RUN], ids=["today", "older", "run"])
def test_the_known_bodies_of_a_completed_run(body: dict[str, JSON]) -> None:
    """The three bodies that are known give the same event, but for what they leave out."""
    event = WebhookEvent.parse(json.dumps(body).encode())

    assert (event.type, event.run_id, event.workflow_id) == (WebhookEventType.RUN_COMPLETED, "WRUN-1", "WCFG-1")
    assert event.output == {"Email": "Hello"}
    assert event.metadata == (body.get("metadata") or {})
    assert event.credits == (4 if "credits" in body else None)
    assert event.run is None


def test_what_has_no_attribute_is_kept() -> None:
    """Fields without an attribute stand in `extra` under their wire names."""
    event = WebhookEvent.parse(WHOLE_RUN)

    assert event.extra == {name: WHOLE_RUN[name] for name in ("id", "status", "input", "createdAt", "error")}
    assert WebhookEvent.parse(TODAY).extra == {}


def test_bytes_text_and_object_are_read_alike() -> None:
    """A body may come as bytes, with or without a byte order mark, as text, or read already."""
    text = json.dumps(TODAY)

    events = {WebhookEvent.parse(body) for body in (text.encode(), b"\xef\xbb\xbf" + text.encode(), text, TODAY)}

    assert len(events) == 1


def test_an_object_is_not_changed() -> None:
    """What was passed in stays as it was."""
    body = dict(TODAY)

    WebhookEvent.parse(body)

    assert body == TODAY


@pytest.mark.parametrize("kind", [*WebhookEventType, "workflowRun.paused"])
def test_an_event_may_be_all_but_its_type(kind: str) -> None:
    """Of the other events nothing is known: a type alone is one, unknown ones too."""
    event = WebhookEvent.parse({"type": kind})

    assert event == WebhookEvent(WebhookEventType(kind))
    assert event.type == kind


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"result": {"output": {"a": 1}, "b": 2}}, {"output": {"a": 1}, "b": 2}),
        ({"result": {"output": "text"}}, {"output": "text"}),
        ({"result": {}}, {}),
        ({"result": None, "output": {"a": 1}}, {"a": 1}),
        ({"result": "done", "output": {"a": 1}}, {"a": 1}),
        ({"output": {"output": {"a": 1}}}, {"output": {"a": 1}}),
    ],
)
def test_where_the_output_stands(body: dict[str, JSON], output: JSON) -> None:
    """A result is unwrapped only if it is nothing but an object called output."""
    assert WebhookEvent.parse({"type": "t", **body}).output == output


def test_two_outputs() -> None:
    """Where a body has both fields, the second is not lost."""
    event = WebhookEvent.parse({"type": "t", "result": {"a": 1}, "output": {"b": 2}})

    assert (event.output, event.extra) == ({"a": 1}, {"output": {"b": 2}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workflowRunId", 5),
        ("workflowRunId", ""),
        ("workflowId", ["x"]),
        ("result", "done"),
        ("output", []),
        ("metadata", "x"),
        ("credits", "many"),
        ("credits", True),
        ("credits", 1.5),
        ("credits", "9" * 5_000),
    ],
)
def test_a_value_that_does_not_fit(name: str, value: JSON) -> None:
    """A value that doesn't fit is kept as it came, and costs neither the event nor the other fields."""
    event = WebhookEvent.parse({"type": "workflowRun.failed", name: value, "credit": 1})

    assert event == WebhookEvent(WebhookEventType.RUN_FAILED, extra={name: value, "credit": 1})


def test_the_run_may_be_named_by_its_id() -> None:
    """The whole run may have its id under `id` alone; in an event that is of no run, `id` is something else."""
    event = WebhookEvent.parse({"type": "workflowRun.completed", "id": "WRUN-1"})
    other = WebhookEvent.parse({"type": "workflowCreditLimit.reached", "id": "evt_1"})

    assert (event.run_id, event.extra) == ("WRUN-1", {})
    assert (other.run_id, other.extra) == (None, {"id": "evt_1"})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b'{"type": "x"', "not JSON"),
        (b'{"type": NaN}', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("\ud800", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[" * 900 + b"]" * 900, "no object"),
        (b"null", "no object"),
        ('["type"]', "no object"),
        (b"{}", "without a type"),
        ({"type": 5, "x": 1}, "without a type"),
        ({"type": ""}, "without a type"),
    ],
)
def test_no_event(body: bytes | str | dict[str, JSON], reason: str) -> None:
    """What is no JSON, no object or has no type is an `InvalidEventError` that shows its beginning."""
    with pytest.raises(InvalidEventError, match=reason) as caught:
        WebhookEvent.parse(body)

    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CopyAIError)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_events_are_values() -> None:
    """Events compare by their fields, can be put in a set, pickle, and can't be changed."""
    event = WebhookEvent.parse(TODAY)

    assert event == WebhookEvent.parse(TODAY)
    assert event != WebhookEvent.parse(OLDER)
    assert len({event, WebhookEvent.parse(TODAY), WebhookEvent.parse(OLDER)}) == 2
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301 (our own)
    with pytest.raises(AttributeError):
        event.run_id = "WRUN-2"  # type: ignore[misc]


@given(st.dictionaries(st.sampled_from(KNOWN) | st.text(), JSON_VALUES) | JSON_VALUES)
def test_any_json(value: Any) -> None:  # noqa: ANN401 (any JSON)
    """Any JSON at all is an event or an `InvalidEventError`, and an event has lost nothing but what it has read."""
    try:
        event = WebhookEvent.parse(json.dumps(value))
    except InvalidEventError:
        assert not isinstance(value, dict) or not isinstance(value.get("type"), str) or not value["type"]
        return
    read = {name for name in value if name not in event.extra}
    assert read <= {*KNOWN}
    assert event.type == value["type"]


@given(st.binary(max_size=64) | st.text(max_size=64))
def test_any_bytes(body: bytes | str) -> None:
    """Any bytes and any text are an event or an `InvalidEventError`."""
    with suppress(InvalidEventError):
        WebhookEvent.parse(body)
