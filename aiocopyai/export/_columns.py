"""The columns of an export, and a run as a row of them: the one table that every format is made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aiocopyai.integrations._json import dump
from aiocopyai.models import Run, RunStatus


COLUMNS: Final[dict[str, bool]] = {
    "id": False,
    "workflow_id": False,
    "status": False,
    "created_at": False,
    "credits": False,
    "input": True,
    "output": True,
    "metadata": True,
    "error": True,
    "extra": True,
}
"""Each column, and whether it is JSON text where a cell can only be text."""


def to_row(run: Run) -> dict[str, object]:
    """Give a run by its columns, as `dump` takes them; the time is in UTC."""
    created = run.created_at
    return {
        "id": run.id,
        "workflow_id": run.workflow_id,
        "status": run.status,
        "created_at": created if created is None or created.tzinfo is UTC else created.astimezone(UTC),
        "credits": run.credits,
        "input": run.input,
        "output": run.output,
        "metadata": run.metadata,
        "error": run.error,
        "extra": run.extra,
    }


def to_lines(runs: Iterable[Run]) -> bytes:
    """Write runs as JSON lines, in UTF-8."""
    return b"".join([dump(to_row(run)) + b"\n" for run in runs])


def to_cells(run: Run) -> list[str]:
    """Give a run as texts; an empty one is none."""
    row = to_row(run)
    return [_cell(row[name], is_json=is_json) for name, is_json in COLUMNS.items()]


def _cell(value: object, *, is_json: bool) -> str:
    if value is None:
        return ""
    if is_json:
        return dump(value).decode()
    return dump(value).decode().strip('"') if isinstance(value, datetime) else str(value)


def from_row(row: Mapping[str, Any]) -> Run:
    """Read a row back; columns that are missing are empty.

    Raises:
        ValueError, TypeError, KeyError: it is no row of an export.
    """
    created, status = row.get("created_at"), row.get("status")
    if not isinstance(row["id"], str) or not row["id"]:
        raise ValueError("no id")
    return Run(
        id=row["id"],
        workflow_id=row.get("workflow_id"),
        status=None if status is None else RunStatus(status),
        created_at=None if created is None else datetime.fromisoformat(created).astimezone(UTC),
        credits=row.get("credits"),
        input=dict(row.get("input") or {}),
        output=dict(row.get("output") or {}),
        metadata=dict(row.get("metadata") or {}),
        error=row.get("error"),
        extra=dict(row.get("extra") or {}),
    )


def from_line(line: bytes) -> Run:
    """Read a JSON line back; raises like `from_row`."""
    return from_row(json.loads(line))


def from_cells(cells: Iterable[str]) -> Run:
    """Read texts back; raises like `from_row`."""
    texts = dict(zip(COLUMNS, cells, strict=True))
    row: dict[str, Any] = {
        name: None if not text else json.loads(text) if COLUMNS[name] else text for name, text in texts.items()
    }
    return from_row(row | {"credits": int(texts["credits"]) if texts["credits"] else None})
