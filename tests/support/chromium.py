"""Open a page in headless Chromium, and return the document and the console messages."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest


REQUIRED = "AIOCOPYAI_REQUIRE_CHROMIUM"
"""If this variable is set, a missing browser fails the test instead of skipping it."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000"),
)
PATIENCE = 60
"""Seconds until the browser is considered stuck."""


class Opened(NamedTuple):
    """A page after its scripts have run."""

    dom: str
    """The document as HTML, after the scripts have run."""
    console: list[str]
    """Console messages: errors, violations of the page's content security policy, warnings."""

    def chart(self, name: str) -> str:
        """Return what plotly has drawn in an element."""
        start = self.dom.index(f'id="{name}"')
        return self.dom[start : self.dom.index("</figure>", start)]

    def drawn(self, name: str) -> int:
        """Return the number of bars that plotly has drawn in an element."""
        return self.chart(name).count('<g class="point">')


def open_page(path: Path) -> Opened:
    """Open a file in a browser without network access."""
    browser = _find()
    as_root = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        done = subprocess.run(  # noqa: S603 (our own page)
            [browser, *FLAGS, *as_root, f"--user-data-dir={profile}", "--dump-dom", path.absolute().as_uri()],
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
    messages = done.stderr.decode("utf-8", "replace").splitlines()
    return Opened(done.stdout.decode(), [line for line in messages if ":CONSOLE" in line])


def _find() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and REQUIRED in os.environ:
        pytest.fail(f"{REQUIRED} is set, but none of these is installed: {', '.join(NAMES)}")
    if found is None:
        pytest.skip("needs Chromium: install Debian's package chromium, or Chrome")
    return found
