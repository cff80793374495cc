"""Runs as Arrow record batches."""

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
from tests.support.exporting import ODDITIES, UNICODE


def test_schema_is_stable() -> None:
    """The columns and their types are the documented ones: data warehouses depend on them."""
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


def test_every_attribute_of_a_run_is_a_column() -> None:
    """A batch leaves out nothing of a run, and has the columns of all exports in their order."""
    assert set(SCHEMA.names) == {attribute.name for attribute in attrs.fields(Run)}
    assert tuple(SCHEMA.names) == COLUMNS


@given(UNICODE)
def test_batch_is_read_as_it_was_written(runs: list[Run]) -> None:
    """A batch holds every value of its runs, credits of any size included."""
    assert read_batch(record_batch(runs)) == runs


@given(UNICODE)
def test_parquet_keeps_a_batch(runs: list[Run]) -> None:
    """Written as Parquet and read again, a batch has the same schema and the same runs."""
    batch = record_batch(runs)
    table = pa.Table.from_batches([batch])
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    back = pq.read_table(pa.BufferReader(out.getvalue()))

    assert back.schema.equals(SCHEMA)
    assert back.equals(table)
    assert [run for part in back.to_batches() for run in read_batch(part)] == runs


@given(ODDITIES)
def test_lone_surrogates_are_accepted(runs: list[Run]) -> None:
    """Lone surrogates become their escapes in ids and names; in JSON values they are kept."""
    back = read_batch(record_batch(runs))

    assert [run.id for run in back] == [run.id.encode("utf-8", "backslashreplace").decode() for run in runs]
    assert [run.error for run in back] == [run.error for run in runs]


def test_batch_is_valid() -> None:
    """Arrow finds no fault in maps that are built from offsets."""
    record_batch([Run("a", input={"x": 1}), Run("b"), Run("c", output={"y": [None], "z": "é"})]).validate(full=True)


def test_values_are_json_text() -> None:
    """A string is quoted, and an empty error differs from none."""
    run = Run("a", output={"text": 'é "quoted"', "list": [1, {"b": None}]}, error="")
    row = record_batch([run, Run("b")]).to_pylist()

    assert row[0]["output"] == [("text", '"é \\"quoted\\""'), ("list", '[1,{"b":null}]')]
    assert (row[0]["error"], row[1]["error"]) == ('""', None)


def test_credits_beyond_64_bits_are_in_extra() -> None:
    """Credits that do not fit the column are null there, and in `extra`."""
    row = record_batch([Run("a", credits=2**63, extra={"toolKey": 1}), Run("b", credits=2**63 - 1)]).to_pylist()

    assert (row[0]["credits"], row[1]["credits"]) == (None, 2**63 - 1)
    assert row[0]["extra"] == [("toolKey", "1"), ("credits", str(2**63))]


def test_first_and_last_datetime() -> None:
    """The first and the last datetime of Python are read as they were written."""
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]

    assert [run.created_at for run in read_batch(record_batch([Run("a", created_at=end) for end in ends]))] == ends


def test_batch_of_any_iterable() -> None:
    """The runs may be a generator, and there may be none."""
    assert record_batch(Run(name) for name in "abc").num_rows == 3
    assert record_batch([]).schema.equals(SCHEMA)


async def test_table_of_a_list(copyai_emulator: Emulator, session: CopyAISession) -> None:
    """A table has the runs of a list in its order, those that are selected, and the columns even if there are none."""
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


def test_table_as_a_data_frame() -> None:
    """A table becomes a pandas data frame in one line, with dictionaries of JSON text."""
    table = pa.Table.from_batches([record_batch([Run("a", credits=2, output={"x": "é"}), Run("b")])])
    frame = table.to_pandas(maps_as_pydicts="strict")

    assert list(frame["id"]) == ["a", "b"]
    assert list(frame["output"]) == [{"x": '"é"'}, {}]


def test_other_columns_are_refused() -> None:
    """A batch without the columns of a run is an error that names its columns."""
    with pytest.raises(ValueError, match=r"must be those of a run.*, got a$"):
        read_batch(pa.record_batch({"a": [1]}))


@given(ODDITIES)
def test_flat_columns_are_json_objects(runs: list[Run]) -> None:
    """In a flat batch, each map is the JSON object of the same values under the same names."""
    batch: pa.RecordBatch = flat_batch([Run("WRUN-1", extra=run.extra, output=run.output) for run in runs])
    rows = batch.to_pylist()

    def escaped(names: Mapping[str, JSON]) -> dict[str, JSON]:
        return {name.encode("utf-8", "backslashreplace").decode(): value for name, value in names.items()}

    assert batch.schema.equals(FLAT_SCHEMA)
    assert [json.loads(row["output"]) for row in rows] == [escaped(run.output) for run in runs]
    assert [json.loads(row["extra"]) for row in rows] == [escaped(run.extra) for run in runs]


def test_flat_schema_differs_in_maps_only() -> None:
    """A flat batch has the same columns in the same order, with strings in place of maps."""
    assert FLAT_SCHEMA.names == SCHEMA.names
    assert [field.nullable for field in FLAT_SCHEMA] == [field.nullable for field in SCHEMA]
    assert [field.type for field in FLAT_SCHEMA] == [
        pa.string() if pa.types.is_map(field.type) else field.type for field in SCHEMA
    ]
