"""The files of a batch: opened, checked against the batch and against each other, or created."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from attrs import define, frozen

from aiocopyai import JSON
from aiocopyai.batch._ledger import (
    SMALLEST_LEDGER,
    BatchError,
    BatchInfo,
    Ledger,
    LedgerState,
    RowEntry,
    damaged,
    ledger_files,
)
from aiocopyai.batch._results_file import ResultsFile, read_results


@frozen
class BatchPlan:
    """The checked arguments of `run_batch`."""

    batch: BatchInfo
    inputs: Sequence[Mapping[str, JSON]]
    path: Path
    """The file of results, as the caller named it."""
    target: Path
    """The file of results, with links resolved."""
    resume: bool
    wait: bool
    timeout: float | None
    concurrency: int
    metadata: Mapping[str, JSON]
    limit: int | None
    max_poll_interval: float
    listing_delay: float

    @property
    def ledger(self) -> Path:
        """The ledger's path."""
        return self.target.with_name(f"{self.target.name}.ledger")

    @property
    def total(self) -> int:
        """The number of rows."""
        return len(self.inputs)

    @property
    def final_states(self) -> frozenset[LedgerState]:
        """The states of a row for which nothing is left to do."""
        return frozenset({LedgerState.COMPLETE, LedgerState.FAILED, *(() if self.wait else (LedgerState.STARTED,))})


@define
class BatchFiles:
    """The ledger and the results of a batch, open and locked."""

    batch: BatchInfo
    ledger: Ledger
    results: ResultsFile
    entries: dict[int, RowEntry]
    """The state of each row when the files were opened."""

    @classmethod
    def open(cls, plan: BatchPlan) -> Self:
        """Open the files, or create them.

        Raises:
            BatchError: they are damaged, or belong to another batch.
            OSError: they cannot be written, or another process is using them.
        """
        had_ledger, had_results = plan.ledger.exists(), plan.target.exists()
        if had_ledger and _is_damaged(plan.ledger.stat().st_size, had_results=had_results):
            raise damaged(plan.ledger, plan.target, f"{plan.ledger} is empty or cut off")
        ledger = Ledger.open(plan.ledger, plan.target)
        try:
            _check_ledger(ledger, plan, had_results=had_results)
            if ledger.batch is None:
                ledger.begin(plan.batch)
            results = ResultsFile.open(plan.target)
        except BaseException:
            ledger.close()
            if not had_ledger:
                plan.ledger.unlink(missing_ok=True)
            raise
        files = cls(ledger.batch or plan.batch, ledger, results, dict(ledger.rows))
        try:
            files._use_results()
        except BaseException:
            files.close()
            raise
        return files

    def finished_rows(self, plan: BatchPlan) -> dict[int, LedgerState]:
        """Return the rows that need nothing more, and their states.

        A row whose result is missing is not one of them: its run is read again, which costs nothing.
        """
        return {
            number: entry.state
            for number, entry in self.entries.items()
            if entry.state in plan.final_states and entry.run_id == self.results.run_id(number)
        }

    def close(self) -> None:
        """Close both files."""
        self.results.close()
        self.ledger.close()

    def _use_results(self) -> None:
        """Complete the entries of the ledger from the results, which are written first."""
        for number, result in self.results.rows.items():
            entry = self.entries.get(number)
            if entry is None:
                reason = f"{self.ledger.path} does not know row {number}, which has a result"
                raise damaged(self.ledger.path, self.results.path, reason)
            if entry.run_id is None and result.run_id is not None:
                self.entries[number] = result


def read_finished(plan: BatchPlan) -> dict[int, LedgerState] | None:
    """Return the states of the rows if an earlier process finished all of them, and so deleted the ledger.

    Returns:
        The state of each row; None if the batch is not finished, or not started.

    Raises:
        BatchError: the files cannot belong to this batch.
        OSError: they cannot be read.
    """
    if plan.target.suffix.lower() != ".jsonl":
        raise BatchError(f"results are JSON lines: the path must end in .jsonl, got {plan.path.name}")
    if not plan.target.parent.is_dir() or plan.target.is_dir():
        raise BatchError(f"{plan.path} is a folder, or is in a folder that does not exist")
    if not plan.resume:
        for existing in (plan.path, plan.ledger):
            if existing.exists():
                raise BatchError(f"{existing} already exists: pass resume=True to continue, or another path")
    if plan.ledger.exists() or not plan.target.exists():
        return None
    results = read_results(plan.target)
    if results.keys() != set(range(1, plan.total + 1)):
        raise BatchError(f"{plan.path} has no ledger, and holds the results of other rows: pass another path")
    if any(entry.state not in plan.final_states for entry in results.values()):
        raise BatchError(f"{plan.path} is complete, but its runs were only started: wait_run() waits for each of them")
    return {number: entry.state for number, entry in results.items()}


def _is_damaged(size: int, *, had_results: bool) -> bool:
    """Whether a ledger of this size has lost its content. One without results may be empty: nothing was started."""
    return size < SMALLEST_LEDGER and (size > 0 or had_results)


def _check_ledger(ledger: Ledger, plan: BatchPlan, *, had_results: bool) -> None:
    """Refuse a ledger that cannot belong to this batch, or to these results."""
    batch = ledger.batch
    if batch is None:
        if had_results:  # they are created after the ledger
            raise damaged(plan.ledger, plan.target, f"{plan.ledger} is empty")
        return
    if not plan.resume:
        raise BatchError(f"{plan.path} already exists: pass resume=True to continue, or another path")
    if (batch.workflow_id, batch.digest) != (plan.batch.workflow_id, plan.batch.digest):
        raise BatchError(
            f"{plan.path} was started with another workflow, other rows or other metadata: "
            "pass the same ones to resume it, or another path"
        )
    if unknown := ledger.rows.keys() - range(1, plan.total + 1):
        raise damaged(plan.ledger, plan.target, f"{plan.ledger} is damaged: there is no row {min(unknown)}")
    if ledger.rows and not had_results:
        names = " and ".join(file.name for file in ledger_files(plan.ledger))
        raise BatchError(f"{plan.path} is missing: restore it, or delete {names} to start (and pay) again")
