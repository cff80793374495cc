"""A batch on the disk: the results so far, and what a second process has to know to start nothing twice.

Beside the file of results stands, until every row is over, ``<file>.begun``: the batch's own random name, which is in
the idempotency key of each row, and how many starts could be under way at a time. Rows are started in their order, and
what became of each is written before another takes its place. So when a process dies, the rows that it may have
started and not written down are the first so many that have no line, and each can be looked for by its key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, Self
from uuid import uuid4

import typer
from attrs import define, evolve, field, frozen
from cattrs.preconf.json import make_converter

from aiocopyai import JSON, AmbiguousStartError, Run, RunStatus
from aiocopyai.cli._files import write_whole
from aiocopyai.cli._formats import json_line, row_of
from aiocopyai.cli._rows import Row


_CLOCKS_DIFFER: Final = timedelta(hours=1)


@frozen
class Batch:
    """What was begun."""

    name: str
    workflow_id: str
    digest: str
    """Of the rows: other rows would be another batch."""
    concurrency: int
    begun: datetime

    def key_of(self, number: int) -> str:
        """Give the idempotency key of a row."""
        return f"{self.name}-{number}"

    @property
    def since(self) -> datetime:
        """When none of its runs was created yet, whatever the server's clock says."""
        return self.begun - _CLOCKS_DIFFER


@define
class Record:
    """The file of results, open for more."""

    path: Path
    batch: Batch
    out: BinaryIO
    is_resumed: bool = False
    """Whether a process before this one may have started some of the rows."""
    over: set[int] = field(factory=set[int])
    """The numbers of the rows that nothing is left to do for."""
    left: dict[int, str | None] = field(factory=dict[int, str | None])
    """Rows that have a line and are not over: the run's id, or None where a start is in doubt."""
    unstarted: set[int] = field(factory=set[int])
    """Rows that have a line and are known not to have been started: no need to look for them."""
    _has_old_lines: bool = False
    """Whether some row has a line that a later one takes the place of."""

    @classmethod
    def begin(cls, path: Path, workflow_id: str, digest: str, concurrency: int) -> Self:
        """Begin a batch."""
        batch = Batch(str(uuid4()), workflow_id, digest, concurrency, datetime.now(UTC))
        write_whole(begun(path), _CONVERTER.dumps(batch))
        return cls(path, batch, path.open("ab"))

    @classmethod
    def resume(cls, path: Path, workflow_id: str, digest: str, concurrency: int, *, wait: bool) -> Self:
        """Go on with a batch; with `wait`, a run that was started and is not over is waited for.

        Raises:
            typer.BadParameter: it is another one, or can't be read.
        """
        try:
            batch = _CONVERTER.loads(begun(path).read_text("utf-8"), Batch)
        except (ValueError, KeyError, TypeError, ExceptionGroup) as error:
            raise typer.BadParameter(f"{begun(path)} can't be read: {error}") from None
        if (batch.workflow_id, batch.digest) != (workflow_id, digest):
            raise typer.BadParameter(f"{path} was begun for other rows or another workflow: ask for the same")
        path.touch()
        unstarted = _tidy(path, doubting=True)
        record = cls(path, evolve(batch, concurrency=max(concurrency, batch.concurrency)), path.open("ab"))
        record.is_resumed, record.unstarted = True, unstarted
        record._learn(wait=wait)
        write_whole(begun(path), _CONVERTER.dumps(record.batch))
        return record

    def write(self, number: int, line: Mapping[str, JSON]) -> None:
        """Put down what became of a row."""
        self.out.write(json_line(line))
        self.out.flush()
        # A lost line may cost a run, and takes a thousandth of the time of one.
        os.fsync(self.out.fileno())
        self._has_old_lines |= number in self.left or number in self.unstarted

    def started(self, rows: Iterable[Row]) -> Iterator[tuple[Row, str | None]]:
        """Give the rows that were or may have been started and are not over, with the run's id where it is known."""
        unwritten = 0
        for row in rows:
            if row.number in self.left:
                yield row, self.left[row.number]
            elif row.number not in self.over and row.number not in self.unstarted:
                unwritten += 1
                if unwritten <= self.batch.concurrency:
                    yield row, None

    def finish(self, *, is_whole: bool) -> None:
        """Leave one line for each row, and if every row is over nothing beside the file."""
        self.out.close()
        if self._has_old_lines:
            _tidy(self.path, doubting=False)
        if is_whole:
            begun(self.path).unlink(missing_ok=True)

    def _learn(self, *, wait: bool) -> None:
        with self.path.open("rb") as lines:
            for text in lines:
                line = _brief(text)
                is_open = line["id"] is not None and not RunStatus(line["status"] or "-").is_final
                if line["row"] in self.unstarted:
                    continue
                if line["in_doubt"] or (wait and is_open):
                    self.left[line["row"]] = line["id"]
                else:
                    self.over.add(line["row"])


def line_of(row: Row, run: Run | None, error: Exception | None) -> dict[str, JSON]:
    """Tell what became of a row: its number, the columns of its run, and what is wrong if something is."""
    return {
        "row": row.number,
        **row_of(run or Run("", input=row.inputs)),
        "id": run.id if run else None,
        "problem": str(error) if error else None,
        "in_doubt": isinstance(error, AmbiguousStartError),
    }


def begun(path: Path) -> Path:
    """Name the file beside a file of results that is there until every row is over."""
    return path.with_name(f"{path.name}.begun")


def _tidy(path: Path, *, doubting: bool) -> set[int]:
    """Drop lines that later ones take the place of, and one that is half done; give the rows that were not started.

    With `doubting` the lines of these become lines of doubt, as they are about to be tried again: were this process to
    die after it started one, and before it wrote that, its line would say that there is nothing to look for.
    """
    kept: dict[int, str] = {}
    unstarted: set[int] = set()
    whole = path.read_text("utf-8")
    for text in whole.split("\n")[:-1]:
        line = _brief(text)
        number = line["row"]
        unstarted.discard(number)
        kept[number] = f"{text}\n"
        if line["id"] is None and not line["in_doubt"]:
            unstarted.add(number)
            if doubting:
                kept[number] = json_line({**json.loads(text), "in_doubt": True}).decode()
    tidied = "".join(kept.values())
    if tidied != whole:
        write_whole(path, tidied)
    return unstarted


def _brief(text: bytes | str) -> dict[str, Any]:
    """Read of a line what tells how far its row is.

    Raises:
        typer.BadParameter: it is no result.
    """
    try:
        line: dict[str, Any] = json.loads(text)
        return {name: line[name] for name in ("row", "id", "status", "in_doubt")}
    except (ValueError, KeyError, TypeError) as error:
        raise typer.BadParameter(f"a line of the results can't be read: {error}") from None


_CONVERTER: Final = make_converter()
