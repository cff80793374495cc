"""The command `aiocopyai`, which needs the extra ``cli``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, and exit with its code.

    0: done; 1: the API, the network or the output failed; 2: wrong usage; 130: stopped by Ctrl-C or SIGTERM.
    """
    try:
        # Imported here, so that Ctrl-C is handled during the import.
        from aiocopyai.cli._process import run_app  # noqa: PLC0415

        code = run_app()
    except KeyboardInterrupt:
        code = 130
    except RuntimeError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        code = 130  # Python before 3.12 wraps an exception that is raised while a class is created
    sys.exit(code)
