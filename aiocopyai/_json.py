"""Parse and write JSON, with msgspec if it is installed (the extra ``speedups``)."""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import cache
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
"""The maximum number of digits of an integer, which Python limits; longer integers are returned as strings."""
MAX_DEPTH: Final = 950
"""The maximum number of nested arrays and objects. Python's own functions fail at about 1,000."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LONE_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_REJECTIONS: Final = (TypeError, ValueError, RecursionError)
"""The errors of msgspec for lone surrogates, subclasses of `str` and `MAX_DEPTH` levels, which a run may have."""
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{},]', re.DOTALL)
_ID_KEYS: Final = (b'"id"', b'"workflowRunId"')


def loads(body: bytes) -> object:
    """Parse JSON in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply for the parser.
    """
    if msgspec is not None:
        with suppress(TypeError):
            return decode(body, _DECODER.decode)
    return _loads_tolerantly(body.removeprefix(_BYTE_ORDER_MARK))


def decode(body: bytes, decoder: Callable[[bytes], T]) -> T:
    """Parse JSON in UTF-8, with or without a byte order mark, with a decoder of msgspec.

    Raises:
        ValueError: it is not JSON.
        TypeError: it does not have the types of the decoder, or only `loads` can parse it.
        RecursionError: it is nested too deeply for the parser.
    """
    try:
        return decoder(body.removeprefix(_BYTE_ORDER_MARK))
    except ValueError as error:
        # msgspec rejects numbers out of the range of a float, integers with too many digits, and lone surrogates, which
        # `loads` accepts. For other errors, a second attempt would only take time.
        if not isinstance(error, _VALIDATION_ERROR) and _LONE_SURROGATE.search(body) is None:
            raise
    raise TypeError


def is_deep(values: Iterable[Any], depth: int) -> bool:
    """Return whether any of these JSON values has more than `depth` nested arrays and objects."""
    # Before Python 3.14, the garbage collector does not track dicts without containers in them.
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
    """Find the object in which JSON is nested more deeply than `depth`, without parsing it, which would fail.

    Returns:
        The path of the innermost enclosing object with an id, such as ``data.data[3]``, and the id; both are empty if
        there is no such object. None if no value is nested so deeply.
    """
    path: list[bytes | int] = []  # for each level, the key in an object or the index in an array
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
    r"""Return a JSON value as compact UTF-8. Mappings are written as objects, and datetimes in ISO 8601.

    Lone surrogates are escaped (``\ud83d``), and integers of any size are accepted. Infinity, which is how Python reads
    numbers out of the range of a float, is written as ``null``.

    Raises:
        RecursionError: the value is nested too deeply.
    """
    if msgspec is not None:
        with suppress(*_REJECTIONS):
            return _ENCODER.encode(value)
    return dump_with_stdlib(value)


def dump_with_stdlib(value: object) -> bytes:
    """Do the same as `dump_json` without msgspec, which writes some floats differently: ``1e16`` for ``1e+16``."""
    try:
        text = _encode(_PLAIN_ENCODER, value)
    except ValueError:
        text = _INFINITY.sub(lambda match: match[1] or "null", _encode(_LENIENT_ENCODER, value))
    return text.encode("utf-8", "backslashreplace")


def dump_each(values: Sequence[object]) -> list[bytes]:
    """Return the result of `dump_json` for each value."""
    if msgspec is not None:
        with suppress(*_REJECTIONS):
            return list(map(_ENCODER.encode, values))
    return list(map(dump_json, values))


def dump_rows(columns: Mapping[str, Sequence[object]]) -> bytes:
    """Return each row of these columns as a JSON object, followed by a line break."""
    if msgspec is not None:
        with suppress(*_REJECTIONS):
            return _ENCODER.encode_lines(list(map(_row_class(tuple(columns)), *columns.values())))
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return b"".join([dump_json(row) + b"\n" for row in rows])


@cache
def _row_class(names: tuple[str, ...]) -> type:
    from msgspec import defstruct  # noqa: PLC0415 (optional)

    return defstruct("Row", names, gc=False)


def encode_json(name: str, value: Mapping[str, object]) -> bytes:
    """Encode a mapping as JSON in ASCII, to send it; `name` is its name in errors.

    Raises:
        ValueError: a value in it is not JSON, such as a NaN, a date or a key that is not a string. The message has the
            path to the value.
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
        # `MAX_DEPTH` levels need the full stack of a new thread.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(encoder.encode, value).result()


def _unquote(token: bytes) -> str:
    return token[1:-1].decode(errors="replace")


def _loads_tolerantly(body: bytes) -> object:
    # These callbacks are written in Python, so that other threads can run while a large body is parsed.
    return cast(
        "object",
        json.loads(body.decode(), parse_constant=reject_constant, parse_int=_parse_integer, parse_float=_parse_float),
    )


def reject_constant(constant: str) -> NoReturn:
    """Raise a ValueError for ``NaN`` and the infinities, which Python's parser accepts."""
    raise ValueError(f"{constant} is not valid JSON")


def _parse_integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_DIGITS else digits


def _parse_float(digits: str) -> float:
    return float(digits)


def _check_keys(value: object) -> None:
    """Raise a TypeError for keys that json.dumps would silently convert to strings."""
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
    """Describe the first value that is not JSON, with its path, such as ``inputs["leads"][2]``."""
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
"""Matches numbers that are not JSON, and strings, which may contain the same characters."""
if msgspec is not None:
    _DECODER: Final = msgspec.json.Decoder()
    _VALIDATION_ERROR: Final = msgspec.ValidationError
    # The hook is also called for subclasses of `str`, which it rejects.
    _ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain_mapping)
