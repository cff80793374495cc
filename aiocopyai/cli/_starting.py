"""What ``aiocopyai start`` does: runs for rows, each result as it comes, and on from where a process died."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from uuid import uuid4

import typer
from attrs import define, field, frozen

from aiocopyai import JSON, AmbiguousStartError, CopyAIError, CopyAISession, Run, RunFailedError, RunResults
from aiocopyai.cli._common import open_session, perform, usage_errors
from aiocopyai.cli._formats import Format, Sink, count_of, say, show_json, sink
from aiocopyai.cli._progress import Bar, bar
from aiocopyai.cli._record import Record, begun, line_of
from aiocopyai.cli._rows import Row, Rows
from aiocopyai.cli._tally import Tally


@frozen
class Wanted:
    """What the command was asked for."""

    workflow_id: str | None
    """None for the demo."""
    rows: Rows
    metadata: Mapping[str, JSON]
    concurrency: int
    output: Path | None
    timeout: float | None
    """Seconds to wait for each run; None not to wait."""
    resume: bool


@define
class Outcome:
    """What became of the rows so far, shown on a bar where there is one."""

    wanted: Wanted
    count: int
    """How many rows there are."""
    bar: Bar | None
    tally: Tally = field(factory=Tally)
    done: int = 0
    problems: int = 0
    unsettled: int = 0
    """Rows that another process can do more for: not started, in doubt, or not over in time."""
    results: RunResults | None = None

    def add(self, row: Row, run: Run | None, error: Exception | None) -> None:
        """Account for a row, and say what is wrong with it."""
        self.done += 1
        if run is not None:
            self.tally.add(run)
        if error is not None:
            self.problems += 1
            self.unsettled += not isinstance(error, RunFailedError)
            say(f"row {row.number}: {error}")
        if self.bar is not None:
            self.bar.show(self.done, self.count)

    @property
    def is_whole(self) -> bool:
        """Whether every row is over."""
        return self.done == self.count and not self.unsettled

    def __bool__(self) -> bool:
        return self.done > 0 or bool(self.results and (self.results.under_way or self.results.in_doubt))

    def __str__(self) -> str:
        told = [str(self.tally) if self.wanted.timeout else f"{count_of(self.tally.by_status.total())} started"]
        if self.results is not None and self.results.under_way:
            told.append(f"under way: {', '.join(run.id for run in self.results.under_way)}")
        if self.done < self.count:
            told.append(f"{self.count - self.done:,} of {self.count:,} rows are left")
        if self.wanted.output is not None:
            told.append(f"in {self.wanted.output}" if self.is_whole else "--resume goes on from there")
        return "; ".join(told)


def run(wanted: Wanted, key: str | None, *, debug: bool) -> int:
    """Start; return the exit code: 1 also where a run could not be started, or failed."""
    if wanted.resume and wanted.output is None:
        raise typer.BadParameter("--resume goes on with a file: name it by -o")
    count, digest = wanted.rows.check()
    outcome = Outcome(wanted, count, bar() if wanted.output else None)
    code = perform(_start(wanted, key, digest, outcome), debug=debug, so_far=outcome)
    return code or (1 if outcome.problems else 0)


async def _start(wanted: Wanted, key: str | None, digest: str, outcome: Outcome) -> None:
    chosen = [] if wanted.workflow_id is None else [wanted.workflow_id]
    async with open_session(chosen, key) as (session, [workflow_id]):
        with usage_errors():
            session.run_many(workflow_id, (), metadata=wanted.metadata)  # refuses what can't be, before a file is made
        record = _open_record(wanted, workflow_id, digest)
        if wanted.output is not None and record is None:
            say(f"{wanted.output} is whole already")
            return
        with closing(record.out) if record else nullcontext(), outcome.bar or nullcontext():
            table = sink(Format.TABLE) if wanted.rows.path and sys.stdout.isatty() and record is None else None
            await Starting(session, workflow_id, wanted, record, outcome, table).perform()
            if record is not None:
                record.finish(is_whole=outcome.is_whole)
    say(str(outcome))


def _open_record(wanted: Wanted, workflow_id: str, digest: str) -> Record | None:
    """Begin a record of results, or go on with one; None where none is wanted, or it is whole already."""
    path = wanted.output
    if path is None:
        return None
    _check_place(path, resume=wanted.resume)
    if begun(path).exists():
        wait = wanted.timeout is not None
        return Record.resume(path, workflow_id, digest, wanted.concurrency, wait=wait)
    return None if path.exists() else Record.begin(path, workflow_id, digest, wanted.concurrency)


def _check_place(path: Path, *, resume: bool) -> None:
    if path.suffix.lower() != ".jsonl":
        raise typer.BadParameter(f"results are JSON lines: {path.name} should end in .jsonl")
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise typer.BadParameter(f"{path} is no place to write a file to")
    if begun(path).exists() and not resume:
        raise typer.BadParameter(f"{path} was begun before: --resume goes on with it")
    if path.exists() and not resume:
        raise typer.BadParameter(f"{path} is there already: name another file")


@define
class Starting:
    """One process's part of a batch."""

    session: CopyAISession
    workflow_id: str
    wanted: Wanted
    record: Record | None
    outcome: Outcome
    table: Sink[Run] | None
    """Where results are shown, if not in a record, nor as JSON."""
    _settled: set[int] = field(factory=set[int])
    """Rows that a process before this one is known to have started, or that stay in doubt."""
    _taken: dict[int, Row] = field(factory=dict[int, Row])
    """Rows under way, by their place among those that are started here."""

    async def perform(self) -> None:
        """Look for what a process before this one started, and start the rest."""
        if self.record is not None and self.record.is_resumed:
            self.outcome.done = len(self.record.over)
            await self._settle(self.record)
        results = self.outcome.results = self.session.run_many(
            self.workflow_id,
            (row.inputs for row in self._left()),
            concurrency=self.wanted.concurrency,
            metadata=self.wanted.metadata,
            idempotency_key=self._key,
            wait=self.wanted.timeout is not None,
            timeout=self.wanted.timeout,
        )
        async for result in results:
            self._tell(self._taken.pop(result.index), result.run, result.error)
        if results.stopped_by is not None:
            say(f"no more was started: {results.stopped_by}")

    def _left(self) -> Iterator[Row]:
        over = self.record.over if self.record else set[int]()
        left = (row for row in self.wanted.rows if row.number not in over and row.number not in self._settled)
        for index, row in enumerate(left):
            self._taken[index] = row
            yield row

    def _key(self, index: int, _inputs: Mapping[str, JSON]) -> str:
        return self.record.batch.key_of(self._taken[index].number) if self.record else str(uuid4())

    async def _settle(self, record: Record) -> None:
        """Find the runs of rows that were or may have been started, and see them to their end."""
        found: list[tuple[Row, Run]] = []
        for row, run_id in record.started(self.wanted.rows):
            try:
                run = Run(run_id) if run_id else await self._find(record, row)
            except AmbiguousStartError as error:
                self._settled.add(row.number)
                self._tell(row, None, error)
                continue
            if run is not None:
                self._settled.add(row.number)
                found.append((row, run))
        room = asyncio.Semaphore(self.wanted.concurrency)

        async def end(row: Row, run: Run) -> None:
            async with room:
                self._tell(row, *await self._wait(run))

        await asyncio.gather(*(end(row, run) for row, run in found))

    async def _find(self, record: Record, row: Row) -> Run | None:
        batch = record.batch
        return await self.session.find_run(self.workflow_id, batch.key_of(row.number), since=batch.since)

    async def _wait(self, run: Run) -> tuple[Run, CopyAIError | None]:
        if self.wanted.timeout is None:
            return run, None
        try:
            return await self.session.wait_run(self.workflow_id, run.id, timeout=self.wanted.timeout), None
        except RunFailedError as error:
            return error.run, error
        except CopyAIError as error:
            return run, error

    def _tell(self, row: Row, run: Run | None, error: Exception | None) -> None:
        """Give a row's result, and account for it."""
        line = line_of(row, run, error)
        if self.record is not None:
            self.record.write(row.number, line)
        elif self.table is not None:
            self.table.write(run or Run("-"))
            self.table.flush()
        else:
            show_json(line)
        self.outcome.add(row, run, error)
