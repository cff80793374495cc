"""Tests of the public names."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
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


TYPED = sorted((ROOT / "typing").glob("*.py"))


@pytest.mark.parametrize(
    "module_name",
    [
        *("aiocopyai", "aiocopyai.webhooks", "aiocopyai.emulator", "aiocopyai.batch", "aiocopyai.export"),
        "aiocopyai.integrations.arrow",
    ],
)
def test_every_public_name_is_typed(module_name: str) -> None:
    """The files for type checkers use each public name."""
    module = importlib.import_module(module_name)
    public = getattr(
        module, "__all__", [name for name, value in vars(module).items() if _is_own(name, value, module_name)]
    )
    trees = [ast.parse(path.read_text("utf-8")) for path in TYPED]
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}

    assert public
    assert set(public) - used == set()


def _is_own(name: str, value: object, module_name: str) -> bool:
    return not name.startswith("_") and (name.isupper() or getattr(value, "__module__", "") == module_name)


def test_every_error_is_public() -> None:
    """Every error class can be imported from the root."""
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}

    assert classes <= set(aiocopyai.__all__)


def test_every_error_has_the_same_base() -> None:
    """Every error class is a subclass of `CopyAIError`, except internal ones that callers never receive."""
    internal = {"HTTPError", "CommandError", "UnconfirmedError", "_DisconnectedError"}
    bases: dict[str, set[str]] = {}  # read from the sources, as importing all modules takes seconds
    for path in Path(aiocopyai.__file__).parent.rglob("*.py"):
        for name, listed in re.findall(
            r"^class (\w*(?:Error|Exception))\((.*)\):", path.read_text("utf-8"), re.MULTILINE
        ):
            bases[name] = set(listed.split(", "))
    own = {"CopyAIError"}
    for _ in bases:
        own |= {name for name in bases if bases[name] & own}

    assert {"ExportError", "BatchError", "DestinationError", "FileInUseError"} < own
    assert bases.keys() - own == internal


def test_version() -> None:
    """`__version__` is the version of the installed distribution."""
    assert aiocopyai.__version__ == importlib.metadata.version("aiocopyai")


def test_unknown_name() -> None:
    """A misspelt name raises `AttributeError`."""
    with pytest.raises(AttributeError, match="CopyAiSession"):
        getattr(aiocopyai, "CopyAiSession")  # noqa: B009 (the name does not exist)


@pytest.mark.parametrize("value", [models.Run(id="WRUN-1"), models.Page(1, 10, None, []), models.Changes()])
def test_models_are_frozen_and_slotted(value: object) -> None:
    """A value cannot be changed, and assigning a misspelt attribute raises an error."""
    with pytest.raises(AttributeError):
        value.misspelt = 1  # type: ignore[attr-defined]

    assert not hasattr(value, "__dict__")
