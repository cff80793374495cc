"""README.md, CONTRIBUTING.md and docs/: every block of code runs, links lead somewhere, and the API is all there."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path

import pytest

from aiocopyai.emulator import Emulator, Script
from tests.support.pages import PAGES, ROOT, blocks_of
from tests.support.reader import Reader


PAGES_WITH_CODE = [pytest.param(page, id=page.name) for page in PAGES if any(blocks_of(page))]


@pytest.fixture(name="reader")
async def _reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    """A reader whose third run fails, with an emulator of a few runs."""
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


@pytest.mark.filterwarnings("ignore:'click:DeprecationWarning")  # older typers use what click has renamed
@pytest.mark.parametrize("page", PAGES_WITH_CODE)
async def test_a_page_does_what_it_says(page: Path, reader: Reader) -> None:
    """Who follows a page from its top to its end gets no error, and sees what it shows."""
    for block in blocks_of(page):
        try:
            await reader.follow(block)
        except Exception as error:
            error.add_note(f"{page}:{block.line}")
            raise


def test_links_between_the_pages_lead_somewhere() -> None:
    """A relative link names a file that exists."""
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]

    assert broken == []


def test_every_page_is_in_the_contents() -> None:
    """Each page under docs/ is named once in docs/index.md."""
    folder = ROOT / "docs"
    named = re.findall(r"^([\w/-]+)$", (folder / "index.md").read_text("utf-8"), re.MULTILINE)
    pages = [page for kind in ("md", "rst") for page in folder.rglob(f"*.{kind}") if page.name != "index.md"]

    assert sorted(named) == sorted(page.relative_to(folder).with_suffix("").as_posix() for page in pages)


@pytest.mark.parametrize("module", ["aiocopyai", "aiocopyai.webhooks", "aiocopyai.emulator", "aiocopyai.export"])
def test_the_reference_has_every_public_name(module: str) -> None:
    """What a module offers is in the reference."""
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "api").glob("*.rst"))
    offered = {f"{module}.{name}" for name in import_module(module).__all__}

    assert offered - set(re.findall(r":: ([\w.]+)", pages)) == set()
