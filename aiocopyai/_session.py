"""`CopyAISession`: one short method for each call of the API, and for each verb above them."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import EllipsisType, TracebackType
from typing import Any, Final, NoReturn, Self
from weakref import WeakSet

import aiohttp
from attrs import evolve
from yarl import URL

from aiocopyai._filters import read_statuses, run_filter
from aiocopyai._idempotency import CLOCK_SKEW, KEY_NAME, KeySearch, Starter, StartRequest, check_reuse_within, with_key
from aiocopyai._json import encode_json
from aiocopyai._logging import configure_from_environment
from aiocopyai._pager import MAX_PREFETCH, Pager, Plan
from aiocopyai._parsing import (
    read_run,
    read_run_page,
    read_started_id,
    read_webhook,
    read_webhook_page,
)
from aiocopyai._redaction import Secret
from aiocopyai._request_options import AttemptInfo, RequestOptions, RetryInfo
from aiocopyai._retry import RetryPolicy
from aiocopyai._run_many import Inputs, RunManyPlan, RunResults
from aiocopyai._tasks import TaskSet
from aiocopyai._text import escape
from aiocopyai._transport import APIRequest, Connections, Transport, proxy_from_environment
from aiocopyai._validation import (
    MAX_PAGE_SIZE,
    base_url_without_slash,
    check_api_key,
    check_datetime,
    check_integer,
    check_page_size,
    check_positive,
    check_rows,
    check_seconds,
    check_string,
    check_url,
    json_object,
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


VENDOR_URL: Final = "https://api.copy.ai/api"


class CopyAISession:
    """A connection to the Copy.ai Workflows API, for one event loop.

    Use it as ``async with CopyAISession() as session``, or call ``await session.close()`` at the end.

    Args:
        api_key: the workspace's API key; by default the environment variable ``COPYAI_API_KEY``.
        base_url: the API's URL; by default ``COPYAI_BASE_URL``, then ``https://api.copy.ai/api``. Unencrypted
            ``http://`` is accepted for loopback addresses only.
        http_session: your own ``aiohttp.ClientSession``, with the connector, proxy, TLS and tracing that you need. It
            is not closed by this one, which uses at most as many connections at a time as its connector allows.
        timeout: seconds for one attempt, from the start of the connection to the end of the body, or an
            ``aiohttp.ClientTimeout``; None for no limit. Waiting for a free connection or for `max_rate` does not
            count.
        retry: when and how often a request is retried that may be sent again; ``3`` is the same as
            ``RetryPolicy(attempts=3)``.
        max_rate: the maximum number of requests per second of this session; None for no limit.
        trust_env: use the proxy that ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` name. Logins in ``~/.netrc`` are
            not used. With `http_session`, set a proxy there instead.
        default_headers: headers to send with each request, such as those that a gateway asks for. The values must be
            printable ASCII, and no `repr` shows them. The headers that the client sets itself, and those for the key,
            are refused.
        user_agent: the ``User-Agent`` header; by default ``aiocopyai/`` and its version.
        on_request: called with an `AttemptInfo` after each attempt of a request, also of one that failed or was
            cancelled. It is called in the event loop, so it must not block. An exception that it raises is logged, and
            does not affect the request.
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
        kind = None if api_key is None or isinstance(api_key, str) else type(api_key).__name__
        api_key = Secret(api_key or os.environ.get("COPYAI_API_KEY") or "")
        if kind is not None:
            raise ConfigurationError(f"api_key must be a string, got an object of type {kind}")
        configure_from_environment()
        if not api_key:
            raise ConfigurationError("no API key: set the environment variable COPYAI_API_KEY, or pass api_key")
        check_api_key(api_key)
        url = base_url_without_slash(base_url or os.environ.get("COPYAI_BASE_URL") or VENDOR_URL)
        if http_session is not None and not isinstance(http_session, aiohttp.ClientSession):
            raise ConfigurationError(
                f"http_session must be an aiohttp.ClientSession, got an object of type {type(http_session).__name__}"
            )
        options = RequestOptions(timeout, retry, default_headers, user_agent, on_request, on_retry)
        if max_rate is not None:
            check_positive("max_rate", max_rate, "requests per second, or None", error=ConfigurationError)
        if trust_env and http_session is not None:
            raise ConfigurationError("trust_env cannot be combined with http_session: set a proxy on your own session")
        proxy = proxy_from_environment(url) if trust_env else None
        self._set_up(Transport(api_key, url, Connections.create(http_session, max_rate), options, proxy=proxy))

    def _set_up(self, transport: Transport, parent: CopyAISession | None = None) -> None:
        self._transport = transport
        self._parent = parent
        self._views: WeakSet[CopyAISession] = WeakSet()
        self._tasks = TaskSet()
        self._starter: Starter = Starter(
            self._post_run,
            lambda workflow_id, since: self.runs(workflow_id, since=since, prefetch=0),
            self.get_run,
            transport.options.retry,
            None if parent is None else parent._starter,  # noqa: SLF001 (of the same class)
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

        It uses the same connections, key and rate limit, and the same memory of idempotency keys. It need not be
        closed: closing it ends its own lists and requests and leaves this session as it is, while closing this session
        closes it, too.

        Args:
            timeout: as for the class; by default that of this session, as for all arguments.
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
        view.__dict__.update(self.__dict__)  # for what a subclass adds
        view._set_up(self._transport.with_options(evolve(self._transport.options, **changes)), self)
        self._views.add(view)
        return view

    def __repr__(self) -> str:
        # Half-constructed if the constructor raised, as a debugger may show it.
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
        """Cancel the requests in progress and close the connections; your own `http_session` stays open."""
        for view in tuple(self._views):
            await view.close()
        await self._tasks.cancel()
        await self._transport.close(with_connections=self._parent is None)

    async def aclose(self) -> None:
        """Do the same as `close`, for ``contextlib.aclosing`` and the like."""
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

        Nothing is sent before it is iterated. Each run is yielded once, in the server's order (not documented; newest
        first in the one example of the reference), and none that stays on the list while it is read is missing, for
        any `prefetch`. Runs that are found when a part of the list is read again are yielded then.

        Args:
            workflow_id: the workflow's id, such as ``WCFG-…``.
            page_size: the number of runs to request with each page, 1 to 100.
            start_page: the page to start at, from 1; after an error, its `page` continues in another process.
            limit: the number of runs after which to stop, those counted that `since`, `status` and `metadata` select;
                None for all.
            since: yield only runs created at or after this time, which must have a time zone, and runs without a time.
                Reading ends early only while the list proves to be newest first.
            status: yield only runs with this status, or one of these, such as ``{"FAILED", "RETRYING"}``; in any case.
            metadata: yield only runs that have each of these keys in their metadata, with this value or one of these:
                ``{"batch": [7, 8]}``. Values are compared as text, so that ``7`` and ``"7"`` are equal. The API has no
                filters: every page is requested, and a run that is listed without its metadata is left out.
            prefetch: the largest number of requests in progress while the caller works, up to 100; 0 for none. By
                default 4, and up to 16 while the caller waits for pages; fewer again after a 429, and if the caller is
                slower than the server. With 2 or more, the first page is requested once more at the end and every 100
                pages, to prove that no run was skipped.

        Raises:
            ValueError: an argument is invalid; raised here, before anything is sent.
            PaginationError: while iterating: the list does not advance.
            CopyAIError: while iterating. Its `page` is the number of the page; the next step requests it again.
        """
        path = _runs_path(workflow_id)
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
        return Pager(lambda page, size: self._fetch_runs(path, workflow_id, page, size), plan)

    async def runs_page(self, workflow_id: str, page: int = 1, *, size: int = 10) -> Page[Run]:
        """Read one page of a workflow's runs, as the server returns it.

        Args:
            workflow_id: the workflow's id.
            page: the number of the page, from 1.
            size: the number of runs to request, 1 to 100.

        Raises:
            ValueError: an argument is invalid.
            CopyAIError: no response, or an error. A page after the end may be an error, or empty.
        """
        path = _runs_path(workflow_id)
        check_integer("page", page, 1)
        check_page_size("size", size)
        try:
            return await self._fetch_runs(path, workflow_id, page, size)
        except CopyAIError as error:
            error.page = page
            raise

    async def count_runs(self, workflow_id: str) -> int:
        """Return the `total` of a workflow's runs, from a page of one run.

        Raises:
            ValueError: the id is invalid.
            InvalidResponseError: the response has no `total`.
            CopyAIError: no response, or an error.
        """
        page = await self._fetch_runs(_runs_path(workflow_id), workflow_id, 1, 1)
        if page.total is None:
            raise InvalidResponseError("no count of the runs", "data.total")
        return page.total

    async def _fetch_runs(self, path: str, workflow_id: str, page: int, size: int) -> Page[Run]:
        """``GET /workflow/{id}/run?size=&page=``; the vendor's pages differ on whether the path ends in a slash."""
        request = APIRequest("GET", f"{path}?size={size}&page={page}")
        return await self._transport.send(
            request, lambda response, is_exact: read_run_page(response, page, size, workflow_id, is_exact=is_exact)
        )

    async def get_run(self, workflow_id: str, run_id: str) -> Run:
        """Read one run, finished or not: ``GET /workflow/{id}/run/{run_id}``.

        Raises:
            ValueError: an id is invalid.
            NotFoundError: there is no such run; a run that was just started may be unknown for up to a minute.
            CopyAIError: no response, or an error.
        """
        request = APIRequest("GET", f"{_runs_path(workflow_id)}/{path_segment('run_id', run_id)}")
        return await self._transport.send(
            request, lambda response, is_exact: read_run(response, workflow_id, is_exact=is_exact)
        )

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

        It is sent again without asking only if the server cannot have accepted it: no connection was made, or 429.
        After a lost response (a time-out, a reset, 5xx) it is unconfirmed whether there is a run. Without an
        `idempotency_key` that is an `AmbiguousStartError`.

        A key is sent in the run's metadata as ``idempotencyKey``. After a lost response, the newest runs are searched
        for it for a few seconds, and only if it is not found is the start sent again, within the `RetryPolicy`. In one
        session a workflow and a key identify one run: a call in progress is waited for, a finished one is not repeated,
        and an unconfirmed one is searched for. The session remembers the latest 10,000 keys. The API itself does not
        check keys: runs that other processes or earlier sessions started are found only with `reuse_within`, and two
        processes that start at the same time may start two runs.

        Args:
            workflow_id: the workflow's id.
            inputs: the start variables by name: any JSON.
            metadata: JSON values by name that the API stores with the run.
            idempotency_key: a string that no other start has; a run that failed keeps its key.
            reuse_within: first search for a run with this key that was created within this time, by any process, and
                return it instead of starting another. It takes one request for each 100 runs created in that time, and
                needs an `idempotency_key`.

        Returns:
            The run with its id, its workflow's id, and what was sent. Its status is not known, unless it was found.

        Raises:
            ValueError: an argument is invalid, or the key was used for other inputs, in this session or by a run that
                `reuse_within` found.
            AmbiguousStartError: a run may or may not have been started.
            CreditLimitReachedError: the workspace is out of credits.
            CopyAIError: the run was not started.
        """
        check_reuse_within(reuse_within, has_key=idempotency_key is not None)
        run, _ = await self._starter.start(_start(workflow_id, inputs, metadata, idempotency_key), reuse_within)
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
            idempotency_key: the key that `start_run` was called with.
            inputs: the inputs that it was started with, if known; they rule out runs that do not show their metadata.
            since: search only runs created at or after this time, which must have a time zone; None for all.

        Returns:
            The run, with its workflow's id and its inputs; None if no listed run has the key.

        Raises:
            ValueError: an argument is invalid.
            AmbiguousStartError: it was not found, but some run shows too little to be ruled out.
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
        """Search a workflow's runs for those that were started with some idempotency keys, in one listing.

        Args:
            workflow_id: the workflow's id.
            idempotency_keys: the keys that `start_run` was called with, each with the inputs of its run, or None if
                they are not known.
            since: search only runs created at or after this time, which must have a time zone; None for all.

        Returns:
            The runs by their keys, and an `AmbiguousStartError` for a key that was not found while some run shows too
            little to be ruled out. A key that is missing belongs to no listed run.

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

        The first poll is immediate, the second after 1 s. Each later interval is longer by half, up to
        `max_poll_interval`, and shortened by some jitter. Temporary errors are tolerated, and so is a 404 in the first
        60 s. A run that is ``COMPLETE`` without any output is polled once more, as its output may be late.

        Args:
            workflow_id: the workflow's id.
            run_id: the run's id.
            timeout: seconds to wait in total; None for no limit.
            max_poll_interval: seconds between two polls at most.
            final_statuses: statuses that the API reference does not name and with which a run is finished, such as
                ``{"CANCELLED", "TIMED_OUT"}``. A run with one of them is returned, so check its `status`.

        Raises:
            ValueError: an argument is invalid.
            RunFailedError: the run ended as ``FAILED``; it is the error's `run`.
            RunTimeoutError: it did not finish in time; the error has the ids to continue waiting with.
            CopyAIError: it cannot be read, and trying again will not help.
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

        The `timeout` begins when the run is started. The run's id is logged as soon as it is known.

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
            ValueError: as in both; raised before anything is sent.
            CopyAIError: as in both. What is raised after the start has a note with the run's id.
        """
        options = WaitOptions(timeout, max_poll_interval, final_statuses)
        check_reuse_within(reuse_within, has_key=idempotency_key is not None)
        run, _ = await self._starter.start(_start(workflow_id, inputs, metadata, idempotency_key), reuse_within)
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
    ) -> RunResults:
        """Run a workflow for each row of inputs: ``async for result in session.run_many(workflow_id, rows)``.

        Nothing is started before it is iterated. Rows are read one by one, whenever the concurrency allows another run,
        and each result is yielded as soon as its run finishes. A failed row is a result with an error. After a
        `CreditLimitReachedError`, or if the key is refused, nothing more is started, and the results of what was
        started are still yielded. An exception of `rows` is raised after them, too. Each start has an idempotency key,
        so that a lost response does not cost a second run.

        Args:
            workflow_id: the workflow's id.
            rows: the inputs of each run; an iterable or an asynchronous one, which may be endless. An asynchronous one
                is iterated in one task, and closed at the end.
            concurrency: the maximum number of runs in progress.
            metadata: JSON values by name that the API stores with each run.
            idempotency_key: returns a row's key, given its index from 0 and its inputs; a random one by default.
            reuse_within: first search for runs with the rows' keys that were created within this time, by any process,
                and use them instead of starting others; their results are `RunResult.reused`. Up to 1,000 rows are read
                ahead and searched for in one listing, and rows that are still to be started after 30 s are searched for
                again among the newest runs. It needs an `idempotency_key`.
            wait: whether to wait until each run is finished; False yields each as soon as it is started, and
                `concurrency` is then that of the starts.
            timeout: seconds to wait for each run; None for no limit.
            max_poll_interval: seconds between two polls of a run at most.
            final_statuses: as for `wait_run`.

        Raises:
            ValueError: an argument is invalid; raised here, before anything is sent.
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

        async def start(inputs: Inputs, key: str) -> tuple[Run, bool]:
            request = _start(workflow_id, inputs, metadata, key)
            return await self._starter.start(evolve(request, is_one_off=idempotency_key is None))

        async def search(rows_by_key: Mapping[str, Inputs], age: float | None) -> Mapping[str, AmbiguousStartError]:
            window = reuse_within or timedelta()
            if age is not None:
                window = min(window, timedelta(seconds=age) + CLOCK_SKEW)
            requests: dict[str, StartRequest] = {}
            for key, inputs in rows_by_key.items():
                with suppress(ValueError):  # raised again by the start, as the row's result
                    requests[key] = _start(workflow_id, inputs, metadata, key)
            return await self._starter.reuse(workflow_id, requests, datetime.now(UTC) - window)

        plan = RunManyPlan(
            name=f"runs of {escape(workflow_id)}",
            concurrency=concurrency,
            make_key=idempotency_key or _random_key,
            start=start,
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

        The run is yielded as it is first read, and again whenever its status, output, error or credits have changed.
        The last one is the finished run, also if it ended as ``FAILED``. It polls, and tolerates errors, as `wait_run`
        does. Nothing is lost if a step is cancelled: ``asyncio.wait_for(anext(watch), 1)`` may be repeated.

        Args:
            workflow_id: the workflow's id.
            run_id: the run's id.
            max_poll_interval: seconds between two polls at most.
            final_statuses: as for `wait_run`.

        Raises:
            ValueError: an argument is invalid; raised here, before anything is sent.
            CopyAIError: while iterating: the run cannot be read, and trying again will not help.
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

        There is one event for each new run, and one for each later change of its status. Each round reads the runs of
        the last ten minutes again, and some of the older ones that are not finished. A run that appears in the list
        later than that is missed. Outages are tolerated, with growing waits. Requests are sent only while the next
        event is awaited. If that is cancelled, the request in progress continues, and the next call waits for it.

        Args:
            workflow_id: the workflow's id.
            interval: seconds between two rounds.
            since: begin with the runs created at or after this time, which must have a time zone; None to begin with
                new runs. In that case the latest runs are yielded as soon as their status changes.
            statuses: yield only the events of runs that now have this status, or one of these, such as
                ``{"COMPLETE", "FAILED"}``, in any case; None for all.

        Raises:
            ValueError: an argument is invalid; raised here, before anything is sent.
            CopyAIError: while iterating, if continuing will not help: the key is refused, or there is no such
                workflow.
        """
        path_segment("workflow_id", workflow_id)
        check_seconds("interval", interval)
        check_datetime("since", since)
        plan = WatchPlan(
            workflow_id,
            interval,
            since,
            None if statuses is None else read_statuses("statuses", statuses),
            lambda since, limit, page_size, start_page: self.runs(
                workflow_id, page_size=page_size, start_page=start_page, limit=limit, since=since, prefetch=0
            ),
            lambda run_id: self.get_run(workflow_id, run_id),
        )
        return Watch(plan, self._tasks)

    def webhooks(self) -> Pager[Webhook]:
        """List the workspace's webhooks: ``async for webhook in session.webhooks()``. Each is yielded once.

        The API counts the pages of this list from 0, and sends it without an envelope; an error's `page` counts from 1.

        Raises:
            CopyAIError: while iterating; the next step requests that page again.
        """
        return Pager(self._fetch_webhooks, Plan("webhooks", MAX_PAGE_SIZE, prefetch=0, tasks=self._tasks))

    async def create_webhook(
        self, url: str, event_type: WebhookEventType | str, workflow_id: str | None = None
    ) -> Webhook:
        """Create a webhook for an event: ``POST /webhook``. Each call creates another one: see `ensure_webhook`.

        Args:
            url: where Copy.ai posts; deliveries are not signed, so the URL should hold a secret.
            event_type: one event, such as `WebhookEventType.RUN_COMPLETED`.
            workflow_id: the workflow whose runs are reported; None for all of the workspace.

        Raises:
            ValueError: an argument is invalid.
            CopyAIError: no response, or an error; its `ambiguous` says whether the webhook may have been created.
        """
        _check_webhook(url, event_type, workflow_id)
        body: dict[str, JSON] = {"url": url, "eventType": str(event_type)}
        if workflow_id is not None:
            body["workflowId"] = workflow_id
        return await self._transport.send(
            APIRequest("POST", "webhook", encode_json("the webhook", body)), lambda response, _: read_webhook(response)
        )

    async def ensure_webhook(
        self, url: str, event_type: WebhookEventType | str, workflow_id: str | None = None
    ) -> Webhook:
        """Return the webhook with these arguments, those of `create_webhook`, or create it if there is none.

        A service can call it at each start. Two calls at the same time can create two. URLs are compared in
        their normalized form, and an empty `workflow_id` is the same as None.

        Raises:
            ValueError: an argument is invalid.
            CopyAIError: no response, or an error.
        """
        workflow_id = workflow_id or None
        _check_webhook(url, event_type, workflow_id)
        if (existing := await self._find_webhook(url, event_type, workflow_id)) is not None:
            return existing
        try:
            return await self.create_webhook(url, event_type, workflow_id)
        except CopyAIError as error:
            created = await self._find_webhook(url, event_type, workflow_id) if error.ambiguous else None
            if created is None:
                raise
            return created

    async def get_webhook(self, webhook_id: str) -> Webhook:
        """Read one webhook: ``GET /webhook/{id}``.

        Raises:
            ValueError: the id is invalid.
            NotFoundError: there is no such webhook.
            CopyAIError: no response, or an error.
        """
        request = APIRequest("GET", f"webhook/{path_segment('webhook_id', webhook_id)}")
        return await self._transport.send(request, lambda response, _: read_webhook(response))

    async def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook: ``DELETE /webhook/{id}``.

        Raises:
            ValueError: the id is invalid.
            NotFoundError: there is no such webhook. In rare cases this call has deleted it: aiohttp sends a DELETE
                again by itself on a connection that turns out to be closed.
            CopyAIError: no response, or an error.
        """
        request = APIRequest("DELETE", f"webhook/{path_segment('webhook_id', webhook_id)}")
        try:
            await self._transport.send(request, lambda _response, _: None)
        except NotFoundError as error:
            # After a retry, an attempt whose response was lost may have deleted it.
            if error.attempts == 1:
                raise

    async def check_key(self) -> None:
        """Check that the API accepts the key, by listing one webhook: ``GET /webhook?size=1&page=0``.

        The API has no call for that purpose. This one is inferred to change nothing and to cost nothing. It says
        nothing about a workflow: whether the key can read or start its runs shows only when it does.

        Raises:
            AuthenticationError: the key is not accepted.
            PermissionDeniedError: the key is accepted, but may not list webhooks.
            CopyAIError: no response, or another error.
        """
        await self._fetch_webhooks(1, 1)

    async def _find_webhook(self, url: str, event_type: str, workflow_id: str | None) -> Webhook | None:
        wanted = _webhook_identity(url, event_type, workflow_id)
        async for webhook in self.webhooks():
            if _webhook_identity(webhook.url, webhook.event_type, webhook.workflow_id) == wanted:
                return webhook
        return None

    async def _fetch_webhooks(self, page: int, size: int) -> Page[Webhook]:
        request = APIRequest("GET", f"webhook?size={size}&page={page - 1}")
        return await self._transport.send(request, lambda response, _: read_webhook_page(response, page, size))

    async def _post_run(self, start: StartRequest) -> Run:
        body: dict[str, JSON] = {"startVariables": dict(start.inputs)}
        if start.metadata:
            body["metadata"] = dict(start.metadata)
        request = APIRequest("POST", _runs_path(start.workflow_id), encode_json("the inputs", body))
        return start.to_run(await self._transport.send(request, lambda response, _: read_started_id(response)))


def _runs_path(workflow_id: str) -> str:
    return f"workflow/{path_segment('workflow_id', workflow_id)}/run"


def _check_webhook(url: str, event_type: str, workflow_id: str | None) -> None:
    check_url(url)
    check_string("event_type", event_type)
    if workflow_id is not None:
        path_segment("workflow_id", workflow_id)


def _webhook_identity(url: str | None, event_type: str | None, workflow_id: str | None) -> tuple[object, ...]:
    """Return what two registrations of the same webhook have in common.

    The vendor's examples show "all workflows" as null, as an empty string and by a missing field.
    """
    address: object
    try:
        parsed = URL(url or "")
        origin = parsed.scheme, parsed.raw_user, parsed.raw_password, parsed.raw_host, parsed.port
        address = (*origin, parsed.raw_path, parsed.raw_query_string)
    except ValueError:
        address = url
    return address, event_type, workflow_id or None


def _random_key(_index: int, _inputs: Inputs) -> str:
    return str(uuid.uuid4())


def _start(
    workflow_id: str, inputs: Mapping[str, object], metadata: Mapping[str, object] | None, key: str | None
) -> StartRequest:
    """Check the arguments of a start."""
    path_segment("workflow_id", workflow_id)
    sent = with_key(json_object("metadata", metadata or {}), key)
    return StartRequest(workflow_id, json_object("inputs", inputs), sent, key)
