"""From bytes to models: the JSON parser, the fast and the tolerant reader, envelopes and error bodies.

The rules, each from a vendor page or a captured payload:

- ``total`` and ``credits`` are integers or digits in a string.
- ``createdAt`` is ISO 8601 with a zone, with or without milliseconds.
- ``input``, ``output`` and ``metadata`` are objects, null or absent; null reads as empty.
- ``id`` may be missing where ``workflowRunId`` holds the same value.
- Any other field, and any value that doesn't fit its field, is kept in ``extra`` under its wire name.

A run is read by a function that cattrs generates once; it refuses whatever doesn't fit, and only then the tolerant
reader goes over that one item, field by field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Final, NoReturn, cast

from attrs import evolve, field, fields, make_class

from aiocopyai._text import excerpt
from aiocopyai.errors import InvalidResponseError
from aiocopyai.models import JSON, Page, Run, RunStatus, Webhook, WebhookEventType


def _load_strictly(body: bytes) -> JSON:
    def refuse(constant: str) -> NoReturn:
        msg = f"{constant} is no JSON"
        raise ValueError(msg)

    loaded: JSON = json.loads(body.decode(), parse_constant=refuse)
    return loaded


def _loader() -> Callable[[bytes], JSON]:
    try:
        from orjson import loads  # noqa: PLC0415 (the extra `speedups`)
    except ImportError:
        return _load_strictly
    return loads


_load: Final = _loader()


def parse_json(body: bytes) -> JSON:
    """Parse one answer's body.

    Raises:
        InvalidResponseError: it is no JSON; transient, as gateways answer with pages of their own.
    """
    text = body.removeprefix(b"\xef\xbb\xbf")
    try:
        return _load(text)
    except (ValueError, RecursionError):
        pass
    try:
        # orjson refuses half a surrogate pair, which would cost a page for one odd character in one output.
        return _load_strictly(text)
    except (ValueError, RecursionError):
        beginning = excerpt(body.decode(errors="replace")) if body else "nothing"
    reason = "the answer is not JSON"
    raise InvalidResponseError(reason, excerpt=beginning, retryable=True)


def read_run_page(answer: JSON, number: int, size: int) -> Page[Run]:
    """Read an answer of ``GET /workflow/{id}/run`` that was asked for page `number` of `size` runs.

    Raises:
        InvalidResponseError: no list of runs stands where it should, or an item is no object or has no id.
    """
    data = _data_object(answer)
    items = data.get("data")
    if not isinstance(items, list):
        raise InvalidResponseError("no list of runs", "data.data", excerpt(items))
    runs: list[Run] = []
    odd: set[str] = set()
    read = _fast_reader()
    for item in items:
        try:
            runs.append(read(item))
        except _REFUSALS:
            run, misfits = _read_tolerantly(item, f"data.data[{len(runs)}]")
            runs.append(run)
            odd |= misfits
    return Page(number, size, read_total(data.get("total")), runs, frozenset(odd))


def read_run(answer: JSON, workflow_id: str) -> Run:
    """Read an answer of ``GET /workflow/{id}/run/{run_id}``; a run that doesn't name its workflow is of `workflow_id`.

    Raises:
        InvalidResponseError: no run stands where it should, or it has no id.
    """
    run, _ = _read_tolerantly(_data_object(answer), "data")
    return run if run.workflow_id is not None else evolve(run, workflow_id=workflow_id)


def read_started_id(answer: JSON) -> str:
    """Read the run's id from an answer of ``POST /workflow/{id}/run``.

    Raises:
        InvalidResponseError: there is none.
    """
    data = _data_object(answer)
    run_id = data.get("id")
    return run_id if isinstance(run_id, str) and run_id else _other_id(data, "data")


def read_webhook(answer: JSON) -> Webhook:
    """Read an answer that holds one webhook.

    Raises:
        InvalidResponseError: no webhook stands where it should, or it has no id.
    """
    webhook, _ = _read_webhook_item(_data_object(answer), "data")
    return webhook


def read_webhook_page(answer: JSON, number: int, size: int) -> Page[Webhook]:
    """Read an answer of ``GET /webhook``: the one list without an envelope, though one is taken if it comes.

    Raises:
        InvalidResponseError: no list of webhooks stands where it should, or an item is no object or has no id.
    """
    if isinstance(answer, dict) and isinstance(answer.get("data"), dict):
        answer = _data_object(answer)
    if not isinstance(answer, dict):
        raise InvalidResponseError("no object", "", excerpt(answer))
    items = answer.get("data")
    if not isinstance(items, list):
        raise InvalidResponseError("no list of webhooks", "data", excerpt(items))
    read = [_read_webhook_item(item, f"data[{index}]") for index, item in enumerate(items)]
    odd = frozenset[str]().union(*(misfits for _, misfits in read))
    return Page(number, size, read_total(answer.get("total")), [webhook for webhook, _ in read], odd)


def read_nothing(_answer: JSON) -> None:
    """Take an answer whose body tells nothing, such as the ``{}`` of a deletion."""


def encode_json(name: str, value: Mapping[str, JSON]) -> bytes:
    """Encode an object as JSON in ASCII; `name` says in an error what it is.

    Raises:
        ValueError: something in it is no JSON: a NaN, a date, a key that is no text.
    """
    try:
        _check_keys(value)
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error)
    raise ValueError(f"{name} can't be sent as JSON: {reason}")


def _check_keys(value: object) -> None:
    """Refuse keys that json.dumps would turn into texts in silence."""
    if isinstance(value, dict):
        for key, inner in cast("dict[object, object]", value).items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is no text")
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in cast("list[object]", value):
            _check_keys(inner)


def read_total(total: JSON) -> int | None:
    """Read a list's ``total``: an integer, or one in a string; anything else is unknown."""
    try:
        count = _credits(total)
    except _REFUSALS:
        return None
    return count if count is not None and count >= 0 else None


def read_error(text: str) -> tuple[str | None, JSON, JSON]:
    """Read an error's body: its ``errorCode``, its ``details``, and the body itself, JSON or the text's beginning."""
    try:
        body = parse_json(text.encode())
    except (InvalidResponseError, UnicodeEncodeError):
        return None, None, text[:_TEXT_KEPT]
    if _is_deep(body):
        # An error is to be shown and pickled, and both end at some depth in a RecursionError.
        return None, None, text[:_TEXT_KEPT]
    if not isinstance(body, dict):
        return None, None, body
    code = body.get("errorCode")
    return (code if isinstance(code, str) else None), body.get("details"), body


def _is_deep(value: JSON) -> bool:
    """Whether a value is nested more than `_DEPTH_KEPT` deep."""
    level = [value]
    for _ in range(_DEPTH_KEPT):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: JSON) -> Iterable[JSON]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _envelope(answer: JSON) -> JSON:
    """Take the ``data`` out of ``{"status": "success", "data": …}``."""
    if not isinstance(answer, dict):
        raise InvalidResponseError("no object", "", excerpt(answer))
    if answer.get("status") == "error":
        raise InvalidResponseError("an error in an answer that says success", "status", excerpt(answer))
    return answer.get("data")


def _data_object(answer: JSON) -> dict[str, JSON]:
    """Take the object out of an envelope."""
    data = _envelope(answer)
    if not isinstance(data, dict):
        raise InvalidResponseError("no object", "data", excerpt(data))
    return data


def _id(value: JSON, _: object = None) -> str:
    if type(value) is not str or not value:
        raise TypeError
    return value


def _text(value: JSON, _: object = None) -> str | None:
    if value is None or type(value) is str:
        return value
    raise TypeError


def _status(value: JSON, _: object = None) -> RunStatus | None:
    known = _STATUSES.get(value)  # type: ignore[arg-type]  # an unhashable value is refused by the look-up's TypeError
    if known is not None or value is None:
        return known
    return RunStatus(value)  # type: ignore[arg-type]  # what is no text is refused by its ValueError


def _event_type(value: JSON, _: object = None) -> WebhookEventType | None:
    text = _text(value)
    return None if text is None else WebhookEventType(text)


def _mapping(value: JSON, _: object = None) -> dict[str, JSON]:
    if type(value) is dict:
        return value
    if value is None:
        return {}
    raise TypeError


def _moment(value: JSON, _: object = None) -> datetime | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value)  # type: ignore[arg-type]  # what is no text is refused by its TypeError
    if moment.tzinfo is UTC:
        return moment
    if moment.tzinfo is None:
        raise ValueError
    return moment.astimezone(UTC)


def _credits(value: JSON, _: object = None) -> int | None:
    if type(value) is int or value is None:
        return value
    if type(value) is str and value.isascii() and value.removeprefix("-").isdecimal():
        return int(value)
    raise TypeError


def _raw(value: JSON, _: object = None) -> JSON:
    return value


_Hook = Callable[[JSON, object], object]
_FIELDS: Final[dict[str, tuple[str, _Hook]]] = {
    "id": ("id", _id),
    "workflow_id": ("workflowId", _text),
    "status": ("status", _status),
    "input": ("input", _mapping),
    "output": ("output", _mapping),
    "metadata": ("metadata", _mapping),
    "created_at": ("createdAt", _moment),
    "credits": ("credits", _credits),
    "error": ("error", _raw),
}
_WEBHOOK_FIELDS: Final[dict[str, tuple[str, _Hook]]] = {
    "id": ("id", _id),
    "url": ("url", _text),
    "event_type": ("eventType", _event_type),
    "workflow_id": ("workflowId", _text),
    "created_at": ("createdAt", _moment),
}
_KNOWN: Final = frozenset(wire_name for wire_name, _ in _FIELDS.values())
_STATUSES: Final = {status.value: status for status in RunStatus}
_REFUSALS: Final = (TypeError, ValueError, KeyError, AttributeError, OverflowError)
_TEXT_KEPT: Final = 2_000
_DEPTH_KEPT: Final = 100


@cache
def _fast_reader() -> Callable[[JSON], Run]:
    """Generate the reader of one item, once in a process. It raises one of `_REFUSALS` at whatever doesn't fit."""
    # Imported at the first answer: cattrs takes longer to import than all the rest of this package.
    from cattrs import Converter  # noqa: PLC0415
    from cattrs.gen import make_dict_structure_fn, override  # noqa: PLC0415

    # A run's fields in a class that is not frozen: setting them there takes a third of the time. What comes out is
    # made a Run by its class, as both have the same slots.
    names = {attribute.name: field(init=attribute.name != "extra") for attribute in fields(Run)}
    draft = cast("type[Run]", make_class("Draft", names, slots=True, weakref_slot=False, eq=False, repr=False))
    structure = make_dict_structure_fn(
        draft,
        Converter(detailed_validation=False),
        _cattrs_detailed_validation=False,
        **{name: override(rename=wire_name, struct_hook=hook) for name, (wire_name, hook) in _FIELDS.items()},  # type: ignore[arg-type]  # cattrs types its own options and the overrides by one signature
    )

    def read(item: JSON) -> Run:
        if type(item) is not dict:
            raise TypeError
        unknown, absent = _shape(tuple(item))
        for name in absent:
            item[name] = None
        try:
            run = structure(item, draft)
        except _REFUSALS:
            for name in absent:
                del item[name]
            raise
        run.extra = {name: item[name] for name in unknown}  # type: ignore[misc]  # a draft still, and not frozen
        run.__class__ = Run
        return run

    return read


@lru_cache(maxsize=256)
def _shape(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tell which of an item's names are unknown, and which fields it has not; items mostly have the same names."""
    return (
        tuple(name for name in names if name not in _KNOWN),
        tuple(name for name in _KNOWN if name not in names and name != "id"),
    )


def _read_tolerantly(item: JSON, place: str) -> tuple[Run, set[str]]:
    """Read an item that the fast reader refused, and name the fields whose values didn't fit."""
    if not isinstance(item, dict):
        raise InvalidResponseError("a run that is no object", place, excerpt(item))
    values, odd = _read_fields(item, _FIELDS)
    if "id" not in values:
        values["id"] = _other_id(item, place)
    return Run(**values), odd  # type: ignore[arg-type]  # each value comes from its own field's hook


def _read_webhook_item(item: JSON, place: str) -> tuple[Webhook, set[str]]:
    if not isinstance(item, dict):
        raise InvalidResponseError("a webhook that is no object", place, excerpt(item))
    values, odd = _read_fields(item, _WEBHOOK_FIELDS)
    if "id" not in values:
        values["id"] = _other_id(item, place, "webhook")
    return Webhook(**values), odd  # type: ignore[arg-type]  # each value comes from its own field's hook


def _read_fields(item: dict[str, JSON], table: Mapping[str, tuple[str, _Hook]]) -> tuple[dict[str, object], set[str]]:
    """Read the fields of a table from an item, what doesn't fit into ``extra``; name the latter."""
    known = {wire_name for wire_name, _ in table.values()}
    values: dict[str, object] = {}
    extra = {name: value for name, value in item.items() if name not in known}
    odd: set[str] = set()
    for name, (wire_name, hook) in table.items():
        if wire_name not in item:
            continue
        try:
            values[name] = hook(item[wire_name], None)
        except _REFUSALS:
            extra[wire_name] = item[wire_name]
            odd.add(wire_name)
    values["extra"] = extra
    return values, odd


def _other_id(item: dict[str, JSON], place: str, what: str = "run") -> str:
    """Find an id for an item whose ``id`` is none."""
    for value in (item.get("workflowRunId"), item.get("id")):
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value:
            return value
    raise InvalidResponseError(f"a {what} without an id", place, excerpt(item))
