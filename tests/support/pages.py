"""The pages of the documentation, as the files they are: their blocks of code, and what their commands may name."""

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

_FENCE: Final = re.compile(r"^( *)(```+)([^`\n]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)


@frozen
class Block:
    """One fenced block of code."""

    line: int
    language: str
    code: str


def blocks_of(page: Path) -> Iterator[Block]:
    """Give a page's blocks of code; directives, such as ``{toctree}``, are none."""
    text = page.read_text("utf-8")
    for found in _FENCE.finditer(text):
        language = found[3].strip()
        if not language.startswith("{"):
            yield Block(text.count("\n", 0, found.start()) + 1, language, textwrap.dedent(found[4]))


def functions_not_called(code: str) -> list[str]:
    """Return the names of a block's functions that no other line of it names, and that are not decorated."""
    tree = ast.parse(code)
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node.name for node in functions if node.name not in named and not node.decorator_list]


def check_installable(requirements: Sequence[str]) -> None:
    """See that `pip install` is asked for extras of ours that exist, and for nothing else than the project uses."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = [*project["dependency-groups"].values(), project["project"]["dependencies"]]
    used = {canonicalize_name(Requirement(item).name) for group in groups for item in group if isinstance(item, str)}
    for text in requirements:
        wanted = Requirement(text.replace(".[", "aiocopyai[") if text.startswith(".") else text)
        if wanted.name == "aiocopyai":
            assert wanted.extras <= set(project["project"]["optional-dependencies"]), f"{text}: no such extra"
        else:
            assert canonicalize_name(wanted.name) in used, f"{text}: nothing of ours uses it"


def check_session(words: Sequence[str]) -> None:
    """See that `nox` is asked for a session that exists, and for tests that do."""
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    for option, value in pairwise(words):
        assert option != "-s" or value in sessions, f"nox has no session {value}"
    for word in words:
        assert not word.startswith("tests/") or (ROOT / word).exists(), f"there is no {word}"
