"""Incremental loading for exports and dlt: a `Cursor` records where the next export or load continues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attrs import define

from aiocopyai.models import Run


_CLOCK_DIFFERENCE: Final = timedelta(days=1)
"""The maximum difference to the server's clock. Later creation times are invalid, and are ignored."""


@define
class Cursor:
    """The creation times of the newest stored run and of the oldest unfinished one."""

    newest: datetime | None = None
    """When the newest run was created; None if no run has a valid creation time."""
    oldest_unfinished: datetime | None = None
    """When the oldest unfinished run was created; None if there is none."""
    has_undated: bool = False
    """Whether an unfinished run has no valid creation time."""

    def add(self, runs: Iterable[Run]) -> None:
        """Add stored runs."""
        latest = datetime.now(UTC) + _CLOCK_DIFFERENCE
        for run in runs:
            created = run.created_at
            if created is None or created > latest:
                self.has_undated |= is_unfinished(run)
                continue
            self.newest = max(created, self.newest or created)
            if is_unfinished(run):
                self.oldest_unfinished = min(created, self.oldest_unfinished or created)

    @classmethod
    def merge(cls, cursors: Iterable[Cursor]) -> Cursor:
        """Merge several cursors into one."""
        merged = cls()
        for cursor in cursors:
            merged.newest = max(filter(None, [merged.newest, cursor.newest]), default=None)
            merged.oldest_unfinished = min(
                filter(None, [merged.oldest_unfinished, cursor.oldest_unfinished]), default=None
            )
            merged.has_undated |= cursor.has_undated
        return merged

    def since(self, look_back: timedelta, refresh_for: timedelta) -> datetime | None:
        """Return the earliest creation time of runs to read next time; None for all runs.

        Args:
            look_back: the maximum age of a run that was not listed before, relative to the newest stored run.
            refresh_for: the maximum age of an unfinished run to read again, relative to the newest stored run.
        """
        if self.newest is None or self.has_undated:
            return None
        span = look_back
        if self.oldest_unfinished is not None:
            span = max(span, min(refresh_for, self.newest - self.oldest_unfinished))
        try:
            return self.newest - span
        except OverflowError:  # before the minimum of a datetime
            return None

    def dump(self) -> dict[str, Any]:
        """Return the cursor as a JSON object."""
        return {
            "newest": self.newest and self.newest.isoformat(),
            "oldest_unfinished": self.oldest_unfinished and self.oldest_unfinished.isoformat(),
            "has_undated": self.has_undated,
        }

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Cursor:
        """Return the cursor from the result of `dump`, or an empty cursor from an empty object."""
        newest, oldest_unfinished = document.get("newest"), document.get("oldest_unfinished")
        return cls(
            newest and datetime.fromisoformat(newest),
            oldest_unfinished and datetime.fromisoformat(oldest_unfinished),
            document.get("has_undated", False),
        )


def is_unfinished(run: Run) -> bool:
    """Return whether a run may still change: its status is missing or not final."""
    return run.status is None or not run.status.is_final
