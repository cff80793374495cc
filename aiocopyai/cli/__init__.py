"""The command `aiocopyai`; it needs the extra ``cli``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, and end the process with its exit code.

    0: done; 1: the API, the network or the output failed; 2: the command makes no sense; 130: Ctrl-C.
    """
    try:
        from aiocopyai.cli._app import app  # noqa: PLC0415 (typer may be missing)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"typer", "rich"}:
            raise
        sys.stderr.write(
            f'aiocopyai: the command line needs {missing}; install it by: python -m pip install "aiocopyai[cli]"\n'
        )
        raise SystemExit(2) from None
    app(prog_name="aiocopyai")
