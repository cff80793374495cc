"""JSON from bytes and to bytes, with msgspec if it is installed (the extra ``speedups``)."""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import Any, Final, NoReturn, TypeVar, cast

from aiocopyai._text import excerpt


try:
    import msgspec
except ImportError:
    msgspec = None  # type: ignore[assignment]  # the module or None

HAS_MSGSPEC: Final = msgspec is not None
T = TypeVar("T")

MAX_DIGITS: Final = 4300
"""Digits from which an integer is kept as text: Python refuses to convert larger ones between text and number."""
MAX_DEPTH: Final = 950
"""Levels of arrays and objects in each other that are read. Python's own functions fail at about 1,000."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LONE_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_REJECTIONS: Final = (TypeError, ValueError, RecursionError)
"""What msgspec raises for values that a run may have: lone surrogates, subclasses of `str`, `MAX_DEPTH` levels."""
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{},]', re.DOTALL)
_ID_KEYS: Final = (b'"id"', b'"workflowRunId"')


def loads(body: bytes) -> object:
    """Parse JSON in UTF-8, perhaps with a byte order mark.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply for the parser.
    """
    if msgspec is not None:
        with suppress(TypeError):
            return decode(body, _DECODER.decode)
    return _loads_tolerantly(body.removeprefix(_BYTE_ORDER_MARK))


def decode(body: bytes, decoder: Callable[[bytes], T]) -> T:
    """Parse JSON in UTF-8, perhaps with a byte order mark, with the method of a decoder of msgspec.

    Raises:
        ValueError: it is not JSON.
        TypeError: it does not fit the decoder's types, or only `loads` can read it.
        RecursionError: it is nested too deeply for the parser.
    """
    try:
        return decoder(body.removeprefix(_BYTE_ORDER_MARK))
    except ValueError as error:
        # msgspec rejects numbers beyond the range of a float, integers of too many digits, and half a surrogate pair.
        # None of them may cost a page. Anything else is not parsed again, which would take long.
        if not isinstance(error, _VALIDATION_ERROR) and _LONE_SURROGATE.search(body) is None:
            raise
    raise TypeError


def is_deep(values: Iterable[Any], depth: int) -> bool:
    """Return whether one of some JSON values has more than `depth` levels of arrays and objects in each other."""
    # Before Python 3.14, the garbage collector does not track an object that has no array or object in it.
    level = list(filter(gc.is_tracked, values))
    for _ in range(depth + 1):
        objects = cast("list[dict[str, Any]]", [each for each in level if type(each) is dict])
        arrays = cast("list[list[Any]]", [each for each in level if type(each) is list])
        if not objects and not arrays:
            return False
        inside = chain(chain.from_iterable(map(dict[str, Any].values, objects)), chain.from_iterable(arrays))
        level = [each for each in inside if type(each) in {dict, list}]
    return True


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
    if msgspec is not None:
        with suppress(*_REJECTIONS):
            return _ENCODER.encode(value)
    return dump_with_stdlib(value)


def dump_with_stdlib(value: object) -> bytes:
    """Do the same without msgspec, which writes some floats differently: ``1e16`` for ``1e+16``."""
    try:
        text = _encode(_PLAIN_ENCODER, value)
    except ValueError:
        text = _INFINITY.sub(lambda match: match[1] or "null", _encode(_LENIENT_ENCODER, value))
    return text.encode("utf-8", "backslashreplace")


def dump_each(values: Sequence[object]) -> list[bytes]:
    """Return what `dump_json` returns for each of some values."""
    if msgspec is not None:
        with suppress(*_REJECTIONS):
            return list(map(_ENCODER.encode, values))
    return list(map(dump_json, values))


def dump_lines(values: Sequence[object]) -> bytes:
    """Return what `dump_json` returns for each of some values, each with a line break behind it."""
    if msgspec is not None:
        with suppress(*_REJECTIONS):
            return _ENCODER.encode_lines(values)
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


def _encode(encoder: json.JSONEncoder, value: object) -> str:
    try:
        return encoder.encode(value)
    except RecursionError:
        # `MAX_DEPTH` levels need a larger stack.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(encoder.encode, value).result()


def _unquote(token: bytes) -> str:
    return token[1:-1].decode(errors="replace")


def _loads_tolerantly(body: bytes) -> object:
    # While functions written in Python read the numbers of a large body, other threads can run: the event loop's, too.
    return cast(
        "object",
        json.loads(body.decode(), parse_constant=reject_constant, parse_int=_parse_integer, parse_float=_parse_float),
    )


def reject_constant(constant: str) -> NoReturn:
    """Raise for ``NaN`` and the infinities, which Python's parser accepts."""
    raise ValueError(f"{constant} is not valid JSON")


def _parse_integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_DIGITS else digits


def _parse_float(digits: str) -> float:
    return float(digits)


def _check_keys(value: object) -> None:
    """Reject keys that json.dumps would silently convert to strings."""
    if isinstance(value, Mapping):
        for key, inner in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise TypeError
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in cast("list[object]", value):
            _check_keys(inner)


def _plain(value: object) -> object:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else _plain_mapping(value)


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


_PLAIN_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)
_LENIENT_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain)
"""Writes ``Infinity`` and ``NaN``, which are not JSON."""
_INFINITY: Final = re.compile(r'("(?:[^"\\]++|\\.)*+")|-?Infinity|NaN', re.DOTALL)
"""A number that is not JSON; or a string, which may contain the same text."""
if msgspec is not None:
    _DECODER: Final = msgspec.json.Decoder()
    _VALIDATION_ERROR: Final = msgspec.ValidationError
    # The hook is also called for subclasses of `str`, which it rejects.
    _ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain_mapping)
