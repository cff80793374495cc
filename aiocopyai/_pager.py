"""`Pager`: a paged list to iterate over, by item or by page, with prefetched pages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any, Final, Generic
from weakref import WeakSet

from attrs import evolve, field, frozen

from aiocopyai._pagination import Listing, ListProgress, PageRequest, PageResult, may_be_past_end
from aiocopyai._repeats import T
from aiocopyai._tasks import TaskSet, cancel_and_wait
from aiocopyai._validation import check_integer
from aiocopyai.errors import CopyAIError
from aiocopyai.models import Changes, Page


logger = logging.getLogger("aiocopyai")

MAX_PREFETCH: Final = 100
"""The largest `prefetch`."""
_FIRST_WINDOW: Final = 4
"""The initial number of requests in progress, if `prefetch` is not given."""
_MAX_WINDOW: Final = 16
"""The maximum number of requests in progress while the caller waits, if `prefetch` is not given."""
_LONG_WAIT: Final = 0.02
"""The shortest wait, in seconds, for which more requests are sent: shorter ones may be due to a busy CPU."""
_WINDOW_AFTER_CHANGE: Final = 2
"""The number of requests in progress after a change of the list; grows by 1 with each prefetched page that is valid."""


@frozen
class Plan:
    """The validated arguments of a pager.

    Attributes:
        name: what is listed, for the log.
        page_size: the page size to request.
        start_page: the number of the first page to read.
        limit: the maximum number of items; None for all.
        since: the earliest creation time of the items; None for all.
        prefetch: the maximum number of requests in progress while the caller processes items; None for a number that
            grows while the caller waits.
        slowdowns: returns how often requests were slowed down after a 429.
        matches: returns whether an item is wanted; None if all are.
        tasks: runs the requests; its owner may cancel them.
    """

    name: str
    page_size: int
    start_page: int = 1
    limit: int | None = None
    since: datetime | None = None
    prefetch: int | None = None
    slowdowns: Callable[[], int] = field(default=lambda: 0, repr=False)
    matches: Callable[[Any], bool] | None = field(default=None, repr=False)
    tasks: TaskSet = field(factory=TaskSet, repr=False)

    @property
    def size(self) -> int:
        """The page size to request: at most `limit`, unless items are filtered."""
        is_filtered = self.since is not None or self.matches is not None
        # After the first page, another size would change the numbers of the pages.
        if self.limit is None or self.start_page > 1 or is_filtered:
            return self.page_size
        return min(self.page_size, self.limit)


class Pager(Generic[T]):
    """A paged list, returned by `CopyAISession.runs` and `CopyAISession.webhooks`.

    ``async for item in pager`` yields the items, and ``async for page in pager.pages()`` yields the pages with new
    items. Both yield each item once, in the server's order, and miss no item that remains in the list.
    No request is sent before the iteration, and each iteration starts from the beginning. If a page cannot be read, the
    error is raised, and the next step of the same iterator requests the page again.

    ``contextlib.aclosing`` accepts a pager, which it closes with all its iterators, and also a single iterator.
    """

    def __init__(self, fetch: Callable[[int, int], Coroutine[Any, Any, Page[T]]], plan: Plan) -> None:
        self._fetch = fetch
        self._plan = plan
        self._total: int | None = None
        self._changes = Changes()
        self._iterators: WeakSet[PageIterator[T]] = WeakSet()

    def __repr__(self) -> str:
        return f"<Pager: {self._plan.name}, total {self._total}>"

    @property
    def total(self) -> int | None:
        """The number of items in the list according to the latest response; None before the first response."""
        return self._total

    @property
    def changes(self) -> Changes:
        """The changes of the list that the latest iteration has detected so far."""
        return self._changes

    def pages(self) -> PageIterator[T]:
        """Iterate over the pages. Each has only the items that were not on an earlier page.

        The iterator raises the same errors as an iteration over the items.
        """
        return self._pages(self._plan)

    def __aiter__(self) -> ItemIterator[T]:
        return ItemIterator(self.pages())

    async def first(self) -> T | None:
        """Return the first item, or None if there is none. Without a filter, only one item is requested.

        Raises:
            CopyAIError: a page cannot be read.
        """
        limit = 1 if self._plan.limit is None else min(1, self._plan.limit)
        items = await self._collect(evolve(self._plan, limit=limit))
        return items[0] if items else None

    async def collect(self, limit: int | None = None) -> list[T]:
        """Return the items as a list.

        Args:
            limit: the maximum number of items; None for all.

        Raises:
            ValueError: `limit` is not an integer of 0 or more.
            CopyAIError: a page cannot be read. The items read so far are lost; to keep them, iterate instead.
        """
        if limit is None:
            return await self._collect(self._plan)
        check_integer("limit", limit, 0)
        own = self._plan.limit
        return await self._collect(evolve(self._plan, limit=limit if own is None else min(limit, own)))

    async def _collect(self, plan: Plan) -> list[T]:
        async with aclosing(ItemIterator(self._pages(plan))) as items:
            return [item async for item in items]

    def _pages(self, plan: Plan) -> PageIterator[T]:
        self._changes = Changes()
        iterator = PageIterator(self._fetch, plan, self._set_changes)
        self._iterators.add(iterator)
        return iterator

    async def aclose(self) -> None:
        """End all iterations, cancel their requests, and wait until these have ended."""
        await asyncio.gather(*(iterator.aclose() for iterator in self._iterators))

    def _set_changes(self, changes: Changes) -> None:
        self._changes = changes
        self._total = changes.last_total


class PageIterator(AsyncIterator[Page[T]]):
    """One iteration over the pages of a list, created by `Pager.pages`."""

    def __init__(
        self, fetch: Callable[[int, int], Coroutine[Any, Any, Page[T]]], plan: Plan, report: Callable[[Changes], None]
    ) -> None:
        self._fetch = fetch
        self._plan = plan
        self._report = report
        self._listing: Listing[T] = Listing(
            plan.size, plan.start_page, limit=plan.limit, since=plan.since, matches=plan.matches
        )
        self._window = _FIRST_WINDOW if plan.prefetch is None else plan.prefetch
        self._slowdowns = plan.slowdowns()
        self._in_progress: deque[tuple[PageRequest, asyncio.Task[Page[T]]]] = deque()
        self._lock = asyncio.Lock()
        self._invalid_fields: frozenset[str] = frozenset()
        self._is_closed = False

    def __del__(self) -> None:
        # Nothing else cancels the requests after a `break`. The last reference may be dropped in any thread.
        for _, task in getattr(self, "_in_progress", ()):
            _cancel_from_any_thread(task)

    @property
    def verified(self) -> ListProgress:
        """How far the list was read without a missing item. Prefetched pages are included once they are verified."""
        return self._listing.verified

    @property
    def page_length(self) -> int:
        """The number of items on a full page. The server may limit it."""
        return self._listing.page_length

    @property
    def position(self) -> int:
        """The number of items at the start of the list that were read, including unverified ones."""
        return self._listing.position

    def stop_at(self, position: int) -> None:
        """End when the first `position` items were read, and it is verified that none of them is missing.

        If the total grows by n, so does `position`. A second call replaces `position`.
        """
        self._listing.stop_at(position)
        if self._listing.is_finished or self._listing.is_verifying:
            self._discard_requests()

    async def aclose(self) -> None:
        """End the iteration, cancel its requests, and wait until these have ended."""
        self._is_closed = True
        tasks = [task for _, task in self._in_progress]
        self._in_progress.clear()
        await cancel_and_wait(*tasks)

    async def __anext__(self) -> Page[T]:
        async with self._lock:
            while not self._is_closed and not self._listing.is_finished:
                page = await self._read_page()
                if page.items:
                    return page
        raise StopAsyncIteration

    async def _read_page(self) -> Page[T]:
        """Read the next page, and return it with its new items, if any."""
        self._send_requests(max(1, self._window))
        request, task = self._in_progress[0]
        is_waiting, wait_started_at = request.is_prefetch and not task.done(), time.monotonic()
        is_idle = all(task.done() for _, task in self._in_progress)
        try:
            page = await self._response_of(task)
            is_waiting = is_waiting and time.monotonic() - wait_started_at >= _LONG_WAIT
            result = self._listing.process(request, page)
        except BaseException as error:
            end = self._listing.process_error(request) if may_be_past_end(error) else None
            if end is None:
                # The caller may not continue. If it does, the page is requested again.
                self._discard_requests()
                if isinstance(error, CopyAIError):
                    error.page = self._listing.resume_page(self._plan.page_size)
                raise
            page, result = Page(request.page, self._plan.size, None, ()), end
        self._in_progress.popleft()
        self._invalid_fields |= page.invalid_fields
        self._apply_result(request, result)
        self._adapt_window(is_waiting=is_waiting, is_idle=is_idle)
        if not self._listing.is_finished and self._plan.prefetch != 0:
            self._send_requests(self._window)
        return page if len(result.items) == len(page.items) else evolve(page, items=result.items)

    async def _response_of(self, task: asyncio.Task[Page[T]]) -> Page[T]:
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():
                raise
        # The request was cancelled, not the caller: by `aclose`, or by the end of the session.
        if self._is_closed:
            raise StopAsyncIteration
        msg = "this CopyAISession was closed while one of its lists was being read"
        raise RuntimeError(msg)

    def _send_requests(self, window: int) -> None:
        while len(self._in_progress) < window:
            request = self._listing.next_request([request for request, _ in self._in_progress])
            if request is None:
                return
            self._in_progress.append((request, self._send(request)))

    def _send(self, request: PageRequest) -> asyncio.Task[Page[T]]:
        return self._plan.tasks.spawn(self._fetch(request.page, self._plan.size))

    def _apply_result(self, request: PageRequest, result: PageResult[T]) -> None:
        """Discard or repeat requests as the result requires, and adapt the number of requests in progress."""
        self._report(self._listing.changes)
        if result.is_outdated:
            self._discard_requests()
            self._window = min(self._window, _WINDOW_AFTER_CHANGE)
        elif result.retry is not None:
            self._in_progress.appendleft((result.retry, self._send(result.retry)))
            self._window = max(_WINDOW_AFTER_CHANGE, self._window - 1)
        elif request.is_prefetch:
            full = _FIRST_WINDOW if self._plan.prefetch is None else self._plan.prefetch
            self._window = max(self._window, min(full, self._window + 1))
        if self._listing.is_finished:
            self._log_end()

    def _adapt_window(self, *, is_waiting: bool, is_idle: bool) -> None:
        """Increase the number of requests in progress if the caller waits; decrease it after a 429 or if it is slow.

        For a slow caller, more pages would only use memory.
        """
        slowdowns, self._slowdowns = self._slowdowns, self._plan.slowdowns()
        if self._plan.prefetch is not None:
            return
        if self._slowdowns > slowdowns:
            self._window = max(min(self._window, _FIRST_WINDOW), self._window // 2)
        elif is_waiting and self._window >= _FIRST_WINDOW:
            self._window = min(_MAX_WINDOW, self._window + _FIRST_WINDOW)
        elif is_idle and self._window > _FIRST_WINDOW:
            self._window -= 1

    def _discard_requests(self) -> None:
        for _, task in self._in_progress:
            task.cancel()
        self._in_progress.clear()

    def _log_end(self) -> None:
        changes = self._listing.changes
        if self._invalid_fields:
            names = ", ".join(sorted(self._invalid_fields))
            logger.warning(
                "%s: some values do not fit their fields, and are in `extra` instead: %s", self._plan.name, names
            )
        if changes:
            logger.info("%s: the list changed while it was read: %s", self._plan.name, changes)


class ItemIterator(AsyncIterator[T]):
    """One iteration over the items of a list, created by iterating over a `Pager`."""

    def __init__(self, pages: PageIterator[T]) -> None:
        self._pages = pages
        self._items: deque[T] = deque()

    async def __anext__(self) -> T:
        while not self._items:
            page = await self._pages.__anext__()
            self._items.extend(page.items)
        return self._items.popleft()

    async def aclose(self) -> None:
        """End the iteration, cancel its requests, and wait until these have ended."""
        self._items.clear()
        await self._pages.aclose()


def _cancel_from_any_thread(task: asyncio.Task[Page[T]]) -> None:
    loop = task.get_loop()
    try:
        is_in_loop = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_in_loop = False
    if is_in_loop:
        task.cancel()
        return
    with suppress(RuntimeError):  # the loop is closed, and its tasks are gone
        loop.call_soon_threadsafe(task.cancel)
