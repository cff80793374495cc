"""Filter the items of a list by status, metadata, `since` and `limit`, because the API has no filters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Generic, cast

from aiocopyai._display import value_text
from aiocopyai._repeats import T
from aiocopyai._text import excerpt
from aiocopyai._validation import json_object
from aiocopyai.models import JSON, Run


def run_filter(
    status: str | Collection[str] | None, metadata: Mapping[str, object] | None
) -> Callable[[Run], bool] | None:
    """Return a predicate for the wanted runs; None if all are wanted.

    Args:
        status: a status or a collection of accepted ones, case-insensitive; None to accept all runs.
        metadata: a value or a collection of accepted values for each required key. Values are compared as text, so that
            ``7`` equals ``"7"``.

    Raises:
        ValueError: an argument is invalid.
    """
    statuses = None if status is None else read_statuses("status", status)
    wanted = _wanted_texts(metadata or {})
    if statuses is None and not wanted:
        return None

    def matches(run: Run) -> bool:
        if statuses is not None and (run.status or "").upper() not in statuses:
            return False
        return all(key in run.metadata and value_text(run.metadata[key]) in texts for key, texts in wanted.items())

    return matches


def read_statuses(name: str, value: str | Collection[str]) -> frozenset[str]:
    """Check a status or a collection of statuses, and return them in upper case."""
    statuses = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else []
    if not statuses or not all(isinstance(status, str) and status for status in statuses):
        raise ValueError(
            f"{name} must be a status such as 'FAILED', or a collection of at least one, got {excerpt(value)}"
        )
    return frozenset(status.upper() for status in statuses)


def _wanted_texts(metadata: Mapping[str, object]) -> dict[str, frozenset[str]]:
    """Return the accepted values, as text, for each required key of a run's metadata."""
    if isinstance(metadata, Mapping):
        metadata = {
            key: list(cast("Collection[object]", value))
            if isinstance(value, list | tuple | set | frozenset)
            else [value]
            for key, value in metadata.items()
        }
    wanted: dict[str, frozenset[str]] = {}
    for key, values in json_object("metadata", metadata).items():
        wanted[key] = frozenset(map(value_text, cast("list[JSON]", values)))
        if not wanted[key]:
            raise ValueError(f"metadata[{excerpt(key)}] must be a value, or a collection of at least one, got none")
    return wanted


class Filter(Generic[T]):
    """Selects the wanted items of a list by `matches` and `since`, up to `limit`."""

    def __init__(self, limit: int | None, since: datetime | None, matches: Callable[[T], bool] | None) -> None:
        self._remaining = limit
        self._matches = matches
        self._since = None if since is None else Since(since)

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self._remaining == 0

    def needs(self, items: int) -> bool:
        """Return whether more items may be wanted after this number of them."""
        # If items are matched, it is unknown how many of them count towards the limit.
        return self._remaining is None or self._remaining > (items if self._matches is None else 0)

    def select(self, items: Sequence[T]) -> Sequence[T]:
        """Return the wanted items."""
        if self._since is not None:
            items = self._since.filter(items)
        if self._matches is not None:
            items = list(filter(self._matches, items))
        if self._remaining is not None:
            items = items[: self._remaining]
            self._remaining -= len(items)
        return items

    def is_past(self, page: Sequence[T]) -> bool:
        """Return whether no item after this page can be wanted."""
        return self._since is not None and self._since.is_past(page)

    def restart(self) -> None:
        """Continue at an earlier page."""
        if self._since is not None:
            self._since.restart()


class Since:
    """Keeps the items created at or after a time, and detects when all later items are older.

    The order of the list is not documented. The list is assumed to be newest first if at least one item was older than
    the item before it, and none was newer. An item without a creation time is kept, and ends this assumption.
    """

    def __init__(self, time: datetime) -> None:
        self._time = time
        self._previous: datetime | None = None
        self._descends = False
        self._is_ordered = True

    def filter(self, items: Sequence[T]) -> list[T]:
        """Return the items created at or after the time, and those without a creation time."""
        times = [item.created_at for item in items]
        for newer, older in pairwise([self._previous, *times]):
            if older is None or (newer is not None and newer < older):
                self._is_ordered = False
            elif newer is not None and newer > older:
                self._descends = True
        if times:
            self._previous = times[-1]
        return [item for item, time in zip(items, times, strict=True) if time is None or time >= self._time]

    def is_past(self, page: Sequence[T]) -> bool:
        """Return whether all items after a page are older than the time. Call `filter` with its new items first."""
        last = page[-1].created_at if page else None
        return self._is_ordered and self._descends and last is not None and last < self._time

    def restart(self) -> None:
        """Continue at an earlier page, whose items may be newer."""
        self._previous = None
