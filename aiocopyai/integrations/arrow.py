r"""Runs as Arrow record batches, in one stable schema; it needs the extra ``export`` (pyarrow).

======================== ============================ ==========================================================
column                   type                         content
======================== ============================ ==========================================================
id                       string, never null           the run's id
workflow_id              string                       the workflow's id, in the form that the server uses
status                   string                       such as ``COMPLETE``
created_at               timestamp[us, tz=UTC]        when the run was started
credits                  int64                        what it has cost so far
input, output, metadata  map<string, string>          each value as JSON text; never null, but may be empty
error                    string                       JSON text; null where there is none
extra                    map<string, string>          fields without a column, by wire name, as JSON text
======================== ============================ ==========================================================

The values of a map are JSON, so a text stands in quotes there. Columns are only ever added, at the end.

What doesn't fit is kept, not refused: credits of more than 64 bits are null and stand in `extra` as ``credits``; half a
surrogate pair, which Arrow's text can't hold, becomes its escape, such as ``\ud83d``, in ids and names. In JSON text
that escape means the same as what it stands for. A number beyond the range of a float is ``null`` in JSON text.
"""

# pyarrow has no types of its own, and those of pyarrow-stubs are wrong on maps: what comes from it is unknown here.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa  # type: ignore[import-untyped]  # see above

from aiocopyai import JSON, Run, RunStatus
from aiocopyai._json import dump_json


_TEXTS: Final = pa.map_(pa.string(), pa.string())

SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("workflow_id", pa.string()),
        pa.field("status", pa.string()),
        pa.field("created_at", pa.timestamp("us", "UTC")),
        pa.field("credits", pa.int64()),
        pa.field("input", _TEXTS, nullable=False),
        pa.field("output", _TEXTS, nullable=False),
        pa.field("metadata", _TEXTS, nullable=False),
        pa.field("error", pa.string()),
        pa.field("extra", _TEXTS, nullable=False),
    ]
)
"""The schema of every batch."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LIMIT: Final = 2**63


def record_batch(runs: Iterable[Run]) -> pa.RecordBatch:
    """Make one batch of runs, in their order and in `SCHEMA`.

    Args:
        runs: any number of runs; their `created_at` must have a time zone, as those from a session have.
    """
    held = runs if isinstance(runs, Sequence) else list(runs)
    spent = [_in_64_bits(run.credits) for run in held]
    columns: list[pa.Array] = [
        _strings([run.id for run in held]),
        _strings([run.workflow_id for run in held]),
        _strings([run.status for run in held]),
        pa.array([_microseconds(run.created_at) for run in held], SCHEMA.field("created_at").type),
        pa.array(spent, pa.int64()),
        _maps([run.input for run in held]),
        _maps([run.output for run in held]),
        _maps([run.metadata for run in held]),
        pa.array([None if run.error is None else dump_json(run.error) for run in held], pa.string()),
        _maps([_extra(run, kept) for run, kept in zip(held, spent, strict=True)]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def read_batch(batch: pa.RecordBatch) -> list[Run]:
    """Give the runs of a batch in `SCHEMA`.

    Raises:
        ValueError: a column is missing, or holds what `record_batch` doesn't write.
    """
    if batch.schema.names[: len(SCHEMA.names)] != SCHEMA.names:
        raise ValueError(f"these columns are not those of a run: {', '.join(batch.schema.names)}")
    moments = batch.column("created_at").cast(pa.int64()).to_pylist()
    rows = batch.drop_columns(["created_at"]).to_pylist()
    return [_run(row, moment) for row, moment in zip(rows, moments, strict=True)]


def _run(row: Mapping[str, Any], moment: int | None) -> Run:
    maps = {
        name: {key: json.loads(text) for key, text in row[name]} for name in ("input", "output", "metadata", "extra")
    }
    spent = row["credits"]
    if spent is None and type(maps["extra"].get("credits")) is int:
        spent = maps["extra"].pop("credits")
    return Run(
        id=row["id"],
        workflow_id=row["workflow_id"],
        status=None if row["status"] is None else RunStatus(row["status"]),
        created_at=None if moment is None else _EPOCH + moment * _MICROSECOND,
        credits=spent,
        error=None if row["error"] is None else json.loads(row["error"]),
        **maps,
    )


def _strings(texts: Sequence[str | None]) -> pa.Array:
    return pa.array([None if text is None else text.encode("utf-8", "backslashreplace") for text in texts], pa.string())


def _in_64_bits(number: int | None) -> int | None:
    return number if number is not None and -_LIMIT <= number < _LIMIT else None


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def _maps(mappings: Sequence[Mapping[str, JSON]]) -> pa.Array:
    """Build the column from its parts, which takes a fraction of the time that pairs in lists do."""
    offsets, names, values = [0], list[str](), list[bytes]()
    for mapping in mappings:
        if mapping:
            names.extend(mapping)
            values.extend(map(dump_json, mapping.values()))
        offsets.append(len(names))
    return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), _strings(names), pa.array(values, pa.string()))


def _extra(run: Run, kept_credits: int | None) -> Mapping[str, JSON]:
    return run.extra if run.credits == kept_credits else {**run.extra, "credits": run.credits}
