"""The command `aiocopyai`, which needs the extra ``cli``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, and exit with its code.

    0: done; 1: the API, the network or the output failed; 2: wrong usage; 130: stopped by Ctrl-C or SIGTERM.
    """
    try:
        # Here, so that Ctrl-C is handled while they are loaded.
        from aiocopyai.cli._process import find_missing_package, run_app  # noqa: PLC0415

        missing = find_missing_package()
        if missing is None:
            code = run_app()
        else:
            command = 'python -m pip install "aiocopyai[cli]"'
            sys.stderr.write(f"aiocopyai: the command line needs {missing}; install it with: {command}\n")
            code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
