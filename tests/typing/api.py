"""The API as a type checker sees it. Never executed: mypy and pyright read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import assert_type

import aiohttp

from aiocopyai import (
    JSON,
    APIStatusError,
    CopyAIError,
    CopyAISession,
    Drift,
    Page,
    Pager,
    PaginationError,
    RateLimitedError,
    RetryPolicy,
    Run,
    RunStatus,
)


async def lists_runs() -> None:
    """A walk gives runs; its pages give pages of runs."""
    async with CopyAISession() as session:
        assert_type(session, CopyAISession)
        pager = session.runs("WCFG-1", page_size=50, limit=10, since=datetime(2026, 1, 1, tzinfo=UTC), prefetch=0)
        assert_type(pager, Pager[Run])
        async for run in pager:
            assert_type(run, Run)
        async for page in pager.pages():
            assert_type(page, Page[Run])
            assert_type(page.items, Sequence[Run])
        assert_type(pager.total, int | None)
        assert_type(pager.drift, Drift)
        assert_type([run.id async for run in pager], list[str])


async def reads_pages(session: CopyAISession) -> None:
    """The single calls."""
    page = await session.runs_page("WCFG-1", 2, size=100)
    assert_type(page, Page[Run])
    assert_type(page.number, int)
    assert_type(page.total, int | None)
    assert_type(await session.count_runs("WCFG-1"), int)
    await session.close()


def reads_a_run(run: Run) -> None:
    """What a run holds."""
    assert_type(run.id, str)
    assert_type(run.workflow_id, str | None)
    assert_type(run.status, RunStatus | None)
    assert_type(run.input, Mapping[str, JSON])
    assert_type(run.output, Mapping[str, JSON])
    assert_type(run.metadata, Mapping[str, JSON])
    assert_type(run.created_at, datetime | None)
    assert_type(run.credits, int | None)
    assert_type(run.error, JSON)
    assert_type(run.extra, Mapping[str, JSON])
    if run.status is not None:
        assert_type(run.status.is_final, bool)


def configures(http: aiohttp.ClientSession) -> CopyAISession:
    """Every option of a session."""
    policy = RetryPolicy(attempts=3, timeout=60.0, wait_initial=0.1, wait_max=5.0, wait_jitter=0.5)
    CopyAISession("key", timeout=aiohttp.ClientTimeout(total=5))
    return CopyAISession("key", base_url="https://example.com/api", http=http, timeout=5, retry=policy, max_rate=2.5)


async def handles_errors(session: CopyAISession) -> None:
    """What an error tells."""
    try:
        await session.count_runs("WCFG-1")
    except RateLimitedError as error:
        assert_type(error.retry_after, float | None)
    except APIStatusError as error:
        assert_type(error.status, int)
        assert_type(error.error_code, str | None)
        assert_type(error.details, JSON)
        assert_type(error.body, JSON)
        assert_type(error.headers, Mapping[str, str])
        assert_type(error.method, str)
        assert_type(error.url, str)
        assert_type(error.attempts, int)
    except PaginationError as error:
        assert_type(error.page, int | None)
    except CopyAIError as error:
        assert_type(str(error), str)
