"""Atomic replacement of files, and SQLite databases that one process locks."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, Final

from aiocopyai.errors import CopyAIError


_DEFAULT_MODE: Final = 0o666
_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNUSABLE: Final = {
    sqlite3.SQLITE_CANTOPEN: "check that it is a file, and the permissions of its folder",
    sqlite3.SQLITE_FULL: "free space on the disk",
    sqlite3.SQLITE_IOERR: "check the disk and its free space",
    sqlite3.SQLITE_PERM: "check the permissions of the file and its folder",
    sqlite3.SQLITE_READONLY: "check the permissions of the file and its folder",
}
"""The advice for errors of the file system, by SQLite's primary result code. Other errors mean invalid content."""


class FileInUseError(CopyAIError, OSError):
    """Another process has locked the file."""


class DamagedFileError(CopyAIError, ValueError):
    """The file exists, but its content cannot be read."""


def replace_file(path: Path, parts: Iterable[bytes]) -> None:
    """Create or replace a file atomically: the path never refers to an incomplete file.

    A symbolic link is followed, and an existing file keeps its permissions.

    Raises:
        OSError: the file cannot be written; the previous content is unchanged.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{token_hex(4)}.part")
    try:
        with file_errors(path):
            with create_beside(temporary, target) as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            move_into_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def file_errors(path: Path) -> Generator[None]:
    """Add the path to an `OSError` without a file name, such as after a write to a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def create_beside(path: Path, target: Path) -> BinaryIO:
    """Create an empty file for the new content of `target`, with the permissions of `target` if it exists.

    Raises:
        OSError: the file cannot be created.
    """
    path.unlink(missing_ok=True)  # an existing file would keep its own permissions
    mode = _mode_of(target)
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode))


def move_into_place(source: Path, target: Path) -> None:
    """Rename a complete file to its final name, and keep the permissions of the file that it replaces.

    The rename is flushed to the disk.

    Raises:
        OSError: the file cannot be renamed.
    """
    if target.exists():
        shutil.copymode(target, source)
    source.replace(target)
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_locked(path: Path, target: Path | None = None) -> sqlite3.Connection:
    """Open an SQLite database, and lock it until the connection is closed or the process ends.

    The connection is in autocommit mode. Any thread may use it, but only one at a time. It uses no shared memory,
    because network drives do not support it.

    Args:
        path: the database; created if it does not exist.
        target: the file whose content the database will hold; a new database gets its permissions.

    Raises:
        FileInUseError: another process has locked it.
        DamagedFileError: it is not an SQLite database.
        OSError: it cannot be opened or written.
    """
    if target is not None and not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, _mode_of(target)))  # SQLite's own files get the same mode
    with sqlite_errors(path):
        database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            # Must be first, because the other statements would use shared memory.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("BEGIN EXCLUSIVE")
            database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
    return database


def check_database(database: sqlite3.Connection, path: Path) -> None:
    """Check that a database is complete. Its write-ahead log must be applied before.

    Raises:
        DamagedFileError: it is damaged. SQLite does not detect a truncated last page, and detects other damage only
            when it reads the damaged part.
    """
    check, pages, page_size = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("quick_check", "page_count", "page_size")
    )
    if check != "ok":
        raise DamagedFileError(f"{path} is damaged: {check}")
    if path.stat().st_size < pages * page_size:
        raise DamagedFileError(f"{path} is damaged: its end is missing")


@contextmanager
def sqlite_errors(path: Path) -> Generator[None]:
    """Convert the errors of SQLite.

    Raises:
        FileInUseError: another process has locked it.
        DamagedFileError: it cannot be read.
        OSError: it cannot be opened or written, such as on a full disk.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # raised by the sqlite3 module: a bug in the caller
            raise
        if code & 0xFF in _LOCKED:
            raise FileInUseError(f"{path} is in use by another process") from None
        if advice := _UNUSABLE.get(code & 0xFF):
            raise OSError(f"{path} cannot be used ({error}): {advice}") from error
        raise DamagedFileError(f"{path} cannot be read: {error}") from error


def _mode_of(target: Path) -> int:
    """Return the permissions of `target`, or the default if it does not exist."""
    try:
        return target.stat().st_mode & _DEFAULT_MODE
    except FileNotFoundError:
        return _DEFAULT_MODE
