"""Tests of the conversion of runs to Arrow and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from aiocopyai import JSON, CopyAISession, Run
from aiocopyai._columns import COLUMNS
from aiocopyai.emulator import Emulator
from aiocopyai.integrations.arrow import FLAT_SCHEMA, SCHEMA, flat_batch, read_batch, record_batch, runs_table
from tests.support.exporting import ANY_TEXT, UNICODE


def test_schema_is_stable() -> None:
    """The columns have the documented names and types, which data warehouses depend on."""
    texts = "map<string, string>"

    assert {field.name: str(field.type) for field in SCHEMA} == {
        "id": "string",
        "workflow_id": "string",
        "status": "string",
        "created_at": "timestamp[us, tz=UTC]",
        "credits": "int64",
        "input": texts,
        "output": texts,
        "metadata": texts,
        "error": "string",
        "extra": texts,
    }
    assert [field.name for field in SCHEMA if not field.nullable] == ["id", "input", "output", "metadata", "extra"]


def test_each_attribute_of_a_run_is_a_column() -> None:
    """The columns are all attributes of a run, in the order of an export."""
    assert set(SCHEMA.names) == {attribute.name for attribute in attrs.fields(Run)}
    assert tuple(SCHEMA.names) == COLUMNS


@given(UNICODE)
def test_batch_round_trip(runs: list[Run]) -> None:
    """`read_batch` returns the runs that `record_batch` was called with."""
    assert read_batch(record_batch(runs)) == runs


@given(UNICODE)
def test_parquet_round_trip(runs: list[Run]) -> None:
    """A batch that is written to Parquet and read back has the same schema and runs."""
    batch = record_batch(runs)
    table = pa.Table.from_batches([batch])
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    back = pq.read_table(pa.BufferReader(out.getvalue()))

    assert back.schema.equals(SCHEMA)
    assert back.equals(table)
    assert [run for part in back.to_batches() for run in read_batch(part)] == runs


@given(ANY_TEXT)
def test_lone_surrogates(runs: list[Run]) -> None:
    """Lone surrogates are escaped in ids, and unchanged in JSON values."""
    back = read_batch(record_batch(runs))

    assert [run.id for run in back] == [run.id.encode("utf-8", "backslashreplace").decode() for run in runs]
    assert [run.error for run in back] == [run.error for run in runs]


def test_batch_is_valid() -> None:
    """Batches pass Arrow's full validation, although their arrays are made from buffers."""
    record_batch([Run("a", input={"x": 1}), Run("b"), Run("c", output={"y": [None], "z": "é"})]).validate(full=True)


def test_values_are_json_text() -> None:
    """Values in maps and errors are JSON: strings are in quotes, and an empty error is not null."""
    run = Run("a", output={"text": 'é "quoted"', "list": [1, {"b": None}]}, error="")
    row = record_batch([run, Run("b")]).to_pylist()

    assert row[0]["output"] == [("text", '"é \\"quoted\\""'), ("list", '[1,{"b":null}]')]
    assert (row[0]["error"], row[1]["error"]) == ('""', None)


def test_credits_beyond_64_bits_are_in_extra() -> None:
    """Credits that do not fit into 64 bits are null in their column, and are kept in `extra`."""
    row = record_batch([Run("a", credits=2**63, extra={"toolKey": 1}), Run("b", credits=2**63 - 1)]).to_pylist()

    assert (row[0]["credits"], row[1]["credits"]) == (None, 2**63 - 1)
    assert row[0]["extra"] == [("toolKey", "1"), ("credits", str(2**63))]


def test_earliest_and_latest_datetime() -> None:
    """The earliest and the latest datetime of Python are unchanged after a round trip."""
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]

    assert [run.created_at for run in read_batch(record_batch([Run("a", created_at=end) for end in ends]))] == ends


def test_batch_of_a_generator_and_an_empty_list() -> None:
    """The argument can be any iterable of runs, even an empty one."""
    assert record_batch(Run(name) for name in "abc").num_rows == 3
    assert record_batch([]).schema.equals(SCHEMA)


async def test_runs_table(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """A table has the selected runs in the order of the list, and all columns even if there are no runs."""
    copyai_emulator.add_runs(250)
    runs = [run async for run in session.runs(copyai_emulator.workflow_id)]
    failed = await runs_table(session, copyai_emulator.workflow_id, status="FAILED", limit=3)
    table = await runs_table(session, copyai_emulator.workflow_id)
    empty = await runs_table(session, copyai_emulator.workflow_id, since=datetime.max.replace(tzinfo=UTC))

    assert [run for batch in table.to_batches() for run in read_batch(batch)] == runs
    assert failed.column("status").to_pylist() == ["FAILED"] * 3
    assert empty.num_rows == 0
    assert table.schema.equals(SCHEMA)
    assert empty.schema.equals(SCHEMA)
    with pytest.raises(ValueError, match="limit"):
        await runs_table(session, copyai_emulator.workflow_id, limit=-1)


def test_table_to_pandas() -> None:
    """`to_pandas` converts maps to dictionaries of JSON text."""
    table = pa.Table.from_batches([record_batch([Run("a", credits=2, output={"x": "é"}), Run("b")])])
    frame = table.to_pandas(maps_as_pydicts="strict")

    assert list(frame["id"]) == ["a", "b"]
    assert list(frame["output"]) == [{"x": '"é"'}, {}]


def test_batch_with_other_columns() -> None:
    """`read_batch` rejects a batch without the columns of a run, and the error lists its columns."""
    with pytest.raises(ValueError, match=r"must be those of a run.*, got a$"):
        read_batch(pa.record_batch({"a": [1]}))


@given(ANY_TEXT)
def test_flat_columns_are_json_objects(runs: list[Run]) -> None:
    """In a flat batch, each map is a JSON object with the same names and values."""
    batch: pa.RecordBatch = flat_batch([Run("WRUN-1", extra=run.extra, output=run.output) for run in runs])
    rows = batch.to_pylist()

    def escaped(names: Mapping[str, JSON]) -> dict[str, JSON]:
        return {name.encode("utf-8", "backslashreplace").decode(): value for name, value in names.items()}

    assert batch.schema.equals(FLAT_SCHEMA)
    assert [json.loads(row["output"]) for row in rows] == [escaped(run.output) for run in runs]
    assert [json.loads(row["extra"]) for row in rows] == [escaped(run.extra) for run in runs]


def test_flat_schema_has_strings_instead_of_maps() -> None:
    """The flat schema has the same columns in the same order, but strings instead of maps."""
    assert FLAT_SCHEMA.names == SCHEMA.names
    assert [field.nullable for field in FLAT_SCHEMA] == [field.nullable for field in SCHEMA]
    assert [field.type for field in FLAT_SCHEMA] == [
        pa.string() if pa.types.is_map(field.type) else field.type for field in SCHEMA
    ]
