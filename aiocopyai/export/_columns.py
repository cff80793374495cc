"""A run as a row of named columns, as in an export."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aiocopyai.models import Run, RunStatus


COLUMNS: Final = (
    "id",
    "workflow_id",
    "status",
    "created_at",
    "credits",
    "input",
    "output",
    "metadata",
    "error",
    "extra",
)
"""The names of the columns, in order. New columns are only added at the end."""

JSON_COLUMNS: Final = frozenset({"input", "output", "metadata", "error", "extra"})
"""The columns that contain JSON text in formats whose cells are text."""


def run_to_row(run: Run) -> dict[str, Any]:
    """Return the values of `Run.to_dict`, but faster: without copies, and with `created_at` as a datetime."""
    return {
        "id": run.id,
        "workflow_id": run.workflow_id,
        "status": run.status,
        "created_at": run.created_at and run.created_at.astimezone(UTC),
        "credits": run.credits,
        "input": run.input,
        "output": run.output,
        "metadata": run.metadata,
        "error": run.error,
        "extra": run.extra,
    }


def row_to_run(row: Mapping[str, Any]) -> Run:
    """Return the run of a row. A missing column is treated as empty.

    Raises:
        ValueError, TypeError, KeyError: `Run.to_dict` does not return such rows.
    """
    run_id, created, status = row["id"], row.get("created_at"), row.get("status")
    if not isinstance(run_id, str) or not run_id:
        raise ValueError("no id")
    return Run(
        id=run_id,
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
