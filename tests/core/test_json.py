"""Tests of JSON: values are written and read unchanged."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import JSON
from aiocopyai._json import MAX_DEPTH, dump_each, dump_json, dump_rows
from tests.support.strategies import JSON_VALUES


@given(JSON_VALUES)
def test_any_value_is_read_as_it_was_written(value: JSON) -> None:
    """Any JSON value, including integers beyond 64 bits, is the same after it was written and read."""
    assert json.loads(dump_json(value)) == value


@given(st.lists(JSON_VALUES))
def test_dump_each_matches_dump_json(values: list[JSON]) -> None:
    """Values that are written in one call have the same bytes as values that are written one by one."""
    values += ["\n,", {",\n": [[], {}]}, None]

    assert dump_each(values) == [dump_json(value) for value in values]
    assert dump_each([]) == []


def test_infinity_is_null() -> None:
    """A number too large for a float is written as null, at any depth, because JSON has no infinity."""
    assert dump_json({"a": [json.loads("1e999"), 10**30, "\ud800"]}) == b'{"a":[null,%d,"\\ud800"]}' % 10**30


@pytest.mark.parametrize("inner", [[math.inf, "\ud800"], (math.inf, "\ud800")])
def test_infinity_in_a_deep_value_is_null(inner: Sequence[JSON]) -> None:
    """An infinity is null in a value of the maximum depth, and in a tuple."""
    value: Any = inner
    for _ in range(MAX_DEPTH - 1):
        value = [value]

    assert dump_json(value) == b"[" * MAX_DEPTH + b'null,"\\ud800"' + b"]" * MAX_DEPTH


@pytest.mark.parametrize("text", ["Infinity", "-Infinity", "NaN", '"Infinity', "\\", "\n\\\\NaN"])
def test_text_like_infinity_is_kept(text: str) -> None:
    """A string that looks like an infinity is unchanged, even next to an infinity."""
    assert json.loads(dump_json({text: [text, math.inf, "\ud800"]})) == {text: [text, None, "\ud800"]}


@pytest.mark.parametrize("text", ["", "a"])
def test_subclass_of_str_is_a_string(text: str) -> None:
    """A value of a subclass of `str` is written as a string, even if it is empty."""

    class Text(str):
        __slots__ = ()

    expected = b'{"a":"%s"}' % text.encode()
    assert dump_json({"a": Text(text)}) == expected
    assert dump_each([{"a": Text(text)}]) == [expected]
    assert dump_rows({"a": [Text(text), None]}) == expected + b'\n{"a":null}\n'


def test_output_is_the_same_without_msgspec() -> None:
    """Without the extra `speedups`, the standard library writes the same bytes."""
    code = (
        "import sys; sys.modules['msgspec'] = None\n"
        "from datetime import UTC, datetime\n"
        "from types import MappingProxyType\n"
        "from aiocopyai._json import dump_json\n"
        "value = {'m': MappingProxyType({'é': [1.5, None, True]}), 'i': float('inf'), 's': '\\u2028\\x7f'}\n"
        "value['t'] = datetime(9, 1, 31, 9, tzinfo=UTC)\n"
        "sys.stdout.buffer.write(dump_json(value))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=30)  # noqa: S603
    value = {"m": MappingProxyType({"é": [1.5, None, True]}), "i": float("inf"), "s": "\u2028\x7f"}
    value["t"] = datetime(9, 1, 31, 9, tzinfo=UTC)

    assert done.stdout == '{"m":{"é":[1.5,null,true]},"i":null,"s":"\u2028\x7f","t":"0009-01-31T09:00:00Z"}'.encode()
    assert dump_json(value) == done.stdout
