"""How far a workflow's runs were loaded, to go on from there another day; it never awaits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from attrs import define

from aiocopyai import Run


@define
class Cursor:
    """Up to when a workflow's runs are loaded, and since when some of them may still change."""

    newest: datetime | None = None
    """When the newest run was started; None where none says."""
    open_since: datetime | None = None
    """When the oldest run was started that was not over."""
    is_undated: bool = False
    """Whether a run that was not over doesn't say when it was started."""

    def follow(self, runs: Iterable[Run], latest: datetime) -> None:
        """Account for runs that are loaded; a time after the latest that can be is no time."""
        for run in runs:
            created = run.created_at
            is_open = run.status is None or not run.status.is_final
            if created is None or created > latest:
                self.is_undated |= is_open
                continue
            self.newest = max(created, self.newest or created)
            if is_open:
                self.open_since = min(created, self.open_since or created)

    def since(self, look_back: timedelta, open_for: timedelta) -> datetime | None:
        """Return from when on runs are to be read the next time; None for all of them."""
        if self.newest is None or self.is_undated:
            return None
        since = _before(self.newest, look_back)
        if since is None or self.open_since is None:
            return since
        bound = _before(self.newest, open_for)
        return min(since, self.open_since if bound is None else max(self.open_since, bound))

    def dump(self) -> dict[str, Any]:
        """Give it as JSON."""
        newest, open_since = self.newest, self.open_since
        return {
            "newest": newest and newest.isoformat(),
            "open_since": open_since and open_since.isoformat(),
            "is_undated": self.is_undated,
        }

    @classmethod
    def load(cls, kept: Mapping[str, Any]) -> Cursor:
        """Read it back; from nothing, one that is nowhere yet."""
        newest, open_since = kept.get("newest"), kept.get("open_since")
        return cls(
            newest and datetime.fromisoformat(newest),
            open_since and datetime.fromisoformat(open_since),
            kept.get("is_undated", False),
        )


def _before(moment: datetime, span: timedelta) -> datetime | None:
    """Return an earlier moment; None where that is before the calendar's first."""
    try:
        return moment - span
    except OverflowError:
        return None
