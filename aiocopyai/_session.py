"""`CopyAISession`: a short method for each call of the API, and for each operation that combines calls."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from types import EllipsisType, TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar
from weakref import WeakSet

import aiohttp
from attrs import evolve
from yarl import URL

from aiocopyai._filters import read_statuses, run_filter
from aiocopyai._idempotency import Starter, StartRequest, check_reuse_within, time_before_now, with_key
from aiocopyai._json import HAS_MSGSPEC, encode_json
from aiocopyai._key_search import CLOCK_SKEW, KEY_NAME, KeySearch
from aiocopyai._logging import configure_from_environment
from aiocopyai._pager import MAX_PREFETCH, Pager, Plan
from aiocopyai._parsing import (
    parse_response,
    read_nothing,
    read_run,
    read_started_id,
    read_webhook,
    read_webhook_page,
)
from aiocopyai._redaction import Secret
from aiocopyai._request_options import AttemptInfo, RequestOptions, RetryInfo
from aiocopyai._retry import RetryPolicy
from aiocopyai._run_many import Inputs, RunManyPlan, RunResults
from aiocopyai._run_pages import RunPageParser
from aiocopyai._tasks import TaskSet
from aiocopyai._text import escape
from aiocopyai._transport import APIRequest, Connections, Transport, proxy_from_environment
from aiocopyai._validation import (
    MAX_PAGE_SIZE,
    check_api_key,
    check_callback,
    check_datetime,
    check_integer,
    check_page_size,
    check_positive,
    check_rate,
    check_rows,
    check_string,
    check_webhook,
    is_loopback,
    json_object,
    normalized_base_url,
    path_segment,
)
from aiocopyai._waiting import RunPoller, WaitOptions, wait_for_run
from aiocopyai._watch import RunWatch, Watch, WatchPlan
from aiocopyai.errors import (
    AmbiguousStartError,
    ConfigurationError,
    CopyAIError,
    InvalidResponseError,
    NotFoundError,
)
from aiocopyai.models import JSON, Page, Run, Webhook, WebhookEventType


T = TypeVar("T")

DEFAULT_BASE_URL: Final = "https://api.copy.ai/api"


class CopyAISession:
    """A client session for the Copy.ai Workflows API. It belongs to one event loop.

    Use it as ``async with CopyAISession() as session``, or call ``await session.close()`` at the end.

    Args:
        api_key: the workspace's API key; by default the value of ``COPYAI_API_KEY``.
        base_url: the API's URL; by default the value of ``COPYAI_BASE_URL``, or ``https://api.copy.ai/api``. A URL with
            ``http://`` is accepted for loopback addresses only.
        http_session: your own ``aiohttp.ClientSession``, for example with a connector, proxy, certificates or tracing.
            This session does not close it, and uses at most as many connections as its connector allows.
        timeout: seconds for one attempt, including its connection and its body, or an ``aiohttp.ClientTimeout``; None
            for no limit. Waiting for a free connection or for `max_rate` does not count.
        retry: how often, and with which waits, a request is retried; ``3`` is the same as ``RetryPolicy(attempts=3)``.
        max_rate: the maximum number of requests per second of this session; None for no limit.
        trust_env: use the proxy in ``HTTPS_PROXY``, except for the hosts in ``NO_PROXY`` and loopback addresses, but no
            logins in ``~/.netrc``. With `http_session`, set a proxy there instead.
        default_headers: headers to send with each request, such as those for a gateway. The values must be printable
            ASCII, and no `repr` shows them. Headers that the client sets itself, and those for the key, are rejected.
        user_agent: the ``User-Agent`` header; by default ``aiocopyai/`` and its version.
        on_request: called with an `AttemptInfo` after each attempt, including those that fail or are cancelled. It is
            called in the event loop, so it must not block. If it raises an exception, that is logged, and the request
            is not affected.
        on_retry: called with a `RetryInfo` before each wait for another attempt, in the same way.

    Raises:
        ConfigurationError: there is no API key, or an argument is invalid.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        http_session: aiohttp.ClientSession | None = None,
        timeout: float | aiohttp.ClientTimeout | None = 30.0,
        retry: RetryPolicy | int = RetryPolicy(),  # noqa: B008 (immutable)
        max_rate: float | None = None,
        trust_env: bool = False,
        default_headers: Mapping[str, str] | None = None,
        user_agent: str | None = None,
        on_request: Callable[[AttemptInfo], object] | None = None,
        on_retry: Callable[[RetryInfo], object] | None = None,
    ) -> None:
        # Before anything can raise: some tools show the variables of each frame of a traceback.
        wrong_type = None if api_key is None or isinstance(api_key, str) else type(api_key).__name__
        api_key = Secret(api_key or os.environ.get("COPYAI_API_KEY") or "")
        if wrong_type is not None:
            raise ConfigurationError(f"api_key must be a string, got an object of type {wrong_type}")
        configure_from_environment()
        if not api_key:
            raise ConfigurationError("no API key: set the environment variable COPYAI_API_KEY, or pass api_key")
        check_api_key(api_key)
        url = normalized_base_url(base_url or os.environ.get("COPYAI_BASE_URL") or DEFAULT_BASE_URL)
        if http_session is not None and not isinstance(http_session, aiohttp.ClientSession):
            raise ConfigurationError(
                f"http_session must be an aiohttp.ClientSession, got an object of type {type(http_session).__name__}"
            )
        options = RequestOptions(timeout, retry, default_headers, user_agent, on_request, on_retry)
        if max_rate is not None:
            check_rate("max_rate", max_rate)
        if trust_env and http_session is not None:
            raise ConfigurationError("trust_env cannot be combined with http_session: set a proxy on your own session")
        # A proxy could not reach this machine's own address, and would receive the key unencrypted with ``http://``.
        proxy = proxy_from_environment(url) if trust_env and not is_loopback(URL(url).host or "") else None
        self._set_up(Transport(api_key, url, Connections.create(http_session, max_rate), options, proxy=proxy))

    def _set_up(self, transport: Transport, parent: CopyAISession | None = None) -> None:
        self._transport = transport
        self._parent = parent
        self._views: WeakSet[CopyAISession] = WeakSet()
        self._tasks = TaskSet()
        self._run_pages = RunPageParser()
        self._starter: Starter = Starter(
            post=self._post_run,
            list_runs=lambda workflow_id, since: self.runs(workflow_id, since=since, prefetch=0),
            get_run=self.get_run,
            retry=transport.options.retry,
            shared=None if parent is None else parent._starter,  # noqa: SLF001 (of the same class)
        )

    def with_options(
        self,
        *,
        timeout: float | aiohttp.ClientTimeout | EllipsisType | None = ...,
        retry: RetryPolicy | int | EllipsisType = ...,
        default_headers: Mapping[str, str] | EllipsisType | None = ...,
        user_agent: str | EllipsisType | None = ...,
        on_request: Callable[[AttemptInfo], object] | EllipsisType | None = ...,
        on_retry: Callable[[RetryInfo], object] | EllipsisType | None = ...,
    ) -> Self:
        """Return a session with other options: ``await session.with_options(timeout=300).get_run(…)``.

        Options that are not passed are those of this session. The returned session shares the key, the connections, the
        rate limit and the idempotency keys of this one. You need not close it: closing this session closes both.
        Closing the returned session ends its own iterations and requests only.

        Args:
            timeout: as for the class.
            retry: as for the class.
            default_headers: as for the class; they replace those of this session.
            user_agent: as for the class.
            on_request: as for the class; None for no hook.
            on_retry: as for the class; None for no hook.

        Raises:
            ConfigurationError: an argument is invalid.
        """
        given = {
            "timeout": timeout,
            "retry": retry,
            "default_headers": default_headers,
            "user_agent": user_agent,
            "on_request": on_request,
            "on_retry": on_retry,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not ...}
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)  # includes the attributes of a subclass
        view._set_up(self._transport.with_options(evolve(self._transport.options, **changes)), self)
        self._views.add(view)
        return view

    def _with_unparsed_runs(self) -> Self:
        """Return a session for exports: its runs are only for `run_columns`, which is then faster with msgspec."""
        view = self.with_options()
        if HAS_MSGSPEC:
            from aiocopyai._unparsed_runs import UnparsedRunPageParser  # noqa: PLC0415 (needs msgspec)

            view._run_pages = UnparsedRunPageParser()  # noqa: SLF001 (of the same class)
        return view

    def __repr__(self) -> str:
        # A debugger may show a session whose constructor raised.
        transport = getattr(self, "_transport", None)
        return f"<CopyAISession: {'invalid' if transport is None else transport.base_url}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError(
            "a CopyAISession cannot be pickled or copied, because it holds an API key: create a new one instead"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the requests in progress and close the connections. Your own `http_session` stays open."""
        for view in tuple(self._views):
            await view.close()
        await self._tasks.cancel()
        await self._transport.close(with_connections=self._parent is None)

    async def aclose(self) -> None:
        """Do the same as `close`, under the name that ``contextlib.aclosing`` expects."""
        await self.close()

    def runs(
        self,
        workflow_id: str,
        *,
        page_size: int = MAX_PAGE_SIZE,
        start_page: int = 1,
        limit: int | None = None,
        since: datetime | None = None,
        status: str | Collection[str] | None = None,
        metadata: Mapping[str, object] | None = None,
        prefetch: int | None = None,
    ) -> Pager[Run]:
        """List the runs of a workflow: ``async for run in session.runs(workflow_id)``.

        ``GET /workflow/{id}/run?size=&page=`` for each page. Every run that stays in the list during the iteration is
        yielded once, for any `prefetch`. The order is the server's: it is not documented, and newest first in the only
        example of the reference. A run that is found when a part of the list is read again is yielded then. Nothing is
        sent before the iteration.

        Args:
            workflow_id: the workflow's id, such as ``WCFG-…``.
            page_size: the number of runs to request with each page, 1 to 100.
            start_page: the number of the first page to read, from 1. To continue in another process after an error,
                pass its `page`.
            limit: the number of runs after which to stop; runs that `since`, `status` and `metadata` exclude do not
                count. None for all.
            since: yield only runs without a creation time, and runs created at or after this time, which must have a
                time zone. Reading ends early only if the pages are sorted from newest to oldest.
            status: yield only runs with this status, or with one of these, such as ``{"FAILED", "RETRYING"}``. Case is
                ignored.
            metadata: yield only runs with each of these keys in their metadata, with this value or with one of these:
                ``{"batch": [7, 8]}``. Values are compared as text, so ``7`` equals ``"7"``. A run that is listed
                without metadata is left out. The API has no filters, so every page is requested.
            prefetch: the maximum number of requests in progress, 1 to 100, or 0 to request a page only when it is
                needed. By default up to 4, and up to 16 while the caller waits for pages; fewer after a 429, and if
                the caller is slower than the server. With 2 or more, the first page is requested again at the end, and
                every 100 pages, to verify that no run was skipped.

        Raises:
            ValueError: an argument is invalid; raised by the call, before anything is sent.
            PaginationError: the list does not advance; raised while iterating.
            CopyAIError: a page cannot be read; raised while iterating. Its `page` is the number of the page, and the
                next step of the iterator requests it again.
        """
        path_segment("workflow_id", workflow_id)
        check_page_size("page_size", page_size)
        check_integer("start_page", start_page, 1)
        if prefetch is not None:
            check_integer("prefetch", prefetch, 0, MAX_PREFETCH)
        if limit is not None:
            check_integer("limit", limit, 0)
        check_datetime("since", since)
        plan = Plan(
            f"runs of {escape(workflow_id)}",
            page_size,
            start_page,
            limit=limit,
            since=since,
            prefetch=prefetch,
            matches=run_filter(status, metadata),
            slowdowns=lambda: self._transport.slowdowns,
            tasks=self._tasks,
        )
        return Pager(partial(self._fetch_runs, workflow_id), plan)

    async def runs_page(self, workflow_id: str, page: int = 1, *, size: int = 10) -> Page[Run]:
        """Read one page of a workflow's runs: ``GET /workflow/{id}/run?size=&page=``.

        Args:
            workflow_id: the workflow's id.
            page: the number of the page, from 1.
            size: the number of runs to request, 1 to 100; 10 is the API's own default.

        Raises:
            ValueError: an argument is invalid.
            CopyAIError: the page cannot be read. The response to a page after the end is not documented: it may be an
                error, or an empty page.
        """
        check_integer("page", page, 1)
        check_page_size("size", size)
        try:
            return await self._fetch_runs(workflow_id, page, size)
        except CopyAIError as error:
            error.page = page
            raise

    async def count_runs(self, workflow_id: str) -> int:
        """Return the number of a workflow's runs, the `total` of its list, with one request.

        Raises:
            ValueError: the id is invalid.
            InvalidResponseError: the response has no `total`.
            CopyAIError: the request failed.
        """
        page = await self._fetch_runs(workflow_id, 1, 1)
        if page.total is None:
            raise InvalidResponseError("the number of runs is missing", "data.total")
        return page.total

    async def get_run(self, workflow_id: str, run_id: str) -> Run:
        """Read one run, finished or not: ``GET /workflow/{id}/run/{run_id}``.

        Raises:
            ValueError: an id is invalid.
            NotFoundError: there is no such run. A run that was just started may be unknown for up to a minute (seen in
                a public application, not documented).
            CopyAIError: the request failed.
        """
        request = APIRequest("GET", f"{_runs_path(workflow_id)}/{path_segment('run_id', run_id)}")
        return await self._send(request, partial(read_run, workflow_id=workflow_id))

    async def start_run(
        self,
        workflow_id: str,
        inputs: Mapping[str, object],
        *,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        reuse_within: timedelta | None = None,
    ) -> Run:
        """Start a run, which spends credits: ``POST /workflow/{id}/run``.

        The start is retried only if the server cannot have accepted it: no connection was made, or the response was a
        425 or 429. After a lost response (a time-out, a reset, a 5xx) it is unconfirmed. Without an `idempotency_key`,
        an unconfirmed start raises `AmbiguousStartError`.

        With an `idempotency_key`, the key is sent in the run's metadata as ``idempotencyKey``. If the start is
        unconfirmed, the newest runs are searched for the key for a few seconds. Only if it is not found, the start is
        sent again, within the `RetryPolicy`.

        In one session, a workflow and a key identify one run: another call waits for the first one, or returns its run,
        or searches for it if it is unconfirmed. The session remembers the latest 10,000 keys. The API does not check
        keys: runs that other processes or sessions started are found only with `reuse_within`, and two processes that
        start at the same time may start two runs.

        Args:
            workflow_id: the workflow's id.
            inputs: the start variables by name: any JSON.
            metadata: JSON values by name that the API stores with the run.
            idempotency_key: a string that identifies this start; a failed run keeps its key.
            reuse_within: first search for a run with this key that any process started within this time, and return it
                instead of starting another. This takes one request for each 100 runs of that time, and needs an
                `idempotency_key`.

        Returns:
            The run with its id, its workflow's id, its inputs and its metadata. Its status is known only if the run was
            found by a search.

        Raises:
            ValueError: an argument is invalid, or a start with this key had other inputs, in this session or in a run
                that `reuse_within` found.
            AmbiguousStartError: a run may have been started.
            CreditLimitReachedError: the workspace is out of credits.
            CopyAIError: the run was not started.
        """
        check_reuse_within(reuse_within, has_key=idempotency_key is not None)
        request = _start_request(workflow_id, inputs, metadata, idempotency_key)
        run, _ = await self._starter.start(request, reuse_within)
        return run

    async def find_run(
        self,
        workflow_id: str,
        idempotency_key: str,
        *,
        inputs: Mapping[str, object] | None = None,
        since: datetime | None = None,
    ) -> Run | None:
        """Search a workflow's runs for the one that was started with an idempotency key.

        Args:
            workflow_id: the workflow's id.
            idempotency_key: the key of the start.
            inputs: the inputs of the start, if you know them; they exclude runs that do not show their metadata.
            since: search only runs created at or after this time, which must have a time zone; None for all.

        Returns:
            The run, with its workflow's id and its inputs; None if no listed run has the key.

        Raises:
            ValueError: an argument is invalid.
            AmbiguousStartError: the key was not found, but a run without visible metadata may have it.
            CopyAIError: the runs cannot be read.
        """
        found = await self.find_runs(workflow_id, {idempotency_key: inputs}, since=since)
        run = found.get(idempotency_key)
        if isinstance(run, AmbiguousStartError):
            raise run
        return run

    async def find_runs(
        self,
        workflow_id: str,
        idempotency_keys: Mapping[str, Mapping[str, object] | None],
        *,
        since: datetime | None = None,
    ) -> dict[str, Run | AmbiguousStartError]:
        """Search a workflow's runs for those that were started with these idempotency keys, in one listing.

        Args:
            workflow_id: the workflow's id.
            idempotency_keys: the keys of the starts, each with the inputs of its start, or None if you do not know
                them.
            since: search only runs created at or after this time, which must have a time zone; None for all.

        Returns:
            The runs by their keys. A key that was not found is missing, or has an `AmbiguousStartError` if a run
            without visible metadata may have it.

        Raises:
            ValueError: an argument is invalid.
            CopyAIError: the runs cannot be read.
        """
        path_segment("workflow_id", workflow_id)
        check_datetime("since", since)
        for key in idempotency_keys:
            check_string("idempotency_key", key)
        searches = [
            KeySearch(key, None if inputs is None else json_object("inputs", inputs))
            for key, inputs in idempotency_keys.items()
        ]
        return await self._starter.find(workflow_id, searches, since)

    async def wait_run(
        self,
        workflow_id: str,
        run_id: str,
        *,
        timeout: float | None = 600.0,  # noqa: ASYNC109 (the deadline's error names the run)
        max_poll_interval: float = 15.0,
        final_statuses: Collection[str] = (),
    ) -> Run:
        """Wait until a run is finished, and return it.

        The first poll is immediate, and the second after at most 1 s. Each later interval is longer by half, up to
        `max_poll_interval`, and is shortened at random by up to a quarter. Retryable errors are tolerated, and so is a
        404 for 60 s. A run that is ``COMPLETE`` without output is polled one more time, because its output may be late.

        Args:
            workflow_id: the workflow's id.
            run_id: the run's id.
            timeout: seconds to wait in total; None for no limit.
            max_poll_interval: the maximum seconds between two polls.
            final_statuses: statuses that the API reference does not name and with which a run is finished, such as
                ``{"CANCELLED", "TIMED_OUT"}``. A run with one of them is returned, so check its `status`.

        Raises:
            ValueError: an argument is invalid.
            RunFailedError: the run ended with the status ``FAILED``; the error's `run` is the run.
            RunTimeoutError: the run was not finished in time; the error has the ids to continue waiting.
            CopyAIError: the run cannot be read, and the error is not retryable.
        """
        options = WaitOptions(timeout, max_poll_interval, final_statuses)
        path_segment("workflow_id", workflow_id)
        path_segment("run_id", run_id)
        return await wait_for_run(self.get_run, workflow_id, run_id, options)

    async def run_workflow(
        self,
        workflow_id: str,
        inputs: Mapping[str, object],
        *,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        reuse_within: timedelta | None = None,
        timeout: float | None = 600.0,  # noqa: ASYNC109 (the deadline's error names the run)
        max_poll_interval: float = 15.0,
        final_statuses: Collection[str] = (),
    ) -> Run:
        """Start a run, wait until it is finished, and return it: `start_run`, then `wait_run`.

        The `timeout` begins when the run is started. The run's id is logged at level INFO as soon as it is known.

        Args:
            workflow_id: as for `start_run`.
            inputs: as for `start_run`.
            metadata: as for `start_run`.
            idempotency_key: as for `start_run`.
            reuse_within: as for `start_run`.
            timeout: as for `wait_run`.
            max_poll_interval: as for `wait_run`.
            final_statuses: as for `wait_run`.

        Raises:
            ValueError: as for both methods.
            CopyAIError: as for both methods. An exception after the start has a note with the run's id.
        """
        options = WaitOptions(timeout, max_poll_interval, final_statuses)
        run = await self.start_run(
            workflow_id, inputs, metadata=metadata, idempotency_key=idempotency_key, reuse_within=reuse_within
        )
        try:
            return await wait_for_run(self.get_run, workflow_id, run.id, options)
        except BaseException as error:
            error.add_note(f"run {run.id} of {workflow_id} was started")
            raise

    def run_many(
        self,
        workflow_id: str,
        rows: Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]],
        *,
        concurrency: int = 8,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: Callable[[int, Inputs], str] | None = None,
        reuse_within: timedelta | None = None,
        wait: bool = True,
        timeout: float | None = 600.0,
        max_poll_interval: float = 15.0,
        final_statuses: Collection[str] = (),
        on_start: Callable[[int, Run], object] | None = None,
    ) -> RunResults:
        """Run a workflow for each row of inputs: ``async for result in session.run_many(workflow_id, rows)``.

        Rows are read one by one, when `concurrency` allows another run, and each result is yielded when its run is
        finished. A failed row is a result with an error. After a `CreditLimitReachedError`, or if the API key is
        rejected, no more runs are started, and the results of the started runs are still yielded. If `rows` raises an
        exception, it is raised after these results, too. Each start has an idempotency key, so that a lost response
        does not cost a second run. Nothing is started before the iteration.

        Args:
            workflow_id: the workflow's id.
            rows: the inputs of each run: an iterable or an asynchronous iterable, which may be infinite. An
                asynchronous one is iterated in one task, and closed at the end.
            concurrency: the maximum number of runs in progress; with ``wait=False``, of starts.
            metadata: JSON values by name that the API stores with each run.
            idempotency_key: a function that returns the key of a row, given its index from 0 and its inputs; None for
                random keys.
            reuse_within: first search for runs with the rows' keys that any process started within this time, and use
                them instead of starting others; `RunResult.reused` is then True. Up to 1,000 rows are read ahead and
                searched for in one listing. Rows that are not started after 30 s are searched for again. It needs an
                `idempotency_key`.
            wait: whether to wait until each run is finished; if False, each run is yielded as soon as it is started.
            timeout: seconds to wait for each run; None for no limit.
            max_poll_interval: the maximum seconds between two polls of a run.
            final_statuses: as for `wait_run`.
            on_start: called with the index of a row and its run when the run is started or reused, for example to store
                its id before the wait. It is called in the event loop, so it must not block. If it raises an exception,
                no more runs are started, and the exception is raised after the results of the other started runs.

        Raises:
            ValueError: an argument is invalid; raised by the call, before anything is sent.
        """
        path_segment("workflow_id", workflow_id)
        options = WaitOptions(timeout, max_poll_interval, final_statuses)
        check_integer("concurrency", concurrency, 1)
        check_rows(rows)
        if KEY_NAME in json_object("metadata", metadata or {}):
            raise ValueError(
                f"metadata must not have {KEY_NAME!r}, which differs per row: pass idempotency_key instead"
            )
        check_reuse_within(reuse_within, has_key=idempotency_key is not None)
        check_callback("idempotency_key", idempotency_key)
        check_callback("on_start", on_start)

        async def start(inputs: Inputs, key: str) -> tuple[Run, bool]:
            request = _start_request(workflow_id, inputs, metadata, key)
            return await self._starter.start(evolve(request, is_one_off=idempotency_key is None))

        async def search(rows_by_key: Mapping[str, Inputs], age: float | None) -> Mapping[str, AmbiguousStartError]:
            span = reuse_within or timedelta()
            if age is not None:
                span = min(span, timedelta(seconds=age) + CLOCK_SKEW)
            requests: dict[str, StartRequest] = {}
            for key, inputs in rows_by_key.items():
                with suppress(ValueError):  # raised again by the start, as the row's result
                    requests[key] = _start_request(workflow_id, inputs, metadata, key)
            return await self._starter.reuse(workflow_id, requests, time_before_now(span))

        plan = RunManyPlan(
            name=f"runs of {escape(workflow_id)}",
            concurrency=concurrency,
            make_key=idempotency_key or (lambda _index, _inputs: str(uuid.uuid4())),
            start=start,
            on_start=on_start,
            wait=(lambda run: wait_for_run(self.get_run, workflow_id, run.id, options)) if wait else None,
            search=None if reuse_within is None else search,
            tasks=self._tasks,
        )
        return RunResults(plan, rows)

    def watch_run(
        self,
        workflow_id: str,
        run_id: str,
        *,
        max_poll_interval: float = 5.0,
        final_statuses: Collection[str] = (),
    ) -> RunWatch:
        """Follow a run until it is finished: ``async for run in session.watch_run(workflow_id, run_id)``.

        The run is yielded when it is first read, and again whenever its status, output, error or credits have changed.
        The last item is the finished run, even if it failed. Polling and the tolerated errors are as for `wait_run`. If
        a step is cancelled, no change is lost, so ``asyncio.wait_for(anext(watch), 1)`` may be repeated.

        Args:
            workflow_id: the workflow's id.
            run_id: the run's id.
            max_poll_interval: the maximum seconds between two polls.
            final_statuses: as for `wait_run`.

        Raises:
            ValueError: an argument is invalid; raised by the call, before anything is sent.
            CopyAIError: the run cannot be read, and the error is not retryable; raised while iterating.
        """
        path_segment("workflow_id", workflow_id)
        path_segment("run_id", run_id)
        options = WaitOptions(None, max_poll_interval, final_statuses)
        return RunWatch(RunPoller(self.get_run, workflow_id, run_id, options), self._tasks)

    def watch(
        self,
        workflow_id: str,
        *,
        interval: float = 10.0,
        since: datetime | None = None,
        statuses: str | Collection[str] | None = None,
    ) -> Watch:
        """Watch a workflow without end: ``async for event in session.watch(workflow_id)``.

        An event is yielded for each new run, and for each later change of its status. Each round reads the runs of the
        last ten minutes again, and up to 20 older ones that are not finished. A run that appears in the list more than
        ten minutes after its creation is missed. Outages are tolerated, with growing waits. Requests are sent only
        while the next event is awaited. If that is cancelled, no event is lost, and the next step continues.

        Args:
            workflow_id: the workflow's id.
            interval: seconds between two rounds.
            since: begin with the runs created at or after this time, which must have a time zone; None to begin with
                new runs. Then the latest existing runs are yielded when their status changes.
            statuses: yield only the events of runs that now have this status, or one of these, such as
                ``{"COMPLETE", "FAILED"}``; None for all. Case is ignored.

        Raises:
            ValueError: an argument is invalid; raised by the call, before anything is sent.
            CopyAIError: the key is rejected, or the workflow does not exist; raised while iterating.
        """
        path_segment("workflow_id", workflow_id)
        check_positive("interval", interval)
        check_datetime("since", since)
        plan = WatchPlan(
            workflow_id=workflow_id,
            interval=interval,
            since=since,
            statuses=None if statuses is None else read_statuses("statuses", statuses),
            list_runs=lambda since, limit, page_size, start_page: self.runs(
                workflow_id, page_size=page_size, start_page=start_page, limit=limit, since=since, prefetch=0
            ),
            get_run=partial(self.get_run, workflow_id),
        )
        return Watch(plan, self._tasks)

    def webhooks(self) -> Pager[Webhook]:
        """List the workspace's webhooks, each once: ``async for webhook in session.webhooks()``.

        ``GET /webhook?size=&page=`` for each page. The API counts the pages of this list from 0, but `Page.number` and
        an error's `page` count from 1.

        Raises:
            CopyAIError: a page cannot be read; raised while iterating. The next step of the iterator requests it again.
        """
        return Pager(self._fetch_webhooks, Plan("webhooks", MAX_PAGE_SIZE, prefetch=0, tasks=self._tasks))

    async def create_webhook(
        self, url: str, event_type: WebhookEventType | str, workflow_id: str | None = None
    ) -> Webhook:
        """Create a webhook: ``POST /webhook``. Each call creates another one; see also `ensure_webhook`.

        Args:
            url: the URL to which Copy.ai posts. Deliveries are not signed, so the URL should contain a secret.
            event_type: the type of the events, such as `WebhookEventType.RUN_COMPLETED`.
            workflow_id: the workflow whose events are posted; None for all workflows of the workspace.

        Raises:
            ValueError: an argument is invalid.
            CopyAIError: the request failed. If its `ambiguous` is True, the webhook may have been created.
        """
        check_webhook(url, event_type, workflow_id)
        body: dict[str, JSON] = {"url": url, "eventType": str(event_type)}
        if workflow_id is not None:
            body["workflowId"] = workflow_id
        return await self._send(APIRequest("POST", "webhook", encode_json("the webhook", body)), read_webhook)

    async def ensure_webhook(
        self, url: str, event_type: WebhookEventType | str, workflow_id: str | None = None
    ) -> Webhook:
        """Return the webhook with this URL, event type and workflow, or create it if there is none.

        Call it at each start of a service. Two calls at the same time may create two webhooks. URLs are compared in
        their normalized form, and an empty `workflow_id` is the same as None.

        Args:
            url: as for `create_webhook`.
            event_type: as for `create_webhook`.
            workflow_id: as for `create_webhook`.

        Raises:
            ValueError: an argument is invalid.
            CopyAIError: a request failed.
        """
        workflow_id = workflow_id or None
        check_webhook(url, event_type, workflow_id)
        if (existing := await self._find_webhook(url, event_type, workflow_id)) is not None:
            return existing
        try:
            return await self.create_webhook(url, event_type, workflow_id)
        except CopyAIError as error:
            if error.ambiguous and (created := await self._find_webhook(url, event_type, workflow_id)) is not None:
                return created
            raise

    async def get_webhook(self, webhook_id: str) -> Webhook:
        """Read one webhook: ``GET /webhook/{id}``.

        Raises:
            ValueError: the id is invalid.
            NotFoundError: there is no such webhook.
            CopyAIError: the request failed.
        """
        request = APIRequest("GET", f"webhook/{path_segment('webhook_id', webhook_id)}")
        return await self._send(request, read_webhook)

    async def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook: ``DELETE /webhook/{id}``.

        Raises:
            ValueError: the id is invalid.
            NotFoundError: there is no such webhook. In rare cases this call has deleted it: if a kept-alive connection
                was closed, aiohttp itself sends the DELETE a second time.
            CopyAIError: the request failed.
        """
        request = APIRequest("DELETE", f"webhook/{path_segment('webhook_id', webhook_id)}")
        try:
            await self._transport.send(request, read_nothing)
        except NotFoundError as error:
            # After a retry, an attempt whose response was lost may have deleted it.
            if error.attempts == 1:
                raise

    async def check_key(self) -> None:
        """Check that the API accepts the key, by listing one webhook: ``GET /webhook?size=1&page=0``.

        The API has no call that checks a key. This one only reads, and is assumed to cost nothing. It does not show
        whether the key can read or start the runs of a workflow.

        Raises:
            AuthenticationError: the key is not accepted.
            PermissionDeniedError: the key is accepted, but may not list webhooks.
            CopyAIError: the request failed.
        """
        await self._fetch_webhooks(1, 1)

    async def _fetch_runs(self, workflow_id: str, page: int, size: int) -> Page[Run]:
        # The vendor's pages differ on whether this path ends in a slash.
        request = APIRequest("GET", f"{_runs_path(workflow_id)}?size={size}&page={page}")
        parse = partial(self._run_pages.parse, number=page, size=size, workflow_id=workflow_id)
        return await self._transport.send(request, parse)

    async def _find_webhook(self, url: str, event_type: str, workflow_id: str | None) -> Webhook | None:
        wanted = _webhook_identity(url, event_type, workflow_id)
        async for webhook in self.webhooks():
            if _webhook_identity(webhook.url, webhook.event_type, webhook.workflow_id) == wanted:
                return webhook
        return None

    async def _fetch_webhooks(self, page: int, size: int) -> Page[Webhook]:
        request = APIRequest("GET", f"webhook?size={size}&page={page - 1}")
        return await self._send(request, partial(read_webhook_page, number=page, size=size))

    async def _send(self, request: APIRequest, read: Callable[[JSON], T]) -> T:
        return await self._transport.send(request, partial(parse_response, read=read))

    async def _post_run(self, start: StartRequest) -> Run:
        body: dict[str, JSON] = {"startVariables": dict(start.inputs)}
        if start.metadata:
            body["metadata"] = dict(start.metadata)
        request = APIRequest("POST", _runs_path(start.workflow_id), encode_json("the inputs", body))
        return start.to_run(await self._send(request, read_started_id))


def _runs_path(workflow_id: str) -> str:
    return f"workflow/{path_segment('workflow_id', workflow_id)}/run"


def _webhook_identity(url: str | None, event_type: str | None, workflow_id: str | None) -> tuple[object, ...]:
    """Return values that are equal if two webhooks are the same.

    The examples of the reference show "all workflows" as null, as an empty string and by a missing field.
    """
    address: object
    try:
        parsed = URL(url or "")
        origin = parsed.scheme, parsed.raw_user, parsed.raw_password, parsed.raw_host, parsed.port
        address = (*origin, parsed.raw_path, parsed.raw_query_string)
    except ValueError:
        address = url
    return address, event_type, workflow_id or None


def _start_request(
    workflow_id: str, inputs: Mapping[str, object], metadata: Mapping[str, object] | None, key: str | None
) -> StartRequest:
    """Check the arguments of a start, and return them as a request."""
    path_segment("workflow_id", workflow_id)
    metadata_with_key = with_key(json_object("metadata", metadata or {}), key)
    return StartRequest(workflow_id, json_object("inputs", inputs), metadata_with_key, key)
