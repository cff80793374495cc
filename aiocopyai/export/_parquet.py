"""Parquet, by pyarrow: a part is a row of Arrow streams, and the file is made of them when it is whole."""

# What pyarrow gives is unknown to the type checkers: it has no types of its own.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa  # type: ignore[import-untyped]  # see above
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # see above

from aiocopyai.export._errors import ExportError
from aiocopyai.integrations.arrow import SCHEMA, read_batch, record_batch
from aiocopyai.models import Run


_GROUP_BYTES: Final = 2**21
"""So much of a file is held at a time, and makes one row group."""
_BATCH_ROWS: Final = 250
"""Runs that are turned into columns at a time, or back."""


class Parquet:
    """Columns in the schema of `aiocopyai.integrations.arrow`, compressed with Zstandard."""

    head = b""
    is_final = False

    def encode(self, runs: Sequence[Run]) -> bytes:
        """Make an Arrow stream of one batch: such streams can be put one behind the other, Parquet files can't."""
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, SCHEMA) as writer:
            for start in range(0, len(runs), _BATCH_ROWS):
                writer.write_batch(record_batch(runs[start : start + _BATCH_ROWS]))
        encoded: bytes = stream.getvalue().to_pybytes()
        return encoded

    def read(self, path: Path) -> Iterator[Run]:
        for batch in _read_file(path):
            yield from read_batch(batch)

    def assemble(self, base: Path | None, part: Path, out: BinaryIO) -> Iterator[None]:
        with pq.ParquetWriter(out, SCHEMA, compression="zstd", use_dictionary=False) as writer:
            for table in _grouped(_all_batches(base, part)):
                writer.write_table(table)
                yield


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _all_batches(base: Path | None, part: Path) -> Iterator[pa.RecordBatch]:
    if base is not None:
        yield from _read_file(base)
    with pa.OSFile(str(part)) as source:
        size = source.size()
        while source.tell() < size:
            with pa.ipc.open_stream(source) as stream:
                yield from stream


def _read_file(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(SCHEMA):
                raise ExportError(f"{path} has other columns than an export")
            if file.num_row_groups:  # older pyarrow has an error for none
                yield from file.iter_batches(_BATCH_ROWS)
    except pa.ArrowInvalid as error:
        raise ExportError(f"{path} is no Parquet file: {error}") from None
