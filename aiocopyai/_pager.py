"""`Pager`: a list to iterate over, run by run or page by page, that asks for pages ahead."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Generic, TypeVar

from attrs import field, frozen

from aiocopyai._pagination import Listed, Since, Walk
from aiocopyai._tasks import TaskSet
from aiocopyai.errors import BadRequestError, CopyAIError, NotFoundError, RequestInvalidError
from aiocopyai.models import Changes, Page


T = TypeVar("T", bound=Listed)

logger = logging.getLogger("aiocopyai")


@frozen
class Plan:
    """What a pager was asked for; checked by whoever makes it."""

    name: str
    """What is listed, for the log."""
    page_size: int
    start_page: int = 1
    limit: int | None = None
    since: datetime | None = None
    prefetch: int = 4
    tasks: TaskSet = field(factory=TaskSet, repr=False)
    """Where requests under way are kept, for their owner to end."""

    @property
    def size(self) -> int:
        """How many items each page is asked for: no more than `limit`, while that leaves the page numbers alone."""
        if self.limit is not None and self.start_page == 1:
            return min(self.page_size, self.limit)
        return self.page_size


class Pager(Generic[T]):
    """A numbered list that nothing is asked of until it is iterated; each iteration starts afresh.

    ``async for item in pager`` gives the items, ``async for page in pager.pages()`` the pages that hold something new.
    Either way each item comes once, in the server's order, and none that stays on the list throughout is lost.
    A page that fails raises, and the next step of the same iterator asks for it again.
    """

    def __init__(self, fetch: Callable[[int, int], Awaitable[Page[T]]], plan: Plan) -> None:
        self._fetch = fetch
        self._plan = plan
        self._total: int | None = None
        self._changes = Changes()

    def __repr__(self) -> str:
        return f"<Pager: {self._plan.name}, total {self._total}>"

    @property
    def total(self) -> int | None:
        """How many items the server says there are, as the latest answer told; None before the first."""
        return self._total

    @property
    def changes(self) -> Changes:
        """What moved under the iteration that was begun last, so far."""
        return self._changes

    def pages(self) -> PageIterator[T]:
        """Iterate over the pages, each with only the items that no page before it held."""
        self._changes = Changes()
        return PageIterator(self._fetch, self._plan, self._report)

    def __aiter__(self) -> ItemIterator[T]:
        return ItemIterator(self.pages())

    def _report(self, total: int | None, changes: Changes) -> None:
        self._total = total
        self._changes = changes


class PageIterator(AsyncIterator[Page[T]]):
    """One walk over a list, page by page; made by `Pager.pages`."""

    def __init__(
        self,
        fetch: Callable[[int, int], Awaitable[Page[T]]],
        plan: Plan,
        report: Callable[[int | None, Changes], None],
    ) -> None:
        self._fetch = fetch
        self._plan = plan
        self._report = report
        self._walk: Walk[T] = Walk(plan.size, plan.start_page)
        self._since = None if plan.since is None else Since(plan.since)
        self._left = plan.limit
        self._window = plan.prefetch
        self._ahead: dict[int, asyncio.Task[Page[T]]] = {}
        self._turn = asyncio.Lock()
        self._odd: frozenset[str] = frozenset()
        self._over = plan.limit == 0

    def __del__(self) -> None:
        # `break` tells an iterator nothing; letting go of it is what ends the requests under way.
        if getattr(self, "_ahead", None):
            self._drop_ahead()

    async def aclose(self) -> None:
        """End the walk and the requests under way, and wait until they are gone."""
        self._over = True
        in_progress = list(self._ahead.values())
        self._drop_ahead()
        await asyncio.gather(*in_progress, return_exceptions=True)

    async def __anext__(self) -> Page[T]:
        async with self._turn:
            while not self._over:
                page = await self._step()
                if page is not None and page.items:
                    return page
        raise StopAsyncIteration

    async def _step(self) -> Page[T] | None:
        """Read one page; return it with what in it is to be given out, or None where it was past the end."""
        number = self._walk.next_page
        try:
            self._walk.check()
            page = await self._read(number)
        except BaseException as error:
            # Whoever asked may not come back, so nothing is left running; the page is asked for again if he does.
            self._drop_ahead()
            if not isinstance(error, CopyAIError):
                raise
            if _may_mean_the_end(error) and self._walk.refuse(number):
                self._finish()
                return None
            error.page = self._walk.resume_page(self._plan.page_size)
            raise
        return self._take(page)

    async def _read(self, number: int) -> Page[T]:
        self._ask(number)
        if self._window:
            self._ask_ahead(number)
        request = self._ahead[number]
        try:
            return await request
        except asyncio.CancelledError:
            consumer = asyncio.current_task()
            if consumer is None or consumer.cancelling():
                raise
        finally:
            self._ahead.pop(number, None)
        # Not whoever waits was cancelled but the request, by the session's end.
        msg = "this CopyAISession was closed in the middle of a walk"
        raise RuntimeError(msg)

    def _take(self, page: Page[T]) -> Page[T]:
        """Account for a page, ask for those behind it, and return it with what is to be given out."""
        items = self._walk.take(page)
        if self._since is not None:
            items = self._since.filter(items)
        if self._left is not None:
            items = items[: self._left]
            self._left -= len(items)
        self._odd |= page.invalid_fields
        self._report(self._walk.total, self._walk.changes)
        if self._is_satisfied():
            self._finish()
        else:
            self._adapt_window()
            if self._window:
                self._ask_ahead(self._walk.next_page)
        return Page(page.number, page.size, page.total, items, page.invalid_fields)

    def _is_satisfied(self) -> bool:
        nothing_newer = self._since is not None and self._since.is_over and self._walk.joined
        return self._walk.is_done or self._left == 0 or nothing_newer

    def _adapt_window(self) -> None:
        """Go page by page while the list moves: what is under way may show it as it was before."""
        if self._walk.moved:
            self._drop_ahead()
            self._window = 0
        else:
            self._window = min(self._plan.prefetch, self._window + 1)

    def _ask_ahead(self, number: int) -> None:
        """Ask for the pages from `number` on that the total promises and the limit needs, as far as the window goes."""
        last = number + self._window - 1
        if self._left is not None:
            last = min(last, number + -(-self._left // self._walk.step) - 1)
        for page in range(number, last + 1):
            if not self._walk.expects(page):
                break
            self._ask(page)

    def _ask(self, number: int) -> None:
        if number in self._ahead and not self._ahead[number].cancelled():
            return
        self._ahead[number] = self._plan.tasks.spawn(self._fetch(number, self._plan.size))

    def _drop_ahead(self) -> None:
        for task in self._ahead.values():
            if not task.get_loop().is_closed():
                task.cancel()
        self._ahead.clear()

    def _finish(self) -> None:
        """End the walk, and log once what was not as it should be."""
        self._over = True
        self._drop_ahead()
        changes = self._walk.changes
        self._report(self._walk.total, changes)
        if self._odd:
            odd = ", ".join(sorted(self._odd))
            logger.warning("%s: some values did not fit their fields and are in extra: %s", self._plan.name, odd)
        if changes:
            logger.info("%s: the list moved while it was read: %s", self._plan.name, changes)


class ItemIterator(AsyncIterator[T]):
    """One walk over a list, item by item; made by iterating over a `Pager`."""

    def __init__(self, pages: PageIterator[T]) -> None:
        self._pages = pages
        self._held: deque[T] = deque()

    async def __anext__(self) -> T:
        while not self._held:
            page = await self._pages.__anext__()
            self._held.extend(page.items)
        return self._held.popleft()

    async def aclose(self) -> None:
        """End the walk and the requests under way, and wait until they are gone."""
        self._held.clear()
        await self._pages.aclose()


def _may_mean_the_end(error: CopyAIError) -> bool:
    """Whether an error is how a server may answer for a page past the end of its list."""
    return isinstance(error, BadRequestError | NotFoundError | RequestInvalidError)
