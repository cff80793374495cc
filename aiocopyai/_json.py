"""JSON values as compact UTF-8, for anything that the API may send."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Final, cast


def dump_json(value: object) -> bytes:
    r"""Return a JSON value in UTF-8; a mapping of any type becomes an object.

    A lone surrogate becomes its escape (``\ud83d``), which is the same JSON, and an integer may have any size.
    A number beyond the range of a float, which Python reads as infinity, becomes ``null``.
    """
    try:
        return _dump_fast(value)
    except TypeError:
        # orjson refuses integers of more than 64 bits, lone surrogates and deep nesting, all of which runs may have.
        return _dump_slowly(value)


def _dump_slowly(value: object) -> bytes:
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        text = _ENCODER.encode(_without_infinities(value))
    return text.encode("utf-8", "backslashreplace")


def _without_infinities(value: object) -> object:
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, object]", value)
        return {name: _without_infinities(inner) for name, inner in mapping.items()}
    if isinstance(value, list):
        return [_without_infinities(inner) for inner in cast("list[object]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _find_fast_dump() -> Callable[[object], bytes]:
    try:
        import orjson  # noqa: PLC0415 (the extra `speedups`)
    except ImportError:
        return _dump_slowly
    return lambda value: orjson.dumps(value, default=dict)


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=dict)
_dump_fast: Final = _find_fast_dump()
