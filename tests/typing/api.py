"""The types of the public API, for mypy and pyright. This file is not executed.

Each wrong call has a comment with its error. If a type checker does not report the error, the comment is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict, assert_type

import aiohttp
from aiohttp import web
from dlt.extract import DltSource

from aiocopyai import (
    JSON,
    AmbiguousStartError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AttemptInfo,
    AuthenticationError,
    BadRequestError,
    Changes,
    ConfigurationError,
    CopyAIError,
    CopyAISession,
    CreditLimitReachedError,
    InvalidEventError,
    InvalidResponseError,
    NotFoundError,
    Page,
    Pager,
    PaginationError,
    PermissionDeniedError,
    RateLimitedError,
    RequestInfo,
    RequestInvalidError,
    RetryInfo,
    RetryPolicy,
    Run,
    RunEvent,
    RunFailedError,
    RunResult,
    RunResults,
    RunStatus,
    RunTimeoutError,
    RunWatch,
    ServerError,
    Watch,
    Webhook,
    WebhookEvent,
    WebhookEventType,
)
from aiocopyai.integrations.dlt import copyai_source
from aiocopyai.webhooks import WebhookReceiver


async def lists_runs() -> None:
    """Iterating over a pager yields runs; its pages are pages of runs."""
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
        assert_type(pager.changes, Changes)
        assert_type(pager.changes.repeated + pager.changes.reread + pager.changes.missing, int)
        assert_type(pager.changes.first_total, int | None)
        assert_type(pager.changes.last_total, int | None)
        assert_type([run.id async for run in pager], list[str])
        assert_type(await pager.first(), Run | None)
        assert_type(await pager.collect(), list[Run])
        assert_type(await pager.collect(10), list[Run])
        assert_type(await session.webhooks().first(), Webhook | None)
        session.runs("WCFG-1", status="FAILED", metadata={"batch": 7, "api": [True, "yes"]})
        session.runs("WCFG-1", status={RunStatus.FAILED, "PAUSED"})


async def reads_pages(session: CopyAISession) -> None:
    """The calls of the API, one by one."""
    page = await session.runs_page("WCFG-1", 2, size=100)
    assert_type(page, Page[Run])
    assert_type(page.number, int)
    assert_type(page.total, int | None)
    assert_type(await session.count_runs("WCFG-1"), int)
    await session.close()


async def starts_runs(session: CopyAISession) -> None:
    """Starting runs, and waiting for them."""
    assert_type(await session.get_run("WCFG-1", "WRUN-1"), Run)
    assert_type(await session.start_run("WCFG-1", {"a": "b"}, metadata={"k": 1}, idempotency_key="x"), Run)
    assert_type(await session.find_run("WCFG-1", "x"), Run | None)
    assert_type(await session.wait_run("WCFG-1", "WRUN-1", timeout=None, max_poll_interval=5), Run)
    assert_type(await session.run_workflow("WCFG-1", {"a": [1, {"b": None}]}, timeout=300), Run)
    results = session.run_many("WCFG-1", [{"a": "b"}], concurrency=2, idempotency_key=lambda index, _row: str(index))
    session.run_many("WCFG-1", [], on_start=lambda index, run: (index + 1, run.id))
    assert_type(results, RunResults)
    async for result in results:
        assert_type(result, RunResult)
        assert_type(result.inputs, Mapping[str, Any])
        assert_type(result.index, int)
        assert_type(result.run, Run | None)
        assert_type(result.error, CopyAIError | ValueError | None)
        assert_type(result.ok, bool)
        assert_type(result.unwrap(), Run)
        assert_type(result.reused, bool)
        assert_type(result.idempotency_key, str | None)
    assert_type(results.in_progress, Sequence[Run])
    assert_type(results.unconfirmed, Sequence[int])
    assert_type(results.stopped_by, CopyAIError | None)
    await results.aclose()
    assert_type(results.unconfirmed_keys, Mapping[int, str])
    watch = session.watch("WCFG-1", interval=1, since=datetime(2026, 1, 1, tzinfo=UTC))
    assert_type(watch, Watch)
    async with aclosing(watch):
        event = await anext(watch)
        assert_type(event, RunEvent)
        assert_type(event.kind, Literal["new", "changed"])
        assert_type(event.run, Run)
        assert_type(event.previous_status, RunStatus | None)
    session.watch("WCFG-1", statuses={RunStatus.FAILED, "CANCELLED"})
    watched = session.watch_run("WCFG-1", "WRUN-1", max_poll_interval=2, final_statuses=["CANCELLED"])
    assert_type(watched, RunWatch)
    async with aclosing(watched):
        async for run in watched:
            assert_type(run, Run)
    day = timedelta(days=1)
    started = await session.start_run("WCFG-1", {}, idempotency_key="key", reuse_within=day)
    assert_type(started, Run)
    assert_type(await session.wait_run("WCFG-1", started.id, final_statuses={"CANCELLED"}), Run)
    assert_type(session.run_many("WCFG-1", [], idempotency_key=lambda n, _: f"{n}", reuse_within=day), RunResults)


class Lead(TypedDict):
    """Inputs of a workflow, as a program may declare them."""

    company: str
    tags: list[str]


async def takes_inputs_of_any_type(
    session: CopyAISession, lead: Lead, leads: list[Lead], read: Mapping[str, object], words: dict[str, str]
) -> None:
    """Inputs and metadata may be any mappings with strings as keys, such as a TypedDict."""
    await session.start_run("WCFG-1", lead, metadata=words)
    await session.run_workflow("WCFG-1", read, metadata=read)
    await session.find_run("WCFG-1", "key", inputs=lead)
    assert_type(session.run_many("WCFG-1", leads, idempotency_key=lambda _, row: row["company"]), RunResults)
    assert_type(session.run_many("WCFG-1", [words]), RunResults)


async def takes_rows_from_anywhere(session: CopyAISession, rows: AsyncIterator[Mapping[str, JSON]]) -> None:
    """The rows of run_many() may be any mappings, from any iterable."""
    assert_type(session.run_many("WCFG-1", rows), RunResults)
    assert_type(session.run_many("WCFG-1", ({"n": n} for n in range(3))), RunResults)


async def uses_webhooks(session: CopyAISession) -> None:
    """Webhooks and their events."""
    assert_type(session.webhooks(), Pager[Webhook])
    assert_type(await session.ensure_webhook("https://example.com", WebhookEventType.RUN_COMPLETED), Webhook)
    assert_type(await session.create_webhook("https://example.com", "workflowRun.failed", "WCFG-1"), Webhook)
    hook = await session.get_webhook("1")
    assert_type(hook.event_type, WebhookEventType | None)
    await session.delete_webhook(hook.id)
    await session.check_key()
    assert_type(hook.id, str)
    assert_type(hook.url, str | None)
    assert_type(hook.workflow_id, str | None)
    assert_type(hook.created_at, datetime | None)
    assert_type(hook.extra, Mapping[str, Any])


def reads_an_event(body: bytes, text: str, read: dict[str, JSON]) -> None:
    """The fields of an event."""
    event = WebhookEvent.parse(body)
    assert_type(event, WebhookEvent)
    assert_type(WebhookEvent.parse(text), WebhookEvent)
    assert_type(WebhookEvent.parse(read), WebhookEvent)
    assert_type(event.type, WebhookEventType)
    assert_type(event.run_id, str | None)
    assert_type(event.workflow_id, str | None)
    assert_type(event.output, Mapping[str, Any])
    assert_type(event.metadata, Mapping[str, Any])
    assert_type(event.credits, int | None)
    assert_type(event.run, Run | None)
    assert_type(event.extra, Mapping[str, Any])


async def receives_webhooks(
    session: CopyAISession, handler: Callable[[WebhookEvent], Awaitable[None]], app: web.Application
) -> None:
    """A receiver, for aiohttp and for ASGI."""
    receiver = WebhookReceiver(
        session, handler, secret="s" * 16, confirm=False, max_body=1_000, queue_size=5, grace=0.5
    )
    async with receiver as entered:
        assert_type(entered, WebhookReceiver)
        assert_type(receiver.path, str)
        assert_type(receiver.route(), web.RouteDef)
        app.add_routes([receiver.route()])
        assert_type(await receiver.accept("POST", receiver.path, {}, b"{}"), int)
        await receiver.asgi({}, _receive, _send)


async def _receive() -> dict[str, object]:
    return {}


async def _send(message: Mapping[str, object]) -> None: ...


def reads_a_run(run: Run) -> None:
    """The fields of a run."""
    assert_type(run.id, str)
    assert_type(run.workflow_id, str | None)
    assert_type(run.status, RunStatus | None)
    assert_type(run.input, Mapping[str, Any])
    assert_type(run.output, Mapping[str, Any])
    assert_type(run.metadata, Mapping[str, Any])
    assert_type(run.created_at, datetime | None)
    assert_type(run.credits, int | None)
    assert_type(run.error, JSON)
    if isinstance(run.error, dict):  # its shape is not documented
        message: JSON = run.error["message"]
        assert_type(str(message), str)
    assert_type(run.output_json("a"), Any)
    title: str = run.output["Post"]["title"]
    words: list[str] = run.output_json("Post")["words"] if title else run.input["words"]
    assert_type(words, list[str])
    assert_type(run.to_dict(), dict[str, Any])
    assert_type(run.to_json(), str)
    assert_type(run.extra, Mapping[str, Any])
    if run.status is not None:
        assert_type(run.status.is_final, bool)


def configures(http: aiohttp.ClientSession) -> CopyAISession:
    """Every option of a session."""
    policy = RetryPolicy(attempts=3, timeout=60.0, wait_initial=0.1, wait_max=5.0, wait_jitter=0.5)
    CopyAISession("key", timeout=aiohttp.ClientTimeout(total=5))
    return CopyAISession(
        "key",
        base_url="https://example.com/api",
        http_session=http,
        timeout=5,
        retry=policy,
        max_rate=2.5,
        trust_env=False,
    )


async def changes_options(session: CopyAISession) -> None:
    """A session with other options, and the arguments of its hooks."""

    def observe(attempt: AttemptInfo) -> None:
        assert_type(attempt.method + attempt.path, str)
        assert_type(attempt.attempt, int)
        assert_type(attempt.status, int | None)
        assert_type(attempt.seconds, float)

    retries: list[RetryInfo] = []
    CopyAISession("key", timeout=None, retry=3, default_headers={"x-a": "b"}, user_agent="a/1", on_request=observe)
    assert_type(session.with_options(), CopyAISession)
    async with session.with_options(timeout=None, retry=1, on_request=None, on_retry=retries.append) as view:
        assert_type(view, CopyAISession)
    session.with_options(retry=RetryPolicy(), default_headers=None, user_agent=None, on_request=observe)
    for retry in retries:
        assert_type(retry.method + retry.path + retry.reason, str)
        assert_type(retry.attempt, int)
        assert_type(retry.status, int | None)
        assert_type(retry.wait, float)
    session.with_options(max_rate=5)  # type: ignore[call-arg]  # the rate limit is shared
    session.with_options(retry="3")  # type: ignore[arg-type]  # not a number
    await session.aclose()


def reads_a_retry_policy(policy: RetryPolicy) -> None:
    """The fields of a retry policy."""
    assert_type(policy.attempts, int | None)
    assert_type(policy.timeout, float | None)
    assert_type(policy.wait_initial, float)
    assert_type(policy.wait_max, float)
    assert_type(policy.wait_jitter, float)
    RetryPolicy(attempts=None, timeout=None)


def loads_runs() -> None:
    """A source for dlt, with a function that creates the session."""
    source = copyai_source(["WCFG-1"], session=lambda: CopyAISession(max_rate=1), look_back=timedelta(hours=1))
    assert_type(source, DltSource)


async def handles_errors(session: CopyAISession) -> None:
    """The fields of errors."""
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
        assert_type(error.workflow_id, str)
        assert_type(error.run_id, str)
        assert_type(error.seconds, float)
        assert_type(error.status, RunStatus | None)
    except AmbiguousStartError as error:
        assert_type(error.reason, str)
        assert_type(error.workflow_id, str)
        assert_type(error.idempotency_key, str | None)
    except InvalidResponseError as error:
        assert_type(error.place, str)
        assert_type(error.excerpt, str)
    except APIConnectionError as error:
        assert_type(error.url, str)
        assert_type(error.attempts, int)
    except PaginationError as error:
        assert_type(error.page, int | None)
    except CopyAIError as error:
        assert_type(str(error), str)
        assert_type(error.message, str)
        assert_type(error.summary, str)
        assert_type(error.request, RequestInfo | None)
        assert_type(error.ambiguous, bool)
        assert_type(error.retryable, bool)


def reads_a_request(request: RequestInfo) -> None:
    """The fields of an error's request."""
    assert_type(request.method, str)
    assert_type(request.url, str)
    assert_type(request.attempts, int)


def catches_errors(error: CopyAIError) -> None:
    """The base classes of errors."""
    statuses: list[type[APIStatusError]] = [
        *(BadRequestError, AuthenticationError, PermissionDeniedError, NotFoundError, RequestInvalidError),
        *(RateLimitedError, ServerError),
    ]
    bad: type[BadRequestError] = CreditLimitReachedError
    values: list[type[ValueError]] = [ConfigurationError, InvalidEventError]
    timeouts: list[type[TimeoutError]] = [APITimeoutError, RunTimeoutError]
    connection: type[APIConnectionError] = APITimeoutError
    assert_type(isinstance(error, (*statuses, bad, *values, *timeouts, connection)), bool)


async def makes_wrong_calls(
    session: CopyAISession, run: Run, page: Page[Run], hook: Webhook, result: RunResult
) -> None:
    """Wrong calls: each is an error for both type checkers."""
    CopyAISession(api_key=5)  # type: ignore[arg-type]  # not a string
    CopyAISession("key", "https://h/api")  # type: ignore[call-arg]  # options are named
    CopyAISession("key", timeout="5")  # type: ignore[arg-type]  # not a number
    RetryPolicy(attempt=3)  # type: ignore[call-arg]  # misspelled
    session.runs()  # type: ignore[call-arg]  # the workflow is missing
    session.runs("WCFG-1", 50)  # type: ignore[call-arg]  # options are named
    session.runs("WCFG-1", since="2026-01-01")  # type: ignore[arg-type]  # not a datetime
    session.runs("WCFG-1", order="newest")  # type: ignore[call-arg]  # the API cannot sort
    for _ in session.runs("WCFG-1"):  # type: ignore[attr-defined]  # only async for
        pass
    await session.runs("WCFG-1")  # type: ignore[misc]  # a pager is iterated, not awaited
    await session.watch("WCFG-1")  # type: ignore[misc]  # the same
    await session.start_run("WCFG-1", ["a"])  # type: ignore[arg-type]  # inputs have names
    await session.start_run("WCFG-1", {}, idempotency_key=5)  # type: ignore[arg-type]  # not a string
    await session.wait_run(run)  # type: ignore[call-arg, arg-type]  # takes ids
    session.run_many("WCFG-1", {"a": "b"})  # type: ignore[dict-item]  # one row instead of rows
    await session.create_webhook("https://h/x")  # type: ignore[call-arg]  # the event is missing
    run.status = RunStatus.FAILED  # type: ignore[misc]  # read-only
    page.items.append(run)  # type: ignore[attr-defined]  # the same
    run.output["a"] = "b"  # type: ignore[index]  # the same
    hook.url.upper()  # type: ignore[union-attr]  # it may be absent
    run.credits + 1  # type: ignore[operator]  # the same
    str(result.run.id)  # type: ignore[union-attr]  # None after a failure
    WebhookEvent.parse(5)  # type: ignore[arg-type]  # not a body
    WebhookReceiver(session, print)  # type: ignore[arg-type]  # not an async function
