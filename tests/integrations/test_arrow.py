"""Runs as Arrow record batches."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from aiocopyai import Run
from aiocopyai._json import dump
from aiocopyai.integrations.arrow import SCHEMA, read_batch, record_batch
from tests.support.exporting import ODDITIES, UNICODE


def test_the_schema_is_stable() -> None:
    """Columns and their types are those that are documented; a change here breaks somebody's warehouse."""
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
    """A run has nothing that a batch leaves out."""
    assert set(SCHEMA.names) == {attribute.name for attribute in attrs.fields(Run)}


@given(UNICODE)
def test_a_batch_holds_all_there_is(runs: list[Run]) -> None:
    """What comes back from a batch equals what went in, huge credits included."""
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
def test_no_text_is_refused(runs: list[Run]) -> None:
    """Halves of surrogate pairs become their escapes in ids and names; as values they are kept."""
    back = read_batch(record_batch(runs))

    assert [run.id for run in back] == [run.id.encode("utf-8", "backslashreplace").decode() for run in runs]
    assert [run.error for run in back] == [run.error for run in runs]


def test_a_batch_validates() -> None:
    """Arrow finds nothing wrong with what is built from its parts."""
    record_batch([Run("a", input={"x": 1}), Run("b"), Run("c", output={"y": [None], "z": "é"})]).validate(full=True)


def test_values_are_json_text() -> None:
    """A text is quoted, an object is JSON; no error is null, and an empty one is not."""
    run = Run("a", output={"text": 'é "quoted"', "list": [1, {"b": None}]}, error="")
    row = record_batch([run, Run("b")]).to_pylist()

    assert row[0]["output"] == [("text", '"é \\"quoted\\""'), ("list", '[1,{"b":null}]')]
    assert (row[0]["error"], row[1]["error"]) == ('""', None)


def test_credits_beyond_64_bits_are_kept_aside() -> None:
    """They are null in their column, and stand in `extra`."""
    row = record_batch([Run("a", credits=2**63, extra={"toolKey": 1}), Run("b", credits=2**63 - 1)]).to_pylist()

    assert (row[0]["credits"], row[1]["credits"]) == (None, 2**63 - 1)
    assert row[0]["extra"] == [("toolKey", "1"), ("credits", str(2**63))]


def test_the_calendars_ends_are_times_too() -> None:
    """The first and the last moment that Python knows come through."""
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]

    assert [run.created_at for run in read_batch(record_batch([Run("a", created_at=end) for end in ends]))] == ends


def test_any_iterable_makes_a_batch() -> None:
    """A generator will do, and so will nothing at all."""
    assert record_batch(Run(name) for name in "abc").num_rows == 3
    assert record_batch([]).schema.equals(SCHEMA)


def test_infinity_is_null() -> None:
    """JSON has no infinity: a number too large for a float becomes null, however deep it stands."""
    assert dump({"a": [json.loads("1e999"), 10**30, "\ud800"]}) == b'{"a":[null,%d,"\\ud800"]}' % 10**30


def test_it_is_the_same_json_without_orjson() -> None:
    """Where the extra `speedups` is missing, the same bytes come from the standard library."""
    code = (
        "import sys; sys.modules['orjson'] = None\n"
        "from datetime import datetime, UTC\n"
        "from types import MappingProxyType\n"
        "from aiocopyai._json import dump\n"
        "at, mapping = datetime(2026, 1, 31, 9, tzinfo=UTC), MappingProxyType({'é': [1.5, None]})\n"
        "sys.stdout.buffer.write(dump({'t': at, 'm': mapping, 'i': float('inf')}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)  # noqa: S603

    assert done.stdout == '{"t":"2026-01-31T09:00:00Z","m":{"é":[1.5,null]},"i":null}'.encode()


def test_another_table_is_refused() -> None:
    """A batch without the columns of a run is named as such."""
    with pytest.raises(ValueError, match="not those of a run: a"):
        read_batch(pa.record_batch({"a": [1]}))
