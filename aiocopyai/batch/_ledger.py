"""The ledger of a batch: an SQLite database next to the results, with which another process can resume the batch.

The ledger exists until every row is finished. It contains the random id of the batch, which is part of each row's
idempotency key, and the state of each row. Before the start of a row is sent, the state of the row is written to the
disk. So after a crash, the rows that may have been started are known, and their runs can be searched for by key. The
ledger is locked until the process ends, so that no other process works on the same batch.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

from attrs import define, field, frozen

from aiocopyai import CopyAIError
from aiocopyai._files import DamagedFileError, check_database, open_locked, sqlite_errors


_MIN_SIZE: Final = 512
"""The size in bytes of the smallest SQLite database. SQLite treats a smaller file as empty, and overwrites it."""
_VERSION: Final = 1
_MAX_CLOCK_DIFFERENCE: Final = timedelta(days=1)
"""The maximum difference between the clocks of this machine and the server."""
_TABLES: Final = f"""
CREATE TABLE batch (id TEXT NOT NULL, workflow_id TEXT NOT NULL, digest TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE rows (number INTEGER PRIMARY KEY, state TEXT NOT NULL, run_id TEXT);
PRAGMA user_version = {_VERSION};
"""


class BatchError(CopyAIError, ValueError):
    """The batch cannot be run: its files already exist, are damaged, or belong to other rows."""


class LedgerState(StrEnum):
    """The state of a row. The ledger has no entry for a row that was never started."""

    STARTING = "starting"
    """The start was sent, or about to be sent: there may be a run."""
    STARTED = "started"
    """The run is known, and was not finished when it was last read."""
    COMPLETE = "complete"
    FAILED = "failed"
    NOT_STARTED = "not started"
    """The start was rejected: there is no run."""


@frozen
class RowEntry:
    """The state of one row."""

    state: LedgerState
    run_id: str | None = None
    """The id of the row's run, if it is known."""


@frozen
class BatchInfo:
    """The identity of a batch."""

    workflow_id: str
    digest: str
    """A hash of the rows and the metadata."""
    id: str = field(factory=lambda: str(uuid4()))
    created_at: datetime = field(factory=lambda: datetime.now(UTC))

    @property
    def since(self) -> datetime:
        """A time before any of the runs was created, even if the clocks differ."""
        return self.created_at - _MAX_CLOCK_DIFFERENCE

    def key(self, number: int) -> str:
        """Return the idempotency key of a row."""
        return f"{self.id}-{number}"


@define
class Ledger:
    """An open ledger, locked for this process."""

    path: Path
    batch: BatchInfo | None
    """None for an empty ledger, which is new or damaged."""
    rows: dict[int, RowEntry]
    """The state of each row, by row number, counted from 1."""
    _database: sqlite3.Connection

    @classmethod
    def open(cls, path: Path, results_path: Path) -> Self:
        """Open a ledger, or create it.

        Args:
            path: the path of the ledger.
            results_path: the path of the results that the ledger belongs to.

        Raises:
            DamagedFileError: the ledger is damaged.
            OSError: another process is using the ledger, or it cannot be written.
        """
        if path.exists():
            size = path.stat().st_size
            # An empty ledger without results is new: the results are created after the ledger has content.
            if size < _MIN_SIZE and (size > 0 or results_path.exists()):
                raise DamagedFileError(f"{path} is empty or truncated")
        with ExitStack() as on_error:
            database = open_locked(path, results_path)
            on_error.callback(database.close)
            try:
                batch, rows = cls._load(database, path)
            except DamagedFileError:
                raise
            except (ValueError, TypeError, OverflowError) as error:
                raise DamagedFileError(f"{path} is damaged: {error}") from None
            on_error.pop_all()
        return cls(path, batch, rows, database)

    @staticmethod
    def _load(database: sqlite3.Connection, path: Path) -> tuple[BatchInfo | None, dict[int, RowEntry]]:
        with sqlite_errors(path):
            check_database(database, path)
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                # The tables and the version are written in one transaction.
                if database.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise DamagedFileError(f"{path} is not a ledger")
                return None, {}
            if version != _VERSION:
                raise DamagedFileError(f"{path} was written by another version of aiocopyai")
            [(batch_id, workflow_id, digest, created_at)] = database.execute("SELECT * FROM batch").fetchall()
            batch = BatchInfo(workflow_id, digest, batch_id, datetime.fromisoformat(created_at))
            if batch.since.tzinfo is None:
                raise ValueError(f"the time {created_at} has no time zone")
            rows: dict[int, RowEntry] = {}
            for number, state, run_id in database.execute("SELECT * FROM rows"):
                if not isinstance(run_id, str | None) or run_id == "":
                    raise ValueError(f"row {number} has an invalid run id, {run_id!r}")
                rows[number] = RowEntry(LedgerState(state), run_id)
        return batch, rows

    def begin(self, batch: BatchInfo) -> None:
        """Write the batch to a new ledger."""
        with sqlite_errors(self.path):
            self._database.executescript(f"BEGIN; {_TABLES}")
            self._database.execute(
                "INSERT INTO batch VALUES (?, ?, ?, ?)",
                (batch.id, batch.workflow_id, batch.digest, batch.created_at.isoformat()),
            )
            self._database.execute("COMMIT")
        self.batch = batch

    def record(self, number: int, state: LedgerState, run_id: str | None = None) -> None:
        """Write the state of a row, if it has changed, to the disk, and wait until it is stored there."""
        entry = RowEntry(state, run_id)
        if self.rows.get(number) == entry:
            return
        with sqlite_errors(self.path):
            self._database.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (number, state, run_id))
        self.rows[number] = entry

    def close(self) -> None:
        """Close and unlock the ledger."""
        self._database.close()

    def delete(self) -> None:
        """Close the ledger and delete it."""
        self.close()
        for path in ledger_files(self.path):
            path.unlink(missing_ok=True)


def ledger_files(path: Path) -> tuple[Path, Path]:
    """Return the ledger and the journal that SQLite keeps next to it while the ledger changes."""
    return path, path.with_name(f"{path.name}-journal")
