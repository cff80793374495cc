"""Run by `python -m aiocopyai.emulator`."""

from __future__ import annotations

import sys

from aiocopyai.emulator._cli import main


if __name__ == "__main__":
    sys.exit(main())
