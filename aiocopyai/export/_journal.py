"""Stores the rows and the state of an export, so that it can be resumed after a crash at any time.

Next to ``runs.jsonl`` there are

- ``runs.jsonl.part``: the rows, which are only appended to,
- ``runs.jsonl.part.db`` and, during an export or after a crash, ``runs.jsonl.part.db-wal``: an SQLite database with
  the ids that were seen, the number of valid bytes in the rows file, and how far each list was read,
- ``runs.jsonl.part.out``: the complete file, while it is written, if it differs from the rows file. It is not needed
  to resume: the next process writes it again.

Rows are written first, and then the database in one transaction. After a crash, the next process truncates the rows
file to its valid bytes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from attrs import frozen
from cattrs.preconf.json import make_converter

from aiocopyai._columns import Columns, run_columns
from aiocopyai._files import (
    DamagedFileError,
    FileInUseError,
    check_database,
    create_beside,
    file_errors,
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
_SYNC_SECONDS: Final = 0.25
"""Rows are written to the disk at this interval, so that little is left to write at the end."""
# The last two are in pages and KiB. They let SQLite write pages less often: ids are at random places in the index.
_SETTINGS: Final = ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 4000", "cache_size = -8000")
# `seen` has each id, and the number of the addition that added it, or 0 for the base.
# `unfinished` has the ids of the runs of the base that may still change, and digests of their rows.
# `replaced` has the ids of the runs of the base that have changed.
_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS seen (id BLOB PRIMARY KEY, addition INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unfinished (id BLOB PRIMARY KEY, row BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replaced (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (document TEXT);
PRAGMA user_version = {_VERSION};
"""
_ROWS_PER_STATEMENT: Final = 300
"""The maximum number of rows in a statement. Older versions of SQLite accept at most 999 values."""
_DIGEST_BYTES: Final = 16
_EMPTY_DIGEST: Final = blake2b(digest_size=_DIGEST_BYTES)
# The digests are one value, because SQLite runs without the GIL only while it executes a statement. They are sorted,
# because neighbours are inserted faster.
_INSERT_SEEN: Final = """
INSERT OR IGNORE INTO seen
WITH RECURSIVE digest(start) AS (
    SELECT 1 UNION ALL SELECT start + :size FROM digest WHERE start + :size < length(:digests)
)
SELECT substr(:digests, start, :size), :addition FROM digest ORDER BY 1
"""
_EXTENSIONS: Final = (".part.out", ".part", ".part.db-wal", ".part.db-journal", ".part.db")
"""The extensions of all files that an unfinished export may have. `Journal.exists` checks the last one."""


class DamagedJournalError(ExportError):
    """An unfinished export cannot be read, and must be started again."""


@frozen
class Batch:
    """Runs that are encoded, to be stored together.

    Attributes:
        digests: the digests of their ids.
        encoded: the runs, encoded for a format.
        by_status: the number of runs by status.
        credits: the credits that the runs have cost.
    """

    digests: Sequence[bytes]
    encoded: bytes | memoryview
    by_status: Mapping[str, int]
    credits: int

    @classmethod
    def of(cls, columns: Columns, file_format: Format) -> Batch:
        """Encode the runs of these columns."""
        by_status = Counter[str]()
        for status, count in Counter(columns["status"]).items():
            by_status[str(status or "no status")] += count
        return cls(
            list(map(_digest, columns["id"])),
            file_format.encode(columns),
            by_status,
            sum(filter(None, columns["credits"])),
        )

    @classmethod
    def join(cls, batches: Sequence[Batch]) -> Batch:
        """Return the runs of several batches as one."""
        by_status = Counter[str]()
        for batch in batches:
            by_status.update(batch.by_status)
        return cls(
            list(chain.from_iterable([batch.digests for batch in batches])),
            b"".join([batch.encoded for batch in batches]),
            by_status,
            sum([batch.credits for batch in batches]),
        )


class Journal:
    """The rows and the database of one export, locked by this process.

    Raises:
        ExportError: another process has locked the export, or it cannot be read.
        OSError: the export cannot be written.
    """

    def __init__(self, target: Path) -> None:
        self.rows_path: Final = Path(f"{target}.part")
        self.output_path: Final = Path(f"{target}.part.out")
        self.state: ExportState | None = None
        """None until `start`."""
        self._target = target
        self._database_path = Path(f"{target}.part.db")
        self._file: BinaryIO | None = None
        self._has_failed = False
        self._is_closed = False
        self._synced = time.monotonic()
        with self._errors():
            self._db = open_locked(self._database_path, target)
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
        """Store the runs of the base. `start` makes them permanent."""
        with self._transaction():
            self._insert_seen([_digest(run.id) for run in runs], 0)
            self._insert("unfinished", [(_digest(run.id), _row_digest(run)) for run in runs if is_unfinished(run)])

    def forget_base(self) -> None:
        """Undo `add_base`."""
        self._db.rollback()

    def start(self, state: ExportState, head: bytes) -> None:
        """Start an export: create the rows file with the head of its format."""
        with file_errors(self.rows_path), create_beside(self.rows_path, self._target) as file:
            file.write(head)
        state.size = len(head)
        self.state = state
        with self._transaction():
            self._db.execute("INSERT INTO state VALUES ('')")
        self.commit()

    def add(self, batches: Sequence[Batch], file_format: Format) -> bytes:
        """Append the runs of an addition that are new, or were unfinished in the base and have changed.

        `commit` makes this permanent.

        Returns:
            The rows that were appended.
        """
        state = self._started()
        with self._transaction():
            batch = Batch.join(batches)
            addition = state.runs + 1  # no earlier addition has this number
            changed = 0
            if self._insert_seen(batch.digests, addition) < len(batch.digests):
                batch, changed = self._select_unwritten(batch, addition, file_format)
            if not batch.digests:
                return b""
            content = file_format.pack(bytes(batch.encoded))
            self._open_rows().write(content)
            state.size += len(content)
            state.runs += len(batch.digests)
            state.refreshed += changed
            state.by_status.update(batch.by_status)
            state.credits += batch.credits
            return content

    def keep(self, run_ids: Sequence[str]) -> list[bool]:
        """Return for each of these runs of the base whether its row is kept, because no newer row was added."""
        digests = [_digest(run_id) for run_id in run_ids]
        with self._errors():
            replaced = {digest for (digest,) in self._select("SELECT id FROM replaced WHERE id IN ({})", digests)}
        return [digest not in replaced for digest in digests]

    def commit(self, *, durably: bool = False) -> None:
        """Make the additions and the state permanent, unless any of them failed.

        A commit survives a crash of the process. A durable commit also survives a power failure; another commit must
        come before it.
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
        """Truncate the rows file to its valid bytes, wait until it is on the disk, and return its path."""
        with self._errors():
            file, self._file = self._open_rows(), None
            with file:
                os.fsync(file.fileno())
        return self.rows_path

    def close(self) -> None:
        """Close the files and release the lock. If the export was not started, delete its files."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._file is not None:
            with suppress(OSError):  # closing writes the buffer, and may fail again on a full disk
                self._file.close()
        with self._errors():
            self._db.close()
        if self.state is None:
            self._database_path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Close and delete the files."""
        if self._file is not None:
            self._file.close()
        self.output_path.unlink(missing_ok=True)
        self.rows_path.unlink(missing_ok=True)
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
            check_database(self._db, self._database_path)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, _VERSION}:
                raise DamagedFileError(f"{self._database_path} was written by another version of aiocopyai")
            if version == 0:
                self._db.executescript(_TABLES)
            row = self._db.execute("SELECT document FROM state").fetchone()
            try:
                return None if row is None else _CONVERTER.loads(row[0], ExportState)
            except (ValueError, KeyError, TypeError, ExceptionGroup) as error:
                raise DamagedFileError(f"{self._database_path} cannot be read: {error}") from error

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            with sqlite_errors(self._database_path), file_errors(self.rows_path):
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
        """Use the open transaction, or begin one. `commit` ends it, and an error rolls it back."""
        try:
            with self._errors():
                if not self._db.in_transaction:
                    self._db.execute("BEGIN")
                yield
        except BaseException:
            self._has_failed = True
            self._db.rollback()
            raise

    def _select_unwritten(self, batch: Batch, addition: int, file_format: Format) -> tuple[Batch, int]:
        """Return the runs of an addition that need a row, and how many of them replace a row of the base.

        A run needs a row if no earlier addition has it, or if it was unfinished in the base and has changed.
        """
        digests = dict.fromkeys(batch.digests)
        seen = self._select("SELECT id FROM seen WHERE id IN ({}) AND addition = ?", digests, addition)
        new = {digest for (digest,) in seen}
        unfinished = list(self._select("SELECT id, row FROM unfinished WHERE id IN ({})", digests.keys() - new))
        by_digest: dict[bytes, Run] = {}
        if new or unfinished:
            for digest, run in zip(batch.digests, file_format.decode(bytes(batch.encoded)), strict=True):
                by_digest.setdefault(digest, run)
        changed = {digest for digest, row in unfinished if _row_digest(by_digest[digest]) != row}
        self._insert("replaced", [(digest,) for digest in changed])
        for digest in changed:
            self._db.execute("DELETE FROM unfinished WHERE id = ?", (digest,))
        unwritten = [run for digest, run in by_digest.items() if digest in new or digest in changed]
        return Batch.of(run_columns(unwritten), file_format), len(changed)

    def _insert_seen(self, digests: Sequence[bytes], addition: int) -> int:
        """Insert the digests that are not in the table, and return their number."""
        if not digests:
            return 0
        values = {"digests": b"".join(digests), "size": _DIGEST_BYTES, "addition": addition}
        return self._db.execute(_INSERT_SEEN, values).rowcount

    def _insert(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert the rows whose ids are not in the table."""
        # Unlike executemany(), this does not release and acquire the GIL for each row.
        for batch in batched(rows, _ROWS_PER_STATEMENT):
            groups = ", ".join([f"({', '.join('?' * len(batch[0]))})"] * len(batch))
            statement = f"INSERT OR IGNORE INTO {table} VALUES {groups}"  # noqa: S608 (only names of this module)
            self._db.execute(statement, list(chain.from_iterable(batch)))

    def _select(self, statement: str, digests: Iterable[bytes], *values: object) -> Iterator[tuple[bytes, ...]]:
        """Execute a statement for the digests, which replace its braces, and for the values that follow them."""
        for batch in batched(digests, _ROWS_PER_STATEMENT):
            placeholders = ", ".join("?" * len(batch))
            yield from self._db.execute(statement.format(placeholders), [*batch, *values]).fetchall()

    def _open_rows(self) -> BinaryIO:
        """Return the rows file. The first call opens it and truncates it to its valid bytes."""
        if self._file is None:
            size = self._started().size
            if not self.rows_path.is_file() or self.rows_path.stat().st_size < size:
                raise DamagedFileError(f"{self.rows_path} is shorter than it was")
            file = self.rows_path.open("r+b")
            self._file = file
            file.truncate(size)
            file.seek(size)
        return self._file


def _digest(run_id: str) -> bytes:
    """Return the hash that is stored instead of an id. It is long enough to be unique."""
    digest = _EMPTY_DIGEST.copy()  # faster than creating one
    # Lone surrogates are escaped as in formats that cannot contain them, so that ids from such files are recognized.
    digest.update(run_id.encode("utf-8", "backslashreplace"))
    return digest.digest()


def _row_digest(run: Run) -> bytes:
    """Return a hash of a row, which shows whether the row has changed."""
    # In CSV and Parquet, a lone surrogate is escaped with a backslash, which JSON doubles.
    # The bytes must not depend on msgspec, which writes floats differently and cannot write lone surrogates.
    return blake2b(dump_with_stdlib(run.to_dict()).replace(rb"\\", b"\\"), digest_size=16).digest()
