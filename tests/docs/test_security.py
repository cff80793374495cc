"""Tests of the table in docs/security.md: each test that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
ROWS = re.findall(r"^\| (?!threat|---)(.*?) \|.*\| (.*?) \|$", PAGE, re.MULTILINE)


@cache
def names_in(path: str) -> set[str]:
    """Return the names of a file's tests; those in a class are prefixed with its name."""
    body = ast.parse((ROOT / path).read_text("utf-8")).body
    inside = [(f"{outer.name}::", inner) for outer in body if isinstance(outer, ast.ClassDef) for inner in outer.body]
    found = [("", node) for node in body] + inside
    return {prefix + node.name for prefix, node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("threat", "named"), ROWS, ids=[threat for threat, _ in ROWS])
def test_each_threat_has_tests(threat: str, named: str) -> None:
    """Each row of the table names existing tests by their full path."""
    names = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", named)

    assert names, threat
    assert [f"{path}::{name}" for path, name in names if name not in names_in(path)] == []


def test_the_table_is_parsed() -> None:
    """The table is found on the page."""
    assert len(ROWS) > 20
