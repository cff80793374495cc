"""Tests of README.md, CONTRIBUTING.md and docs/: their code, their links, and the reference."""

from __future__ import annotations

import ast
import logging
import os
import re
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path

import pytest

from aiocopyai import CopyAISession, errors
from aiocopyai.emulator import Emulator, Script
from tests.support.pages import MAX_COLUMNS, PAGES, ROOT, blocks_of
from tests.support.reader import Reader


PAGES_WITH_CODE = [pytest.param(page, id=page.name) for page in PAGES if any(blocks_of(page))]


@pytest.fixture(name="reader")
async def _reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    """A reader with an emulator that has twelve runs. The third started run fails."""
    async with Emulator(12, run_time=0) as emulator:
        emulator.script_next_runs(Script(output={"Output 1": "…"}), times=2)
        emulator.script_next_runs(Script(states=("FAILED",), error="no such site"))
        monkeypatch.setattr(os, "environ", os.environ.copy())  # a page may set more
        monkeypatch.setenv("COPYAI_API_KEY", emulator.api_key)
        monkeypatch.setenv("COPYAI_BASE_URL", emulator.url)
        monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
        monkeypatch.setattr(logging.getLogger("aiocopyai"), "handlers", [])  # a page may add one
        monkeypatch.chdir(tmp_path)
        reader = Reader(emulator)
        yield reader
        await reader.leave()


@pytest.mark.filterwarnings("ignore:'click:DeprecationWarning")  # raised by older versions of typer
@pytest.mark.parametrize("page", PAGES_WITH_CODE)
async def test_code_of_a_page_runs(page: Path, reader: Reader) -> None:
    """The code blocks of a page run in order without an error, and have the output that the page shows."""
    for block in blocks_of(page):
        try:
            await reader.follow(block)
        except Exception as error:
            error.add_note(f"{page}:{block.line}")
            raise


def test_relative_links_resolve() -> None:
    """A relative link names a file that exists."""
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]

    assert broken == []


def test_code_fits_the_page() -> None:
    """No line of code is wider than the page, so that none is cut off."""
    shown = {page.name: [block.code for block in blocks_of(page)] for page in PAGES}
    shown |= {path.name: [path.read_text("utf-8")] for path in (ROOT / "docs" / "examples").glob("*.py")}
    too_wide = [
        f"{name}: {line}"
        for name, codes in shown.items()
        for code in codes
        for line in code.splitlines()
        if len(line) > MAX_COLUMNS
    ]

    assert too_wide == []


def test_file_names_match_titles() -> None:
    """The file name of a page is the beginning or the end of its title."""
    for page in set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / "index.md"}:
        title = page.read_text("utf-8").partition("\n")[0]
        words = re.sub(r"[^a-z ]", "", title.lower()).split()
        if title.startswith("# "):
            assert set(page.stem.split("-")) <= set(words), title


def test_errors_cookbook_has_every_error() -> None:
    """The errors cookbook has each error."""
    cookbook = (ROOT / "docs" / "errors-cookbook.md").read_text("utf-8")
    names = [name for name in dir(errors) if name.endswith("Error") and name != "CopyAIError"]

    assert [name for name in [*names, "ExportError", "BatchError"] if f"| `{name}` |" not in cookbook] == []


def test_every_page_is_in_the_index() -> None:
    """Each page in docs/ is named once in docs/index.md."""
    folder = ROOT / "docs"
    listed = re.findall(r"^([\w/-]+)$", (folder / "index.md").read_text("utf-8"), re.MULTILINE)
    pages = [page for kind in ("md", "rst") for page in folder.rglob(f"*.{kind}") if page.name != "index.md"]

    assert sorted(listed) == sorted(page.relative_to(folder).with_suffix("").as_posix() for page in pages)


@pytest.mark.parametrize(
    "module", [f"aiocopyai{name}" for name in ("", ".batch", ".emulator", ".export", ".report", ".webhooks")]
)
def test_reference_has_every_public_name(module: str) -> None:
    """Every public name of a module is in the reference."""
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "api").glob("*.rst"))
    public = {f"{module}.{name}" for name in import_module(module).__all__}

    assert public - set(re.findall(r":: ([\w.]+)", pages)) == set()


@pytest.mark.parametrize("module", ["arrow", "dask", "dlt", "mcp"])
def test_reference_has_every_integration(module: str) -> None:
    """Every public function of an integration is in the reference, even if it is decorated."""
    tree = ast.parse((ROOT / "aiocopyai" / "integrations" / f"{module}.py").read_text("utf-8"))
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    page = (ROOT / "docs" / "api" / f"{module}.rst").read_text("utf-8")
    shown = re.findall(rf"autofunction:: aiocopyai\.integrations\.{module}\.(\w+)", page)

    assert sorted(shown) == sorted(name for name in functions if not name.startswith("_"))


def test_reference_has_every_method_of_the_session() -> None:
    """Every public method of the session is in the reference once, and in the table at the top."""
    page = (ROOT / "docs" / "api" / "session.rst").read_text("utf-8")
    public = sorted(name for name in vars(CopyAISession) if not name.startswith("_"))

    assert sorted(re.findall(r"auto\w+:: aiocopyai\.CopyAISession\.(\w+)", page)) == public
    assert sorted(re.findall(r":meth:`~CopyAISession\.(\w+)`", page)) == public
