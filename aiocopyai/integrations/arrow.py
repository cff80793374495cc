r"""Runs as Arrow record batches, in one stable schema; requires the extra ``export`` (pyarrow).

======================== ============================ ==========================================================
column                   type                         content
======================== ============================ ==========================================================
id                       string, never null           the id of the run
workflow_id              string                       the id of the workflow, in the form that the server uses
status                   string                       such as ``COMPLETE``
created_at               timestamp[us, tz=UTC]        when the run was started
credits                  int64                        what the run has cost so far
input, output, metadata  map<string, string>          each value as JSON text; never null, but may be empty
error                    string                       JSON text; null if there is none
extra                    map<string, string>          fields without a column, by wire name, as JSON text
======================== ============================ ==========================================================

The values of a map are JSON, so that a string is quoted there. Columns are only ever added, at the end.

A value that does not fit its column is kept elsewhere: credits of more than 64 bits are null and in `extra` as
``credits``; a lone surrogate, which Arrow strings cannot hold, becomes its escape, such as ``\ud83d``, in ids and
names. In JSON text that escape means the same. A number beyond the range of a float is ``null`` in JSON text.
"""

# pyarrow has no types of its own, and those of pyarrow-stubs are wrong for maps: what comes from it is unknown.
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


_JSON_MAP: Final = pa.map_(pa.string(), pa.string())

SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("workflow_id", pa.string()),
        pa.field("status", pa.string()),
        pa.field("created_at", pa.timestamp("us", "UTC")),
        pa.field("credits", pa.int64()),
        pa.field("input", _JSON_MAP, nullable=False),
        pa.field("output", _JSON_MAP, nullable=False),
        pa.field("metadata", _JSON_MAP, nullable=False),
        pa.field("error", pa.string()),
        pa.field("extra", _JSON_MAP, nullable=False),
    ]
)
"""The schema of a batch."""

FLAT_SCHEMA: Final = pa.schema(
    [field.with_type(pa.string()) if pa.types.is_map(field.type) else field for field in SCHEMA]
)
"""The schema of a flat batch: the same columns, with a string for each map."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LIMIT: Final = 2**63


def record_batch(runs: Iterable[Run]) -> pa.RecordBatch:
    """Return a batch of runs, in their order and in `SCHEMA`.

    Args:
        runs: any number of runs; each `created_at` must have a time zone, as it has in runs from a session.
    """
    runs = runs if isinstance(runs, Sequence) else list(runs)
    credit_column = [_in_64_bits(run.credits) for run in runs]
    columns: list[pa.Array] = [
        _strings([run.id for run in runs]),
        _strings([run.workflow_id for run in runs]),
        _strings([run.status for run in runs]),
        pa.array([_microseconds(run.created_at) for run in runs], SCHEMA.field("created_at").type),
        pa.array(credit_column, pa.int64()),
        _maps([run.input for run in runs]),
        _maps([run.output for run in runs]),
        _maps([run.metadata for run in runs]),
        pa.array([None if run.error is None else dump_json(run.error) for run in runs], pa.string()),
        _maps([_extra(run, fitting) for run, fitting in zip(runs, credit_column, strict=True)]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def flat_batch(runs: Iterable[Run]) -> pa.RecordBatch:
    """Return a batch of runs, in their order and in `FLAT_SCHEMA`, for databases that know no maps.

    Args:
        runs: any number of runs, as for `record_batch`.
    """
    batch = record_batch(runs)
    columns = [_json_objects(column) if pa.types.is_map(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=FLAT_SCHEMA)


def read_batch(batch: pa.RecordBatch) -> list[Run]:
    """Return the runs of a batch in `SCHEMA`.

    Raises:
        ValueError: a column is missing, or has a value that `record_batch` does not write.
    """
    if batch.schema.names[: len(SCHEMA.names)] != SCHEMA.names:
        raise ValueError(
            f"the columns must be those of a run ({', '.join(SCHEMA.names)}), got {', '.join(batch.schema.names)}"
        )
    moments = batch.column("created_at").cast(pa.int64()).to_pylist()
    rows = batch.drop_columns(["created_at"]).to_pylist()
    return [_run(row, moment) for row, moment in zip(rows, moments, strict=True)]


def _run(row: Mapping[str, Any], moment: int | None) -> Run:
    maps = {
        name: {key: json.loads(text) for key, text in row[name]} for name in ("input", "output", "metadata", "extra")
    }
    run_credits = row["credits"]
    if run_credits is None and type(maps["extra"].get("credits")) is int:
        run_credits = maps["extra"].pop("credits")
    return Run(
        id=row["id"],
        workflow_id=row["workflow_id"],
        status=None if row["status"] is None else RunStatus(row["status"]),
        created_at=None if moment is None else _EPOCH + moment * _MICROSECOND,
        credits=run_credits,
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
    """Return a column of maps, built from offsets: several times faster than from lists of pairs."""
    offsets, names, values = [0], list[str](), list[bytes]()
    for mapping in mappings:
        if mapping:
            names.extend(mapping)
            values.extend(map(dump_json, mapping.values()))
        offsets.append(len(names))
    return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), _strings(names), pa.array(values, pa.string()))


def _extra(run: Run, fitting_credits: int | None) -> Mapping[str, JSON]:
    return run.extra if run.credits == fitting_credits else {**run.extra, "credits": run.credits}


def _json_objects(maps: pa.MapArray) -> pa.Array:
    rows: list[list[tuple[str, str]]] = maps.to_pylist()
    return pa.array(
        [b"{%s}" % b",".join([b"%s:%s" % (dump_json(name), text.encode()) for name, text in row]) for row in rows],
        pa.string(),
    )
