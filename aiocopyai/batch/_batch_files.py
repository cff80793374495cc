"""Open or create the files of a batch, and check that they belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from attrs import define, frozen

from aiocopyai import JSON
from aiocopyai._display import plural
from aiocopyai._files import DamagedFileError
from aiocopyai.batch._ledger import BatchError, BatchInfo, Ledger, LedgerState, RowEntry, ledger_files
from aiocopyai.batch._results_file import ResultsFile, read_results


@frozen
class BatchPlan:
    """The validated arguments of `run_batch`."""

    batch: BatchInfo
    inputs: Sequence[Mapping[str, JSON]]
    path: Path
    """The path of the results, as the caller passed it."""
    resolved_path: Path
    """The path of the results, with links resolved."""
    resume: bool
    wait: bool
    timeout: float | None
    concurrency: int
    metadata: Mapping[str, JSON]
    limit: int | None
    max_poll_interval: float
    listing_delay: float

    @property
    def ledger_path(self) -> Path:
        """The path of the ledger."""
        return self.resolved_path.with_name(f"{self.resolved_path.name}.ledger")

    @property
    def total(self) -> int:
        """The number of rows."""
        return len(self.inputs)

    @property
    def final_states(self) -> frozenset[LedgerState]:
        """The states of a finished row."""
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
            BatchError: a file is damaged, or belongs to another batch.
            OSError: a file cannot be written, or another process is using it.
        """
        try:
            return cls._open(plan)
        except DamagedFileError as error:
            ledger, journal = ledger_files(plan.ledger_path)
            raise BatchError(
                f"{error}; without the ledger, rows could be paid for twice, so nothing was started. "
                f"Restore {ledger.name} (and {journal.name}, if it existed), or list the runs of the workflow, and "
                "pass only the rows that have no run, and another path"
            ) from None

    @classmethod
    def _open(cls, plan: BatchPlan) -> Self:
        had_ledger, had_results = plan.ledger_path.exists(), plan.resolved_path.exists()
        with ExitStack() as on_error:
            ledger = Ledger.open(plan.ledger_path, plan.resolved_path)
            if not had_ledger:
                on_error.callback(plan.ledger_path.unlink, missing_ok=True)
            on_error.callback(ledger.close)
            _check_ledger(ledger, plan, had_results=had_results)
            if ledger.batch is None:
                ledger.begin(plan.batch)
            results = ResultsFile.open(plan.resolved_path)
            on_error.callback(results.close)
            # A result is written before its entry in the ledger, so after a crash the ledger may not have it.
            entries = dict(ledger.rows)
            for number, result in results.rows.items():
                entry = entries.get(number)
                if entry is None:
                    raise DamagedFileError(f"{plan.ledger_path} has no entry for row {number}, which has a result")
                if entry.run_id is None and result.run_id is not None:
                    entries[number] = result
            on_error.pop_all()
        return cls(ledger.batch or plan.batch, ledger, results, entries)

    def finished_rows(self, plan: BatchPlan) -> dict[int, LedgerState]:
        """Return the states of the finished rows.

        A row without a result is not finished: its run is read again, which costs nothing.
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


def read_finished(plan: BatchPlan) -> dict[int, LedgerState] | None:
    """Return the states of the rows if an earlier process finished all of them, and deleted the ledger.

    Returns:
        The state of each row; None if the batch is not finished or was not started.

    Raises:
        BatchError: the files cannot belong to this batch.
        OSError: a file cannot be read.
    """
    if plan.resolved_path.suffix.lower() != ".jsonl":
        raise BatchError(f"results are JSON lines: the path must end in .jsonl, got {plan.path.name}")
    if not plan.resolved_path.parent.is_dir() or plan.resolved_path.is_dir():
        raise BatchError(f"{plan.path} is a folder, or is in a folder that does not exist")
    if not plan.resume:
        for existing in (plan.path, plan.ledger_path):
            if existing.exists():
                raise BatchError(f"{existing} already exists: pass resume=True to continue, or another path")
    if plan.ledger_path.exists() or not plan.resolved_path.exists():
        return None
    results = read_results(plan.resolved_path)
    if results.keys() - range(1, plan.total + 1):
        raise BatchError(f"{plan.path} has no ledger, and contains the results of other rows: pass another path")
    if len(results) < plan.total:
        raise BatchError(
            f"{plan.path} has no ledger, and contains the results of {len(results):,} of {plural(plan.total, 'row')}; "
            f"other rows may have been started: restore {plan.ledger_path.name}, or list the runs of the workflow, and "
            "pass only the rows that have no run, and another path"
        )
    if any(entry.state not in plan.final_states for entry in results.values()):
        raise BatchError(f"{plan.path} is complete, but its runs were only started: use wait_run() to wait for them")
    return {number: entry.state for number, entry in results.items()}


def _check_ledger(ledger: Ledger, plan: BatchPlan, *, had_results: bool) -> None:
    """Check that a ledger can belong to this batch and to these results.

    Raises:
        BatchError: the ledger belongs to other rows, or its results are missing.
        DamagedFileError: the ledger is empty, or has rows that do not exist.
    """
    batch = ledger.batch
    if batch is None:
        if had_results:
            raise DamagedFileError(f"{plan.ledger_path} is empty")
        return
    if not plan.resume:
        raise BatchError(f"{plan.path} already exists: pass resume=True to continue, or another path")
    if (batch.workflow_id, batch.digest) != (plan.batch.workflow_id, plan.batch.digest):
        raise BatchError(
            f"{plan.path} was started with another workflow, other rows or other metadata: "
            "pass the same ones to resume it, or another path"
        )
    if unknown := ledger.rows.keys() - range(1, plan.total + 1):
        raise DamagedFileError(f"{plan.ledger_path} is damaged: there is no row {min(unknown)}")
    if ledger.rows and not had_results:
        names = " and ".join(file.name for file in ledger_files(plan.ledger_path))
        raise BatchError(f"{plan.path} is missing: restore it, or delete {names} to start (and pay) again")
