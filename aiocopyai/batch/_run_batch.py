"""Run a workflow for each row, and write the results to a file. After a crash, no row is run a second time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from attrs import define, field

from aiocopyai import (
    JSON,
    AmbiguousStartError,
    CopyAIError,
    CopyAISession,
    Run,
    RunFailedError,
    RunResult,
    RunResults,
)
from aiocopyai._display import plural
from aiocopyai._files import DamagedFileError
from aiocopyai._text import escape
from aiocopyai._validation import check_integer, check_positive, check_rows, json_object
from aiocopyai.batch._batch_files import BatchFiles, BatchPlan, read_finished
from aiocopyai.batch._ledger import BatchInfo, LedgerState, RowEntry
from aiocopyai.batch._results_file import result_fields


logger = logging.getLogger("aiocopyai")


def run_batch(
    session: CopyAISession,
    workflow_id: str,
    rows: Iterable[Mapping[str, object]],
    path: str | os.PathLike[str],
    *,
    resume: bool = False,
    wait: bool = True,
    timeout: float | None = 600.0,
    concurrency: int = 8,
    metadata: Mapping[str, object] | None = None,
    limit: int | None = None,
    max_poll_interval: float = 15.0,
    listing_delay: float = 6.0,
) -> BatchResults:
    """Run a workflow for each row, and write the results to a file.

    It is like `CopyAISession.run_many`, but can be resumed: after a crash or an interruption, the same call with
    ``resume=True`` continues. For this, each row is recorded in a ledger before its start is sent, and the id of its
    run as soon as the response is received. The ledger is an SQLite database next to the results (``<path>.ledger``,
    and ``<path>.ledger-journal`` while it changes), and exists until every row is finished. A resumed batch reads the
    recorded runs. For the other rows that may have been started, it searches the server for their idempotency keys, and
    starts a row again only if its run is not listed. A second run is possible if the server lists a run more than
    `listing_delay` after the batch is resumed, or if its clock differs by more than a day.

    Keep the results and the ledger together until every row is finished. If one of them is missing, ``resume=True`` is
    a `BatchError`. If both are missing, it is a new batch: every row is started, and paid for, again.

    This call reads and checks all rows, and keeps them in memory. Nothing is started before the iteration.

    Args:
        session: sends the requests.
        workflow_id: the workflow's id.
        rows: the inputs of each run, such as ``read_rows("rows.csv")``.
        path: the file of results, which must end in ``.jsonl``: one JSON object for each row, with ``row`` (counted
            from 1), the columns of an export, ``problem`` (why there is no complete run; null otherwise) and
            ``unconfirmed`` (whether there may be a run without a known id).
        resume: continue a batch of the same rows, metadata and workflow, or start it if its files do not exist.
        wait: whether to wait until each run is finished; False to only start them.
        timeout: seconds to wait for each run; None for no limit.
        concurrency: the maximum number of runs in progress; with ``wait=False``, of starts at a time.
        metadata: JSON values by name that the API stores with each run.
        limit: the maximum number of rows to start; a later call with ``resume=True`` starts the others.
        max_poll_interval: the maximum seconds between two polls of a run.
        listing_delay: seconds after which the list of runs is assumed to show every run that was started.

    Raises:
        ValueError: an argument or a row is invalid. Raised by the call; the other errors are raised while iterating.
        BatchError: the files already exist, are damaged, or belong to another batch; nothing was started.
        OSError: a file cannot be written, or another process is using it.
        CopyAIError: the runs of an earlier process cannot be searched for. The failure of a row is a result instead.
    """
    # Checks these arguments, and sends nothing.
    session.run_many(
        workflow_id,
        (),
        concurrency=concurrency,
        metadata=metadata,
        wait=wait,
        timeout=timeout,
        max_poll_interval=max_poll_interval,
    )
    check_rows(rows)
    if limit is not None:
        check_integer("limit", limit, 0)
    check_positive("listing_delay", listing_delay, zero=True)
    inputs = [json_object(f"row {number}", row) for number, row in enumerate(rows, start=1)]
    run_metadata = json_object("metadata", metadata or {})
    digest = blake2b(digest_size=16)
    for document in (run_metadata, *inputs):
        digest.update(json.dumps(document, sort_keys=True).encode() + b"\n")
    plan = BatchPlan(
        batch=BatchInfo(workflow_id, digest.hexdigest()),
        inputs=inputs,
        path=Path(path),
        resolved_path=Path(os.path.realpath(path)),  # a link and its target share one ledger
        resume=resume,
        wait=wait,
        timeout=timeout,
        concurrency=concurrency,
        metadata=run_metadata,
        limit=limit,
        max_poll_interval=max_poll_interval,
        listing_delay=listing_delay,
    )
    return BatchResults(session, plan)


class BatchResults(AsyncIterator[RunResult]):
    """The results of `run_batch`, in the order in which the runs finish.

    Rows that an earlier process finished are in the file, and are not yielded. Leaving ``async with``, `aclose`, an
    error or a cancelled step of the iteration stops the polling and closes the files. Runs that were started continue
    on the server, and are found when the batch is resumed.
    """

    def __init__(self, session: CopyAISession, plan: BatchPlan) -> None:
        # The iteration does not refer to this object, so that it ends when this object is garbage-collected.
        self._batch = _BatchState(session, plan)
        self._iteration = self._batch.iterate()

    def __repr__(self) -> str:
        return f"<BatchResults: {self.path}, {self.finished} of {self.total} rows finished>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def __anext__(self) -> RunResult:
        return await anext(self._iteration)

    async def aclose(self) -> None:
        """Stop the polling, and close the files."""
        await self._iteration.aclose()

    @property
    def path(self) -> Path:
        """The file of results."""
        return self._batch.plan.path

    @property
    def total(self) -> int:
        """The number of rows in the batch."""
        return self._batch.plan.total

    @property
    def finished(self) -> int:
        """The number of rows that are finished, by this process or an earlier one."""
        return sum(state in self._batch.plan.final_states for state in self._batch.states.values())

    @property
    def failed(self) -> int:
        """The number of rows whose run has failed, in this process or an earlier one."""
        return sum(state is LedgerState.FAILED for state in self._batch.states.values())

    @property
    def postponed(self) -> int:
        """The number of rows that were not started because of `limit`."""
        return self._batch.postponed

    @property
    def in_progress(self) -> Sequence[Run]:
        """The runs that were started, and whose result was not yielded yet."""
        started = self._batch.started
        return (*self._batch.waiting.values(), *(started.in_progress if started else ()))

    @property
    def stopped_by(self) -> CopyAIError | None:
        """The error after which no more runs were started, such as `CreditLimitReachedError`; None if there is none."""
        return self._batch.started.stopped_by if self._batch.started else None

    def pending(self) -> list[int]:
        """Return the indexes, from 0, of the rows that an iteration would start or search for.

        Nothing is sent, and no file is created.

        Raises:
            BatchError: as while iterating.
            OSError: as while iterating.
        """
        return self._batch.pending()


@define(eq=False)
class _BatchState:
    """The state of a batch during its iteration."""

    session: CopyAISession
    plan: BatchPlan
    states: dict[int, LedgerState] = field(factory=dict[int, LedgerState])
    """The states of the rows, by row number, as recorded by this process or an earlier one."""
    waiting: dict[int, Run] = field(factory=dict[int, Run])
    """The runs of an earlier process that this process waits for."""
    started: RunResults | None = None
    """The results of the rows that this process starts."""
    postponed: int = 0

    def pending(self) -> list[int]:
        """Return the indexes of the rows that an iteration would start or search for."""
        finished = read_finished(self.plan)
        if finished is not None:
            self.states = finished
            return []
        entries: Mapping[int, RowEntry] = {}
        if self.plan.ledger_path.exists():
            files = BatchFiles.open(self.plan)
            files.close()
            entries = files.entries
            self.states = files.finished_rows(self.plan)
        known = {number for number, entry in entries.items() if entry.run_id is not None}
        pending = (index for index in range(self.plan.total) if index + 1 not in known)
        return list(islice(pending, self.plan.limit))

    async def iterate(self) -> AsyncGenerator[RunResult, None]:
        """Yield the results of the rows that are not finished."""
        finished = read_finished(self.plan)
        if finished is not None:
            self.states = finished
            return
        with closing(BatchFiles.open(self.plan)) as files:
            self.states = files.finished_rows(self.plan)
            known: list[tuple[int, Run]] = []
            unconfirmed: list[int] = []
            for number, entry in sorted(files.entries.items()):
                if number in self.states:
                    continue
                if entry.run_id is not None:
                    inputs = self.plan.inputs[number - 1]
                    known.append((number, Run(entry.run_id, self.plan.batch.workflow_id, input=inputs)))
                elif entry.state is LedgerState.STARTING:
                    unconfirmed.append(number)
            found, ambiguous = await self._search(files.batch, unconfirmed)
            for number, error in ambiguous.items():
                yield self._record(files, number, None, error)
            async with aclosing(self._wait_for(files, [*known, *found])) as waited:
                async for result in waited:
                    yield result
            skipped = {*self.states, *ambiguous, *(number for number, _ in (*known, *found))}
            async with aclosing(self._start(files, skipped)) as started:
                async for result in started:
                    yield result
            files.results.finish()
            if all(self.states.get(number) in self.plan.final_states for number in range(1, self.plan.total + 1)):
                files.ledger.delete()

    async def _search(
        self, batch: BatchInfo, numbers: Sequence[int]
    ) -> tuple[list[tuple[int, Run]], dict[int, AmbiguousStartError]]:
        """Search for the runs of rows that may have been started. Search twice, because a run may be listed late."""
        found: list[tuple[int, Run]] = []
        ambiguous: dict[int, AmbiguousStartError] = {}
        missing = list(numbers)
        for delay in (0.0, self.plan.listing_delay):
            if not missing:
                break
            if delay:
                logger.warning(
                    "searching again in %g s for %s that may have been started", delay, plural(len(missing), "run")
                )
                await asyncio.sleep(delay)
            keys = {batch.key(number): self.plan.inputs[number - 1] for number in missing}
            runs = await self.session.find_runs(batch.workflow_id, keys, since=batch.since)
            for number in missing:
                run = runs.get(batch.key(number))
                if isinstance(run, AmbiguousStartError):
                    ambiguous[number] = run
                elif run is not None:
                    found.append((number, run))
            missing = [number for number in missing if batch.key(number) not in runs]
        return found, ambiguous

    async def _wait_for(self, files: BatchFiles, runs: Sequence[tuple[int, Run]]) -> AsyncGenerator[RunResult, None]:
        """Wait for runs that an earlier process started."""
        self.waiting = dict(runs)
        for number, run in runs:
            files.ledger.record(number, LedgerState.STARTED, run.id)
        semaphore = asyncio.Semaphore(self.plan.concurrency)

        async def wait(number: int, run: Run) -> tuple[int, Run, CopyAIError | ValueError | None]:
            if not self.plan.wait:
                return number, run, None
            async with semaphore:
                try:
                    finished = await self.session.wait_run(
                        self.plan.batch.workflow_id,
                        run.id,
                        timeout=self.plan.timeout,
                        max_poll_interval=self.plan.max_poll_interval,
                    )
                except RunFailedError as error:
                    return number, error.run, error
                except (CopyAIError, ValueError) as error:  # ValueError: the id is not valid in a URL
                    return number, run, error
                return number, finished, None

        tasks = [asyncio.create_task(wait(number, run)) for number, run in runs]
        try:
            for task in asyncio.as_completed(tasks):
                number, run, error = await task
                result = self._record(files, number, run, error, reused=True)
                del self.waiting[number]
                yield result
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self, files: BatchFiles, skipped: set[int]) -> AsyncGenerator[RunResult, None]:
        """Start the rows that were never started, and those whose start was rejected."""
        pending = [number for number in range(1, self.plan.total + 1) if number not in skipped]
        numbers = pending[: self.plan.limit]
        self.postponed = len(pending) - len(numbers)

        def key(index: int, _inputs: Mapping[str, JSON]) -> str:
            # Called right before the start is sent.
            files.results.check_path()
            files.ledger.record(numbers[index], LedgerState.STARTING)
            return files.batch.key(numbers[index])

        def record_start(index: int, run: Run) -> None:
            # Recorded before the wait, so that a resumed batch does not have to search for the run.
            try:
                files.ledger.record(numbers[index], LedgerState.STARTED, run.id)
            except (OSError, DamagedFileError):
                logger.warning(
                    "row %d: run %s was started, but its id cannot be written", numbers[index], escape(run.id)
                )
                raise

        self.started = self.session.run_many(
            self.plan.batch.workflow_id,
            (self.plan.inputs[number - 1] for number in numbers),
            concurrency=self.plan.concurrency,
            metadata=self.plan.metadata,
            idempotency_key=key,
            wait=self.plan.wait,
            timeout=self.plan.timeout,
            max_poll_interval=self.plan.max_poll_interval,
            on_start=record_start,
        )
        try:
            async for result in self.started:
                yield self._record(files, numbers[result.index], result.run, result.error, reused=result.reused)
        finally:
            await self.started.aclose()

    def _record(
        self,
        files: BatchFiles,
        number: int,
        run: Run | None,
        error: CopyAIError | ValueError | None,
        *,
        reused: bool = False,
    ) -> RunResult:
        """Write the result of a row to both files, and return it."""
        inputs = self.plan.inputs[number - 1]
        if run is None:
            state = LedgerState.STARTING if isinstance(error, AmbiguousStartError) else LedgerState.NOT_STARTED
        elif isinstance(error, RunFailedError):
            state = LedgerState.FAILED
        else:
            state = LedgerState.STARTED if error is not None or not self.plan.wait else LedgerState.COMPLETE
        is_stopped = self.started is not None and self.started.stopped_by is not None
        # A row that is rejected after the stop has no result, like the rows that were never sent.
        if not is_stopped or state is not LedgerState.NOT_STARTED:
            try:
                files.results.write(result_fields(number, inputs, run, error))
            except OSError:
                if run is not None:
                    logger.warning(
                        "row %d: run %s was started, but its result cannot be written", number, escape(run.id)
                    )
                raise
        files.ledger.record(number, state, run.id if run else None)
        self.states[number] = state
        return RunResult(number - 1, inputs, run, error, reused, files.batch.key(number))
