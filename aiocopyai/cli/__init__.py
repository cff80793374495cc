"""The command `aiocopyai`, which needs the extra ``cli``."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line, and exit with its code.

    0: done; 1: the API, the network or the output failed; 2: wrong usage; 130: Ctrl-C.
    """
    for package in ("typer", "rich"):
        if find_spec(package) is None:
            sys.stderr.write(
                f"aiocopyai: the command line needs {package}; "
                'install it with: python -m pip install "aiocopyai[cli]"\n'
            )
            raise SystemExit(2)
    from aiocopyai.cli._app import app  # noqa: PLC0415 (typer may be missing)

    app(prog_name="aiocopyai")
