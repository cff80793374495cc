"""Escape and truncate untrusted text before it is logged or shown."""

from __future__ import annotations

import math
import reprlib
from typing import Final


EXCERPT_LENGTH: Final = 80
"""The maximum length of a value in an error message."""


class _ShortRepr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Return an integer, or its length if it has too many digits for Python."""
        try:
            return super().repr_int(x, level)
        except ValueError:
            return f"<int of about {round(x.bit_length() * math.log10(2)):,} digits>"


_SHORT_REPR: Final = _ShortRepr()
_SHORT_REPR.maxlevel = 5
_SHORT_REPR.maxdict = _SHORT_REPR.maxlist = 10
_SHORT_REPR.maxstring = _SHORT_REPR.maxother = 300


def escape(text: str, max_length: int = 200) -> str:
    """Return text for a log or a message: on one line, printable, and truncated to `max_length` characters.

    Line breaks, terminal control sequences, lone surrogates and other unprintable characters are escaped.
    """
    text = truncate(text, max_length)
    if text.isprintable():
        return text
    return truncate("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text), max_length)


def truncate(text: str, max_length: int) -> str:
    """Truncate text to `max_length` characters, followed by an ellipsis."""
    return text if len(text) <= max_length else f"{text[:max_length]}…"


def short_repr(value: object) -> str:
    """Return the `repr` of a value, shortened if it is long or deeply nested."""
    return _SHORT_REPR.repr(value)


def bounded_repr(value: object) -> str:
    """Return the `repr` of an attribute of a public value: on one line, of limited length and depth."""
    return escape(short_repr(value), 1_000)


def excerpt(value: object) -> str:
    """Return the beginning of a value's `repr`, on one line."""
    return escape(short_repr(value[:EXCERPT_LENGTH] if isinstance(value, str) else value), EXCERPT_LENGTH)
