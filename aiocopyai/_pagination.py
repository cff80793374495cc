"""Which page to read next, what in it is new, and when the list is over: a state machine that never awaits.

The rule counts positions, not runs. ``_read`` is how many leading positions of the list were surely read as of the
latest answer. When an answer's total is lower than the one before it by `d`, runs were removed, and those not yet read
have moved forward by `d` places at the most: so the border goes back by `d`, and the walk goes on from there. When the
total did not fall, no unread run can have moved in front of the border; runs met twice are dropped. The number of runs
given out is never compared with the total: runs removed behind the border would end the walk early.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from attrs import evolve

from aiocopyai.errors import PaginationError
from aiocopyai.models import Changes, Page


class Listed(Protocol):
    """What a paged list holds."""

    @property
    def id(self) -> str:
        """What tells one item from another."""
        ...

    @property
    def created_at(self) -> datetime | None:
        """When it was made, if known."""
        ...


T = TypeVar("T", bound=Listed)

SAME_PAGES: Final = 3
SAME_ITEMS: Final = 20
"""So many pages in a row the same, and so many items on them, and the list does not advance."""
PATIENCE: Final = 100
"""So many pages with nothing new, or falls of the total before the border gets further, and it can't be read."""
REMEMBERED: Final = 32_768
"""At least so many of the latest ids are remembered: repeats lie just behind the border."""


class Walk(Generic[T]):
    """One walk over a list whose pages are asked for with `size` items, from `start_page`, numbered from 1."""

    def __init__(self, size: int, start_page: int = 1) -> None:
        self.total: int | None = None
        self.moved = False
        """Whether the latest page's total differs from the one before it: pages under way may be out of date."""
        self.joined = True
        """Whether the latest page joined up with what was read before, so that no gap lies behind it."""
        self._size = size
        self._step = size  # how long the server's pages really are
        self._read = (start_page - 1) * size
        self._furthest = self._read  # the highest that `_read` has been
        self._served = self._read  # up to where pages held something new
        self._filled = 0  # up to where pages held anything
        self._highest = 0  # the highest page number taken
        self._pages_fresh = 0
        self._last_length = 0
        self._empty = 0
        self._stale = 0  # pages in a row that held nothing new
        self._same = 0  # those of them that were the same as the page before
        self._latest: Sequence[T] = ()  # the page before
        self._falls = 0
        self._growth = 0  # runs added by the total's account, and not yet met as repeats
        self._overrun = False  # the page held more than its total allows
        self._done = False
        self._failure: PaginationError | None = None
        self._known = RecentIds()
        self._changes = Changes()

    def __repr__(self) -> str:
        return f"<Walk: {self._read} of {self.total} positions read{', done' if self._done else ''}>"

    @property
    def is_done(self) -> bool:
        """Whether the list is over."""
        return self._done

    @property
    def next_page(self) -> int:
        """The page to read next."""
        return self._read // self._step + 1

    def resume_page(self, page_size: int) -> int:
        """Return the `start_page` from which a walk with pages of `page_size` reads all that this one has not."""
        return self.next_page if page_size == self._size else self._read // page_size + 1

    def check(self) -> None:
        """Raise what the latest page showed to be wrong with the list, once.

        Raises:
            PaginationError: the list does not advance.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    @property
    def step(self) -> int:
        """How many items a full page of this server holds."""
        return self._step

    @property
    def changes(self) -> Changes:
        """What moved so far."""
        return self._changes

    def expects(self, page: int) -> bool:
        """Whether the total, so far as it can be believed, promises something on that page."""
        return self.total is not None and not self._overrun and (page - 1) * self._step < self.total

    def take(self, page: Page[T]) -> list[T]:
        """Account for the page that `next_page` named; return what in it was not given out before."""
        length = len(page.items)
        if self._highest == 0:
            self._measure(page)
        fresh, before = self._known.filter(page.items), self.total
        reach = (page.number - 1) * self._step + length
        total = page.total
        self._overrun = total is not None and length > 0 and reach > total
        self._filled = max(self._filled, reach if length else 0)
        if self._overrun and fresh:
            # The page itself proves the total wrong, so it tells nothing of what was added or removed.
            total = None
        self._account(total)
        self.moved = before is not None and self.total != before
        self._last_length = length
        self._note(repeated=self._changes.repeated + length - len(fresh))
        if fresh:
            self._served = max(self._served, page.number * self._step)
            self._stale = self._same = self._empty = 0
            self._pages_fresh += 1
        new_ground = page.number > self._highest
        self._highest = max(self._highest, page.number)
        self.joined = self._read >= (page.number - 1) * self._step
        if self.joined:
            self._join(page, is_stale=new_ground and not fresh)
        else:
            self._go_back()
        self._latest = page.items
        return fresh

    def refuse(self, page: int) -> bool:
        """Whether an answer of 400, 404 or 422 for that page is the end of the list; if so, the walk is over."""
        if page == 1 or self._highest == 0:
            return False
        left = 0 if self.total is None else self.total - self._read
        if left > 0 and not self._overrun and (left >= self._step or self._last_length >= self._size):
            return False
        self._finish()
        return True

    def _measure(self, page: Page[T]) -> None:
        """Learn from the first page how long this server's pages are: it may clamp the size, or filter."""
        length = len(page.items)
        before = (page.number - 1) * self._size
        if 0 < length < self._size and page.total != before + length:
            self._step = length
            self._read = self._furthest = self._served = (page.number - 1) * length

    def _account(self, total: int | None) -> None:
        """Move the border back by as much as the total fell."""
        if total is None:
            return
        before = total if self.total is None else self.total
        self.total = total
        self._growth += max(0, total - before)
        self._read -= min(self._read, max(0, before - total))

    def _note(self, **changes: int) -> None:
        first = self.total if self._changes.first_total is None else self._changes.first_total
        self._changes = evolve(self._changes, first_total=first, last_total=self.total, **changes)

    def _go_back(self) -> None:
        """Count a return to a page in front of the one just read."""
        self._falls += 1
        self._note(reread=self._changes.reread + 1)
        if self._falls >= PATIENCE:
            self._falls = 0
            self._failure = PaginationError(
                f"the list shrank at {PATIENCE} requests without getting any further; try again when it is calmer"
            )

    def _join(self, page: Page[T], *, is_stale: bool) -> None:
        """Move the border behind a page that joins up, and decide whether the list is over or stuck."""
        self._read = max(self._read, page.number * self._step)
        if self._read > self._furthest:
            self._furthest, self._falls = self._read, 0
        if not page.items:
            self._judge_empty(page)
        elif is_stale:
            self._judge_stale(page)
        if self.total is not None and self._read >= self.total and not self._overrun:
            self._finish()

    def _judge_empty(self, page: Page[T]) -> None:
        """End at an empty page; where one is promised something, try once more ahead."""
        self._empty += 1
        promised = self.total is not None and (page.number - 1) * self._step < self.total
        if self._empty > 1 or not promised:
            self._finish()

    def _judge_stale(self, page: Page[T]) -> None:
        """Give up after some pages that hold nothing new, unless runs added meanwhile explain them."""
        explained = len(page.items) <= self._growth
        self._growth = max(0, self._growth - len(page.items))
        if explained:
            return
        self._stale += 1
        self._same += [item.id for item in self._latest] == [item.id for item in page.items]
        same = self._same >= SAME_PAGES and self._same * len(page.items) >= SAME_ITEMS
        if not same and self._stale < PATIENCE:
            return
        if not self._is_stuck(page):
            self._finish()
            return
        # Whoever goes on after the error is given the same patience, from where something new was last.
        self._highest, self._read, self._stale, self._same = self._highest - self._stale, self._served, 0, 0
        promised = "an unknown number of" if self.total is None else str(self.total)
        self._failure = PaginationError(
            f"the list does not advance: page {page.number} and those before it held nothing new, "
            f"with {promised} items promised"
        )

    def _is_stuck(self, page: Page[T]) -> bool:
        """Tell a server that ignores `page` from one that answers past the end with its last page."""
        left = None if self.total is None else self.total - self._served
        if left is not None and left > self._step:
            return True
        only_one_full_page = self._pages_fresh == 1 and len(page.items) >= self._size
        return only_one_full_page and (left is None or left > 0)

    def _finish(self) -> None:
        self._done = True
        self._note(missing=0 if self.total is None else max(0, self.total - self._filled))


class RecentIds:
    """The latest ids that were given out, at least `REMEMBERED` and at most twice as many of them."""

    def __init__(self) -> None:
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def filter(self, items: Sequence[T]) -> list[T]:
        """Return the items whose ids are not remembered, each once, and remember them."""
        newer, older = self._newer, self._older
        ids = {item.id for item in items}
        fresh = list(items)
        if len(ids) < len(items) or not newer.isdisjoint(ids) or not older.isdisjoint(ids):
            once = {item.id: item for item in reversed(items)}
            known = newer | older
            fresh = [item for item in items if item.id not in known and once[item.id] is item]
        newer |= ids
        if len(newer) >= REMEMBERED:
            self._newer, self._older = set(), newer
        return fresh


class Since:
    """Keeps what was created at or after a moment, and knows when nothing more can come.

    The order of the list is not documented, so it is only trusted while all that was seen ran from newer to older and
    at least one step down was seen. An item without a time breaks that trust and is kept: nothing is lost.
    """

    def __init__(self, moment: datetime) -> None:
        self._moment = moment
        self._previous: datetime | None = None
        self._descending = False
        self._ordered = True
        self._older_seen = False

    @property
    def is_over(self) -> bool:
        """Whether everything that is still to come must be older."""
        return self._ordered and self._descending and self._older_seen

    def filter(self, items: Sequence[T]) -> list[T]:
        """Return the items created at or after the moment, and those of unknown time."""
        kept: list[T] = []
        for item in items:
            created = item.created_at
            if created is None:
                self._ordered = False
            else:
                self._follow(created)
            if created is None or created >= self._moment:
                kept.append(item)
            else:
                self._older_seen = True
        return kept

    def _follow(self, created: datetime) -> None:
        if self._previous is not None:
            self._ordered = self._ordered and created <= self._previous
            self._descending = self._descending or created < self._previous
        self._previous = created
