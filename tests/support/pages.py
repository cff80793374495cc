"""The pages of the documentation: their code blocks, and checks of the names that their commands use."""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from attrs import frozen
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

MAX_COLUMNS: Final = 88
"""Columns of code that a page shows without a scroll bar."""

_FENCE: Final = re.compile(
    r"^( *)(?:<!-- not run: (.+) -->\n *)?(```+)([^`\n]*)\n(.*?)^\1\3 *$", re.MULTILINE | re.DOTALL
)


@frozen
class Block:
    """One fenced block of code."""

    line: int
    language: str
    code: str
    not_run: str | None = None
    """The reason in the comment ``<!-- not run: … -->`` above it."""


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the code blocks of a page, without directives such as ``{toctree}``."""
    text = page.read_text("utf-8")
    for found in _FENCE.finditer(text):
        language = found[4].strip()
        if not language.startswith("{"):
            line = text.count("\n", 0, found.start(3)) + 1
            yield Block(line, language, textwrap.dedent(found[5]), found[2])


def functions_not_called(code: str) -> list[str]:
    """Return the names of the functions of a block that it neither uses nor decorates."""
    tree = ast.parse(code)
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node.name for node in functions if node.name not in named and not node.decorator_list]


def check_installable(requirements: Sequence[str]) -> None:
    """Check that `pip install` names existing extras of this package, and otherwise only packages that it uses."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = [*project["dependency-groups"].values(), project["project"]["dependencies"]]
    used = {canonicalize_name(Requirement(item).name) for group in groups for item in group if isinstance(item, str)}
    for text in requirements:
        requirement = Requirement(text.replace(".[", "aiocopyai[") if text.startswith(".") else text)
        if requirement.name == "aiocopyai":
            assert requirement.extras <= set(project["project"]["optional-dependencies"]), f"{text}: no such extra"
        else:
            assert canonicalize_name(requirement.name) in used, f"{text}: not a dependency"


def check_session(words: Sequence[str]) -> None:
    """Check that the arguments of `nox` name existing sessions and tests."""
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    for option, value in pairwise(words):
        assert option != "-s" or value in sessions, f"nox has no session {value}"
    for word in words:
        assert not word.startswith("tests/") or (ROOT / word).exists(), f"{word} does not exist"
