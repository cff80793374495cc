"""Create the images in this folder from the sample runs. Requires Chromium."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text


HERE = Path(__file__).parent
COMMAND = (sys.executable, "-m", "aiocopyai")
COLUMNS = 118
PAGE = "--window-size=1100,1265"
"""The size of the first part of the page, with the charts by day and by status."""


def shown(*arguments: str) -> str:
    """Return the output of a command on a color terminal."""
    env = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TZ": "UTC"}
    command = [*COMMAND, *arguments]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)  # noqa: S603 (ours)
    return done.stdout + done.stderr.splitlines()[-1]


def draw_runs() -> None:
    """Draw the table of runs, without rich's fonts, which browsers would download."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text("$ aiocopyai runs --demo --limit 12", "bold"))
    console.print(
        Text.from_ansi(shown("runs", "--demo", "--limit", "12", "--format", "table"))
    )
    picture = console.export_svg(title="aiocopyai", unique_id="runs")
    (HERE / "runs.svg").write_text(
        re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL), "utf-8"
    )


def draw_report() -> None:
    """Take a screenshot of the first part of the report."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder, "report.html")
        shown("report", "--demo", "-o", str(page))
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=5000",
            PAGE,
        ]
        picture = f"--screenshot={HERE / 'report.png'}"
        command = ["chromium", *flags, f"--user-data-dir={folder}/profile", picture]
        subprocess.run([*command, page.as_uri()], check=True, capture_output=True)  # noqa: S603 (ours)


if __name__ == "__main__":
    draw_runs()
    draw_report()
