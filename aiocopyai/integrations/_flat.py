"""Runs as Arrow record batches without maps, for what knows tables of plain columns only."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pyarrow as pa  # type: ignore[import-untyped]  # see arrow.py, also for the rules above

from aiocopyai import Run
from aiocopyai._json import dump_json
from aiocopyai.integrations.arrow import SCHEMA, record_batch


FLAT: Final = pa.schema(
    [
        pa.field(
            column.name,
            pa.string() if pa.types.is_map(column.type) else column.type,
            nullable=column.nullable and column.name != "workflow_id",
        )
        for column in SCHEMA
    ]
)
"""`SCHEMA` with a text for each map; and `workflow_id` is never null, as it is a part of a key."""


def flat_batch(runs: Iterable[Run]) -> object:
    """Make one batch of runs, in their order: each map is the text of a JSON object.

    Args:
        runs: any number of runs, all with a `workflow_id`.
    """
    batch = record_batch(runs)
    columns = [_objects(column) if pa.types.is_map(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=FLAT)


def _objects(maps: pa.MapArray) -> pa.Array:
    rows: list[list[tuple[str, str]]] = maps.to_pylist()
    return pa.array(
        [b"{%s}" % b",".join([b"%s:%s" % (dump_json(name), text.encode()) for name, text in row]) for row in rows],
        pa.string(),
    )
