"""The types of batches and reports; see ``api.py``."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import assert_type

from aiocopyai import JSON, CopyAIError, CopyAISession, Run, RunResult
from aiocopyai.batch import BatchError, BatchResults, read_rows, run_batch
from aiocopyai.export import read_export
from aiocopyai.report import KeySummary, Summary, Totals, group_by_period, summarize, write_report


async def runs_a_batch(session: CopyAISession, path: Path) -> None:
    """A batch with its options, and its results."""
    rows = read_rows("rows.csv", delimiter=";")
    assert_type(rows, Iterator[dict[str, JSON]])
    try:
        async with run_batch(session, "W", rows, path, resume=True, metadata={"batch": 7}, limit=10) as batch:
            assert_type(batch, BatchResults)
            assert_type(batch.pending(), list[int])
            async for result in batch:
                assert_type(result, RunResult)
    except BatchError as error:
        assert_type(str(error), str)
        return
    assert_type(batch.path, Path)
    assert_type(batch.total + batch.finished + batch.failed + batch.postponed, int)
    assert_type(batch.in_progress, Sequence[Run])
    assert_type(batch.stopped_by, CopyAIError | None)
    await run_batch(session, "W", [{"a": 1}], "results.jsonl", wait=False, timeout=None, concurrency=2).aclose()


def makes_a_report(path: Path) -> None:
    """Statistics over runs, and the page of a report."""
    summary = summarize(read_export("runs.jsonl"), zone=UTC)
    assert_type(summary, Summary)
    summary.add(Run("a"))
    assert_type(summary.total, Totals)
    assert_type(summary.total.runs + summary.total.credits + summary.total.failed, int)
    assert_type(summary.first, datetime | None)
    assert_type(summary.days.totals, dict[tuple[date, str], Totals])
    assert_type(summary.statuses.top(3), tuple[list[tuple[str, Totals]], Totals])
    assert_type(summary.ranked_keys, list[tuple[str, KeySummary]])
    assert_type([error.text for error in summary.ranked_errors], list[str])
    assert_type([run.id for run in summary.costliest], list[str])
    assert_type(summary.remarks, list[str])
    assert_type([period.total for period in group_by_period(summary, 100).periods], list[Totals])
    write_report(summary, path, source="workflow W")
    write_report(summary, "report.html")


async def makes_wrong_calls(session: CopyAISession) -> None:
    """Wrong calls: each is an error for both type checkers."""
    run_batch(session, "W", [{"a": 1}])  # type: ignore[call-arg]  # the path is missing
    run_batch(session, "W", {"a": 1}, "results.jsonl")  # type: ignore[dict-item]  # one row
    run_batch(session, "W", [], "results.jsonl", True)  # type: ignore[call-arg]  # noqa: FBT003 (options have names)
    summarize(session.runs("W"))  # type: ignore[arg-type]  # an asynchronous iterable: pass each run to Summary.add
    write_report(summarize([]))  # type: ignore[call-arg]  # the path is missing
