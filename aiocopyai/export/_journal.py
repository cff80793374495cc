"""Stores the rows and the state of an export, so that it can be resumed after a crash at any time.

Next to ``runs.jsonl`` there are

- ``runs.jsonl.part``: the rows, which are only appended to,
- ``runs.jsonl.part.db`` and, during an export or after a crash, ``runs.jsonl.part.db-wal``: an SQLite database with
  the ids that were seen, the number of valid bytes in the rows file, and how far each list was read,
- ``runs.jsonl.part.out``: the complete file, while it is written, if the rows file cannot be used as it is. It is
  not needed to resume: the next process writes it again.

Rows are written first, and then the database in one transaction. Bytes after the valid ones are cut off by the next
process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from attrs import frozen
from cattrs.preconf.json import make_converter

from aiocopyai._files import (
    DamagedFileError,
    FileInUseError,
    check_database,
    create_beside,
    open_locked,
    sqlite_errors,
)
from aiocopyai._incremental import is_unfinished
from aiocopyai._json import dump_with_stdlib
from aiocopyai.export._formats import ExportError, Format, batched
from aiocopyai.export._resume import ExportState
from aiocopyai.models import Run


_CONVERTER: Final = make_converter()
_VERSION: Final = 3
_SYNC_SECONDS: Final = 1.0
"""How often the rows are written to the disk, so that little is left to write at the end."""
# The last two, in pages and KiB, reduce how often pages of the index are written, as ids are at random places in it.
_SETTINGS: Final = ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 4000", "cache_size = -8000")
# `seen` has every id, with the number of the addition that added it, which is 0 for the base.
# `unfinished` has a digest of the row of each run of the base that may still change; `replaced` has those that changed.
_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS seen (id BLOB PRIMARY KEY, addition INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unfinished (id BLOB PRIMARY KEY, row BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replaced (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (document TEXT);
PRAGMA user_version = {_VERSION};
"""
_MAX_ROWS: Final = 300
"""How many rows are in one statement; older versions of SQLite accept 999 values."""
_EXTENSIONS: Final = (".part.out", ".part", ".part.db-wal", ".part.db-journal", ".part.db")
"""The extensions of all files that an unfinished export may have; the last one is what `Journal.exists` checks."""


class DamagedJournalError(ExportError):
    """An unfinished export cannot be read, and must be started again."""


@frozen
class Batch:
    """Runs in the form in which they are stored."""

    runs: Sequence[Run]
    digests: Sequence[bytes]
    encoded: bytes

    @classmethod
    def of(cls, runs: Sequence[Run], file_format: Format) -> Batch:
        """Return a batch of runs, encoded for a format."""
        return cls(runs, [_digest(run.id) for run in runs], file_format.encode(runs))


class Journal:
    """The rows and the database of one export, locked by this process.

    Raises:
        ExportError: another process has locked it, or it cannot be read.
        OSError: it cannot be written.
    """

    def __init__(self, target: Path) -> None:
        self.rows: Final = Path(f"{target}.part")
        self.out: Final = Path(f"{target}.part.out")
        self.state: ExportState | None = None
        """None until `start`."""
        self._target = target
        self._database = Path(f"{target}.part.db")
        self._file: BinaryIO | None = None
        self._has_failed = False
        self._is_closed = False
        self._synced = time.monotonic()
        with self._errors():
            self._db = open_locked(self._database, target)
        try:
            self.state = self._load()
        except BaseException:
            self._db.close()
            raise

    @staticmethod
    def exists(target: Path) -> bool:
        """Whether there is an unfinished export to a file."""
        return Path(f"{target}.part.db").exists()

    @staticmethod
    def discard(target: Path) -> None:
        """Delete the files of an unfinished export that is not locked."""
        for extension in _EXTENSIONS:
            Path(f"{target}{extension}").unlink(missing_ok=True)

    def add_base(self, runs: Sequence[Run]) -> None:
        """Store which runs the base has; `start` makes it permanent."""
        with self._transaction():
            self._insert("seen", [(_digest(run.id), 0) for run in runs])
            self._insert("unfinished", [(_digest(run.id), _row_digest(run)) for run in runs if is_unfinished(run)])

    def forget_base(self) -> None:
        """Undo `add_base`."""
        self._db.rollback()

    def start(self, state: ExportState, head: bytes) -> None:
        """Start an export: create the rows file with the head of its format."""
        with create_beside(self.rows, self._target) as file:
            file.write(head)
        state.size = len(head)
        self.state = state
        with self._transaction():
            self._db.execute("INSERT INTO state VALUES ('')")
        self.commit()

    def add(self, batch: Batch, file_format: Format) -> bytes:
        """Append runs that are not in the base, or were unfinished there and changed; `commit` makes it permanent.

        Returns:
            The rows that were appended.
        """
        state = self._started()
        with self._transaction():
            addition = state.runs + 1  # no earlier addition has this number
            runs, encoded, changed = batch.runs, batch.encoded, 0
            if self._insert("seen", [(digest, addition) for digest in sorted(batch.digests)]) < len(runs):
                runs, changed = self._select_unwritten(batch, addition)
                encoded = file_format.encode(runs)
            if not runs:
                return b""
            content = file_format.pack(encoded)
            self._rows().write(content)
            state.size += len(content)
            state.count(runs, changed)
            return content

    def keep(self, run_ids: Sequence[str]) -> list[bool]:
        """Return for each of some runs of the base whether it keeps its row: whether no newer row was added."""
        digests = [_digest(run_id) for run_id in run_ids]
        with self._errors():
            replaced = {digest for (digest,) in self._select("SELECT id FROM replaced WHERE id IN ({})", digests)}
        return [digest not in replaced for digest in digests]

    def commit(self, *, durably: bool = False) -> None:
        """Make the additions and the state permanent, unless any of them failed.

        A commit survives a crash of the process. A durable one also survives a power failure, and must follow another.
        """
        if self._has_failed:
            return
        if durably:
            self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            if self._file is not None:
                self._file.flush()
                if time.monotonic() - self._synced >= _SYNC_SECONDS:
                    os.fsync(self._file.fileno())
                    self._synced = time.monotonic()
            self._db.execute("UPDATE state SET document = ?", (_CONVERTER.dumps(self._started()),))
            self._db.execute("COMMIT")

    def seal(self) -> Path:
        """Wait until the rows file is on the disk, cut to its valid bytes, and return its path."""
        with self._errors():
            file, self._file = self._rows(), None
        with file:
            os.fsync(file.fileno())
        return self.rows

    def close(self) -> None:
        """Close the files and release the lock; an export that was not started leaves no files behind."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._file is not None:
            with suppress(OSError):  # closing writes the buffer, and may fail again on a full disk
                self._file.close()
        with self._errors():
            self._db.close()
        if self.state is None:
            self._database.unlink(missing_ok=True)

    def remove(self) -> None:
        """Close and delete the files."""
        if self._file is not None:
            self._file.close()
        self.out.unlink(missing_ok=True)
        self.rows.unlink(missing_ok=True)
        self.state = None
        with suppress(DamagedJournalError):
            self.close()
        self.discard(self._target)

    def _started(self) -> ExportState:
        if self.state is None:
            raise AssertionError
        return self.state

    def _load(self) -> ExportState | None:
        with self._errors():
            for setting in _SETTINGS:
                self._db.execute(f"PRAGMA {setting}")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            check_database(self._db, self._database)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, _VERSION}:
                raise DamagedFileError(f"{self._database} was written by another version of aiocopyai")
            if version == 0:
                self._db.executescript(_TABLES)
            found = self._db.execute("SELECT document FROM state").fetchone()
            try:
                return None if found is None else _CONVERTER.loads(found[0], ExportState)
            except (ValueError, KeyError, TypeError, ExceptionGroup) as error:
                raise DamagedFileError(f"{self._database} cannot be read: {error}") from error

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            with sqlite_errors(self._database):
                yield
        except FileInUseError:
            raise ExportError(f"another export to {self._target} is in progress") from None
        except DamagedFileError as error:
            paths = [Path(f"{self._target}{extension}") for extension in _EXTENSIONS]
            names = ", ".join(path.name for path in paths if path.exists())
            raise DamagedJournalError(
                f"{error} (the files of the unfinished export are {names})",
                "use force to discard it, or move all of them away",
            ) from error

    @contextmanager
    def _transaction(self) -> Generator[None]:
        """Use the open transaction, or start one; `commit` ends it, and an error undoes it."""
        try:
            with self._errors():
                if not self._db.in_transaction:
                    self._db.execute("BEGIN")
                yield
        except BaseException:
            self._has_failed = True
            self._db.rollback()
            raise

    def _select_unwritten(self, batch: Batch, addition: int) -> tuple[list[Run], int]:
        """Return the runs of an addition that need a row, and how many of them replace a row of the base.

        These are the runs that this addition is the first to have, and those that were unfinished in the base and
        changed.
        """
        by_digest: dict[bytes, Run] = {}
        for digest, run in zip(batch.digests, batch.runs, strict=True):
            by_digest.setdefault(digest, run)
        seen = self._select("SELECT id FROM seen WHERE id IN ({}) AND addition = ?", by_digest, addition)
        new = {digest for (digest,) in seen}
        unfinished = self._select("SELECT id, row FROM unfinished WHERE id IN ({})", by_digest.keys() - new)
        changed = {digest for digest, row in unfinished if _row_digest(by_digest[digest]) != row}
        self._insert("replaced", [(digest,) for digest in changed])
        for digest in changed:
            self._db.execute("DELETE FROM unfinished WHERE id = ?", (digest,))
        return [run for digest, run in by_digest.items() if digest in new or digest in changed], len(changed)

    def _insert(self, table: str, rows: Sequence[tuple[object, ...]]) -> int:
        """Insert the rows whose ids are not in the table; return their number."""
        inserted = 0
        # Unlike executemany(), this does not release and acquire the GIL for each row.
        for some in batched(rows, _MAX_ROWS):
            places = ", ".join([f"({', '.join('?' * len(some[0]))})"] * len(some))
            values = list(chain.from_iterable(some))
            inserted += self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES {places}", values).rowcount  # noqa: S608 (our names)
        return inserted

    def _select(self, statement: str, digests: Iterable[bytes], *more: object) -> Iterator[tuple[bytes, ...]]:
        for some in batched(digests, _MAX_ROWS):
            places = ", ".join("?" * len(some))
            yield from self._db.execute(statement.format(places), [*some, *more]).fetchall()

    def _rows(self) -> BinaryIO:
        """Return the rows file, which is opened and cut to its valid bytes first."""
        if self._file is None:
            size = self._started().size
            if not self.rows.is_file() or self.rows.stat().st_size < size:
                raise DamagedFileError(f"{self.rows} is shorter than it was")
            file = self.rows.open("r+b")
            self._file = file
            file.truncate(size)
            file.seek(size)
        return self._file


def _digest(run_id: str) -> bytes:
    """Return the hash that is stored instead of an id; it is long enough to be different for each id."""
    # Lone surrogates are escaped as in formats that cannot contain them, so that ids from such files are recognized.
    return blake2b(run_id.encode("utf-8", "backslashreplace"), digest_size=16).digest()


def _row_digest(run: Run) -> bytes:
    """Return a hash of a row, which shows whether the row has changed."""
    # In CSV and Parquet, a lone surrogate is escaped with a backslash, which JSON doubles.
    # Not with msgspec, which writes floats differently, and only if there is no lone surrogate.
    return blake2b(dump_with_stdlib(run.to_dict()).replace(rb"\\", b"\\"), digest_size=16).digest()
