"""The emulator's state in an SQLite file. Each change is written before the call that makes it returns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from attrs import asdict

from aiocopyai.emulator._argument_checks import check_integer, check_seconds, check_string, check_type
from aiocopyai.emulator._run_scripts import Script, StartedRun
from aiocopyai.emulator._state import EmulatorState, Entry, RawItem, RegisteredWebhook, Storage, Workflow, sample_range


# "aicp": distinguishes state files from other SQLite files.
_APPLICATION_ID: Final = 0x61696370
# Incremented with each incompatible change of the tables.
_VERSION: Final = 2
# More sample runs than an emulator can have in memory.
_MAX_COUNT: Final = 100_000_000
# A row of `entries` is one raw item, or a range of sample runs with descending serial numbers and the same fields.
_SCHEMA: Final = f"""
    PRAGMA journal_mode = WAL;
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {_VERSION};
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE workflows (
        id TEXT PRIMARY KEY,
        newest_serial INTEGER NOT NULL,
        oldest_serial INTEGER NOT NULL,
        start_count INTEGER NOT NULL
    );
    CREATE TABLE entries (
        number INTEGER PRIMARY KEY,
        workflow_id TEXT NOT NULL,
        first_serial INTEGER,
        count INTEGER,
        content TEXT NOT NULL
    );
    CREATE TABLE started_runs (number INTEGER PRIMARY KEY, workflow_id TEXT NOT NULL, content TEXT NOT NULL);
    CREATE TABLE webhooks (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL);
"""


class StateFile(Storage):
    """An SQLite file with the emulator's state.

    Args:
        path: the file; created if it does not exist.

    Raises:
        ValueError: the file is not a state file of this version.
        sqlite3.OperationalError: the file cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._path: Final = path
        self._connection: sqlite3.Connection | None = None
        try:
            with closing(self._connect()) as connection:
                _create_tables(connection, path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise _explained(error, path) from error

    def open(self) -> None:
        """Keep the file open, so that changes are fast."""
        self._connection = self._connect()

    def close(self) -> None:
        """Close the file. Each later change opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def load(self, state: EmulatorState) -> None:
        """Fill a new state from the file. The seed and credits in the file replace those of the state.

        A new file stores the state's seed, and a file without a credit limit stores the state's credits.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            with closing(self._connect()) as connection:
                settings = _load_all(connection, state)
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise _explained(error, self._path) from error
        if "seed" not in settings:
            with self._transaction() as connection:
                _save_setting(connection, "seed", state.seed)
        if settings.get("credits") is not None:
            state.credits = settings["credits"]
        else:
            self.save_credits(state.credits)

    def save_list(self, workflow: Workflow) -> None:
        """Write a workflow and its whole list."""
        with self._transaction() as connection:
            _save_workflow(connection, workflow)
            connection.execute("DELETE FROM entries WHERE workflow_id = ?", (workflow.id,))
            connection.execute("DELETE FROM started_runs WHERE workflow_id = ?", (workflow.id,))
            connection.executemany(
                "INSERT INTO entries (workflow_id, first_serial, count, content) VALUES (?, ?, ?, ?)",
                _entry_rows(workflow),
            )
            for run in workflow.started_runs():
                _save_started(connection, run)

    def save_start(self, workflow: Workflow, run: StartedRun, credits_left: int | None) -> None:
        """Write a started run and the remaining credits."""
        with self._transaction() as connection:
            _save_workflow(connection, workflow)
            _save_started(connection, run)
            _save_setting(connection, "credits", credits_left)

    def save_credits(self, credits_left: int | None) -> None:
        """Write the remaining credits."""
        with self._transaction() as connection:
            _save_setting(connection, "credits", credits_left)

    def save_webhook(self, webhook: RegisteredWebhook) -> None:
        """Write a webhook."""
        with self._transaction() as connection:
            row = (webhook.id, json.dumps(asdict(webhook)))
            connection.execute("INSERT INTO webhooks (id, content) VALUES (?, ?)", row)

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM webhooks WHERE id = ?", (webhook_id,))

    def _connect(self) -> sqlite3.Connection:
        # Only one thread uses the connection at a time, because each change holds the state's lock.
        connection = sqlite3.connect(self._path, check_same_thread=False)
        try:
            # Do not wait for the disk: changes survive a crash of the process, but not of the machine.
            connection.execute("PRAGMA synchronous = OFF")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        if self._connection is not None:
            with self._connection:
                yield self._connection
            return
        with closing(self._connect()) as connection, connection:
            yield connection


def _create_tables(connection: sqlite3.Connection, path: str | Path) -> None:
    """Create the tables in a new file, and leave any other database unchanged."""
    [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_master")
    [(application_id,)] = connection.execute("PRAGMA application_id")
    [(version,)] = connection.execute("PRAGMA user_version")
    if not tables:
        connection.executescript(_SCHEMA)
    elif application_id != _APPLICATION_ID:
        raise ValueError(f"not a state file of the emulator: {path}")
    elif version != _VERSION:
        raise ValueError(f"{path} is a state file of another version of the emulator: use a new file")


def _explained(error: Exception, path: str | Path) -> Exception:
    """Return a `ValueError` for an error that a damaged or other file causes, and any other error unchanged."""
    if not isinstance(error, sqlite3.Error):
        return ValueError(f"{path} is damaged: delete it or use a new file ({error!r:.200})")
    # An error of the `sqlite3` module itself, such as one of an encoding, has no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return ValueError(f"not a state file of the emulator: {path}")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}:
        return ValueError(f"{path} is damaged: delete it or use a new file ({error!r:.200})")
    return error


def _load_all(connection: sqlite3.Connection, state: EmulatorState) -> dict[str, int | None]:
    """Fill a state from a file, and return the settings in the file."""
    settings = {name: json.loads(value) for name, value in connection.execute("SELECT * FROM settings")}
    state.seed = settings.get("seed", state.seed)
    check_integer("seed", state.seed, None)
    if settings.get("credits") is not None:
        check_integer("credits", settings["credits"], 0)
    for row in connection.execute("SELECT * FROM workflows"):
        _load_workflow(connection, state, *row)
    for [content] in connection.execute("SELECT content FROM webhooks ORDER BY number"):
        webhook = RegisteredWebhook(**json.loads(content))
        check_string("url", webhook.url)
        state.webhooks[webhook.id] = webhook
    return settings


def _load_workflow(
    connection: sqlite3.Connection, state: EmulatorState, workflow_id: str, newest: int, oldest: int, start_count: int
) -> None:
    for number in (newest, oldest, start_count):
        check_integer("workflows", number, None)
    workflow = state.workflow(workflow_id)
    rows = connection.execute(
        "SELECT first_serial, count, content FROM entries WHERE workflow_id = ? ORDER BY number", (workflow_id,)
    )
    for first, count, content in rows:
        value = json.loads(content)
        if first is None:
            workflow.entries.append(RawItem(value))
            continue
        check_integer("first_serial", first, None)
        check_integer("count", count, 1, _MAX_COUNT)
        check_type("fields", value, dict)
        workflow.entries += sample_range(workflow, first, count, value)
    rows = connection.execute("SELECT content FROM started_runs WHERE workflow_id = ? ORDER BY number", (workflow_id,))
    for [content] in rows:
        fields = json.loads(content)
        run = StartedRun(**fields | {"script": Script(**fields["script"])})
        check_string("id", run.id)
        check_type("inputs", run.inputs, dict)
        check_seconds("started", run.started)
        check_seconds("run_time", run.run_time)
        workflow.add_started(run)
    workflow.newest_serial, workflow.oldest_serial, workflow.start_count = newest, oldest, start_count


def _save_setting(connection: sqlite3.Connection, name: str, value: int | None) -> None:
    connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))


def _save_workflow(connection: sqlite3.Connection, workflow: Workflow) -> None:
    row = (workflow.id, workflow.newest_serial, workflow.oldest_serial, workflow.start_count)
    connection.execute("INSERT OR REPLACE INTO workflows VALUES (?, ?, ?, ?)", row)


def _save_started(connection: sqlite3.Connection, run: StartedRun) -> None:
    row = (run.workflow_id, json.dumps(asdict(run)))
    connection.execute("INSERT INTO started_runs (workflow_id, content) VALUES (?, ?)", row)


def _entry_rows(workflow: Workflow) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a workflow for the table `entries`."""
    for _, group in groupby(enumerate(workflow.entries), _range_key):
        (_, first), *others = group
        if isinstance(first, RawItem):
            yield workflow.id, None, None, json.dumps(first.content)
        else:
            yield workflow.id, first.serial, 1 + len(others), json.dumps(first.fields)


def _range_key(numbered: tuple[int, Entry]) -> tuple[int, int]:
    """Return the same key for all sample runs of a range, and a unique key for a raw item."""
    number, entry = numbered
    if isinstance(entry, RawItem):
        return number, -1
    # Sample runs that were added together share one mapping of fields.
    return entry.serial + number, id(entry.fields) if entry.fields else 0
