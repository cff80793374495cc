"""Which room imports which: the table of CONTRIBUTING.md, held."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "aiocopyai"

ARROWS: dict[str, set[str]] = {
    "models": set(),
    "errors": {"models"},
    "_wire": {"models", "errors"},
    "_events": {"models", "errors", "_wire"},
    "_retry": {"errors"},
    "_gate": set(),
    "_unpack": set(),
    "_paging": {"models", "errors"},
    "_transport": {"models", "errors", "_wire", "_retry", "_gate", "_unpack"},
    "_pager": {"_paging", "models", "errors"},
    "_start": {"models", "errors", "_retry"},
    "_wait": {"models", "errors"},
    "_bulk": {"models", "errors"},
    "_watch": {"models", "errors", "_pager"},
    "_checks": {"models", "errors", "_wire", "_retry", "_start"},
    "_session": {
        *("models", "errors", "_wire", "_retry", "_transport", "_pager"),
        *("_start", "_wait", "_bulk", "_watch", "_checks"),
    },
    "__init__": {"models", "errors", "_events", "_retry", "_pager", "_bulk", "_session"},
    "webhooks": {"models", "errors", "_events"},
    "emulator": set(),
    "integrations": {"__init__"},
    "export": {"__init__", "models", "integrations"},
    "cli": {"__init__", "emulator", "export", "integrations", "webhooks"},
    "__main__": {"cli"},
}
"""What each room may import of ours, beside itself; `__init__` stands for the root's names."""


def room_of(path: Path) -> str:
    """Return the room that a source file belongs to: a module's name, or that of a folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted({room_of(path) for path in FILES})


def imported_rooms(tree: ast.AST, module: list[str]) -> Iterator[str]:
    """Give the rooms that a module imports, wherever in it; for types only, or in a function, is no excuse."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _room(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = module[: len(module) - node.level] if node.level else []
            target = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield from _room([*target, alias.name])


def _room(dotted: list[str]) -> Iterator[str]:
    """Give the room that a dotted name lies in, if it is one of ours; a name of no room is the root's own."""
    if dotted[0] == PACKAGE.name:
        rest = [*dotted[1:], "__init__"]
        yield rest[0] if rest[0] in ROOMS else "__init__"


def imports_of(room: str) -> set[str]:
    """Return all rooms that a room's files import, but itself."""
    found: set[str] = set()
    for path in FILES:
        if room_of(path) == room:
            dotted = [*path.relative_to(ROOT).with_suffix("").parts]
            found.update(imported_rooms(ast.parse(path.read_text("utf-8")), dotted))
    return found - {room}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_table_lets_it(room: str) -> None:
    """Arrows point one way: a room imports nothing that its row does not name."""
    assert room in ARROWS, f"{room} has no row in ARROWS"

    assert imports_of(room) - ARROWS[room] == set()


def test_every_row_is_a_room() -> None:
    """The table speaks of rooms that exist."""
    assert set(ARROWS) - set(ROOMS) == set()


def test_the_table_has_no_cycle() -> None:
    """Each row names only rooms of rows above it."""
    above: set[str] = set()
    for room, allowed in ARROWS.items():
        assert allowed <= above, f"{room} points down"
        above.add(room)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import aiocopyai", {"__init__"}),
        ("import aiocopyai.errors as e", {"errors"}),
        ("from aiocopyai import Run", {"__init__"}),
        ("from aiocopyai import errors", {"errors"}),
        ("from aiocopyai.errors import CopyAIError", {"errors"}),
        ("from . import models", {"models"}),
        ("from .models import Run", {"models"}),
        ("if TYPE_CHECKING:\n    from .models import Run", {"models"}),
        ("def f():\n    from aiocopyai.cli._app import app", {"cli"}),
        ("import aiohttp.web", set()),
    ],
)
def test_every_form_of_import_is_seen(source: str, expected: set[str]) -> None:
    """The check sees imports in each form that Python has for them."""
    found = set(imported_rooms(ast.parse(source), ["aiocopyai", "_session"]))

    assert found == expected
