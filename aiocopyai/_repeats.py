"""Drop items that are listed again while a list is read, and count those that no change of the list explains."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar


class Listed(Protocol):
    """An item of a paged list."""

    @property
    def id(self) -> str:
        """The id, which identifies the item on other pages."""
        ...

    @property
    def created_at(self) -> datetime | None:
        """The creation time; None if unknown."""
        ...


T = TypeVar("T", bound=Listed)

REMEMBERED_IDS: Final = 32_768
"""The minimum number of ids to remember: more than the pages that may be read again can have."""


class Repeats(Generic[T]):
    """Drops the items that were read before, and counts the repeats that no change of the list explains.

    Attributes:
        reach: the position before which repeated items are expected: items up to it were read, or were moved to it
            when others were added before them.
        count: the number of different items.
        new_pages: the number of pages with new items.
        unexplained: the number of items that were repeated after `reach`.
        stale_pages: the number of consecutive pages without new items that no change explains; some count less than 1.
        is_page_ignored: whether the server sends the first page for every page number.
    """

    def __init__(self, position: int) -> None:
        self.reach = position
        self.count = 0
        self.new_pages = 0
        self.unexplained = 0
        self.stale_pages = 0.0
        self.is_page_ignored = False
        self._known = RecentIds()

    @property
    def remembers_all(self) -> bool:
        """Whether all ids so far are remembered."""
        return not self._known.has_forgotten

    def remove(self, items: Sequence[T], ids: Sequence[str]) -> tuple[list[T], int]:
        """Return the items that were not read before, and the number of ids that were.

        If two items on the same page have the same id and different content, both are returned.
        """
        known = self._known.intersection(ids)
        if self._known.add(ids) == len(ids) and not known:
            new = list(items)
        else:
            new = list[T]()
            same_id: dict[str, tuple[T, ...]] = {}
            for item in items:
                same = same_id.get(item.id, ())
                if item.id not in known and item not in same:
                    same_id[item.id] = (*same, item)
                    new.append(item)
        self.count += len(new)
        if new:
            self.new_pages += 1
            self.is_page_ignored = False
        return new, len(known)

    def remove_from_head(self, items: Sequence[T], ids: Sequence[str]) -> tuple[list[T], int]:
        """Do the same as `remove` for the first page, which is read again at the end.

        If ids were forgotten, only the items before the first known one are certainly new.
        """
        known = self._known.intersection(ids)
        if self._known.has_forgotten:
            added = next((place for place, item_id in enumerate(ids) if item_id in known), len(ids))
            items, ids = items[:added], ids[:added]
        new, _ = self.remove(items, ids)
        return new, len(known)

    def explain(self, known: int, start: int, length: int) -> int:
        """Return the number of repeated ids of a page that no change of the list explains.

        Args:
            known: the number of repeated ids.
            start: the position of the page's first item.
            length: the number of items on the page.
        """
        unexplained = max(0, known - max(0, self.reach - start))
        self.unexplained += unexplained
        if length:
            self.reach = max(self.reach, start + length)
        return unexplained


class RecentIds:
    """The ids of the first page, and the latest `REMEMBERED_IDS` to 2 * `REMEMBERED_IDS` ids."""

    def __init__(self) -> None:
        self.has_forgotten = False
        self._first: set[str] = set()
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def intersection(self, ids: Iterable[str]) -> set[str]:
        """Return the ids that are remembered."""
        # Until ids are forgotten, the other sets include the ids of the first page.
        remembered = (self._newer, self._older, self._first) if self.has_forgotten else (self._newer, self._older)
        return set[str]().union(*[known.intersection(ids) for known in remembered if known])

    def add(self, ids: Collection[str]) -> int:
        """Remember the ids of a page, and return the number of ids that were not in the newer set."""
        self._first = self._first or set(ids)
        count = len(self._newer)
        self._newer.update(ids)
        added = len(self._newer) - count
        if len(self._newer) >= REMEMBERED_IDS:
            self.has_forgotten = self.has_forgotten or bool(self._older)
            self._newer, self._older = set(), self._newer
        return added
