"""Convert JSON to models: envelopes, pages, runs and webhooks, and the bodies of errors.

The rules are based on Copy.ai's reference and on captured payloads:

- ``total`` and ``credits`` are integers, or numerals in a string.
- ``createdAt`` is ISO 8601 with a time zone, with or without milliseconds.
- ``input``, ``output`` and ``metadata`` are objects, null or absent; null means empty.
- ``id`` may be missing if ``workflowRunId`` has the same value.
- Any other field, and any value that does not fit its field, is kept in ``extra`` under its name in the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar, cast

from attrs import evolve

from aiocopyai._json import MAX_DEPTH, MAX_DIGITS, find_nested_object, is_deep, loads
from aiocopyai._text import excerpt
from aiocopyai.errors import InvalidResponseError
from aiocopyai.models import JSON, Page, Run, RunStatus, Webhook, WebhookEventType


T = TypeVar("T")


def parse_response(body: bytes, read: Callable[[JSON], T]) -> T:
    """Parse a response's body and return what `read` makes of it.

    Raises:
        InvalidResponseError: it is not JSON, or not what `read` expects.
    """
    try:
        return read(parse_json(body))
    except RecursionError:
        error = _nesting_error(body)
    raise error


def parse_json(body: bytes) -> JSON:
    """Parse JSON.

    Raises:
        InvalidResponseError: the body is nested too deeply, or is not JSON. The latter is retryable, because gateways
            send their own pages.
    """
    return cast("JSON", parse_with(loads, body))


def parse_with(parser: Callable[[bytes], T], body: bytes) -> T:
    """Parse JSON with a function that raises a ValueError if it is not JSON; raise the same errors as `parse_json`."""
    try:
        return parser(body)
    except RecursionError:
        error = _nesting_error(body)
    except ValueError:
        beginning = excerpt(body[:1000].decode(errors="replace")) if body else "nothing"
        error = InvalidResponseError("the response is not JSON", excerpt=beginning, retryable=True)
    raise error


def read_run(response: JSON, workflow_id: str) -> Run:
    """Read a response of ``GET /workflow/{id}/run/{run_id}``.

    A run that does not name its workflow belongs to `workflow_id`.

    Raises:
        InvalidResponseError: it has no run, or one without an id.
        RecursionError: the run is nested too deeply.
    """
    item = data_object(response)
    check_depth([item])
    return read_run_item(item, "data", workflow_id)[0]


def read_started_id(response: JSON) -> str:
    """Read the run's id from a response of ``POST /workflow/{id}/run``.

    Raises:
        InvalidResponseError: there is none.
        RecursionError: the response is nested too deeply.
    """
    item = data_object(response)
    check_depth([item])
    return _item_id(item, "data", "run")


def read_webhook(response: JSON) -> Webhook:
    """Read a response with one webhook.

    Raises:
        InvalidResponseError: it has no webhook, or one without an id.
        RecursionError: the webhook is nested too deeply.
    """
    item = data_object(response)
    check_depth([item])
    webhook, _ = _read_webhook_item(item, "data")
    return webhook


def read_webhook_page(response: JSON, number: int, size: int) -> Page[Webhook]:
    """Read a response of ``GET /webhook``: the one list without an envelope, though an envelope is accepted.

    Raises:
        InvalidResponseError: it has no list of webhooks, or an item is not an object or has no id.
        RecursionError: a webhook is nested too deeply.
    """
    if isinstance(response, dict) and isinstance(response.get("data"), dict):
        response = data_object(response)
    if not isinstance(response, dict):
        raise InvalidResponseError("expected an object", "", excerpt(response))
    items = response.get("data")
    if not isinstance(items, list):
        raise InvalidResponseError("expected a list of webhooks", "data", excerpt(items))
    check_depth(items)
    read = [_read_webhook_item(item, f"data[{index}]") for index, item in enumerate(items)]
    invalid = frozenset[str]().union(*(misfits for _, misfits in read))
    return Page(number, size, read_total(response.get("total")), [webhook for webhook, _ in read], invalid)


def read_nothing(_body: bytes) -> None:
    """Ignore the body of a response to a deletion: ``{}``, ``Accepted`` or nothing."""


def read_total(total: JSON) -> int | None:
    """Read the ``total`` of a list, an integer or a numeric string of at most 63 bits; None if it is invalid."""
    try:
        count = read_integer(total)
    except MISFITS:
        return None
    return count if count is not None and 0 <= count < _MAX_TOTAL else None


def read_error(text: str) -> tuple[str | None, JSON, JSON]:
    """Return the ``errorCode`` and the ``details`` of an error, and its body as JSON, or the beginning of its text."""
    try:
        body = parse_json(text.encode())
    except (InvalidResponseError, UnicodeEncodeError):
        return None, None, text[:_MAX_ERROR_TEXT]
    if is_deep([body], _MAX_ERROR_DEPTH):
        # The repr and pickling of a deeper value would raise a RecursionError.
        return None, None, text[:_MAX_ERROR_TEXT]
    if not isinstance(body, dict):
        return None, None, body
    code = body.get("errorCode")
    return (code if isinstance(code, str) else None), body.get("details"), body


def _nesting_error(body: bytes) -> InvalidResponseError:
    """Return an error that names the run whose fields are nested too deeply."""
    place, run_id = find_nested_object(body, MAX_DEPTH) or find_nested_object(body, MAX_DEPTH // 2) or ("", "")
    subject = f"run {run_id}" if run_id else "the response"
    return InvalidResponseError(f"{subject} is nested too deeply", place)


def check_depth(values: Iterable[JSON]) -> None:
    """Raise a RecursionError if a value is nested so deeply that functions such as its repr would fail."""
    if is_deep(values, MAX_DEPTH):
        raise RecursionError


def data_object(response: JSON) -> dict[str, JSON]:
    """Return the object in ``{"status": "success", "data": {…}}``."""
    if not isinstance(response, dict):
        raise InvalidResponseError("expected an object", "", excerpt(response))
    if response.get("status") == "error":
        raise InvalidResponseError("an error in a response with a success status", "status", excerpt(response))
    data = response.get("data")
    if not isinstance(data, dict):
        raise InvalidResponseError("expected an object", "data", excerpt(data))
    return data


# The values of fields. Each function returns the value of an attribute, or raises one of `MISFITS`.


def _id(value: JSON) -> str:
    if type(value) is not str or not value:
        raise TypeError
    return value


def _webhook_id(value: JSON) -> str:
    # The vendor's example of a list has a webhook with an empty id.
    if type(value) is not str:
        raise TypeError
    return value


def _string(value: JSON) -> str | None:
    if value is None or type(value) is str:
        return value
    raise TypeError


def _status(value: JSON) -> RunStatus | None:
    text = _string(value)
    return None if text is None else RunStatus(text)


def _event_type(value: JSON) -> WebhookEventType | None:
    text = _string(value)
    return None if text is None else WebhookEventType(text)


def _object(value: JSON) -> dict[str, JSON]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise TypeError
    return value


def _time(value: JSON) -> datetime | None:
    text = _string(value)
    if text is None:
        return None
    time = datetime.fromisoformat(text.upper())
    if time.tzinfo is None:
        raise ValueError
    return time.astimezone(UTC)


def read_integer(value: JSON) -> int | None:
    """Read an integer or None. Floats and strings with an integer are accepted: ``2.0``, ``"2"``, ``"2.0000"``.

    Raises:
        TypeError: it is another value.
    """
    if value is None or type(value) is int:
        return value
    if type(value) is float and value.is_integer() and abs(value) <= _EXACT_INTEGERS:
        return int(value)
    if type(value) is str and len(value) <= MAX_DIGITS and (match := _NUMERAL.fullmatch(value)):
        return int(match[1])
    raise TypeError


def _any(value: JSON) -> JSON:
    return value


ReadValue = Callable[[JSON], object]
RUN_FIELDS: Final[dict[str, tuple[str, ReadValue]]] = {
    "id": ("id", _id),
    "workflow_id": ("workflowId", _string),
    "status": ("status", _status),
    "input": ("input", _object),
    "output": ("output", _object),
    "metadata": ("metadata", _object),
    "created_at": ("createdAt", _time),
    "credits": ("credits", read_integer),
    "error": ("error", _any),
}
"""For each attribute of a `Run` its name in the JSON and its value."""
_WEBHOOK_FIELDS: Final[dict[str, tuple[str, ReadValue]]] = {
    "id": ("id", _webhook_id),
    "url": ("url", _string),
    "event_type": ("eventType", _event_type),
    "workflow_id": ("workflowId", _string),
    "created_at": ("createdAt", _time),
}
_EXACT_INTEGERS: Final = 2.0**53
_MAX_TOTAL: Final = 2**63
"""Totals that do not fit into 64 bits would overflow where they are divided, as in a progress bar."""
_NUMERAL: Final = re.compile(r"(-?[0-9]+)(?:\.0*)?")
MISFITS: Final = (TypeError, ValueError, LookupError, AttributeError, OverflowError)
_MAX_ERROR_TEXT: Final = 2_000
_MAX_ERROR_DEPTH: Final = 100


def read_run_item(item: JSON, place: str, workflow_id: str | None) -> tuple[Run, set[str]]:
    """Read one run; return it, and the names of the fields with invalid values."""
    if not isinstance(item, dict):
        raise InvalidResponseError("a run that is not an object", place, excerpt(item))
    values, misfits = _read_fields(item, RUN_FIELDS)
    if "id" not in values:
        values["id"] = _item_id(item, place, "run")
    run = Run(**values)  # type: ignore[arg-type]  # each value has the type of its field
    return (run if run.workflow_id or workflow_id is None else evolve(run, workflow_id=workflow_id)), misfits


def _read_webhook_item(item: JSON, place: str) -> tuple[Webhook, set[str]]:
    if not isinstance(item, dict):
        raise InvalidResponseError("a webhook that is not an object", place, excerpt(item))
    values, misfits = _read_fields(item, _WEBHOOK_FIELDS)
    if "id" not in values:
        values["id"] = _item_id(item, place, "webhook")
    return Webhook(**values), misfits  # type: ignore[arg-type]  # each value has the type of its field


def _read_fields(
    item: dict[str, JSON], table: Mapping[str, tuple[str, ReadValue]]
) -> tuple[dict[str, object], set[str]]:
    """Read the fields of a table; return the attributes, and the names of fields with invalid values."""
    known = {json_name for json_name, _ in table.values()}
    attributes: dict[str, object] = {}
    extra = {name: value for name, value in item.items() if name not in known}
    misfits: set[str] = set()
    for name, (json_name, convert) in table.items():
        if json_name not in item:
            continue
        try:
            attributes[name] = convert(item[json_name])
        except MISFITS:
            extra[json_name] = item[json_name]
            misfits.add(json_name)
    attributes["extra"] = extra
    return attributes, misfits


def _item_id(item: dict[str, JSON], place: str, kind: str) -> str:
    """Return an item's id, from ``workflowRunId`` or a number if ``id`` is not a string."""
    for value in (item.get("id"), item.get("workflowRunId")):
        if isinstance(value, str) and value:
            return value
    for value in (item.get("workflowRunId"), item.get("id")):
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    raise InvalidResponseError(f"a {kind} without an id", place, excerpt(item))
