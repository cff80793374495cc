"""`WebhookEvent`: the content of a delivery, for every known form of its body.

Deliveries are neither signed nor fully documented. Three bodies of a completed run are known: its output is in
``result``, in ``result.output``, or in the ``output`` of the whole run. The bodies of the other events are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from attrs import field, frozen

from aiocopyai._json import is_deep
from aiocopyai._parsing import parse_json, read_integer
from aiocopyai._text import bounded_repr, excerpt
from aiocopyai.errors import InvalidEventError, InvalidResponseError
from aiocopyai.models import JSON, Run, WebhookEventType


T = TypeVar("T")

_MAX_DEPTH: Final = 500
"""The maximum number of nested levels in a delivery. Every version of Python can parse more."""
_TOO_DEEP: Final = f"a delivery must not be nested more than {_MAX_DEPTH} levels deep"


@frozen
class WebhookEvent:
    """An event that was delivered to a webhook.

    Anyone who knows the webhook's URL can send a delivery. If `run` is None, the event is not confirmed. Events are
    compared by all attributes and hashed by their type and run id.

    Attributes:
        type: what happened. A type that the reference does not list is kept.
        run_id: the run's id, an opaque string; None if the delivery has none.
        workflow_id: the workflow's id, an opaque string; None if the delivery has none.
        output: the outputs by step name: any JSON.
        metadata: the metadata that the run was started with.
        credits: the credits that the run has cost; None if the delivery has none.
        run: the run that the API returned to confirm the event; None if the event is not confirmed.
        extra: all fields without an attribute, and values that do not fit their attribute, unchanged, by their names in
            the JSON.
    """

    type: WebhookEventType
    run_id: str | None = field(default=None, repr=bounded_repr)
    workflow_id: str | None = field(default=None, repr=bounded_repr)
    output: Mapping[str, Any] = field(factory=dict[str, Any], repr=bounded_repr)
    metadata: Mapping[str, Any] = field(factory=dict[str, Any], repr=bounded_repr)
    credits: int | None = field(default=None, repr=bounded_repr)
    run: Run | None = None
    extra: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)

    def __hash__(self) -> int:
        return hash((self.type, self.run_id))

    @classmethod
    def parse(cls, body: bytes | str | Mapping[str, Any]) -> WebhookEvent:
        """Parse the body of a delivery, in any known form.

        The reference documents the body of ``workflowRun.completed`` in two forms, and a third has been captured. The
        bodies of the other events are not documented. If a field is missing, null or of the wrong type, its attribute
        is None or empty, and a value of the wrong type is in `extra`.

        Args:
            body: the body as bytes, as a string, or as parsed JSON.

        Raises:
            InvalidEventError: the body is not JSON, not an object, is nested more than 500 levels deep, or has no
                ``type``.
        """
        if isinstance(body, Mapping):
            fields, body_excerpt = dict(body), excerpt(", ".join(map(str, body)))
        else:
            fields, body_excerpt = _decode(body)
        if is_deep([fields], _MAX_DEPTH):
            raise InvalidEventError(_TOO_DEEP, body_excerpt)
        event_type = _take(fields, "type", _read_string)
        if event_type is None:
            raise InvalidEventError("a delivery must have a type", body_excerpt)
        run_id = _take(fields, "workflowRunId", _read_string)
        if run_id is None and event_type.startswith("workflowRun."):
            # If the body is the whole run, the id may have only this name.
            run_id = _take(fields, "id", _read_string)
        output = _take(fields, "result", _read_object)
        if output is None:
            output = _take(fields, "output", _read_object) or {}
        elif len(output) == 1 and isinstance(inner := output.get("output"), dict):
            output = inner
        return cls(
            type=WebhookEventType(event_type),
            run_id=run_id,
            workflow_id=_take(fields, "workflowId", _read_string),
            output=output,
            metadata=_take(fields, "metadata", _read_object) or {},
            credits=_take(fields, "credits", read_integer),
            extra=fields,
        )


def _decode(body: bytes | str) -> tuple[dict[str, JSON], str]:
    """Return the decoded body, and an excerpt for errors."""
    # Errors show the body before decoding, because the decoded body may be nested too deeply.
    beginning = body[:100]
    body_excerpt = excerpt(beginning if isinstance(beginning, str) else beginning.decode(errors="replace"))
    try:
        value = parse_json(body.encode() if isinstance(body, str) else bytes(body))
    except (InvalidResponseError, UnicodeEncodeError) as error:
        is_nested = isinstance(error, InvalidResponseError) and not error.retryable
        raise InvalidEventError(_TOO_DEEP if is_nested else "a delivery must be JSON", body_excerpt) from None
    if not isinstance(value, dict):
        raise InvalidEventError("a delivery must be a JSON object", body_excerpt)
    return value, body_excerpt


def _take(fields: dict[str, JSON], name: str, read: Callable[[JSON], T | None]) -> T | None:
    """Remove a field and return its value. Keep the field if `read` rejects its value. Null counts as missing."""
    value = fields.get(name)
    try:
        taken = read(value)
    except TypeError:
        return None
    if taken is not None or value is None:
        fields.pop(name, None)
    return taken


def _read_string(value: JSON) -> str | None:
    return value if isinstance(value, str) and value else None


def _read_object(value: JSON) -> dict[str, JSON] | None:
    return value if isinstance(value, dict) else None
