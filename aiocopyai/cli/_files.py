"""Writing a file so that it appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from secrets import token_hex


def write_whole(path: Path, texts: Iterable[str]) -> None:
    """Put texts, one behind the other, in UTF-8 under a name; at any moment, what the name leads to is whole.

    A link is followed, and a file that is there already keeps its permissions.

    Raises:
        OSError: it can't be written; what was there before still is.
    """
    real = Path(os.path.realpath(path))
    beside = real.with_name(f".{real.name}.{token_hex(4)}.part")
    try:
        with beside.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.writelines(texts)
            file.flush()
            os.fsync(file.fileno())
        if real.exists():
            shutil.copymode(real, beside)
        beside.replace(real)
    finally:
        beside.unlink(missing_ok=True)
