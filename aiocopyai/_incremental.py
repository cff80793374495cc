"""Incremental loading for exports and dlt: a `Cursor` notes which runs are stored, and from when to read next time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attrs import define

from aiocopyai.models import Run


_CLOCK_DIFFERENCE: Final = timedelta(days=1)
"""How far a server's clock may be ahead; later times are ignored as errors."""


@define
class Cursor:
    """The newest run that was stored, and the oldest one that was not finished then."""

    newest: datetime | None = None
    """When the newest run was created; None if no run has a date."""
    oldest_unfinished: datetime | None = None
    """When the oldest unfinished run was created."""
    has_undated: bool = False
    """Whether an unfinished run has no usable date."""

    def add(self, runs: Iterable[Run]) -> None:
        """Include runs that were stored."""
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
        """Return one cursor for the runs of several."""
        merged = cls()
        for cursor in cursors:
            merged.newest = max(filter(None, [merged.newest, cursor.newest]), default=None)
            merged.oldest_unfinished = min(
                filter(None, [merged.oldest_unfinished, cursor.oldest_unfinished]), default=None
            )
            merged.has_undated |= cursor.has_undated
        return merged

    def since(self, look_back: timedelta, refresh_for: timedelta) -> datetime | None:
        """Return the time since which runs are new or may have changed; None for all runs.

        Args:
            look_back: how much older than the newest stored run a run may be that was not on the list before.
            refresh_for: how much older than the newest stored run an unfinished run may be to be read again.
        """
        if self.newest is None or self.has_undated:
            return None
        span = look_back
        if self.oldest_unfinished is not None:
            span = max(span, min(refresh_for, self.newest - self.oldest_unfinished))
        try:
            return self.newest - span
        except OverflowError:  # before the first time that a datetime can express
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
        """Return the cursor that `dump` wrote; for an empty object, a cursor without runs."""
        newest, oldest_unfinished = document.get("newest"), document.get("oldest_unfinished")
        return cls(
            newest and datetime.fromisoformat(newest),
            oldest_unfinished and datetime.fromisoformat(oldest_unfinished),
            document.get("has_undated", False),
        )


def is_unfinished(run: Run) -> bool:
    """Whether a run may still change: its status is missing or not final."""
    return run.status is None or not run.status.is_final
