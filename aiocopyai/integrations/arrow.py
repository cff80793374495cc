r"""Convert runs to Arrow record batches with one fixed schema. Needs the extra ``export`` (pyarrow).

======================== ============================ ==========================================================
column                   type                         content
======================== ============================ ==========================================================
id                       string, never null           the id of the run
workflow_id              string                       the id of the workflow, as the server sends it
status                   string                       the status, such as ``COMPLETE``
created_at               timestamp[us, tz=UTC]        when the run was started
credits                  int64                        the credits that the run has cost so far
input, output, metadata  map<string, string>          each value as JSON text; never null, but may be empty
error                    string                       JSON text; null if there is none
extra                    map<string, string>          fields without a column, by their names in the API
======================== ============================ ==========================================================

Each value of a map is JSON, so strings are in quotes. Future versions add new columns at the end.

Credits that do not fit into 64 bits are null, and `extra` has them as ``credits``. Arrow strings cannot contain lone
surrogates, so these are escaped, for example as ``\ud83d``, which has the same meaning in JSON text. A number beyond
the range of a float is ``null`` in JSON text; an export may keep it.
"""

# pyarrow is not typed, and pyarrow-stubs is wrong for maps: its values are unknown to the type checkers.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

import struct
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain
from operator import methodcaller
from typing import Any, Final, cast

import pyarrow as pa  # type: ignore[import-untyped]  # see above

from aiocopyai import JSON, CopyAISession, Run, RunStatus
from aiocopyai._columns import Columns, run_columns
from aiocopyai._json import dump_each, dump_json, loads


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
_INT64_LIMIT: Final = 2**63


def record_batch(runs: Iterable[Run]) -> pa.RecordBatch:
    """Return a batch with the schema `SCHEMA` and one row for each run, in their order.

    Args:
        runs: any number of runs. Each `created_at` must have a time zone, as in runs from a session.
    """
    return _batch_of_columns(run_columns(runs if isinstance(runs, Sequence) else list(runs)))


def _batch_of_columns(columns: Columns) -> pa.RecordBatch:
    """Return a batch with the schema `SCHEMA` from the columns of runs."""
    numbers = [
        number if number is not None and -_INT64_LIMIT <= number < _INT64_LIMIT else None
        for number in columns["credits"]
    ]
    extra = columns["extra"]
    if numbers != list(columns["credits"]):
        extra = [
            fields if number == stored else {**fields, "credits": number}
            for fields, number, stored in zip(extra, columns["credits"], numbers, strict=True)
        ]
    arrays: list[pa.Array] = [
        _strings(columns["id"]),
        _strings(columns["workflow_id"]),
        _strings(columns["status"]),
        _integers(
            [None if time is None else (time - _EPOCH) // _MICROSECOND for time in columns["created_at"]],
            SCHEMA.field("created_at").type,
        ),
        _integers(numbers, pa.int64()),
        _maps(columns["input"]),
        _maps(columns["output"]),
        _maps(columns["metadata"]),
        _utf8([None if error is None else dump_json(error) for error in columns["error"]]),
        _maps(extra),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


async def runs_table(
    session: CopyAISession,
    workflow_id: str,
    *,
    limit: int | None = None,
    since: datetime | None = None,
    status: str | Collection[str] | None = None,
    metadata: Mapping[str, object] | None = None,
) -> pa.Table:
    """Read the runs of a workflow into a table with the schema `SCHEMA`.

    The table has each run once, in the server's order. A run of 1 KB uses about 1 KB of memory.
    ``table.to_pandas()`` converts the table to a data frame.

    Args:
        session: the session that sends the requests.
        workflow_id: the workflow's id.
        limit: as for `CopyAISession.runs`.
        since: as for `CopyAISession.runs`.
        status: as for `CopyAISession.runs`.
        metadata: as for `CopyAISession.runs`.

    Raises:
        ValueError: an argument is invalid; raised before anything is sent.
        CopyAIError: the runs cannot be read.
    """
    runs = session.runs(workflow_id, limit=limit, since=since, status=status, metadata=metadata)
    async with aclosing(runs):
        batches = [record_batch(page.items) async for page in runs.pages()]
    return pa.Table.from_batches(batches, SCHEMA)


def flat_batch(runs: Iterable[Run]) -> pa.RecordBatch:
    """Return a batch with the schema `FLAT_SCHEMA` and one row for each run, for databases without maps.

    Args:
        runs: any number of runs, as for `record_batch`.
    """
    columns: list[pa.Array] = []
    for column in record_batch(runs).columns:
        if pa.types.is_map(column.type):
            members = [
                [b"%s:%s" % (dump_json(name), text.encode()) for name, text in row] for row in column.to_pylist()
            ]
            columns.append(pa.array([b"{%s}" % b",".join(row) for row in members], pa.string()))
        else:
            columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=FLAT_SCHEMA)


def read_batch(batch: pa.RecordBatch) -> list[Run]:
    """Return the runs of a batch with the schema `SCHEMA`.

    Raises:
        ValueError: a column is missing, or has a value that `record_batch` does not write.
    """
    if batch.schema.names[: len(SCHEMA.names)] != SCHEMA.names:
        raise ValueError(
            f"the columns must be those of a run ({', '.join(SCHEMA.names)}), got {', '.join(batch.schema.names)}"
        )
    microseconds = batch.column("created_at").cast(pa.int64()).to_pylist()
    rows = batch.drop_columns(["created_at"]).to_pylist()
    return [_read_row(row, created) for row, created in zip(rows, microseconds, strict=True)]


def _read_row(row: Mapping[str, Any], created: int | None) -> Run:
    maps: dict[str, dict[str, Any]] = {
        name: {key: loads(text.encode()) for key, text in row[name]}
        for name in ("input", "output", "metadata", "extra")
    }
    run_credits = row["credits"]
    if run_credits is None and type(maps["extra"].get("credits")) is int:
        run_credits = maps["extra"].pop("credits")
    return Run(
        id=row["id"],
        workflow_id=row["workflow_id"],
        status=None if row["status"] is None else RunStatus(row["status"]),
        created_at=None if created is None else _EPOCH + created * _MICROSECOND,
        credits=run_credits,
        error=None if row["error"] is None else cast("JSON", loads(row["error"].encode())),
        **maps,
    )


# The arrays are made from buffers because `pyarrow.array` is slower, and imports pandas if it is installed.


def _strings(texts: Sequence[str | None]) -> pa.Array:
    content = [text or "" for text in texts]
    joined = "".join(content)
    if joined.isascii():  # offsets in characters are offsets in bytes
        return _string_array(joined.encode(), content, texts)
    return _utf8([None if text is None else text.encode("utf-8", "backslashreplace") for text in texts])


def _utf8(texts: Sequence[bytes | None]) -> pa.Array:
    content = [text or b"" for text in texts]
    return _string_array(b"".join(content), content, texts)


def _string_array(joined: bytes, texts: Sequence[Sized], values: Sequence[object] = ()) -> pa.Array:
    """Return an array of texts, which are null where one of `values` is None."""
    buffers = [_validity(values), _offsets(texts), pa.py_buffer(joined)]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def _integers(numbers: Sequence[int | None], kind: pa.DataType) -> pa.Array:
    content = array("q", [number or 0 for number in numbers])
    return pa.Array.from_buffers(kind, len(numbers), [_validity(numbers), pa.py_buffer(content)])


def _maps(mappings: Sequence[Mapping[str, JSON]]) -> pa.Array:
    names = list(chain.from_iterable(mappings))
    values = dump_each(list(chain.from_iterable(map(methodcaller("values"), mappings))))
    offsets = pa.Array.from_buffers(pa.int32(), len(mappings) + 1, [None, _offsets(mappings)])
    return pa.MapArray.from_arrays(offsets, _strings(names), _string_array(b"".join(values), values))


def _offsets(values: Iterable[Sized]) -> pa.Buffer:
    """Return the offsets of the values in their concatenation."""
    offsets = list(accumulate(map(len, values), initial=0))
    return pa.py_buffer(struct.pack(f"{len(offsets)}i", *offsets))  # twice as fast as an `array`


def _validity(values: Sequence[object]) -> pa.Buffer | None:
    """Return a bitmap of the values that are not None, or None if no value is None."""
    if all(values) or None not in values:  # all() is faster, and usually true
        return None
    bits = int("".join(["0" if value is None else "1" for value in reversed(values)]), 2)
    return pa.py_buffer(bits.to_bytes(len(values) // 8 + 1, "little"))
