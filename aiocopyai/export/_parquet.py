"""Parquet, with pyarrow: the rows file is a sequence of Arrow streams, of which the file is made in the end."""

# pyarrow is not typed: its values are unknown to the type checkers.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa  # type: ignore[import-untyped]  # see above
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # see above

from aiocopyai.export._formats import ExportError, Keep
from aiocopyai.integrations.arrow import SCHEMA, read_batch, record_batch
from aiocopyai.models import Run


_GROUP_BYTES: Final = 2**22
"""How much of a file is held in memory; it becomes one row group."""
_ORDERED_COLUMNS: Final = ["id", "workflow_id", "status", "created_at", "credits"]
"""The columns whose least and greatest values help to find rows."""
_BATCH_ROWS: Final = 250
"""How many rows are read at a time."""


class Parquet:
    """Columns in the schema of `aiocopyai.integrations.arrow`, compressed with Zstandard."""

    head = b""
    rows_are_file = False

    def encode(self, runs: Sequence[Run]) -> bytes:
        """Return an Arrow stream: unlike Parquet files, such streams can be appended to each other."""
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, SCHEMA) as writer:
            writer.write_batch(record_batch(runs))
        encoded: bytes = stream.getvalue().to_pybytes()
        return encoded

    def pack(self, encoded: bytes) -> bytes:
        return encoded

    def read(self, path: Path) -> Iterator[Run]:
        for batch in _read_file(path):
            yield from read_batch(batch)

    def write(self, base: Path | None, keep: Keep | None, rows: Path, out: BinaryIO) -> Iterator[None]:
        with pq.ParquetWriter(
            out,
            SCHEMA,
            compression="zstd",
            use_dictionary=False,
            write_statistics=_ORDERED_COLUMNS,  # pyright: ignore[reportArgumentType]  # typed as bool only
        ) as writer:
            for table in _grouped(_all_batches(base, keep, rows)):
                writer.write_table(table)
                yield


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    group: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        group.append(batch)
        size += batch.nbytes
        if size >= _GROUP_BYTES:
            yield pa.Table.from_batches(group)
            group, size = [], 0
    if group:
        yield pa.Table.from_batches(group)


def _all_batches(base: Path | None, keep: Keep | None, rows: Path) -> Iterator[pa.RecordBatch]:
    for batch in _read_file(base) if base is not None else ():
        yield batch if keep is None else batch.filter(pa.array(keep(batch.column("id").to_pylist()), pa.bool_()))
    with pa.OSFile(str(rows)) as source:
        size = source.size()
        while source.tell() < size:
            with pa.ipc.open_stream(source) as stream:
                yield from stream


def _read_file(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(SCHEMA):
                raise ExportError(f"{path} does not have the columns of an export")
            if file.num_row_groups:  # older versions of pyarrow raise if there is none
                yield from file.iter_batches(_BATCH_ROWS)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ExportError(f"{path} is not a Parquet file: {error}") from None
