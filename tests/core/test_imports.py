"""What `import aiocopyai` costs: it loads what it needs, and no more."""

from __future__ import annotations

import os
import subprocess
import sys


def loaded_after(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    # What measures coverage loads SQLite into every process.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)  # noqa: S603
    return set(done.stdout.split())


def test_the_core_loads_no_extra() -> None:
    """The command line's packages, the server and the test tools stay out of a program that only calls the API."""
    loaded = loaded_after("from aiocopyai import *")

    assert loaded & {"typer", "rich", "click", "pydantic", "pytest", "hypothesis", "aiocopyai.emulator"} == set()


def test_the_core_adds_no_server_to_the_client() -> None:
    """What is loaded beside aiohttp's client is ours, our four other dependencies, and the standard library."""
    base = loaded_after("import aiohttp, attrs, cattrs, tenacity, aiolimiter")
    added = loaded_after("from aiocopyai import *") - base
    foreign = {name.partition(".")[0] for name in added} - set(sys.stdlib_module_names)

    assert foreign <= {"aiocopyai", "aiohttp", "attr", "attrs", "cattr", "cattrs", "tenacity", "aiolimiter", "orjson"}
    assert "aiohttp.web" not in loaded_after("from aiocopyai import *")


def test_the_command_line_loads_what_one_command_needs_with_that_command() -> None:
    """`aiocopyai --help` does without the emulator, and without what files, charts and databases take."""
    heavy = {"aiocopyai.emulator", "aiohttp.web", "pyarrow", "plotly", "jinja2", "sqlite3", "dlt", "dask"}

    assert loaded_after("import aiocopyai.cli._app") & heavy == set()
