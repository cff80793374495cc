"""The code in README.md and docs/: it compiles, and what needs no network runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(<!-- runs offline -->\n)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, (_, block) in enumerate(BLOCK.findall(page.read_text("utf-8")), start=1)
]
OFFLINE = [
    pytest.param(block, id=page.name)
    for page in PAGES
    for mark, block in BLOCK.findall(page.read_text("utf-8"))
    if mark
]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_compiles_and_its_imports_exist(block: str) -> None:
    """What is to be copied is Python, and names only what there is."""
    tree = ast.parse(block)
    compile(tree, "example", "exec")
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    module = ast.Module(body=list(imports), type_ignores=[])

    exec(compile(module, "imports", "exec"), {})  # noqa: S102 (our own pages)


@pytest.mark.parametrize("block", OFFLINE)
def test_offline_examples_run(block: str) -> None:
    """An example on the emulator runs as it stands, and its assertions hold."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_links_between_the_pages_lead_somewhere() -> None:
    """A relative link names a file that exists."""
    broken = [
        f"{page.name}: {target}"
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]

    assert broken == []
