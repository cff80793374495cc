"""JSON as a type, and JSON to bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Final, TypeAlias


JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""Any JSON value, as `json.loads` gives it."""


def encode_plainly(value: JSON) -> bytes:
    """Encode with the standard library, which takes any integer and half a surrogate pair."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # Half a surrogate pair can't be UTF-8; backslashreplace makes it JSON's own escape.
    return text.encode("utf-8", "backslashreplace")


_encode_fast: Final[Callable[[JSON], bytes]] = import_module("orjson").dumps if find_spec("orjson") else encode_plainly


def encode(value: JSON) -> bytes:
    """Encode a value as UTF-8 JSON, with orjson where it is installed."""
    try:
        return _encode_fast(value)
    except TypeError:
        # orjson refuses what a malformed run may well hold: huge integers, lone surrogates.
        return encode_plainly(value)


def decode(raw: bytes) -> JSON:
    """Decode a request's body; None where it is not JSON."""
    try:
        value: JSON = json.loads(raw)
    except ValueError:
        return None
    return value
