"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from secrets import token_hex


def replace_file(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file, or replace it, in one step: at any time the path leads to a complete file.

    A symbolic link is followed, and a file that exists already keeps its permissions.

    Raises:
        OSError: the file can't be written; the previous content is unchanged.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
