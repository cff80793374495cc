"""What an export has read so far, kept so that the process may be killed at any moment.

Beside ``runs.jsonl`` there are ``runs.jsonl.part``, the rows, which only ever grow, and ``runs.jsonl.part.db``, an
SQLite ledger: the ids that were met, how many bytes of the rows count, and where each walk stands. Rows are written
first, and then all of the ledger in one transaction; what stands behind the bytes that count is cut off next time.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final

from aiocopyai.export._errors import DamagedPartError, ExportError
from aiocopyai.export._state import State, dump_state, load_state
from aiocopyai.models import Run


_VERSION: Final = 1
_SYNC_SECONDS: Final = 1.0
# The lock comes first: with it the journal needs no shared memory, which network drives haven't. The last two, in pages
# and in KiB, let ids that fall all over the index be written less often.
_SETTINGS: Final = (
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "wal_autocheckpoint = 4000",
    "cache_size = -8000",
)
_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS met (id BLOB PRIMARY KEY, turn INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (document TEXT);
PRAGMA user_version = {_VERSION};
"""
_AT_ONCE: Final = 500
"""Values in one statement; older SQLite takes 999."""


class Part:
    """The rows and the ledger of one export, locked for this process.

    Raises:
        ExportError: another process has it, or it isn't readable.
        OSError: it can't be written.
    """

    def __init__(self, target: Path) -> None:
        self.rows: Final = _beside(target, ".part")
        self.out: Final = _beside(target, ".part.out")
        self.ledger: Final = _beside(target, ".part.db")
        self.state: State | None = None
        """None as long as nothing was begun."""
        self._file: BinaryIO | None = None
        self._has_failed = False
        self._is_closed = False
        self._synced = time.monotonic()
        self._db = _connect(self.ledger)
        try:
            self.state = self._load()
        except BaseException:
            self._db.close()
            raise

    @staticmethod
    def exists(target: Path) -> bool:
        """Whether something was begun, or nearly so."""
        return _beside(target, ".part.db").exists()

    @staticmethod
    def discard(target: Path) -> None:
        """Throw away what was begun."""
        for ending in (".part.out", ".part", ".part.db-wal", ".part.db-journal", ".part.db"):
            _beside(target, ending).unlink(missing_ok=True)

    def know(self, ids: Iterable[str]) -> None:
        """Take ids for met, without rows; it counts only when the export is begun."""
        with self._transaction():
            self._insert([_digest(run_id) for run_id in ids], turn=0)

    def begin(self, state: State, head: bytes) -> None:
        """Start with rows that hold a file's head only."""
        self.rows.write_bytes(head)
        state.size = len(head)
        self.state = state
        with self._transaction():
            self._db.execute("INSERT INTO state VALUES ('')")
        self.commit()

    def add(self, runs: Sequence[Run], encode: Callable[[Sequence[Run]], bytes]) -> None:
        """Take those of some runs that were not met before; they are kept once `commit` was called."""
        state = self._begun()
        with self._transaction():
            if fresh := self._fresh(runs):
                encoded = encode(fresh)
                self._rows().write(encoded)
                state.size += len(encoded)
                state.count(fresh)

    def commit(self, *, durably: bool = False) -> None:
        """Keep what was added, and the state as it is now; but nothing of it if anything went wrong with it.

        Any commit outlives the process; a durable one outlives a power cut, too, and may only follow another.
        """
        if self._has_failed:
            return
        if durably:
            self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            self._flush()
            self._db.execute("UPDATE state SET document = ?", (dump_state(self._begun()),))
            self._db.execute("COMMIT")

    def seal(self) -> Path:
        """Wait until the rows are on the disk, and nothing but them; return where they are."""
        file, self._file = self._rows(), None
        with file:
            os.fsync(file.fileno())
        return self.rows

    def close(self) -> None:
        """Let go of the files, once; an export that was not begun leaves nothing behind."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._file is not None:
            with suppress(OSError):  # it tries once more to write what the disk had no room for
                self._file.close()
        with _translated(self.ledger):
            self._db.close()
        if self.state is None:
            self.ledger.unlink(missing_ok=True)

    def remove(self) -> None:
        """Take the part away once its work is done: the ledger last, as it tells of the others."""
        self.out.unlink(missing_ok=True)
        self.rows.unlink(missing_ok=True)
        self.state = None
        self.close()

    def _begun(self) -> State:
        if self.state is None:
            raise AssertionError
        return self.state

    def _load(self) -> State | None:
        with _translated(self.ledger):
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, _VERSION}:
                raise DamagedPartError(f"{self.ledger} was made by another version of aiocopyai: begin anew by force")
            self._db.executescript(_TABLES)
            found = self._db.execute("SELECT document FROM state").fetchone()
        return None if found is None else load_state(found[0])

    @contextmanager
    def _transaction(self) -> Generator[None]:
        """Do something in the transaction that is open, or a new one; `commit` ends it, and so does an error."""
        try:
            with _translated(self.ledger):
                if not self._db.in_transaction:
                    self._db.execute("BEGIN")
                yield
        except BaseException:
            self._has_failed = True
            self._db.rollback()
            raise

    def _fresh(self, runs: Sequence[Run]) -> list[Run]:
        """Remember the runs' ids; return the runs that were not met before, each once."""
        once: dict[bytes, Run] = {}
        for run in runs:
            once.setdefault(_digest(run.id), run)
        turn = self._begun().runs + 1  # no id from before has this one
        if self._insert(list(once), turn) == len(once):
            return list(once.values())
        fresh = self._met(list(once), turn)
        return [run for digest, run in once.items() if digest in fresh]

    def _insert(self, digests: Sequence[bytes], turn: int) -> int:
        """Remember ids; return how many of them were not met before."""
        return sum(
            self._db.execute(
                _numbered("INSERT OR IGNORE INTO met VALUES {}", "(?{}, ?1)", len(some)), [turn, *some]
            ).rowcount
            for some in _in_parts(digests)
        )

    def _met(self, digests: Sequence[bytes], turn: int) -> set[bytes]:
        """Return those of some ids that were remembered at a turn."""
        return {
            digest
            for some in _in_parts(digests)
            for (digest,) in self._db.execute(
                _numbered("SELECT id FROM met WHERE turn = ?1 AND id IN ({})", "?{}", len(some)), [turn, *some]
            )
        }

    def _flush(self) -> None:
        """Hand the rows to the system, and now and then wait until they are on the disk."""
        if self._file is not None:
            self._file.flush()
            if time.monotonic() - self._synced >= _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def _rows(self) -> BinaryIO:
        """Open the rows, cut to what counts of them."""
        if self._file is None:
            size = self._begun().size
            if not self.rows.exists() or self.rows.stat().st_size < size:
                raise DamagedPartError(f"{self.rows} is shorter than it was: begin anew by force")
            file = self.rows.open("r+b")
            self._file = file
            file.truncate(size)
            file.seek(size)
        return self._file


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the ledger for this process alone."""
    with _translated(path):
        db = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            for setting in _SETTINGS:
                db.execute(f"PRAGMA {setting}")
        except BaseException:
            db.close()
            raise
    return db


def _digest(run_id: str) -> bytes:
    """Give what is remembered of an id: shorter than the id, and of one length; no two will ever meet by chance."""
    # In the spelling that formats have which can't hold half a surrogate pair, so that what is read from them is known.
    return blake2b(run_id.encode("utf-8", "backslashreplace"), digest_size=16).digest()


def _in_parts(digests: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(digests), _AT_ONCE):
        yield digests[start : start + _AT_ONCE]


@lru_cache(maxsize=64)
def _numbered(statement: str, value: str, count: int) -> str:
    """Fill a statement with places for values, numbered from 2; the same text each time, as SQLite keeps those."""
    return statement.format(", ".join(value.format(number) for number in range(2, count + 2)))


@contextmanager
def _translated(path: Path) -> Generator[None]:
    """Turn SQLite's errors into what they mean."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise ExportError(f"{path} is in use: another export writes the same file") from None
        raise OSError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise DamagedPartError(f"{path} can't be read ({error}): begin anew by force") from None
