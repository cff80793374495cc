"""Tests of `WebhookEvent.parse` with each known body, and with any other."""

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
def test_bodies_of_completed_runs(body: dict[str, JSON]) -> None:
    """The three known bodies result in the same event, except for the fields that they lack."""
    event = WebhookEvent.parse(json.dumps(body).encode())

    assert (event.type, event.run_id, event.workflow_id) == (WebhookEventType.RUN_COMPLETED, "WRUN-1", "WCFG-1")
    assert event.output == {"Email": "Hello"}
    assert event.metadata == (body.get("metadata") or {})
    assert event.credits == (4 if "credits" in body else None)
    assert event.run is None


def test_other_fields() -> None:
    """Fields without an attribute are in `extra`, by their names in the JSON."""
    event = WebhookEvent.parse(WHOLE_RUN)

    assert event.extra == {name: WHOLE_RUN[name] for name in ("id", "status", "input", "createdAt", "error")}
    assert WebhookEvent.parse(TODAY).extra == {}


def test_types_of_a_body() -> None:
    """A body may be bytes, with or without a byte order mark, a string, or an object."""
    text = json.dumps(TODAY)

    events = {WebhookEvent.parse(body) for body in (text.encode(), b"\xef\xbb\xbf" + text.encode(), text, TODAY)}

    assert len(events) == 1


def test_argument_is_not_changed() -> None:
    """A dict that is passed is not changed."""
    body = dict(TODAY)

    WebhookEvent.parse(body)

    assert body == TODAY


@pytest.mark.parametrize("kind", [*WebhookEventType, "workflowRun.paused"])
def test_only_a_type(kind: str) -> None:
    """A body with only a type is an event, even if the type is unknown, because some bodies are not documented."""
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
def test_output(body: dict[str, JSON], output: JSON) -> None:
    """A result is unwrapped only if its only field is an object named output."""
    assert WebhookEvent.parse({"type": "t", **body}).output == output


def test_two_outputs() -> None:
    """If a body has both `result` and `output`, the second is kept in `extra`."""
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
def test_values_of_the_wrong_type(name: str, value: JSON) -> None:
    """A value of the wrong type is kept in `extra`, and affects neither the event nor its other fields."""
    event = WebhookEvent.parse({"type": "workflowRun.failed", name: value, "credit": 1})

    assert event == WebhookEvent(WebhookEventType.RUN_FAILED, extra={name: value, "credit": 1})


@pytest.mark.parametrize(
    ("sent", "credits_"), [(2, 2), ("2", 2), (2.0, 2), ("2.0", 2), ("22.0000", 22), (2**70, 2**70)]
)
def test_credits(sent: JSON, credits_: int) -> None:
    """Credits may be sent as an integer, as a float or as a string."""
    event = WebhookEvent.parse(json.dumps({"type": "t", "credits": sent}))

    assert (event.credits, type(event.credits), event.extra) == (credits_, int, {})


def test_large_integers() -> None:
    """Integers beyond 64 bits are exact."""
    event = WebhookEvent.parse(json.dumps({"type": "t", "metadata": {"n": 2**70 + 1}, "other": [-(2**80)]}))

    assert (event.metadata, event.extra) == ({"n": 2**70 + 1}, {"other": [-(2**80)]})


def test_id_of_the_run() -> None:
    """`id` is the run's id in an event about a run, and is kept in `extra` in any other event."""
    event = WebhookEvent.parse({"type": "workflowRun.completed", "id": "WRUN-1"})
    other = WebhookEvent.parse({"type": "workflowCreditLimit.reached", "id": "evt_1"})

    assert (event.run_id, event.extra) == ("WRUN-1", {})
    assert (other.run_id, other.extra) == (None, {"id": "evt_1"})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "must be JSON"),
        (b"<html>", "must be JSON"),
        (b'{"type": "x"', "must be JSON"),
        (b'{"type": NaN}', "must be JSON"),
        (b"\xff\xfe", "must be JSON"),
        ("\ud800", "must be JSON"),
        (b"[" * 100_000, "must not be nested more than 500 levels deep"),
        (b"[" * 900 + b"]" * 900, "must be a JSON object"),
        (b"null", "must be a JSON object"),
        ('["type"]', "must be a JSON object"),
        (b"{}", "must have a type"),
        ({"type": 5, "x": 1}, "must have a type"),
        ({"type": ""}, "must have a type"),
    ],
)
def test_invalid_bodies(body: bytes | str | dict[str, JSON], reason: str) -> None:
    """A body that is not an object with a type raises an `InvalidEventError` that shows its beginning."""
    with pytest.raises(InvalidEventError, match=reason) as caught:
        WebhookEvent.parse(body)

    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CopyAIError)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize(("levels", "is_accepted"), [(499, True), (500, False), (900, False), (200_000, False)])
def test_depth(levels: int, is_accepted: bool, opening: str) -> None:  # noqa: FBT001 (a parameter of the test)
    """A body of up to 500 levels is accepted with every version of Python, and a deeper one rejected."""
    closing = {"[": "]", '{"a":': "}"}[opening]
    body = f'{{"type": "x", "y": {opening * levels}0{closing * levels}}}'
    if is_accepted:
        assert WebhookEvent.parse(body) == WebhookEvent.parse(json.loads(body))
        return
    with pytest.raises(InvalidEventError, match="more than 500 levels deep") as caught:
        WebhookEvent.parse(body)
    assert len(str(caught.value)) < 250
    if levels < 900:  # deeper JSON is not parsed by some versions
        with pytest.raises(InvalidEventError, match="more than 500 levels deep"):
            WebhookEvent.parse(json.loads(body))


def test_events_are_values() -> None:
    """Events compare by their fields, can be hashed and pickled, and cannot be changed."""
    event = WebhookEvent.parse(TODAY)

    assert event == WebhookEvent.parse(TODAY)
    assert event != WebhookEvent.parse(OLDER)
    assert len({event, WebhookEvent.parse(TODAY), WebhookEvent.parse(OLDER)}) == 2
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301 (our own)
    with pytest.raises(AttributeError):
        event.run_id = "WRUN-2"  # type: ignore[misc]


@given(st.dictionaries(st.sampled_from(KNOWN) | st.text(), JSON_VALUES) | JSON_VALUES)
def test_any_json(value: Any) -> None:  # noqa: ANN401 (any JSON)
    """Any JSON is parsed or raises `InvalidEventError`. Only fields with an attribute are missing in `extra`."""
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
    """Any bytes and any string are parsed, or raise `InvalidEventError`."""
    with suppress(InvalidEventError):
        WebhookEvent.parse(body)
