"""Which page of a list to request next, and what each page means: a state machine that never awaits.

The list is numbered in pages, and changes while it is read: items are added at its head and removed anywhere. The rule
counts positions, not items. A `Border` says that the leading `position` items were read as of a response with `total`.
If a later response has a total lower by n, unread items have moved forward by at most n places: the border moves
back by n, and reading continues from there. If the total has not fallen, no unread item can be in front of the
border; repeated items are dropped. The number of items is never compared with the total to end the list: items
removed behind the border would end it too early.

The rule needs responses in the order of their pages. The response for a page that was requested ahead may be older
than that for the page in front of it, and if an item was added and another removed in between, the total does not show
it. So pages requested ahead stay unproven until the first page, requested again, shows that no more items were
added than the total accounts for. Otherwise the list is read again from the last proven border, page by page.
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


PROOF_INTERVAL: Final = 100
"""Pages after which pages that were requested ahead are proven, at the latest."""
MAX_STALE_PAGES: Final = 20
"""Pages in a row without a new item after which the list does not advance."""
_STALE_IN_A_FALL: Final = 0.1
"""How much a page without a new item counts if the total has never been as low: a list that shrinks explains it."""
_GAPS_IN_STEP: Final = 2
"""Gaps in a row at the same page after which the total is taken to fall in step with the requests."""
_MANY_NEW: Final = 5
"""New items on a first page without any other, after which they are taken to have been added, and not to be missing."""
_FIRST_PAUSE: Final = 8
"""Pages that are read one by one after the first change that the total does not account for; doubled by each more."""


@frozen
class Border:
    """How far a list was read: its leading `position` items, as of a response with this `total`."""

    position: int
    total: int | None

    def after(self, total: int | None) -> Border:
        """Return the border as of a later response: if the total fell by n, unread items moved forward by up to n.

        A total of None says nothing, and leaves the border as it is.
        """
        if total is None:
            return self
        fallen = 0 if self.total is None else max(0, self.total - total)
        return Border(max(0, self.position - fallen), total)

    def has_fallen(self, total: int | None) -> bool:
        """Return whether a later response has a lower total."""
        return total is not None and self.total is not None and total < self.total

    def next_page(self, page_length: int) -> int:
        """Return the number of the page that holds the first unread item."""
        return self.position // page_length + 1


def may_be_past_end(error: BaseException) -> bool:
    """Return whether this error may mean that a page is past the end of a list: 400, 404 or 422."""
    return isinstance(error, BadRequestError | NotFoundError | RequestInvalidError)


@frozen
class PageRequest:
    """A page to request.

    Attributes:
        page: the number of the page.
        is_ahead: whether it is requested before the page in front of it has arrived.
        proves: the border that this request proves, as it was before; None for a request that reads the list further.
    """

    page: int
    is_ahead: bool = False
    proves: Border | None = None


@frozen
class PageResult(Generic[T]):
    """What a page meant.

    Attributes:
        items: the items to yield: those that no page held before.
        is_outdated: whether all other requests in progress must be discarded, as their pages are not the next ones.
        again: a request to send at once and to take before the others in progress; None for no such request.
    """

    items: Sequence[T] = ()
    is_outdated: bool = False
    again: PageRequest | None = None


class Listing(Generic[T]):
    """Reads one list: says which page to request next, takes the pages in that order, and says what each one meant.

    Args:
        size: the page size to request.
        start_page: the page to start at, from 1.
        limit: the number of items after which to stop; None for all.
        since: the time before which items are left out; None for all.
        matches: returns whether an item is wanted; None for all.
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
        self._page_length = size  # of the pages that the server really sends
        self._last_length: int | None = None
        self._border = Border((start_page - 1) * size, None)
        self._ahead = _ReadAhead(self._border)
        self._repeats: Repeats[T] = Repeats(self._border.position)
        self._filter: Filter[T] = Filter(limit, since, matches)
        self._ignores_total = False
        self._lowest_total = math.inf
        self._gap = (0, 0)  # the page in front of which the latest gap is, and how many in a row were there
        self._passes = 1
        self._stop: Border | None = None
        self._state = _State.FINISHED if limit == 0 else _State.READING
        self._changes = Changes()

    def __repr__(self) -> str:
        return f"<Listing: {self._border.position} of {self._border.total} positions read, {self._state.name.lower()}>"

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to request."""
        return self._state is _State.FINISHED

    @property
    def is_proving(self) -> bool:
        """Whether nothing is left to read, but something may be missing in what was requested ahead."""
        return self._state is _State.PROVING

    @property
    def changes(self) -> Changes:
        """The changes of the list so far."""
        return self._changes

    @property
    def page_length(self) -> int:
        """The number of items on a full page of this server."""
        return self._page_length

    @property
    def proven(self) -> Border:
        """The border in front of which no item is missing, however the pages were requested."""
        return self._ahead.proven

    @property
    def position(self) -> int:
        """How many leading items were read, also those that are not proven."""
        return self._border.position

    def stop_at(self, position: int) -> None:
        """End when this many leading items were read, and it is proven that none of them is missing.

        If the total grows, the position grows by as much. A second call replaces the position.
        """
        self._stop = Border(position, self._border.total)
        if self._state is _State.READING and self._is_at_stop(self._border.position):
            self._end(0)

    def _is_at_stop(self, position: int) -> bool:
        if self._stop is None:
            return False
        grown = 0
        if self._stop.total is not None and self._border.total is not None:
            grown = max(0, self._border.total - self._stop.total)
        return position >= self._stop.position + grown

    def resume_page(self, page_size: int) -> int:
        """Return the `start_page` from which another listing with this page size reads all that this one has not."""
        return self._border.next_page(self._page_length if page_size == self._size else page_size)

    def next_request(self, in_progress: Sequence[PageRequest] = ()) -> PageRequest | None:
        """Return what to request next; None if that depends on the responses to the requests in progress.

        Args:
            in_progress: the requests whose responses were not taken yet, in the order in which they were returned here.
        """
        if self._state is _State.FINISHED or (self._state is _State.PROVING and in_progress):
            return None
        proof = PageRequest(self._start_page, proves=self._border)
        is_proving = any(request.proves is not None for request in in_progress)
        is_proof_due = not is_proving and self._ahead.is_proof_due(self._border, self._page_length)
        if self._state is _State.PROVING or is_proof_due:
            return proof
        ahead = len(in_progress) - is_proving
        page = self._border.next_page(self._page_length) + ahead
        if not ahead:
            return PageRequest(page)
        start = (page - 1) * self._page_length
        is_promised = self._border.total is not None and start <= self._border.total
        is_wanted = not self._is_at_stop(start) and self._filter.needs(ahead * self._page_length)
        if not (is_promised and is_wanted and self._ahead.is_allowed(start)):
            return None
        if self._ahead.first_page is None:
            return None if is_proving else proof
        return PageRequest(page, is_ahead=True)

    def take(self, request: PageRequest, page: Page[T]) -> PageResult[T]:
        """Take the response to the oldest request in progress.

        Raises:
            PaginationError: the list does not advance. Afterwards, the same pages can be requested again.
        """
        ids = [item.id for item in page.items]
        if request.proves is not None:
            return self._take_proof(request.proves, page, ids)
        total = None if self._ignores_total else page.total
        if request.is_ahead and self._border.has_fallen(total):
            # The response may be older than that of the page in front of it: only a later request shows that.
            return PageResult(again=PageRequest(request.page))
        if self._last_length is None:
            self._learn_page_length(request.page, len(ids), total)
            self._ahead.first_page = _FirstPage(ids, page.total)
        start = (request.page - 1) * self._page_length
        new, known = self._repeats.remove(page.items, ids)
        self._note(page.total, len(ids) - len(new))
        if new and total is not None and start + len(ids) > total:
            # The page itself proves the total too low, so that no total of this server is of any use.
            self._ignores_total, total, self._border = True, None, Border(self._border.position, None)
        has_changed = self._border.has_fallen(total)
        if total is None or start < total:
            has_changed |= self._repeats.explain(known, start, len(ids)) > 0
            if not new and self._ahead.first_page is not None and ids == self._ahead.first_page.ids:
                self._repeats.is_page_ignored = request.page != self._start_page and self._repeats.new_pages == 1
        selected = self._filter.select(new)
        is_joined = self._move_border(request, total, has_changed=has_changed)
        is_lowest = total is not None and total < self._lowest_total
        self._lowest_total = min(self._lowest_total, math.inf if total is None else total)
        stale = _STALE_IN_A_FALL if is_lowest else 1.0
        self._repeats.stale_pages = 0.0 if new else self._repeats.stale_pages + has_changed * stale
        if self._is_stuck:
            self._state = _State.PROVING
        elif is_joined:
            self._judge_end(start, page, new)
        self._last_length = len(ids)
        if self._filter.is_full:
            self._state = _State.FINISHED
        return PageResult(selected, has_changed or self._state is not _State.READING)

    def take_error(self, request: PageRequest) -> PageResult[T] | None:
        """Take an error that `may_be_past_end` in place of a page; return None if it is not the end of the list."""
        if request.proves is not None or self._last_length is None:
            return None
        if self._border.total is not None and (request.page - 1) * self._page_length < self._border.total:
            if request.is_ahead:
                return PageResult(again=PageRequest(request.page))
            # A first page that is shorter than requested is either the last one, or shows the server's page length.
            is_second = request.page == self._start_page + 1
            if self._last_length >= (self._size if is_second else self._page_length):
                return None
        self._end(self._unfilled)
        return PageResult(is_outdated=True)

    @property
    def _unfilled(self) -> int:
        return 0 if self._border.total is None else max(0, self._border.total - self._repeats.reach)

    @property
    def _is_proven(self) -> bool:
        return self._ahead.proven.position == self._border.position

    def _note(self, total: int | None, repeated: int = 0) -> None:
        """Note the total of a response, and how many of its items came again."""
        if repeated:
            self._changes = evolve(self._changes, repeated=self._changes.repeated + repeated)
        first, last = self._changes.first_total, self._changes.last_total
        if total is None or total == last:
            return
        self._changes = evolve(self._changes, first_total=total if first is None else first, last_total=total)
        if last is not None and not self._ignores_total:
            self._repeats.reach += max(0, total - last)

    def _learn_page_length(self, page: int, length: int, total: int | None) -> None:
        """Learn from the first page how many items this server sends: it may limit the size, or ignore it."""
        end = (page - 1) * self._size + length
        is_limited = 0 < length < self._size and total is not None and (total > end or (total < end and page > 1))
        if is_limited or length > self._size:
            self._page_length = length
            self._border = Border((page - 1) * length, None)
            self._ahead.proven = self._border
            self._repeats.reach = self._border.position

    def _move_border(self, request: PageRequest, total: int | None, *, has_changed: bool) -> bool:
        """Move the border behind a page; return False if something in front of the page has to be read first."""
        start = (request.page - 1) * self._page_length
        is_past_end = self._border.total is not None and start >= self._border.total
        is_proven = self._is_proven and (not request.is_ahead or is_past_end)
        if has_changed:
            self._ahead.pause(self._border.position, self._page_length, is_failure=not is_proven)
            if not is_proven:
                self._return_to(self._ahead.proven, request.page)
                return False
        border = self._border.after(total)
        is_joined = border.position >= start
        gap_page, gaps = self._gap
        if not is_joined:
            self._gap = (request.page, gaps + 1 if gap_page == request.page else 1)
            self._return_to(border, request.page)
        elif request.page < gap_page and gaps >= _GAPS_IN_STEP:
            # A total that falls at every second request would fall at this page forever: read the page twice.
            self._gap = (gap_page, 0)
            self._border = border
        else:
            self._border = Border(start + self._page_length, border.total)
        if is_proven:
            self._ahead.proven = self._border
        return is_joined

    def _return_to(self, border: Border, page: int) -> None:
        """Go back to a border in front of this page."""
        again = page + 1 - border.next_page(self._page_length)
        self._changes = evolve(self._changes, reread=self._changes.reread + max(1, again), missing=0)
        self._border = Border(border.position, None) if self._ignores_total else border
        self._state = _State.READING
        self._filter.restart()

    def _judge_end(self, start: int, page: Page[T], new: Sequence[T]) -> None:
        """End the list if this page shows that nothing is left to read, or nothing that is wanted."""
        length, total = len(page.items), self._border.total
        if total is None:
            is_end = not length or (self._ignores_total and (length < self._page_length or not new))
        elif not length:
            # An empty page although more is promised: try one more.
            is_end = self._last_length == 0 or self._border.position >= total
        else:
            # After a full last page, one more is read, as some servers send a total that is too low.
            is_end = start >= total or (self._border.position >= total and length != self._page_length)
        if is_end:
            self._end(self._unfilled)
        elif self._filter.is_past(page.items) or self._is_at_stop(self._border.position) or self._has_found_missing:
            self._end(0)

    def _end(self, missing: int) -> None:
        """End the list, or first request a proof that nothing is missing."""
        self._changes = evolve(self._changes, missing=missing)
        self._state = _State.FINISHED if self._is_proven and not self._is_doubtful else _State.PROVING

    @property
    def _is_doubtful(self) -> bool:
        """Whether repeated items may have taken the places of others."""
        return self._is_read_through and (self._repeats.unexplained > 0 or self._passes > 1)

    @property
    def _has_found_missing(self) -> bool:
        """Whether the second pass has found as many items as were missing after the first."""
        start, total = (self._start_page - 1) * self._page_length, self._border.total
        return self._passes > 1 and total is not None and self._repeats.count >= total - start

    @property
    def _is_stuck(self) -> bool:
        return self._repeats.stale_pages >= MAX_STALE_PAGES

    @property
    def _is_read_through(self) -> bool:
        return self._border.total is not None and self._border.position >= self._border.total

    def _take_proof(self, proves: Border, page: Page[T], ids: list[str]) -> PageResult[T]:
        """Take the first page again, and compare it with what it was at the last proof."""
        self._note(page.total)
        earlier, first_page = self._ahead.first_page, _FirstPage(ids, page.total)
        if not self._is_proven and (earlier is None or not first_page.continues(earlier)):
            self._ahead.pause(self._border.position, self._page_length, is_failure=True)
            self._ahead.first_page = first_page
            self._return_to(self._ahead.proven, self._border.next_page(self._page_length) - 1)
            return PageResult(is_outdated=True)
        if not self._is_proven:
            self._ahead.proven = proves
        self._ahead.first_page = first_page
        if self._state is not _State.PROVING:
            return PageResult()
        if not self._is_doubtful and not self._is_stuck:
            self._state = _State.FINISHED
            return PageResult(is_outdated=True)
        new, known = self._repeats.remove_from_head(page.items, ids)
        # If the first page has only new items, even more of them may follow on the next page. The second pass finds
        # those that were added during the first.
        explains_all = not known and len(new) >= _MANY_NEW and self._passes > 1
        self._conclude(None if explains_all else page.total, len(ids), len(new))
        return PageResult(self._filter.select(new), is_outdated=True)

    def _conclude(self, total: int | None, length: int, added: int) -> None:
        """Decide whether the list has ended or does not advance, now that the first page was read again.

        Items that are equal in the server's order may change places between two requests. One may then be repeated
        in place of another one that is never listed. So if the total promises more items than were listed, the list
        is read again if that can help.

        Raises:
            PaginationError: the list does not advance.
        """
        start = (self._start_page - 1) * self._page_length
        missing = 0
        if total is not None and self._is_read_through:
            missing = max(0, total - start - self._repeats.count)
        if self._is_stuck and added:
            # Items that were added explain why the pages had no new items.
            self._repeats.stale_pages = 0.0
            self._state = _State.READING
        elif self._is_stuck or (missing and self._repeats.is_page_ignored and length >= self._size):
            self._give_up(length)
        elif missing and self._passes == 1 and self._repeats.remembers_all:
            self._passes += 1
            self._return_to(Border(start, total), self._border.next_page(self._page_length) - 1)
            self._ahead.proven = self._border
            self._ahead.forbid()
            self._repeats.unexplained = 0
        else:
            self._changes = evolve(self._changes, missing=max(missing, self._changes.missing))
            self._state = _State.FINISHED

    def _give_up(self, length: int) -> None:
        """End a list that does not advance, quietly if no more is promised."""
        self._state = _State.READING
        self._repeats.stale_pages = 0.0
        total, first = self._border.total, (self._start_page - 1) * self._page_length
        is_only_page = self._repeats.is_page_ignored and length >= self._size
        if total is None and not is_only_page:
            self._state = _State.FINISHED
            return
        page = max(1, self._border.next_page(self._page_length) - 1)
        self._border = Border(max(first, self._border.position - MAX_STALE_PAGES * self._page_length), total)
        self._ahead.proven = self._border
        self._repeats.reach = self._border.position
        promised = "an unknown number of" if total is None else str(total)
        raise PaginationError(
            f"the list does not advance: page {page} and the pages before it had no new items, "
            f"although {promised} items are promised"
        )


class _State(Enum):
    READING = auto()
    PROVING = auto()
    """Nothing is left to read, but the pages that were requested ahead have to be proven."""
    FINISHED = auto()


@frozen
class _FirstPage:
    """The first page of a listing, as one response showed it."""

    ids: Sequence[str]
    total: int | None

    def continues(self, earlier: _FirstPage) -> bool:
        """Return whether the items added since then are those for which the total accounts, and no others."""
        added = 0 if self.total is None or earlier.total is None else self.total - earlier.total
        if self.ids == earlier.ids:
            return added >= 0
        kept = len(self.ids) - added
        return 0 <= added < len(self.ids) and self.ids[added:] == earlier.ids[:kept]


class _ReadAhead:
    """Whether pages may be requested ahead, and up to where those that were are proven."""

    def __init__(self, border: Border) -> None:
        self.proven = border
        self.first_page: _FirstPage | None = None
        """As it was before the pages that were requested ahead; None if that is not known."""
        self._paused_until = 0.0  # the position
        self._pause_pages = _FIRST_PAUSE

    def is_allowed(self, position: int) -> bool:
        """Return whether the page at this position may be requested before those in front of it have arrived."""
        return position >= self._paused_until

    def is_proof_due(self, border: Border, page_length: int) -> bool:
        """Return whether to prove now what was requested ahead.

        It is due while all ids since the last proof are remembered, and while the first page shows how much was added.
        """
        if border.position == self.proven.position:
            return False
        if border.position - self.proven.position >= min(PROOF_INTERVAL * page_length, REMEMBERED_IDS // 2):
            return True
        before = None if self.first_page is None else self.first_page.total
        return before is not None and border.total is not None and 2 * (border.total - before) >= page_length

    def pause(self, position: int, page_length: int, *, is_failure: bool) -> None:
        """Read page by page up to this position and some pages further: twice as many after each failed proof."""
        self._paused_until = max(self._paused_until, position + self._pause_pages * page_length)
        if is_failure:
            self._pause_pages *= 2
        self.first_page = None

    def forbid(self) -> None:
        """Read page by page to the end."""
        self._paused_until = math.inf
