"""The state in a SQLite file: every change is written as it happens, and done again at a restart."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from attrs import asdict

from aiocopyai.emulator._lifecycle import StartedRun
from aiocopyai.emulator._scenarios import Script
from aiocopyai.emulator._state import State
from aiocopyai.emulator._webhooks import Hook


# "aicp", by which our files are told from other SQLite files.
_APPLICATION_ID: Final = 0x61696370
_SCHEMA: Final = f"""
    PRAGMA journal_mode = WAL;
    PRAGMA application_id = {_APPLICATION_ID};
    CREATE TABLE changes (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, change TEXT NOT NULL);
"""


class Store:
    """A file of changes, in their order.

    Args:
        path: The file; made if it isn't there.

    Raises:
        ValueError: the file is something else.
        sqlite3.OperationalError: the file can't be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._path: Final = path
        self._held: sqlite3.Connection | None = None
        try:
            with closing(self._connect()) as connection:
                _prepare(connection)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
                raise
            raise ValueError(f"not a state file of the emulator: {path}") from error

    def hold(self) -> None:
        """Keep the file open, for many changes."""
        self._held = self._connect()
        # Survives the end of the process, if not that of the machine, without waiting for the disk.
        self._held.execute("PRAGMA synchronous = OFF")

    def release(self) -> None:
        """Close the file; changes from now on open it one by one."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def append(self, kind: str, change: Mapping[str, object]) -> None:
        """Write one change; it is in the file when this returns."""
        row = (kind, json.dumps(change, default=asdict))
        if self._held is not None:
            _insert(self._held, row)
            return
        with closing(self._connect()) as connection:
            _insert(connection, row)

    def restore(self, state: State) -> None:
        """Do all changes again on a fresh state, and write down what it changes from now on.

        The file's seed and credits come before the state's own, which a new file takes over.
        """
        with closing(self._connect()) as connection:
            rows = connection.execute("SELECT kind, change FROM changes ORDER BY number").fetchall()
        if not rows:
            self.append("seed", {"seed": state.seed})
        given, state.credits = state.credits, None
        for kind, change in rows:
            _redo(state, kind, json.loads(change))
        state.record = self.append
        if state.credits is None and given is not None:
            state.leave(given)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None)


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the table in a new file; leave somebody else's database alone."""
    [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_master")
    [(application_id,)] = connection.execute("PRAGMA application_id")
    if not tables:
        connection.executescript(_SCHEMA)
    elif application_id != _APPLICATION_ID:
        raise ValueError("the database is not a state file of the emulator")


def _insert(connection: sqlite3.Connection, row: tuple[str, str]) -> None:
    connection.execute("INSERT INTO changes (kind, change) VALUES (?, ?)", row)


def _redo(state: State, kind: str, change: Any) -> None:  # noqa: ANN401 (raw JSON)
    match kind:
        case "seed":
            state.seed = change["seed"]
        case "begin":
            run = change["run"]
            state.begin(StartedRun(**run | {"script": Script(**run["script"])}), change["credits"])
        case "register":
            state.register(Hook(**change["hook"]))
        case _:
            getattr(state, kind)(**change)
