"""The public names: what `__all__` says is what there is."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import types
from pathlib import Path

import pytest

import aiocopyai
from aiocopyai import errors, models


ROOT = Path(__file__).parents[1]


def test_public_names_are_consistent() -> None:
    """`__all__`, `dir()`, the lazy loading and the imports that type checkers read name the same objects."""
    listed = {name for name in dir(aiocopyai) if not name.startswith("_")}
    importable = {name for name in listed if not isinstance(getattr(aiocopyai, name), types.ModuleType)}
    tree = ast.parse(Path(aiocopyai.__file__).read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    for_type_checkers = {
        alias.name: node.module for node in imports for alias in node.names if str(node.module).startswith("aiocopyai.")
    }

    assert set(aiocopyai.__all__) == importable == set(for_type_checkers)
    for name, module in for_type_checkers.items():
        assert getattr(aiocopyai, name) is getattr(importlib.import_module(str(module)), name)


TYPED = [ROOT / "typing" / name for name in ("api.py", "rooms.py")]


@pytest.mark.parametrize(
    "room",
    ["aiocopyai", "aiocopyai.webhooks", "aiocopyai.emulator", "aiocopyai.export", "aiocopyai.integrations.arrow"],
)
def test_every_public_name_is_typed(room: str) -> None:
    """What the type checkers read uses each public name, beside importing it."""
    module = importlib.import_module(room)
    public = getattr(module, "__all__", [name for name, value in vars(module).items() if _is_own(name, value, room)])
    trees = [ast.parse(path.read_text("utf-8")) for path in TYPED]
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}

    assert public
    assert set(public) - used == set()


def _is_own(name: str, value: object, room: str) -> bool:
    return not name.startswith("_") and (name.isupper() or getattr(value, "__module__", "") == room)


def test_every_error_is_public() -> None:
    """Whatever the package raises can be named by its user."""
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}

    assert classes <= set(aiocopyai.__all__)


def test_the_version_is_the_distributions() -> None:
    """The version stands in one place, and is read only when asked for."""
    assert aiocopyai.__version__ == importlib.metadata.version("aiocopyai")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as in any module."""
    with pytest.raises(AttributeError, match="CopyAiSession"):
        getattr(aiocopyai, "CopyAiSession")  # noqa: B009 (the name does not exist)


@pytest.mark.parametrize("value", [models.Run(id="WRUN-1"), models.Page(1, 10, None, []), models.Changes()])
def test_models_are_frozen_and_slotted(value: object) -> None:
    """Values can be shared between tasks, and a misspelt attribute is not set in silence."""
    with pytest.raises(AttributeError):
        value.misspelt = 1  # type: ignore[attr-defined]

    assert not hasattr(value, "__dict__")
