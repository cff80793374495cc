"""Validation of arguments, with the same messages as in the client.

Each function raises a `ValueError` with the accepted values and the value: ``max_size must be at least 1, got 0``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from reprlib import Repr
from typing import Final


_REPR: Final = Repr()
_REPR.maxdict = _REPR.maxlist = 10
_REPR.maxstring = _REPR.maxother = 300
_MAX_REPR: Final = 1_000
"""Characters of an attribute that the `repr` of a public value shows."""
_MAX_SHORT_REPR: Final = 80
"""Characters of a value that an error shows."""


def short_repr(value: object) -> str:
    """Return the beginning of a value's `repr` for an error, on one line."""
    return _truncate(bounded_repr(value), _MAX_SHORT_REPR)


def bounded_repr(value: object) -> str:
    """Return the `repr` of an attribute of a public value: on one line, of limited length and depth."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python does not convert an integer of more than 4,300 digits
        return f"an object of type {type(value).__name__}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in _truncate(text, _MAX_REPR))


def _truncate(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else f"{text[:max_length]}…"


def check_integer(name: str, value: object, minimum: int | None, maximum: int = sys.maxsize) -> None:
    """Check that a value is an integer in a range. A minimum of None means the least 64-bit integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be an integer, got {short_repr(value)}")  # noqa: TRY004 (as in the client)
    least = -sys.maxsize if minimum is None else minimum
    if least <= value <= maximum:
        return
    if maximum < sys.maxsize:
        raise ValueError(f"{name} must be between {least} and {maximum}, got {short_repr(value)}")
    bound = f"at least {least}" if value < least else f"at most {maximum}"
    raise ValueError(f"{name} must be {bound}, got {short_repr(value)}")


def check_seconds(name: str, value: object) -> None:
    """Check that a value is a number of seconds, 0 or more. It may be infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name} must be a number of seconds, 0 or more, got {short_repr(value)}")
    if isinstance(value, int) and value > sys.float_info.max:
        raise ValueError(f"{name} must be at most 1.79e+308, got {short_repr(value)}")


def check_boolean(name: str, value: object) -> None:
    """Check that a value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {short_repr(value)}")  # noqa: TRY004 (as in the client)


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Check that a value equals one of the choices, and has the type of this choice or a subclass of it."""
    choices = list(choices)
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {short_repr(value)}")


def check_string(name: str, value: object) -> None:
    """Check that a value is a non-empty string."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a non-empty string, got {short_repr(value)}")


def check_type(name: str, value: object, kind: type) -> None:
    """Check that a value is an instance of a class."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}, got {short_repr(value)}")  # noqa: TRY004 (as in the client)


def check_items(name: str, value: object) -> None:
    """Check that a value is an iterable of items, and not a single item."""
    text = short_repr(value)  # before the type checkers narrow its type
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise ValueError(f"{name} must be a list, got {text}; pass a single one as [{name[:-1]}]")  # noqa: TRY004 (as in the client)


def check_json(name: str, value: object) -> None:
    """Check that a value can be sent as JSON: it contains no datetime, for example, and is not nested too deeply."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be JSON: {error}") from None
