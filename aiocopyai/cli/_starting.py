"""What ``aiocopyai start`` does: runs for rows, each result as it comes, and on from where a process died."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Final

import typer
from attrs import define, evolve, field, frozen

from aiocopyai import JSON, AmbiguousStartError, CopyAIError, CopyAISession, Run, RunFailedError, RunResults, RunStatus
from aiocopyai._display import plural, preview
from aiocopyai.batch._input_rows import Row, Rows
from aiocopyai.batch._ledger import Record, State, begun, line_of, read_results
from aiocopyai.cli._client import open_session
from aiocopyai.cli._errors import run_async, usage_errors
from aiocopyai.cli._options import Settings
from aiocopyai.cli._output import ItemCount, OutputFormat, OutputWriter, Tally, echo_err, open_run_writer, print_json
from aiocopyai.cli._progress import ProgressBar


LOOK_AGAIN: Final = 6.0
"""Seconds until a run that is not on the list is taken for one that was never started: it may be listed late."""


@frozen
class Wanted:
    """What the command was asked for."""

    settings: Settings
    workflow_id: str
    rows: Rows
    metadata: Mapping[str, JSON]
    concurrency: int
    output: Path | None
    timeout: float | None
    """Seconds to wait for each run; None not to wait."""
    resume: bool

    @property
    def digest(self) -> str:
        """What tells this batch from others."""
        return f"{self.rows.digest} {sorted(self.metadata.items())}"

    @property
    def ends(self) -> frozenset[State]:
        """Where a row stands once nothing more is wanted of it."""
        started = frozenset({State.STARTED}) if self.timeout is None else frozenset[State]()
        return started | {State.COMPLETE, State.FAILED}


@define
class Outcome:
    """What became of the rows so far, shown on a bar where there is one."""

    wanted: Wanted
    bar: ProgressBar | None
    tally: Tally = field(factory=Tally)
    states: dict[int, State] = field(factory=dict[int, State])
    """Where each row stands, those of processes before this one included."""
    results: RunResults | None = None

    def add(self, row: Row, run: Run | None, state: State) -> None:
        """Account for a row."""
        self.states[row.number] = state
        if run is not None:
            self.tally.add(run)
        if self.bar is not None:
            self.bar.update(len(self.states), self.wanted.rows.count)

    @property
    def left(self) -> int:
        """How many rows more can be done for: not started, in doubt, or not over though that was waited for."""
        ends = self.wanted.ends
        return self.wanted.rows.count - sum(state in ends for state in self.states.values())

    @property
    def is_well(self) -> bool:
        """Whether every run was started, and if that was waited for is complete."""
        return not self.left and State.FAILED not in self.states.values()

    def __bool__(self) -> bool:
        return bool(self.states) or bool(self.results and (self.results.in_progress or self.results.unconfirmed))

    def __str__(self) -> str:
        waited = self.wanted.timeout is not None
        told = [str(self.tally) if waited else f"{plural(self.tally.by_status.total(), 'run')} started"]
        if self.results is not None and self.results.in_progress:
            told.append(f"under way: {', '.join(run.id for run in self.results.in_progress)}")
        if self.left:
            told.append(f"{self.left:,} of {self.wanted.rows.count:,} rows are left")
        if self.wanted.output is not None:
            rows = ItemCount("row", self.wanted.rows.count)
            told.append("--resume goes on from there" if self.left else f"{rows} in {self.wanted.output}")
        return "; ".join(told)


def run(wanted: Wanted, key: str | None, settings: Settings) -> int:
    """Start; return the exit code: 1 also where a run could not be started, or failed."""
    if wanted.resume and wanted.output is None:
        raise typer.BadParameter("--resume goes on with a file: name it by -o")
    outcome = Outcome(wanted, ProgressBar.on_terminal() if wanted.output else None)
    code = run_async(_start(wanted, key, outcome), settings, so_far=outcome)
    return code or (0 if outcome.is_well else 1)


async def _start(wanted: Wanted, key: str | None, outcome: Outcome) -> None:
    async with open_session(wanted.settings, key) as session:
        with usage_errors():
            session.run_many(
                wanted.workflow_id, (), metadata=wanted.metadata
            )  # refuses what can't be, before a file is made
        if wanted.output is None:
            await Starting(session, wanted.workflow_id, wanted, outcome, None).perform()
        elif not _is_whole(wanted, wanted.output, outcome):
            record = Record.open(wanted.output, wanted.workflow_id, wanted.digest)
            with closing(record), outcome.bar or nullcontext():
                await Starting(session, wanted.workflow_id, wanted, outcome, record).perform()
                record.finish(is_whole=not outcome.left)
        else:
            echo_err(f"{wanted.output} is whole already")
            return
    echo_err(str(outcome))


def _is_whole(wanted: Wanted, output: Path, outcome: Outcome) -> bool:
    """See whether a file of results needs nothing more, and whether it may be written to."""
    path = Path(os.path.realpath(output))
    if path.suffix.lower() != ".jsonl":
        raise typer.BadParameter(f"results are JSON lines: {output.name} should end in .jsonl")
    if not path.parent.is_dir() or path.is_dir():
        raise typer.BadParameter(f"{output} is no place to write a file to")
    if begun(path).exists() and not wanted.resume:
        raise typer.BadParameter(f"{output} was begun before: --resume goes on with it")
    if begun(path).exists() or not path.exists():
        return False
    if not wanted.resume:
        raise typer.BadParameter(f"{output} is there already: name another file")
    results = read_results(path)
    if results.keys() != set(range(1, wanted.rows.count + 1)):
        raise typer.BadParameter(f"{output} holds other rows than these: name another file")
    for number, result in results.items():
        status = RunStatus(result["status"] or "-")
        if wanted.timeout is not None and not status.is_final:
            raise typer.BadParameter(f"the runs in {output} were not waited for: `aiocopyai get --wait` does that")
        outcome.states[number] = State.COMPLETE if result["problem"] is None else State.FAILED
    return True


@define
class Starting:
    """One process's part of a batch."""

    session: CopyAISession
    workflow_id: str
    wanted: Wanted
    outcome: Outcome
    record: Record | None
    _table: OutputWriter[Run] | None = None
    """Where results are shown, if not in a record, nor as JSON."""
    _settled: set[int] = field(factory=set[int])
    """Rows that need no start."""
    _taken: dict[int, Row] = field(factory=dict[int, Row])
    """Rows under way, by their place among those that are started here."""

    async def perform(self) -> None:
        """Look for what a process before this one started, and start the rest."""
        if self.record is not None:
            await self._settle(self.record)
        elif self.wanted.rows.is_file and sys.stdout.isatty():
            self._table = open_run_writer(OutputFormat.TABLE)
        results = self.outcome.results = self.session.run_many(
            self.workflow_id,
            (row.inputs for row in self._left()),
            concurrency=self.wanted.concurrency,
            metadata=self.wanted.metadata,
            idempotency_key=None if self.record is None else partial(self._key, self.record),
            wait=self.wanted.timeout is not None,
            timeout=self.wanted.timeout,
        )
        async for result in results:
            self._tell(self._taken.pop(result.index), result.run, result.error)

    def _left(self) -> Iterator[Row]:
        left = (row for row in self.wanted.rows if row.number not in self._settled)
        for index, row in enumerate(left):
            self._taken[index] = row
            yield row

    def _key(self, record: Record, index: int, _inputs: Mapping[str, JSON]) -> str:
        """Give a row's key, and write down that its start is about to be sent."""
        number = self._taken[index].number
        record.note(number, State.STARTING)
        return record.batch.key_of(number)

    async def _settle(self, record: Record) -> None:
        """See to the rows that a process before this one started, or may have started."""
        ends = self.wanted.ends
        self.outcome.states.update({number: state for number, (state, _) in record.rows.items() if state in ends})
        self._settled.update(self.outcome.states)
        doubtful: list[Row] = []
        started: list[tuple[Row, Run]] = []
        for row in self.wanted.rows if record.rows else ():
            state, run_id = record.rows.get(row.number, (State.NOT_STARTED, None))
            if row.number not in self._settled and state is State.STARTED:
                started.append((row, Run(run_id or "", self.workflow_id, input=row.inputs)))
            elif state is State.STARTING:
                doubtful.append(row)
        started += await self._find(record, doubtful)
        self._settled.update(row.number for row, _ in started)
        room = asyncio.Semaphore(self.wanted.concurrency)

        async def end(row: Row, run: Run) -> None:
            async with room:
                self._tell(row, *await self._wait(run))

        await asyncio.gather(*(end(row, run) for row, run in started))

    async def _find(self, record: Record, doubtful: list[Row]) -> list[tuple[Row, Run]]:
        """Look for the runs of rows that may have been started; twice, as a run may be listed late."""
        batch, found = record.batch, list[tuple[Row, Run]]()
        for pause in (0.0, LOOK_AGAIN):
            if doubtful and pause:
                echo_err(f"looking once more for {plural(len(doubtful), 'run')} that may have been started")
                await asyncio.sleep(pause)
            keys = {batch.key_of(row.number): row.inputs for row in doubtful}
            seen = await self.session.find_runs(self.workflow_id, keys, since=batch.since) if keys else {}
            for row in doubtful:
                run = seen.get(batch.key_of(row.number))
                if isinstance(run, AmbiguousStartError):
                    self._settled.add(row.number)
                    self._tell(row, None, run)
                elif run is not None:
                    found.append((row, run))
            doubtful = [row for row in doubtful if batch.key_of(row.number) not in seen]
        return found

    async def _wait(self, run: Run) -> tuple[Run, CopyAIError | ValueError | None]:
        if self.wanted.timeout is None:
            return run, None
        try:
            return await self.session.wait_run(self.workflow_id, run.id, timeout=self.wanted.timeout), None
        except RunFailedError as error:
            return error.run, error
        except (CopyAIError, ValueError) as error:  # the latter for an id that no path can hold
            return run, error

    def _tell(self, row: Row, run: Run | None, error: CopyAIError | ValueError | None) -> None:
        """Give a row's result, and account for it."""
        state = self._state(run, error)
        is_known = state is not State.NOT_STARTED or self.outcome.results is None or not self.outcome.results.stopped_by
        if is_known:  # else it is by what stopped all, of which the log tells
            if error is not None:
                echo_err(f"row {row.number}: {error}")
            self._show(row, run, error)
        if self.record is not None:
            self.record.note(row.number, state, run.id if run else None)
        self.outcome.add(row, run, state)

    def _show(self, row: Row, run: Run | None, error: CopyAIError | ValueError | None) -> None:
        if self.record is not None:
            self.record.write(line_of(row, run, error))
        elif self._table is not None:
            shown = run or Run("-", input=row.inputs)
            self._table.write(evolve(shown, output={"": f"row {row.number}: {preview(shown)}"}))
            self._table.flush()
        else:
            print_json(line_of(row, run, error))

    def _state(self, run: Run | None, error: CopyAIError | ValueError | None) -> State:
        if run is None:
            return State.STARTING if isinstance(error, AmbiguousStartError) else State.NOT_STARTED
        if isinstance(error, RunFailedError):
            return State.FAILED
        return State.STARTED if error is not None or self.wanted.timeout is None else State.COMPLETE
