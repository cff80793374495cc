"""Tests of imports: only the modules that are needed are loaded."""

from __future__ import annotations

import os
import subprocess
import sys


def loaded_after(statement: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nsys.stderr.write(' '.join(sys.modules))"
    # The measurement of coverage loads SQLite into every process.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)  # noqa: S603
    return set(done.stderr.split())


def test_library_does_not_load_extras() -> None:
    """A program that calls the API does not load the packages of the command line, the emulator or test tools."""
    loaded = loaded_after("from aiocopyai import *")

    assert loaded & {"typer", "rich", "click", "pydantic", "pytest", "hypothesis", "aiocopyai.emulator"} == set()


def test_library_does_not_load_servers() -> None:
    """Apart from aiohttp's client, only this package, its dependencies and the standard library are loaded."""
    base = loaded_after("import aiohttp, attrs, cattrs, tenacity, aiolimiter")
    added = loaded_after("from aiocopyai import *") - base
    packages = {name.partition(".")[0] for name in added} - set(sys.stdlib_module_names)

    assert packages <= {"aiocopyai", "aiohttp", "attr", "attrs", "cattr", "cattrs", "tenacity", "aiolimiter", "msgspec"}
    assert "aiohttp.web" not in loaded_after("from aiocopyai import *")


def test_command_loads_nothing_before_it_handles_interrupts() -> None:
    """Before `main` is called, only two small modules are loaded, so that Ctrl-C hardly ever prints a traceback."""
    added = loaded_after("import aiocopyai.cli") - loaded_after("import importlib, __future__")

    assert added == {"aiocopyai", "aiocopyai.cli"}


def test_help_does_not_load_commands() -> None:
    """`aiocopyai --help` does not load modules that only a command needs, because that takes longer than the rest."""
    loaded = loaded_after(
        "import contextlib, aiocopyai.cli; sys.argv = ['aiocopyai', '--help']\n"
        "with contextlib.suppress(SystemExit): aiocopyai.cli.main()"
    )
    heavy = {"aiohttp", "rich", "cattrs", "msgspec", "aiocopyai.emulator", "pyarrow", "plotly", "jinja2", "sqlite3"}

    assert "typer" in loaded
    assert loaded & (heavy | {"dlt", "dask"}) == set()


def test_arrow_does_not_load_pandas() -> None:
    """Runs are converted to an Arrow batch and to Parquet without importing pandas, which would take longer."""
    loaded = loaded_after(
        "import io, aiocopyai, pyarrow, pyarrow.parquet, aiocopyai.integrations.arrow as arrow\n"
        "batch = arrow.record_batch([aiocopyai.Run('a', credits=1, input={'b': 1}), aiocopyai.Run('b')])\n"
        "pyarrow.parquet.write_table(pyarrow.Table.from_batches([batch]), io.BytesIO())"
    )

    assert "pyarrow.parquet" in loaded
    assert "pandas" not in loaded
