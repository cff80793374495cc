"""The rows of a DuckDB file, read with plain SQL, and the rows that it should contain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from aiocopyai.emulator import Emulator


COLUMNS = ("id", "workflowId", "status", "createdAt", "credits", "input", "output", "metadata", "error")


def query(database: Path, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(statement).fetchall()


def rows_in(database: Path, table: str = "runs") -> dict[tuple[str, str], tuple[object, ...]]:
    """Return the rows of a table by key, and check that no key occurs twice."""
    columns = "workflow_id, id, status, created_at, credits, input, output, metadata, error, extra"
    found = query(database, f'SELECT {columns} FROM copyai."{table}"')  # noqa: S608 (our own names)
    rows = {(row[0], row[1]): (*row[2:5], *[cell and json.loads(cell) for cell in row[5:]]) for row in found}
    assert len(rows) == len(found)
    return rows


def truth(emulator: Emulator, *workflow_ids: str) -> dict[tuple[str, str], tuple[object, ...]]:
    """Return the expected rows of the runs on the server, by key."""
    return {
        (str(run.get("workflowId") or workflow_id), str(run["id"])): row_of(run)
        for workflow_id in workflow_ids
        for run in emulator.runs(workflow_id)
    }


def row_of(run: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the expected row of a run, without its key."""
    created = run.get("createdAt")
    return (
        run.get("status"),
        created and datetime.fromisoformat(created),
        run.get("credits"),
        *[run.get(name) or {} for name in ("input", "output", "metadata")],
        run.get("error"),
        {name: value for name, value in run.items() if name not in COLUMNS},
    )
