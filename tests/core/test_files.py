"""Tests of files that are replaced atomically, and of databases that are locked for one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aiocopyai._files import DamagedFileError, FileInUseError, create_beside, open_locked, replace_file, sqlite_errors


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


class TestReplaceFile:
    """Tests of `replace_file`."""

    def test_link_is_followed_and_permissions_are_kept(self, tmp_path: Path) -> None:
        """The target of a symbolic link is replaced, and keeps its permissions."""
        real, link = tmp_path / "real", tmp_path / "link"
        real.touch()
        real.chmod(0o604)
        link.symlink_to(real)
        replace_file(link, [b"a", b"b"])

        assert link.is_symlink()
        assert (real.read_bytes(), mode_of(real)) == (b"ab", 0o604)
        assert {path.name for path in tmp_path.iterdir()} == {"link", "real"}

    def test_failure_leaves_previous_content(self, tmp_path: Path) -> None:
        """If the new content is incomplete, the file keeps its content, and no temporary file remains."""
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def parts() -> Iterator[bytes]:
            yield b"new"
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            replace_file(path, parts())

        assert path.read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_temporary_file_is_as_private_as_its_target(self, tmp_path: Path) -> None:
        """The new content has the permissions of the file while it is written."""
        path = tmp_path / "file"
        path.touch(mode=0o600)
        seen: list[int] = []

        def parts() -> Iterator[bytes]:
            seen.extend(mode_of(file) for file in tmp_path.iterdir())
            yield b"secret"

        replace_file(path, parts())

        assert seen == [0o600, 0o600]

    def test_create_beside_does_not_reuse_an_open_file(self, tmp_path: Path) -> None:
        """An existing file with wider permissions is replaced, not truncated."""
        target, beside = tmp_path / "file", tmp_path / "file.part"
        target.touch(mode=0o600)
        beside.touch(mode=0o644)
        create_beside(beside, target).close()

        assert mode_of(beside) == 0o600


class TestOpenLocked:
    """Tests of `open_locked` and `sqlite_errors`."""

    def test_second_connection_fails_until_the_first_is_closed(self, tmp_path: Path) -> None:
        """The lock lasts as long as the connection, even between its transactions."""
        path = tmp_path / "file.db"
        with closing(open_locked(path)) as database:
            database.execute("CREATE TABLE a (b)")
            with pytest.raises(FileInUseError, match=r"file\.db is in use by another process"):
                open_locked(path)
        open_locked(path).close()

    def test_lock_ends_with_a_killed_process(self, tmp_path: Path) -> None:
        """A process that is killed leaves no lock."""
        path = tmp_path / "file.db"
        program = (
            "import os, sys; from pathlib import Path; from aiocopyai._files import open_locked;"
            "database = open_locked(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
        )
        command = [sys.executable, "-c", program, str(path)]
        ended = subprocess.run(command, timeout=30, check=False)  # noqa: S603 (our own program)
        open_locked(path).close()

        assert ended.returncode == -9

    def test_database_is_as_private_as_its_target(self, tmp_path: Path) -> None:
        """The database and its write-ahead log are created with the permissions of their target file."""
        target = tmp_path / "file"
        target.touch(mode=0o600)
        with closing(open_locked(tmp_path / "file.db", target)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE a (b)")
            modes = {path.name: mode_of(path) for path in tmp_path.iterdir()}

        assert modes == {"file": 0o600, "file.db": 0o600, "file.db-wal": 0o600}

    def test_other_content_is_damage(self, tmp_path: Path) -> None:
        """A file that is not a database raises a `DamagedFileError` with its name, and is not changed."""
        path = tmp_path / "file.db"
        path.write_bytes(b"not a database" * 1000)
        with pytest.raises(DamagedFileError, match=r"file\.db cannot be read"):
            open_locked(path)

        assert path.read_bytes() == b"not a database" * 1000

    def test_missing_table_is_damage(self, tmp_path: Path) -> None:
        """A database without an expected table raises `DamagedFileError`."""
        path = tmp_path / "file.db"
        expected = pytest.raises(DamagedFileError, match="no such table")
        with closing(open_locked(path)) as database, expected, sqlite_errors(path):
            database.execute("SELECT * FROM missing")

    def test_unusable_place_is_an_os_error(self, tmp_path: Path) -> None:
        """A database in a folder that does not exist raises an `OSError` with its path."""
        with pytest.raises(
            OSError, match=r"missing/file\.db cannot be used \(unable to open .*\): check that it is a file"
        ):
            open_locked(tmp_path / "missing" / "file.db")
