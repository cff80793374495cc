"""Items that are listed again while a list is read: drop them, and notice when nothing explains them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar


class Listed(Protocol):
    """An item of a paged list."""

    @property
    def id(self) -> str:
        """The id, by which an item is recognized on another page."""
        ...

    @property
    def created_at(self) -> datetime | None:
        """When the item was created, if known."""
        ...


T = TypeVar("T", bound=Listed)

REMEMBERED_IDS: Final = 32_768
"""Ids that are remembered at least: more than can be on the pages that may have to be read again."""


class Repeats(Generic[T]):
    """Drops the items that were read before, and counts the repeats that nothing explains.

    Attributes:
        reach: the position up to which items may be repeated: up to which they were read, or to which items that were
            added in front have moved them.
        count: the number of different items.
        new_pages: the number of pages with new items.
        unexplained: the number of items that were repeated behind `reach`.
        stale_pages: the number of pages in a row without a new item or an explanation; some count less than 1.
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
        """Whether no id was forgotten yet."""
        return not self._known.has_forgotten

    def remove(self, items: Sequence[T], ids: Sequence[str]) -> tuple[list[T], int]:
        """Return the items that were not read before, and how many ids were.

        One response is one state of the list: items of one page with the same id are two if their content differs.
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
        """Do the same for the first page, which is read again at the end.

        If ids were forgotten, only items in front of a known one are certainly new.
        """
        known = self._known.intersection(ids)
        if self._known.has_forgotten:
            added = next((place for place, item_id in enumerate(ids) if item_id in known), len(ids))
            items, ids = items[:added], ids[:added]
        new, _ = self.remove(items, ids)
        return new, len(known)

    def explain(self, known: int, start: int, length: int) -> int:
        """Return how many of the ids that a page repeats nothing explains.

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
    """The ids of the first page, and the latest ids: at least `REMEMBERED_IDS`, and at most twice as many."""

    def __init__(self) -> None:
        self.has_forgotten = False
        self._first: set[str] = set()
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def intersection(self, ids: Iterable[str]) -> set[str]:
        """Return those of the ids that are remembered."""
        # All of the first page are among the others until ids are forgotten.
        remembered = (self._newer, self._older, self._first) if self.has_forgotten else (self._newer, self._older)
        return set[str]().union(*[known.intersection(ids) for known in remembered if known])

    def add(self, ids: Collection[str]) -> int:
        """Remember the ids of a page; return how many of them are not among the newer half of the remembered ids."""
        self._first = self._first or set(ids)
        count = len(self._newer)
        self._newer.update(ids)
        added = len(self._newer) - count
        if len(self._newer) >= REMEMBERED_IDS:
            self.has_forgotten = self.has_forgotten or bool(self._older)
            self._newer, self._older = set(), self._newer
        return added
