"""The results of a batch: one JSON object on each line. If a row has several lines, the last one is valid."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

from attrs import define

from aiocopyai._files import file_errors, replace_file
from aiocopyai._json import dump_json
from aiocopyai.batch._ledger import BatchError, LedgerState, RowEntry
from aiocopyai.errors import AmbiguousStartError
from aiocopyai.models import JSON, Run, RunStatus


_BLOCK_SIZE: Final = 2**16


@define
class ResultsFile:
    """The file of results, open for writing."""

    path: Path
    rows: dict[int, RowEntry]
    """The state of each row in the file, by row number, counted from 1."""
    _file: BinaryIO

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create a file of results, and remove an incomplete line at its end.

        Raises:
            BatchError: the file does not contain the results of a batch.
            OSError: the file cannot be written.
        """
        file = path.open("a+b", buffering=0)
        try:
            _remove_incomplete_line(file)
            return cls(path, read_results(path), file)
        except BaseException:
            file.close()
            raise

    def run_id(self, number: int) -> str | None:
        """Return the id of a row's run; None if the file has none."""
        entry = self.rows.get(number)
        return entry.run_id if entry else None

    def check_path(self) -> None:
        """Check that the path still refers to the open file. Otherwise, results that are written to it can be lost.

        Raises:
            FileNotFoundError: the file was moved, replaced or deleted.
        """
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(self.path.stat(), os.fstat(self._file.fileno())):
                return
        raise FileNotFoundError(errno.ENOENT, "the file was moved, replaced or deleted; restore it", str(self.path))

    def write(self, fields: Mapping[str, JSON]) -> None:
        """Append a result, as `result_fields` returns it, and wait until it is stored on the disk.

        Raises:
            OSError: the result cannot be written; the file is unchanged.
        """
        self.check_path()
        line = dump_json(fields) + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        with file_errors(self.path):
            try:
                written = 0
                while written < len(line):
                    written += self._file.write(line[written:])
                os.fsync(self._file.fileno())
            except BaseException:
                self._file.truncate(size)
                raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def finish(self) -> None:
        """Close the file, and remove all lines of a row except the last."""
        self.close()
        last_lines: dict[int, int] = {}
        count = 0
        for count, (number, _) in enumerate(_read_entries(self.path), start=1):
            last_lines[number] = count
        if len(last_lines) < count:
            kept = set(last_lines.values())
            with self.path.open("rb") as lines:
                replace_file(self.path, (line for position, line in enumerate(lines, start=1) if position in kept))


def result_fields(number: int, inputs: Mapping[str, JSON], run: Run | None, error: Exception | None) -> dict[str, JSON]:
    """Return the fields of a line of results: the row's number, its run, and the problem if there is one."""
    return {
        "row": number,
        **(run or Run("", input=inputs)).to_dict(),
        "id": run.id if run else None,
        "problem": str(error) if error else None,
        "unconfirmed": isinstance(error, AmbiguousStartError),
    }


def read_results(path: Path) -> dict[int, RowEntry]:
    """Read the state of each row from a file of results.

    Raises:
        BatchError: the file does not contain the results of a batch.
        OSError: the file cannot be read.
    """
    return dict(_read_entries(path))


def _read_entries(path: Path) -> Iterator[tuple[int, RowEntry]]:
    """Yield the number and the state of the row on each line."""
    with path.open("rb") as lines:
        for position, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):  # incomplete: a process has crashed, or is writing it
                return
            try:
                number, entry = _parse_entry(json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise BatchError(f"{path}, line {position} is not a result of a batch: {error!r:.80}") from None
            yield number, entry


def _parse_entry(fields: Mapping[str, object]) -> tuple[int, RowEntry]:
    """Return the number and the state of a row from the fields of its line."""
    number, run_id, status = fields["row"], fields["id"], fields["status"]
    if not isinstance(number, int) or not isinstance(run_id, str | None):
        raise TypeError("row must be an integer, and id a string")
    if run_id is None:
        state = LedgerState.NOT_STARTED
    elif status == RunStatus.COMPLETE and fields["problem"] is None:
        state = LedgerState.COMPLETE
    else:
        state = LedgerState.FAILED if status == RunStatus.FAILED else LedgerState.STARTED
    return number, RowEntry(state, run_id)


def _remove_incomplete_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    size = end
    while end > 0:
        start = max(0, end - _BLOCK_SIZE)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        file.truncate(end)
