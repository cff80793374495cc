"""Batches and reports as a type checker sees them; see ``api.py``."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import assert_type

from aiocopyai import JSON, CopyAIError, CopyAISession, Run, RunResult
from aiocopyai.batch import BatchError, BatchResults, read_rows, run_batch


async def runs_a_batch(session: CopyAISession, path: Path) -> None:
    """Rows of a file to runs, and the results."""
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


async def must_not_pass(session: CopyAISession) -> None:
    """Wrong calls, each refused by both checkers."""
    run_batch(session, "W", [{"a": 1}])  # type: ignore[call-arg]  # a batch has a file
    run_batch(session, "W", {"a": 1}, "results.jsonl")  # type: ignore[dict-item]  # one row
    run_batch(session, "W", [], "results.jsonl", True)  # type: ignore[call-arg]  # noqa: FBT003 (options have names)
