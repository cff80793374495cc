"""Decide which page of a list to request next, and which of its items are new: a state machine that never awaits.

The list has numbered pages and changes while it is read: items are added at the start and removed anywhere. Therefore,
`ListProgress` counts positions, not items: the first `position` items were read when the list had `total` items. If the
total then falls by n, unread items have moved forward by at most n positions: the position is reduced by n, and reading
continues from there. If the total has not fallen, all unread items are at or after the position. Repeated items are
dropped. The list does not end when `total` items have been read: removed items would end it too early.

This requires responses in the order of their pages. The response for a prefetched page may be older than the response
for the page before it. If an item was added and another removed in between, the total does not show it. Therefore,
prefetched pages are verified: the first page is requested again, to show that no more items were added than the total
accounts for. If more were added, the list is read again from the last verified position, page by page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import Final, Generic

from attrs import evolve, frozen

from aiocopyai._filters import Filter
from aiocopyai._repeats import REMEMBERED_IDS, Repeats, T
from aiocopyai.errors import BadRequestError, NotFoundError, PaginationError, RequestInvalidError
from aiocopyai.models import Changes, Page


VERIFY_INTERVAL: Final = 100
"""The maximum number of pages between two verifications of prefetched pages."""
MAX_STALE_PAGES: Final = 20
"""The number of consecutive pages without a new item after which the list does not advance."""
_STALE_WEIGHT_WHILE_SHRINKING: Final = 0.1
"""The weight of a page without new items if the total is the lowest so far: a shrinking list explains such pages."""
_MAX_GAPS: Final = 2
"""The number of consecutive gaps at the same page after which the total is assumed to fall with every request."""
_MANY_ADDED: Final = 5
"""If the first page has only new items, and at least this many, they are assumed to be added and not missed before."""
_INITIAL_PAUSE: Final = 8
"""Pages to read one by one after the first change that the total does not show; doubled by each further change."""


@frozen
class ListProgress:
    """How far a list was read: its first `position` items, when it had `total` items."""

    position: int
    total: int | None

    def after(self, total: int | None) -> ListProgress:
        """Return the progress after a later response: if the total fell by n, reduce the position by n.

        If the later total is None, the progress does not change.
        """
        if total is None:
            return self
        fallen = 0 if self.total is None else max(0, self.total - total)
        return ListProgress(max(0, self.position - fallen), total)

    def has_fallen(self, total: int | None) -> bool:
        """Return whether the total of a later response is lower."""
        return total is not None and self.total is not None and total < self.total

    def next_page(self, page_length: int) -> int:
        """Return the number of the page that holds the first unread item."""
        return self.position // page_length + 1


def may_be_past_end(error: BaseException) -> bool:
    """Return whether an error (400, 404 or 422) may mean that a page is past the end of the list."""
    return isinstance(error, BadRequestError | NotFoundError | RequestInvalidError)


@frozen
class PageRequest:
    """A page to request.

    Attributes:
        page: the number of the page.
        is_prefetch: whether it is requested before the response for the previous page was received.
        verifies: the progress to verify by requesting the first page again; None for a request that reads on.
    """

    page: int
    is_prefetch: bool = False
    verifies: ListProgress | None = None


@frozen
class PageResult(Generic[T]):
    """The result of processing a page.

    Attributes:
        items: the new items of the page, to be yielded.
        is_outdated: whether to discard all other requests in progress, because their pages are no longer the next ones.
        retry: a request to send now, and to process before the others in progress; None if there is none.
    """

    items: Sequence[T] = ()
    is_outdated: bool = False
    retry: PageRequest | None = None


class Listing(Generic[T]):
    """The state of one iteration over a list: returns the next request, and processes the responses in this order.

    Args:
        size: the page size to request.
        start_page: the number of the first page to read.
        limit: the maximum number of items; None for all.
        since: the earliest creation time of the items; None for all.
        matches: returns whether an item is wanted; None if all are.
    """

    def __init__(
        self,
        size: int,
        start_page: int = 1,
        *,
        limit: int | None = None,
        since: datetime | None = None,
        matches: Callable[[T], bool] | None = None,
    ) -> None:
        self._size = size
        self._start_page = start_page
        self._page_length = size  # the actual length of a full page
        self._last_length: int | None = None
        self._progress = ListProgress((start_page - 1) * size, None)
        self._prefetching = _Prefetching(self._progress)
        self._repeats: Repeats[T] = Repeats(self._progress.position)
        self._filter: Filter[T] = Filter(limit, since, matches)
        self._ignores_total = False
        self._lowest_total = math.inf
        self._gap = (0, 0)  # the page after the latest gap, and the number of consecutive gaps there
        self._passes = 1
        self._stop: ListProgress | None = None
        self._state = _State.FINISHED if limit == 0 else _State.READING
        self._changes = Changes()

    def __repr__(self) -> str:
        progress = self._progress
        return f"<Listing: {progress.position} of {progress.total} positions read, {self._state.name.lower()}>"

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to request."""
        return self._state is _State.FINISHED

    @property
    def is_verifying(self) -> bool:
        """Whether all pages were read, but the prefetched ones are not verified yet."""
        return self._state is _State.VERIFYING

    @property
    def changes(self) -> Changes:
        """The changes of the list that were detected so far."""
        return self._changes

    @property
    def page_length(self) -> int:
        """The number of items on a full page of this server."""
        return self._page_length

    @property
    def verified(self) -> ListProgress:
        """The progress up to which no item is missing, even if pages were prefetched."""
        return self._prefetching.verified

    @property
    def position(self) -> int:
        """The number of items at the start of the list that were read, including unverified ones."""
        return self._progress.position

    def stop_at(self, position: int) -> None:
        """End when the first `position` items were read, and it is verified that none of them is missing.

        If the total grows by n, so does `position`. A second call replaces `position`.
        """
        self._stop = ListProgress(position, self._progress.total)
        if self._state is _State.READING and self._is_at_stop(self._progress.position):
            self._end(0)

    def _is_at_stop(self, position: int) -> bool:
        if self._stop is None:
            return False
        grown = 0
        if self._stop.total is not None and self._progress.total is not None:
            grown = max(0, self._progress.total - self._stop.total)
        return position >= self._stop.position + grown

    def resume_page(self, page_size: int) -> int:
        """Return the `start_page` with which a new listing with this page size reads all remaining items."""
        return self._progress.next_page(self._page_length if page_size == self._size else page_size)

    def next_request(self, in_progress: Sequence[PageRequest] = ()) -> PageRequest | None:
        """Return the next request; None if it depends on the responses to the requests in progress.

        Args:
            in_progress: the returned requests whose responses were not processed yet, oldest first.
        """
        if self._state is _State.FINISHED or (self._state is _State.VERIFYING and in_progress):
            return None
        verification = PageRequest(self._start_page, verifies=self._progress)
        is_verifying = any(request.verifies is not None for request in in_progress)
        is_due = not is_verifying and self._prefetching.is_verification_due(self._progress, self._page_length)
        if self._state is _State.VERIFYING or is_due:
            return verification
        ahead = len(in_progress) - is_verifying
        page = self._progress.next_page(self._page_length) + ahead
        if not ahead:
            return PageRequest(page)
        start = (page - 1) * self._page_length
        is_in_list = self._progress.total is not None and start <= self._progress.total
        is_wanted = not self._is_at_stop(start) and self._filter.needs(ahead * self._page_length)
        if not (is_in_list and is_wanted and self._prefetching.is_allowed(start)):
            return None
        if self._prefetching.first_page is None:
            return None if is_verifying else verification
        return PageRequest(page, is_prefetch=True)

    def process(self, request: PageRequest, page: Page[T]) -> PageResult[T]:
        """Process the response to the oldest request in progress.

        Raises:
            PaginationError: the list does not advance. The next requests repeat the latest pages.
        """
        ids = [item.id for item in page.items]
        if request.verifies is not None:
            return self._process_verification(request.verifies, page, ids)
        total = None if self._ignores_total else page.total
        if request.is_prefetch and self._progress.has_fallen(total):
            # The response may be older than the response for the previous page. Only another request can tell.
            return PageResult(retry=PageRequest(request.page))
        if self._last_length is None:
            self._learn_page_length(request.page, len(ids), total)
            self._prefetching.first_page = _FirstPage(ids, page.total)
        start = (request.page - 1) * self._page_length
        new, known = self._repeats.remove(page.items, ids)
        self._record(page.total, len(ids) - len(new))
        if new and total is not None and start + len(ids) > total:
            # The page has more items than the total allows: the totals of this server are useless.
            self._ignores_total, total, self._progress = True, None, ListProgress(self._progress.position, None)
        has_changed = self._progress.has_fallen(total)
        if total is None or start < total:
            has_changed |= self._repeats.explain(known, start, len(ids)) > 0
            if not new and self._prefetching.first_page is not None and ids == self._prefetching.first_page.ids:
                self._repeats.is_page_ignored = request.page != self._start_page and self._repeats.new_pages == 1
        selected = self._filter.select(new)
        is_contiguous = self._advance(request, total, has_changed=has_changed)
        is_lowest = total is not None and total < self._lowest_total
        self._lowest_total = min(self._lowest_total, math.inf if total is None else total)
        stale = _STALE_WEIGHT_WHILE_SHRINKING if is_lowest else 1.0
        self._repeats.stale_pages = 0.0 if new else self._repeats.stale_pages + has_changed * stale
        if self._is_stuck:
            self._state = _State.VERIFYING
        elif is_contiguous:
            self._end_if_complete(start, page, new)
        self._last_length = len(ids)
        if self._filter.is_full:
            self._state = _State.FINISHED
        return PageResult(selected, has_changed or self._state is not _State.READING)

    def process_error(self, request: PageRequest) -> PageResult[T] | None:
        """Process an error that `may_be_past_end`; return None if it does not mean the end of the list."""
        if request.verifies is not None or self._last_length is None:
            return None
        if self._progress.total is not None and (request.page - 1) * self._page_length < self._progress.total:
            if request.is_prefetch:
                return PageResult(retry=PageRequest(request.page))
            # If the first page is shorter than requested, it is the last one, or the server limits the page size.
            is_second = request.page == self._start_page + 1
            if self._last_length >= (self._size if is_second else self._page_length):
                return None
        self._end(self._shortfall)
        return PageResult(is_outdated=True)

    @property
    def _shortfall(self) -> int:
        return 0 if self._progress.total is None else max(0, self._progress.total - self._repeats.reach)

    @property
    def _is_verified(self) -> bool:
        return self._prefetching.verified.position == self._progress.position

    def _record(self, total: int | None, repeated: int = 0) -> None:
        """Update the changes with the total and the number of repeated items of a response."""
        if repeated:
            self._changes = evolve(self._changes, repeated=self._changes.repeated + repeated)
        first, last = self._changes.first_total, self._changes.last_total
        if total is None or total == last:
            return
        self._changes = evolve(self._changes, first_total=total if first is None else first, last_total=total)
        if last is not None and not self._ignores_total:
            self._repeats.reach += max(0, total - last)

    def _learn_page_length(self, page: int, length: int, total: int | None) -> None:
        """Set the page length from the first page: a server may limit the requested size, or ignore it."""
        end = (page - 1) * self._size + length
        is_limited = 0 < length < self._size and total is not None and (total > end or (total < end and page > 1))
        if is_limited or length > self._size:
            self._page_length = length
            self._progress = ListProgress((page - 1) * length, None)
            self._prefetching.verified = self._progress
            self._repeats.reach = self._progress.position

    def _advance(self, request: PageRequest, total: int | None, *, has_changed: bool) -> bool:
        """Set the progress to the end of a page; return False if earlier items have to be read first."""
        start = (request.page - 1) * self._page_length
        is_past_end = self._progress.total is not None and start >= self._progress.total
        is_verified = self._is_verified and (not request.is_prefetch or is_past_end)
        if has_changed:
            self._prefetching.pause(self._progress.position, self._page_length, is_failure=not is_verified)
            if not is_verified:
                self._rewind_to(self._prefetching.verified, request.page)
                return False
        progress = self._progress.after(total)
        is_contiguous = progress.position >= start
        gap_page, gaps = self._gap
        if not is_contiguous:
            self._gap = (request.page, gaps + 1 if gap_page == request.page else 1)
            self._rewind_to(progress, request.page)
        elif request.page < gap_page and gaps >= _MAX_GAPS:
            # If the total falls with every second request, this page would never be reached: read it twice.
            self._gap = (gap_page, 0)
            self._progress = progress
        else:
            self._progress = ListProgress(start + self._page_length, progress.total)
        if is_verified:
            self._prefetching.verified = self._progress
        return is_contiguous

    def _rewind_to(self, progress: ListProgress, page: int) -> None:
        """Continue at a position before this page."""
        again = page + 1 - progress.next_page(self._page_length)
        self._changes = evolve(self._changes, reread=self._changes.reread + max(1, again), missing=0)
        self._progress = ListProgress(progress.position, None) if self._ignores_total else progress
        self._state = _State.READING
        self._filter.restart()

    def _end_if_complete(self, start: int, page: Page[T], new: Sequence[T]) -> None:
        """End the list if no page after this one can have a wanted item."""
        length, total = len(page.items), self._progress.total
        if total is None:
            is_end = not length or (self._ignores_total and (length < self._page_length or not new))
        elif not length:
            # The total says that there are more items: try one more page.
            is_end = self._last_length == 0 or self._progress.position >= total
        else:
            # After a full last page, read one more, because the total of some servers is too low.
            is_end = start >= total or (self._progress.position >= total and length != self._page_length)
        if is_end:
            self._end(self._shortfall)
        elif self._filter.is_past(page.items) or self._is_at_stop(self._progress.position) or self._has_found_missing:
            self._end(0)

    def _end(self, missing: int) -> None:
        """End the list, after a verification if it is needed."""
        self._changes = evolve(self._changes, missing=missing)
        self._state = _State.FINISHED if self._is_verified and not self._may_have_missed else _State.VERIFYING

    @property
    def _may_have_missed(self) -> bool:
        """Whether repeated items may have replaced others."""
        return self._is_read_through and (self._repeats.unexplained > 0 or self._passes > 1)

    @property
    def _has_found_missing(self) -> bool:
        """Whether the second pass has found all items that were missing after the first."""
        start, total = (self._start_page - 1) * self._page_length, self._progress.total
        return self._passes > 1 and total is not None and self._repeats.count >= total - start

    @property
    def _is_stuck(self) -> bool:
        return self._repeats.stale_pages >= MAX_STALE_PAGES

    @property
    def _is_read_through(self) -> bool:
        return self._progress.total is not None and self._progress.position >= self._progress.total

    def _process_verification(self, verifies: ListProgress, page: Page[T], ids: list[str]) -> PageResult[T]:
        """Compare the first page with the first page at the last verification."""
        self._record(page.total)
        earlier, first_page = self._prefetching.first_page, _FirstPage(ids, page.total)
        if not self._is_verified and (earlier is None or not first_page.continues(earlier)):
            self._prefetching.pause(self._progress.position, self._page_length, is_failure=True)
            self._prefetching.first_page = first_page
            self._rewind_to(self._prefetching.verified, self._progress.next_page(self._page_length) - 1)
            return PageResult(is_outdated=True)
        if not self._is_verified:
            self._prefetching.verified = verifies
        self._prefetching.first_page = first_page
        if self._state is not _State.VERIFYING:
            return PageResult()
        if not self._may_have_missed and not self._is_stuck:
            self._state = _State.FINISHED
            return PageResult(is_outdated=True)
        new, known = self._repeats.remove_from_head(page.items, ids)
        # If the first page has only new items, the next page may have some, too. The second pass finds the items that
        # were added during the first.
        explains_all = not known and len(new) >= _MANY_ADDED and self._passes > 1
        self._finish_or_restart(None if explains_all else page.total, len(ids), len(new))
        return PageResult(self._filter.select(new), is_outdated=True)

    def _finish_or_restart(self, total: int | None, length: int, added: int) -> None:
        """Finish, continue or read the list again, depending on the items that are missing.

        The server may return items with equal sort keys in a different order for each request. One item may then be
        listed twice, and another never. If fewer items than the total were listed, a second pass may find the others.

        Raises:
            PaginationError: the list does not advance.
        """
        start = (self._start_page - 1) * self._page_length
        missing = 0
        if total is not None and self._is_read_through:
            missing = max(0, total - start - self._repeats.count)
        if self._is_stuck and added:
            # The added items explain the pages without new items.
            self._repeats.stale_pages = 0.0
            self._state = _State.READING
        elif self._is_stuck or (missing and self._repeats.is_page_ignored and length >= self._size):
            self._end_without_progress(length)
        elif missing and self._passes == 1 and self._repeats.remembers_all:
            self._passes += 1
            self._rewind_to(ListProgress(start, total), self._progress.next_page(self._page_length) - 1)
            self._prefetching.verified = self._progress
            self._prefetching.disable()
            self._repeats.unexplained = 0
        else:
            self._changes = evolve(self._changes, missing=max(missing, self._changes.missing))
            self._state = _State.FINISHED

    def _end_without_progress(self, length: int) -> None:
        """End a list that does not advance, with an error if it should have more items."""
        self._state = _State.READING
        self._repeats.stale_pages = 0.0
        total, first = self._progress.total, (self._start_page - 1) * self._page_length
        is_only_page = self._repeats.is_page_ignored and length >= self._size
        if total is None and not is_only_page:
            self._state = _State.FINISHED
            return
        page = max(1, self._progress.next_page(self._page_length) - 1)
        self._progress = ListProgress(max(first, self._progress.position - MAX_STALE_PAGES * self._page_length), total)
        self._prefetching.verified = self._progress
        self._repeats.reach = self._progress.position
        raise PaginationError(
            f"the list does not advance: page {page} and the pages before it had no new items, "
            f"although the list has {'an unknown number of' if total is None else total} items"
        )


class _State(Enum):
    READING = auto()
    VERIFYING = auto()
    """All pages were read, but the prefetched ones are not verified yet."""
    FINISHED = auto()


@frozen
class _FirstPage:
    """The first page of a list in one response."""

    ids: Sequence[str]
    total: int | None

    def continues(self, earlier: _FirstPage) -> bool:
        """Return whether the total accounts for all items that were added since an earlier response."""
        added = 0 if self.total is None or earlier.total is None else self.total - earlier.total
        if self.ids == earlier.ids:
            return added >= 0
        kept = len(self.ids) - added
        return 0 <= added < len(self.ids) and self.ids[added:] == earlier.ids[:kept]


class _Prefetching:
    """Decides whether pages may be prefetched, and when to verify them."""

    def __init__(self, progress: ListProgress) -> None:
        self.verified = progress
        self.first_page: _FirstPage | None = None
        """The first page before any unverified page was prefetched; None if unknown."""
        self._paused_until = 0.0  # the position
        self._pause_pages = _INITIAL_PAUSE

    def is_allowed(self, position: int) -> bool:
        """Return whether the page at a position may be prefetched."""
        return position >= self._paused_until

    def is_verification_due(self, progress: ListProgress, page_length: int) -> bool:
        """Return whether to verify the prefetched pages now.

        This must happen before ids since the last verification are forgotten, and while the first page still has an
        item of the last verification.
        """
        if progress.position == self.verified.position:
            return False
        if progress.position - self.verified.position >= min(VERIFY_INTERVAL * page_length, REMEMBERED_IDS // 2):
            return True
        before = None if self.first_page is None else self.first_page.total
        return before is not None and progress.total is not None and 2 * (progress.total - before) >= page_length

    def pause(self, position: int, page_length: int, *, is_failure: bool) -> None:
        """Do not prefetch until some pages after a position; twice as many after each failed verification."""
        self._paused_until = max(self._paused_until, position + self._pause_pages * page_length)
        if is_failure:
            self._pause_pages *= 2
        self.first_page = None

    def disable(self) -> None:
        """Do not prefetch until the end of the list."""
        self._paused_until = math.inf
