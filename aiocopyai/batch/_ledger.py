"""A batch on the disk: its results, and a ledger from which a second process goes on and pays for nothing twice.

The ledger is ``<file>.begun``, in SQLite, and is there until every row is over. It holds the batch's own random name,
which is in the idempotency key of each row, and where each row stands: that a start is about to be sent is written
before it is. So whenever a process dies, the rows that may have been started are known, and can be looked for by their
keys. A process holds the ledger as long as it lives, so that no other one works on the same batch.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final, Self
from uuid import uuid4

import typer
from attrs import define, frozen
from cattrs.preconf.json import make_converter

from aiocopyai import JSON, AmbiguousStartError, Run
from aiocopyai._display import json_line, run_row
from aiocopyai._files import DamagedFileError, FileInUseError, open_locked, replace_file, sqlite_errors
from aiocopyai.batch._input_rows import Row
from aiocopyai.cli._errors import CommandError


_CLOCKS_DIFFER: Final = timedelta(days=1)
_BLOCK: Final = 2**16


class State(StrEnum):
    """Where a row stands; one that the ledger doesn't know was not started."""

    STARTING = "starting"
    """A start may have been sent, and may have been taken."""
    STARTED = "started"
    """Its run is known, and perhaps not over."""
    COMPLETE = "complete"
    FAILED = "failed"
    NOT_STARTED = "not started"
    """The start was refused."""


@frozen
class Batch:
    """What was begun."""

    name: str
    workflow_id: str
    digest: str
    """Of the rows, and what each run carries along."""
    begun: datetime

    def key_of(self, number: int) -> str:
        """Give the idempotency key of a row."""
        return f"{self.name}-{number}"

    @property
    def since(self) -> datetime:
        """When none of its runs was created yet, however much clocks differ."""
        return self.begun - _CLOCKS_DIFFER


@define
class Record:
    """The file of results and its ledger, held by this process."""

    path: Path
    batch: Batch
    rows: dict[int, tuple[State, str | None]]
    """Where each row stood when this process took over, and its run's id where that is known."""
    _ledger: sqlite3.Connection
    _out: BinaryIO

    @classmethod
    def open(cls, output: Path, workflow_id: str, digest: str) -> Self:
        """Go on with a batch, or begin one.

        Raises:
            typer.BadParameter: there is another batch, or it can't be read.
            CommandError: another process is at it.
        """
        path = Path(os.path.realpath(output))  # a link and what it leads to have one ledger
        ledger = _hold(path, output)
        try:
            batch = _find_batch(ledger, path) or _begin(ledger, workflow_id, digest)
            rows = {number: (State(state), run_id) for number, state, run_id in ledger.execute("SELECT * FROM rows")}
            _check(batch, workflow_id, digest, output, is_gone=bool(rows) and not path.exists())
            _cut_half_line(path)
            return cls(path, batch, rows, ledger, path.open("ab"))
        except BaseException:
            ledger.close()
            raise

    def note(self, number: int, state: State, run_id: str | None = None) -> None:
        """Write down where a row stands; it is on the disk then."""
        self._ledger.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (number, state, run_id))

    def write(self, line: Mapping[str, JSON]) -> None:
        """Put down what became of a row; it is on the disk then."""
        self._out.write(json_line(line))
        self._out.flush()
        os.fsync(self._out.fileno())

    def finish(self, *, is_whole: bool) -> None:
        """Leave one line for each row, and if every row is over nothing beside the file."""
        self._out.close()
        _drop_old_lines(self.path)
        self.close()
        if is_whole:
            begun(self.path).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files."""
        self._out.close()
        self._ledger.close()


def line_of(row: Row, run: Run | None, error: Exception | None) -> dict[str, JSON]:
    """Tell what became of a row: its number, the columns of its run, and what is wrong if something is."""
    return {
        "row": row.number,
        **run_row(run or Run("", input=row.inputs)),
        "id": run.id if run else None,
        "problem": str(error) if error else None,
        "unconfirmed": isinstance(error, AmbiguousStartError),
    }


def begun(path: Path) -> Path:
    """Name the ledger of a file of results."""
    return path.with_name(f"{path.name}.begun")


def read_results(path: Path) -> dict[int, dict[str, Any]]:
    """Read of each row's last line what tells how it went.

    Raises:
        typer.BadParameter: these are no results.
    """
    try:
        with path.open("rb") as lines:
            read = (json.loads(line) for line in lines)
            return {line["row"]: {name: line[name] for name in ("id", "status", "problem")} for line in read}
    except (ValueError, KeyError, TypeError) as error:
        raise typer.BadParameter(f"{path} holds no results of `aiocopyai start`: {error}") from None


def _hold(path: Path, output: Path) -> sqlite3.Connection:
    """Open a ledger, and keep others from it until it is closed, by whatever end of this process."""
    try:
        ledger = open_locked(begun(path), path)
        try:
            with sqlite_errors(begun(path)):
                ledger.execute("CREATE TABLE IF NOT EXISTS batch (document TEXT NOT NULL)")
                ledger.execute(
                    "CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, state TEXT NOT NULL, run_id TEXT)"
                )
        except BaseException:
            ledger.close()
            raise
    except FileInUseError:
        raise CommandError(f"another start to {output} is under way") from None
    except (DamagedFileError, OSError) as error:
        raise typer.BadParameter(f"{begun(path)} can't be read: {error}") from None
    return ledger


def _find_batch(ledger: sqlite3.Connection, path: Path) -> Batch | None:
    found = ledger.execute("SELECT document FROM batch").fetchone()
    try:
        return _CONVERTER.loads(found[0], Batch) if found else None
    except (ValueError, KeyError, TypeError, ExceptionGroup) as error:
        raise typer.BadParameter(f"{begun(path)} can't be read: {error}") from None


def _begin(ledger: sqlite3.Connection, workflow_id: str, digest: str) -> Batch:
    batch = Batch(str(uuid4()), workflow_id, digest, datetime.now(UTC))
    ledger.execute("INSERT INTO batch VALUES (?)", (_CONVERTER.dumps(batch),))
    return batch


def _check(batch: Batch, workflow_id: str, digest: str, output: Path, *, is_gone: bool) -> None:
    if (batch.workflow_id, batch.digest) != (workflow_id, digest):
        raise typer.BadParameter(f"{output} was begun for other rows, metadata or another workflow: ask for the same")
    if is_gone:
        raise typer.BadParameter(f"{output} is gone: put it back, or delete {begun(output)} to begin anew")


def _cut_half_line(path: Path) -> None:
    """Cut off what a dying process left half done at the end of a file."""
    path.touch()
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            end = start + found + 1 if found >= 0 else start
            if found >= 0:
                break
        file.truncate(end)


def _drop_old_lines(path: Path) -> None:
    """Drop the lines that later ones of the same rows take the place of."""
    last: dict[int, int] = {}
    count = 0
    with path.open("rb") as lines:
        for count, line in enumerate(lines, start=1):
            last[json.loads(line)["row"]] = count
    if len(last) == count:
        return
    kept = set(last.values())
    with path.open("rb") as lines:
        replace_file(path, (line for number, line in enumerate(lines, start=1) if number in kept))


_CONVERTER: Final = make_converter()
