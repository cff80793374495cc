"""JSON from bytes and to bytes, with orjson if it is installed (the extra ``speedups``)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import Any, Final, NoReturn, cast

from aiocopyai._text import excerpt


try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]  # the module or None

MAX_DIGITS: Final = 4300
"""Digits from which an integer is kept as text: Python refuses to convert larger ones between text and number."""
MAX_DEPTH: Final = 950
"""Levels of arrays and objects in each other that are read. Python's own functions fail at about 1,000."""
_EXACT_FLOATS: Final = 2.0**63
"""Floats from which orjson may have rounded an integer."""
_NUMBERS_INSIDE: Final = {float, dict, list}
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_TOO_DEEP: Final = re.compile("depth|recursion", re.IGNORECASE)
"""What the different versions of orjson say."""
_LONE_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ZERO_FOR_DIGIT: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBERS: Final = (b"0" * 20, b"-" + b"0" * 19)
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{},]', re.DOTALL)
_ID_KEYS: Final = (b'"id"', b'"workflowRunId"')


def loads(body: bytes, *, exact: bool = False) -> object:
    """Parse JSON in UTF-8.

    Args:
        body: the JSON, perhaps with a byte order mark.
        exact: whether to keep integers beyond 64 bits as they are. Otherwise orjson, if it is installed, rounds them
            to floats, which `has_rounded_integer` detects.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if orjson is None or exact:
        return _loads_exactly(body)
    try:
        value: object = orjson.loads(body)
    except ValueError as error:
        # orjson refuses half a surrogate pair and a number beyond the range of a float. Neither may cost a page.
        # Anything else that orjson refuses is not parsed again: a large body would block the event loop for seconds.
        if _TOO_DEEP.search(str(error)):
            raise RecursionError from None
        if _LONE_SURROGATE.search(body) is None and not has_long_number(body):
            raise
    else:
        return value
    return _loads_exactly(body)


def has_long_number(body: bytes) -> bool:
    """Return whether JSON has 20 digits in a row somewhere, or 19 after a minus, as an integer beyond 64 bits has."""
    zeros = body.translate(_ZERO_FOR_DIGIT)  # a regular expression takes ten times as long
    return any(number in zeros for number in _LONG_NUMBERS)


def has_rounded_integer(objects: Sequence[dict[str, Any]], arrays: Sequence[Iterable[Any]] = ()) -> bool:
    """Return whether some number in these values, at any depth, may be an integer that was rounded to a float.

    Raises:
        RecursionError: they are nested more than `MAX_DEPTH` levels deep, so that other functions would fail.
    """
    is_rounded = False
    for _ in range(MAX_DEPTH):
        types = set(map(type, _values(objects, arrays)))
        if types.isdisjoint(_NUMBERS_INSIDE):
            return is_rounded
        values = _values(objects, arrays)
        inside = [value for value in values if type(value) in _NUMBERS_INSIDE]
        if float in types and any(type(value) is float and abs(value) >= _EXACT_FLOATS for value in inside):
            is_rounded = True  # the levels below may be too many
        objects = cast("list[dict[str, Any]]", [value for value in inside if type(value) is dict])
        arrays = cast("list[list[Any]]", [value for value in inside if type(value) is list])
    if objects or arrays:
        raise RecursionError
    return is_rounded


def _values(objects: Iterable[dict[str, Any]], arrays: Iterable[Iterable[Any]]) -> Iterator[Any]:
    """Yield all values without a list of them or of views: all these containers would run the garbage collector."""
    return chain(chain.from_iterable(map(dict[str, Any].values, objects)), chain.from_iterable(arrays))


def find_nested_object(body: bytes, depth: int) -> tuple[str, str] | None:
    """Find where JSON is nested more deeply than this, without parsing it, which would fail.

    Returns:
        The path to the innermost object with an id in which it is, such as ``data.data[3]``, and that id; both are
        empty if there is no such object. None if nothing is nested so deeply.
    """
    path: list[bytes | int] = []  # for each level the key of an object's member, or the index in an array
    ids: dict[int, bytes] = {}  # by level
    for match in _TOKEN.finditer(body):
        token = match[0]
        if token in {b"[", b"{"}:
            path.append(0 if token == b"[" else b"")
            ids.pop(len(path), None)
            if len(path) > depth:
                level = max(ids, default=1)
                steps = (f"[{step}]" if isinstance(step, int) else f".{_unquote(step)}" for step in path[: level - 1])
                return "".join(steps).removeprefix("."), _unquote(ids.get(level, b'""'))
        elif not path:
            return None
        elif token in {b"]", b"}"}:
            path.pop()
        elif token == b",":
            step = path[-1]
            path[-1] = step + 1 if isinstance(step, int) else b""
        elif path[-1] == b"":
            path[-1] = token
        elif path[-1] in _ID_KEYS:
            ids.setdefault(len(path), token)
    return None


def dump_json(value: object) -> bytes:
    r"""Return a JSON value as compact UTF-8. Any mapping is an object, and a datetime a string in ISO 8601.

    A lone surrogate is escaped (``\ud83d``), which is the same JSON; integers of any size are kept. A number beyond the
    range of a float, which Python reads as infinity, becomes ``null``.

    Raises:
        RecursionError: the value is nested too deeply.
    """
    if orjson is not None:
        try:
            return orjson.dumps(value, default=dict, option=orjson.OPT_UTC_Z)
        except TypeError:
            # orjson refuses values that a run may have: integers beyond 64 bits, lone surrogates, deep nesting.
            pass
    try:
        text = _encode(value)
    except ValueError:
        text = _encode(_without_infinity(value))
    return text.encode("utf-8", "backslashreplace")


def dump_each(values: Sequence[object]) -> list[bytes]:
    """Return for each of some values what `dump_json` returns, in a fraction of the time."""
    if orjson is None or not values:
        return [dump_json(value) for value in values]
    # One call, as each costs more than most values do. Compact JSON contains no line breaks.
    separated: list[object] = [orjson.Fragment(b"\n")] * (2 * len(values) - 1)
    separated[::2] = values
    try:
        return orjson.dumps(separated, default=dict, option=orjson.OPT_UTC_Z)[1:-1].split(b",\n,")
    except TypeError:
        return [dump_json(value) for value in values]


def dump_lines(values: Sequence[object]) -> bytes:
    """Return what `dump_json` returns for each of some values, each with a line break behind it."""
    if orjson is not None:
        option = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
        with suppress(TypeError):
            return b"".join([orjson.dumps(value, default=dict, option=option) for value in values])
    return b"".join([dump_json(value) + b"\n" for value in values])


def encode_json(name: str, value: Mapping[str, object]) -> bytes:
    """Encode an object as JSON in ASCII, to be sent; `name` is what an error calls it. Any mapping is an object.

    Raises:
        ValueError: something in it is not JSON: a NaN, a date, a key that is not a string. The message names its place.
    """
    try:
        try:
            _check_keys(value)
            return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain_mapping).encode()
        except (TypeError, ValueError) as error:
            problem = _find_problem(name, value) or f"{name} cannot be sent as JSON: {error}"
    except RecursionError:
        problem = f"{name} cannot be sent as JSON: it is nested too deeply, or contains itself"
    raise ValueError(problem)


def _encode(value: object) -> str:
    try:
        return _ENCODER.encode(value)
    except RecursionError:
        # `MAX_DEPTH` levels need a larger stack.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(_ENCODER.encode, value).result()


def _unquote(token: bytes) -> str:
    return token[1:-1].decode(errors="replace")


def _loads_exactly(body: bytes) -> object:
    # While functions written in Python read the numbers of a large body, other threads can run: the event loop's, too.
    return cast(
        "object",
        json.loads(body.decode(), parse_constant=refuse_constant, parse_int=_parse_integer, parse_float=_parse_float),
    )


def refuse_constant(constant: str) -> NoReturn:
    """Raise for ``NaN`` and the infinities, which Python's parser accepts."""
    raise ValueError(f"{constant} is not valid JSON")


def _parse_integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_DIGITS else digits


def _parse_float(digits: str) -> float:
    return float(digits)


def _check_keys(value: object) -> None:
    """Refuse keys that json.dumps would silently convert to strings."""
    if isinstance(value, Mapping):
        for key, inner in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise TypeError
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in cast("list[object]", value):
            _check_keys(inner)


def _plain(value: Any) -> object:  # noqa: ANN401 (anything that `dump_json` accepts)
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else dict(value)


def _plain_mapping(value: object) -> dict[object, object]:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    raise TypeError


def _find_problem(place: str, value: object) -> str | None:
    """Describe the first part of a value that is not JSON, with its place, such as ``inputs["leads"][2]``."""
    if isinstance(value, Mapping):
        for key, inner in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                return f"{place} has the key {excerpt(key)} of type {type(key).__name__}: the keys of JSON are strings"
            if problem := _find_problem(f"{place}[{excerpt(key)}]", inner):
                return problem
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(cast("list[object]", value)):
            if problem := _find_problem(f"{place}[{index}]", inner):
                return problem
    elif isinstance(value, float) and not math.isfinite(value):
        return f"{place} is {value}: the numbers of JSON are finite"
    elif value is not None and not isinstance(value, str | int | float):
        return (
            f"{place} is of type {type(value).__name__}, which is not JSON: "
            "convert it to a string, number, boolean, None, list or mapping"
        )
    return None


def _without_infinity(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _without_infinity(inner) for name, inner in cast("Mapping[str, object]", value).items()}
    if isinstance(value, list):
        return [_without_infinity(inner) for inner in cast("list[object]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)
