"""The table of docs/security.md: each test that it names is there, and what no other test holds."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
ROWS = re.findall(r"^\| (?!threat|---)(.*?) \|.*\| (.*?) \|$", PAGE, re.MULTILINE)
RUNS_DATA = {"pickle", "marshal", "shelve", "dill", "yaml", "subprocess", "code", "ctypes", "xml"}
EVALUATES = {"eval", "exec", "compile", "__import__"}


@cache
def names_in(path: str) -> set[str]:
    """Name the tests of a file, those in classes with their class."""
    body = ast.parse((ROOT / path).read_text("utf-8")).body
    inside = [(f"{outer.name}::", inner) for outer in body if isinstance(outer, ast.ClassDef) for inner in outer.body]
    found = [("", node) for node in body] + inside
    return {prefix + node.name for prefix, node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("threat", "named"), ROWS, ids=[threat for threat, _ in ROWS])
def test_each_threat_is_held_by_tests_that_exist(threat: str, named: str) -> None:
    """Each row names tests, in full, and all of them are there."""
    names = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", named)

    assert names, threat
    assert [f"{path}::{name}" for path, name in names if name not in names_in(path)] == []


def test_there_are_rows() -> None:
    """The table is read at all."""
    assert len(ROWS) > 20


@pytest.mark.parametrize("path", sorted((ROOT / "aiocopyai").rglob("*.py")), ids=lambda path: path.stem)
def test_no_data_is_run(path: Path) -> None:
    """No module of the package imports what turns data into code or commands, or evaluates any."""
    tree = ast.parse(path.read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}

    assert {name.partition(".")[0] for name in imported} & RUNS_DATA == set()
    assert called & EVALUATES == set()
