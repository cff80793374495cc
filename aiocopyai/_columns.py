"""Runs as columns, as in an export or an Arrow table, and rows of an export as runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from aiocopyai.models import Run, RunStatus


if TYPE_CHECKING:
    from aiocopyai._unparsed_runs import UnparsedRun

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

Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""The values of each column, by the names in `COLUMNS`. Errors and the values in objects may be JSON text."""


def run_columns(runs: Sequence[Run]) -> Columns:
    """Return the values of `Run.to_dict` by columns, without copies, and with `created_at` as a datetime.

    Args:
        runs: runs, or the runs of one page of a session that leaves them unparsed.
    """
    if runs and type(runs[0]) is not Run:
        from aiocopyai._unparsed_runs import unparsed_columns  # noqa: PLC0415 (needs msgspec)

        return unparsed_columns(cast("Sequence[UnparsedRun]", runs))
    columns: dict[str, list[Any]] = {name: [getattr(run, name) for run in runs] for name in COLUMNS}
    columns["created_at"] = [time and time.astimezone(UTC) for time in columns["created_at"]]
    return columns


def join_columns(parts: Sequence[Columns]) -> Columns:
    """Return the columns of several pages as one."""
    if len(parts) == 1:
        return parts[0]
    return {name: list(chain.from_iterable([part[name] for part in parts])) for name in COLUMNS}


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
