"""Parquet, with pyarrow. The rows file is a sequence of Arrow messages, each with one batch of rows."""

# pyarrow is not typed: its values are unknown to the type checkers.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa  # type: ignore[import-untyped]  # see above
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # see above

from aiocopyai._columns import Columns
from aiocopyai.export._formats import ExportError, Keep
from aiocopyai.integrations.arrow import (
    SCHEMA,
    _batch_of_columns,  # pyright: ignore[reportPrivateUsage]  # columns are not public
    read_batch,
)
from aiocopyai.models import Run


_GROUP_BYTES: Final = 2**22
"""The size of a row group in bytes. Its rows are kept in memory until they are written."""
_COLUMNS_WITH_STATISTICS: Final = ["id", "workflow_id", "status", "created_at", "credits"]
"""The columns whose minimum and maximum are stored, so that readers can skip row groups."""
_BATCH_ROWS: Final = 250
"""The number of rows to read at a time."""


class ParquetWriter:
    """Writes a file in row groups, which are compressed separately."""

    def __init__(self, out: BinaryIO) -> None:
        # Opened again, because the writer would wait for the GIL at each of its many small writes to a Python file.
        self._out = pa.OSFile(os.fsencode(out.name), mode="wb")
        self._writer = pq.ParquetWriter(
            self._out,
            SCHEMA,
            compression="zstd",
            use_dictionary=False,
            write_statistics=_COLUMNS_WITH_STATISTICS,  # pyright: ignore[reportArgumentType]  # typed as bool only
        )
        self._group: list[pa.RecordBatch] = []
        self._size = 0

    def add(self, packed: bytes) -> None:
        """Add rows that `Parquet.pack` returned."""
        for batch in _read_messages(pa.BufferReader(packed)):
            self.add_batch(batch)

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._group.append(batch)
        self._size += batch.nbytes
        if self._size >= _GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        """Write the end of the file."""
        try:
            if self._group:
                self._write_group()
        finally:
            try:
                self._writer.close()
            finally:
                self._out.close()

    def _write_group(self) -> None:
        group, self._group, self._size = self._group, [], 0
        self._writer.write_table(pa.Table.from_batches(group))


class Parquet:
    """Columns in the schema of `aiocopyai.integrations.arrow`, compressed with Zstandard."""

    head = b""
    batch_bytes = 2**20  # each call of pyarrow takes as long as a few runs
    writer = ParquetWriter

    def encode(self, columns: Columns) -> memoryview:
        """Return an Arrow message: unlike Parquet files, messages can be appended to each other."""
        return memoryview(_batch_of_columns(columns).serialize())

    def decode(self, encoded: bytes) -> list[Run]:
        return [run for batch in _read_messages(pa.BufferReader(encoded)) for run in read_batch(batch)]

    def pack(self, encoded: bytes) -> bytes:
        return encoded

    def read(self, path: Path) -> Iterator[Run]:
        for batch in _read_file(path):
            yield from read_batch(batch)

    def write(self, base: Path | None, keep: Keep | None, rows: Path, out: BinaryIO) -> Generator[None]:
        with closing(ParquetWriter(out)) as writer:
            for batch in _read_file(base) if base is not None else ():
                mask = None if keep is None else pa.array(keep(batch.column("id").to_pylist()), pa.bool_())
                writer.add_batch(batch if mask is None else batch.filter(mask))
                yield
            for batch in _read_rows(rows):
                writer.add_batch(batch)
                yield


def _read_messages(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    size = source.size()
    while source.tell() < size:
        yield pa.ipc.read_record_batch(pa.ipc.read_message(source), SCHEMA)


def _read_rows(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pa.OSFile(os.fsencode(path)) as source:
            for batch in _read_messages(source):
                batch.validate(full=True)  # damaged bytes could cause any error in the writer
                yield batch
    except (pa.ArrowInvalid, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ExportError(f"{path} is damaged: {error}", "use force to discard the unfinished export") from None


def _read_file(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        # pyarrow encodes strings as UTF-8, which not all paths are.
        with pa.OSFile(os.fsencode(path)) as source, pq.ParquetFile(source) as file:
            if not file.schema_arrow.equals(SCHEMA):
                raise ExportError(f"{path} does not have the columns of an export")
            if file.num_row_groups:  # older versions of pyarrow raise if there is none
                yield from file.iter_batches(_BATCH_ROWS)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ExportError(f"{path} is not a Parquet file: {error}") from None
