"""Tests of excerpts: text is escaped and shortened."""

from __future__ import annotations

from aiocopyai._text import EXCERPT_LENGTH, excerpt


class Lines:
    """An object with a `repr` of two lines, such as an array."""

    def __repr__(self) -> str:
        return "a\nb"


def test_an_excerpt_is_one_line() -> None:
    """The excerpt of an object with a `repr` of several lines is on one line."""
    assert excerpt(Lines()) == "a\\nb"


def test_an_excerpt_is_short() -> None:
    """The excerpt of a long value is its beginning and an ellipsis."""
    assert excerpt("x" * 1_000) == f"'{'x' * (EXCERPT_LENGTH - 1)}…"
