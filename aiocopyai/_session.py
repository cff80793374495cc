"""`CopyAISession`: one short method for each call of the API."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime
from types import TracebackType
from typing import Final, Self

import aiohttp

from aiocopyai._pager import Pager, Plan
from aiocopyai._retry import RetryPolicy
from aiocopyai._transport import Transport, path_segment
from aiocopyai._wire import read_run_page
from aiocopyai.errors import ConfigurationError, CopyAIError, InvalidResponseError
from aiocopyai.models import Page, Run


VENDOR_URL: Final = "https://api.copy.ai/api"
MAX_PAGE_SIZE: Final = 100
"""The most runs that the vendor's reference lets a page have."""


class CopyAISession:
    """A connection to the Copy.ai Workflows API, for one event loop.

    Use it as ``async with CopyAISession() as session``, or end it by ``await session.close()``.

    Args:
        api_key: the workspace's key; by default that in the environment variable ``COPYAI_API_KEY``.
        base_url: where the API is; by default ``COPYAI_BASE_URL``, then ``https://api.copy.ai/api``.
            Cleartext ``http://`` is taken for loopback addresses only.
        http: an ``aiohttp.ClientSession`` of your own, with the connector, proxy, TLS and tracing that you need.
            It is never closed here.
        timeout: seconds for one attempt, its body included; or an ``aiohttp.ClientTimeout``.
        retry: what is sent again, how often and how patiently.
        max_rate: requests a second, over all that this session sends; None for no limit.

    Raises:
        ConfigurationError: no key anywhere, or one of these can't be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        http: aiohttp.ClientSession | None = None,
        timeout: float | aiohttp.ClientTimeout = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (immutable)
        max_rate: float | None = None,
    ) -> None:
        key = api_key or os.environ.get("COPYAI_API_KEY")
        if not key:
            msg = "no API key: set the environment variable COPYAI_API_KEY, or pass api_key"
            raise ConfigurationError(msg)
        self._transport = Transport(
            key,
            base_url or os.environ.get("COPYAI_BASE_URL") or VENDOR_URL,
            http=http,
            timeout=timeout,
            retry=retry,
            max_rate=max_rate,
        )
        self._tasks: set[asyncio.Task[object]] = set()

    def __repr__(self) -> str:
        return f"<CopyAISession: {self._transport.base_url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the requests under way and the connections; what was passed as `http` stays open."""
        under_way = list(self._tasks)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._transport.close()

    def runs(
        self,
        workflow_id: str,
        *,
        page_size: int = MAX_PAGE_SIZE,
        start_page: int = 1,
        limit: int | None = None,
        since: datetime | None = None,
        prefetch: int = 4,
    ) -> Pager[Run]:
        """List the runs of a workflow: ``async for run in session.runs(workflow_id)``.

        Nothing is sent before it is iterated. Each run comes once, in the server's order (undocumented; newest first in
        the vendor's one example), and none is lost that stays on the list while it is read. With `prefetch` there is
        one exception: runs added and removed in equal number between the requests of one window can hide a run that
        they moved; ``prefetch=0`` has no such gap.

        Args:
            workflow_id: the workflow's id, such as ``WCFG-…``; opaque, passed on percent-encoded.
            page_size: runs asked for with each page, 1 to 100.
            start_page: the page to begin at; an error's `page` is what goes here to go on in another process.
            limit: give no more runs than this; None for all.
            since: give only runs created at or after this moment, which must have a time zone. The walk stops early
                only while the list proves to be newest first. Runs of unknown time are given.
            prefetch: pages asked for ahead and held, at the most; 0 for none.

        Raises:
            ValueError: an argument is out of range; raised here, before anything is sent.
            CopyAIError: while iterating. Its `page` names the page; the next step asks for that page again.
        """
        path = _runs_path(workflow_id)
        _check_page_size("page_size", page_size)
        _check_whole("start_page", start_page, 1)
        _check_whole("prefetch", prefetch, 0)
        if limit is not None:
            _check_whole("limit", limit, 0)
        if since is not None and (not isinstance(since, datetime) or since.utcoffset() is None):
            msg = f"since must be a datetime with a time zone, such as datetime(2026, 1, 1, tzinfo=UTC), not {since!r}"
            raise ValueError(msg)
        name = f"runs of {workflow_id}"
        plan = Plan(name, page_size, start_page, limit, since, prefetch, self._tasks)
        return Pager(lambda page, size: self._fetch_runs(path, page, size), plan)

    async def runs_page(self, workflow_id: str, page: int = 1, *, size: int = 10) -> Page[Run]:
        """Read one page of a workflow's runs, as it stands: of `size` runs (1 to 100), pages counted from 1.

        Raises:
            ValueError: an argument is out of range.
            CopyAIError: no page came; for a page past the end some servers answer with an error, others with no items.
        """
        path = _runs_path(workflow_id)
        _check_whole("page", page, 1)
        _check_page_size("size", size)
        try:
            return await self._fetch_runs(path, page, size)
        except CopyAIError as error:
            error.page = page
            raise

    async def count_runs(self, workflow_id: str) -> int:
        """Ask how many runs a workflow has, by the server's account: one request, of one run.

        Raises:
            ValueError: the id can't be one.
            InvalidResponseError: the server doesn't say.
            CopyAIError: no answer, or an error.
        """
        page = await self.runs_page(workflow_id, size=1)
        if page.total is None:
            raise InvalidResponseError("no count of the runs", "data.total")
        return page.total

    async def _fetch_runs(self, path: str, page: int, size: int) -> Page[Run]:
        """``GET /workflow/{id}/run?size=&page=``; the vendor's pages differ on whether the path ends in a slash."""
        return await self._transport.get(
            path, {"size": size, "page": page}, lambda answer: read_run_page(answer, page, size)
        )


def _runs_path(workflow_id: str) -> str:
    return f"workflow/{path_segment('workflow_id', workflow_id)}/run"


def _check_whole(name: str, value: int, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        msg = f"{name} must be a whole number from {minimum} on, not {value!r}"
        raise ValueError(msg)


def _check_page_size(name: str, value: int) -> None:
    _check_whole(name, value, 1)
    if value > MAX_PAGE_SIZE:
        msg = f"{name} can be {MAX_PAGE_SIZE} at the most, not {value}"
        raise ValueError(msg)
