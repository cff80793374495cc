"""`WebhookEvent`: what a delivery says, whichever of the known bodies it has.

Deliveries are neither signed nor described in full. Of a completed run three bodies are known: its results stand under
``result``, under ``result.output``, or under ``output`` in the whole run; those of the other events are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from attrs import field, frozen

from aiocopyai._parsing import parse_json
from aiocopyai._text import excerpt
from aiocopyai.errors import InvalidEventError, InvalidResponseError
from aiocopyai.models import JSON, Run, WebhookEventType


T = TypeVar("T")


@frozen
class WebhookEvent:
    """One delivery to a webhook.

    Anyone who knows the webhook's address can send one: until it is confirmed (see `run`) it is a claim.
    Events compare by all their fields and hash by their type and run.
    """

    type: WebhookEventType
    """What happened; a type that the reference doesn't know is kept."""
    run_id: str | None = None
    """The run that it happened to, where the delivery says; opaque."""
    workflow_id: str | None = None
    """The run's workflow, where the delivery says; opaque."""
    output: Mapping[str, JSON] = field(factory=dict[str, JSON])
    """What the run made, by step name."""
    metadata: Mapping[str, JSON] = field(factory=dict[str, JSON])
    """What the run's starter attached."""
    credits: int | None = None
    """What the run has cost, in credits."""
    run: Run | None = None
    """The run as the API told it when the event was confirmed; None in an event that is not confirmed."""
    extra: Mapping[str, JSON] = field(factory=dict[str, JSON], repr=False)
    """Every other field under its wire name, and the known ones whose values don't fit."""

    def __hash__(self) -> int:
        return hash((self.type, self.run_id))

    @classmethod
    def parse(cls, body: bytes | str | Mapping[str, JSON]) -> WebhookEvent:
        """Read a delivery's body, of any event and in any of the known forms.

        A field that is missing, null or doesn't fit is None or empty, and what doesn't fit stands in `extra`.

        Args:
            body: the body as it came, its text, or the object that was read from it.

        Raises:
            InvalidEventError: it is no JSON or no object, or has no ``type``.
        """
        rest, shown = _read_object(body)
        kind = _take(rest, "type", _text)
        if kind is None:
            raise InvalidEventError("a delivery without a type", shown)
        return cls(
            type=WebhookEventType(kind),
            run_id=_take_run_id(rest, kind),
            workflow_id=_take(rest, "workflowId", _text),
            output=_take_output(rest),
            metadata=_take(rest, "metadata", _object) or {},
            credits=_take(rest, "credits", _whole),
            extra=rest,
        )


def _read_object(body: bytes | str | Mapping[str, JSON]) -> tuple[dict[str, JSON], str]:
    """Return an object of the reader's own, and what to show of the body in an error."""
    if isinstance(body, Mapping):
        return dict(body), excerpt(", ".join(map(str, body)))
    try:
        raw = body.encode() if isinstance(body, str) else bytes(body)
        value = parse_json(raw)
    except (InvalidResponseError, UnicodeEncodeError):
        raise InvalidEventError("a delivery that is not JSON", _beginning(body)) from None
    if not isinstance(value, dict):
        raise InvalidEventError("a delivery that is no object", _beginning(body))
    return value, _beginning(body)


def _beginning(body: bytes | str) -> str:
    """Show how a body begins; the body and not its value, which may be nested too deeply to be shown."""
    piece = body[:100]
    return excerpt(piece if isinstance(piece, str) else piece.decode(errors="replace"))


def _take(rest: dict[str, JSON], name: str, read: Callable[[JSON], T | None]) -> T | None:
    """Take a field out of an object, and leave it there if its value doesn't fit. Null counts as absent."""
    value = rest.get(name)
    taken = read(value)
    if taken is not None or value is None:
        rest.pop(name, None)
    return taken


def _take_run_id(rest: dict[str, JSON], kind: str) -> str | None:
    """Take the run's id, which a body that is the whole run may have under ``id`` alone."""
    run_id = _take(rest, "workflowRunId", _text)
    if run_id is None and kind.startswith("workflowRun."):
        return _take(rest, "id", _text)
    return run_id


def _take_output(rest: dict[str, JSON]) -> dict[str, JSON]:
    result = _take(rest, "result", _object)
    if result is None:
        return _take(rest, "output", _object) or {}
    inner = _object(result.get("output"))
    return inner if inner is not None and len(result) == 1 else result


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) and value else None


def _object(value: JSON) -> dict[str, JSON] | None:
    return value if isinstance(value, dict) else None


def _whole(value: JSON) -> int | None:
    """Read an integer, or one in a text."""
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdecimal():
        try:
            return int(value)
        except ValueError:  # more digits than Python reads
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
