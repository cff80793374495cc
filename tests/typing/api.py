"""The API as a type checker sees it. Never executed: mypy and pyright read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import assert_type

import aiohttp
from dlt.extract import DltSource

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
    RunFailedError,
    RunResult,
    RunResults,
    RunStatus,
    RunTimeoutError,
    Webhook,
    WebhookEvent,
    WebhookEventType,
)
from aiocopyai.integrations.dlt import copyai_source


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


async def starts_runs(session: CopyAISession) -> None:
    """Starts, and what is waited for."""
    assert_type(await session.get_run("WCFG-1", "WRUN-1"), Run)
    assert_type(await session.start_run("WCFG-1", {"a": "b"}, metadata={"k": 1}, idempotency_key="x"), Run)
    assert_type(await session.find_run("WCFG-1", "x"), Run | None)
    assert_type(await session.wait_run("WCFG-1", "WRUN-1", timeout=None, poll=5), Run)
    assert_type(await session.run_workflow("WCFG-1", {"a": [1, {"b": None}]}, timeout=300), Run)
    results = session.run_many("WCFG-1", [{"a": "b"}], concurrency=2, idempotency_key=lambda index, _row: str(index))
    assert_type(results, RunResults)
    async for result in results:
        assert_type(result, RunResult)
        assert_type(result.inputs, Mapping[str, JSON])
        assert_type(result.run, Run | None)
    assert_type(results.under_way, Sequence[Run])
    assert_type(session.watch("WCFG-1"), AsyncIterator[Run])


async def uses_webhooks(session: CopyAISession) -> None:
    """Webhooks, and what they deliver."""
    assert_type(session.webhooks(), Pager[Webhook])
    assert_type(await session.ensure_webhook("https://example.com", WebhookEventType.RUN_COMPLETED), Webhook)
    assert_type(await session.register_webhook("https://example.com", "workflowRun.failed", "WCFG-1"), Webhook)
    hook = await session.get_webhook("1")
    assert_type(hook.event_type, WebhookEventType | None)
    await session.delete_webhook(hook.id)
    await session.check_key()
    event = WebhookEvent.parse(b"{}")
    assert_type(event.run, Run | None)
    assert_type(event.output, Mapping[str, JSON])


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
    assert_type(run.output_json("a"), JSON)
    assert_type(run.extra, Mapping[str, JSON])
    if run.status is not None:
        assert_type(run.status.is_final, bool)


def configures(http: aiohttp.ClientSession) -> CopyAISession:
    """Every option of a session."""
    policy = RetryPolicy(attempts=3, timeout=60.0, wait_initial=0.1, wait_max=5.0, wait_jitter=0.5)
    CopyAISession("key", timeout=aiohttp.ClientTimeout(total=5))
    return CopyAISession("key", base_url="https://example.com/api", http=http, timeout=5, retry=policy, max_rate=2.5)


def loads_runs() -> None:
    """A source for dlt, with any way to make a session."""
    source = copyai_source(["WCFG-1"], session=lambda: CopyAISession(max_rate=1), look_back=timedelta(hours=1))
    assert_type(source, DltSource)


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
    except RunFailedError as error:
        assert_type(error.run, Run)
        assert_type(error.error, JSON)
    except RunTimeoutError as error:
        assert_type(error.run_id, str)
    except PaginationError as error:
        assert_type(error.page, int | None)
    except CopyAIError as error:
        assert_type(str(error), str)
