"""JSON values as text: compact, in UTF-8, for whatever the API may send."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, cast

from aiocopyai import JSON


def dump(value: object) -> bytes:
    r"""Write a JSON value in UTF-8; a mapping of any kind is an object, and a time in UTC a text with ``Z``.

    Half a surrogate pair becomes its escape (``\ud83d``), which is the same JSON; an integer of any size is kept.
    A number beyond the range of a float, which Python reads as infinity, becomes ``null``.
    """
    try:
        return _dump_fast(value)
    except TypeError:
        # orjson refuses what a run may well hold: integers of more than 64 bits, half surrogate pairs, deep nesting.
        return _dump_plainly(value)


def _dump_plainly(value: object) -> bytes:
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        text = _ENCODER.encode(_finite(cast("JSON", value)))
    return text.encode("utf-8", "backslashreplace")


def _finite(value: JSON | Mapping[str, JSON]) -> JSON:
    """Replace each infinity, of which JSON has none."""
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _dumper() -> Callable[[object], bytes]:
    try:
        import orjson  # noqa: PLC0415 (the extra `speedups`)
    except ImportError:
        return _dump_plainly
    return lambda value: orjson.dumps(value, default=dict, option=orjson.OPT_UTC_Z)


def _simplify(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return dict(cast("Mapping[str, JSON]", value))


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_simplify)
_dump_fast: Final = _dumper()
