"""The state of an export, and the page from which a resumed export continues; never awaits.

The pagination rule (docs/pagination.md) applies to any two responses, regardless of the time between them: if the first
`n` positions of a list were read when its total was `T`, and the total is now `T'`, then no unread run is before
position ``n - max(0, T - T')``, as long as runs are added only at the head. A checkpoint consists of `n` and `T`, after
the pager has verified that nothing is missing. It is used only if the list is newest first. A few pages before it are
read again for safety; runs that were seen before are not written again.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Final

from attrs import Factory, define, frozen

from aiocopyai.models import Page, Run


LAST: Final = "last"
"""The value of `since` that selects the runs that the file does not have yet."""
MARGIN: Final = 5
"""The number of pages to read again in addition to those that the rule requires."""
_PREFETCH: Final[int | None] = None
"""The `prefetch` of `runs()`; None selects its default."""
_MAX_ATTEMPTS: Final = 3
"""After this many attempts without a new checkpoint, pages are read one by one, so that each is verified at once."""


@frozen
class Selection:
    """The runs to export. An export can only be resumed with the same selection."""

    workflow_ids: tuple[str, ...]
    since: str | None
    """An ISO 8601 time in UTC, ``last``, or None for all runs."""

    def __str__(self) -> str:
        return f"{', '.join(self.workflow_ids)}{f' since {self.since}' if self.since else ''}"


@frozen
class FileStamp:
    """The size and time of a file, which show whether it has changed."""

    size: int
    modified: int
    """In nanoseconds since 1970."""

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Return the current stamp of a file."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


@frozen
class Checkpoint:
    """All runs before a position of a list were read when the list had this total."""

    position: int
    total: int
    page_length: int
    """The length of a full page of this server."""

    def next_page(self, total: int) -> int:
        """Return the first page that may have an unread run if the list now has this total."""
        removed = max(0, self.total - total)
        return max(0, self.position - removed) // self.page_length + 1


@define
class ListState:
    """How far the list of a workflow was read, and whether it is newest first."""

    total: int | None = None
    """The number of runs on the list according to the latest response."""
    is_done: bool = False
    checkpoint: Checkpoint | None = None
    attempts: int = 0
    """The number of attempts to read the list since the latest checkpoint."""
    is_ordered: bool = True
    """Whether no page had an older run before a newer one."""
    descends: bool = False
    """Whether a page had a newer run before an older one."""
    horizon: datetime | None = None
    """If the list is newest first, runs created before this time need not be read."""

    @property
    def is_newest_first(self) -> bool:
        """Whether the list is known to be newest first."""
        return self.is_ordered and self.descends

    def start_page(self) -> int:
        """Return the page to continue from, given the current `total`."""
        if self.checkpoint is None or self.total is None or not self.is_newest_first:
            return 1
        return max(1, self.checkpoint.next_page(self.total) - MARGIN)

    def start_attempt(self) -> int | None:
        """Count an attempt, and return its `prefetch`: 0 if several attempts were too short to verify any page."""
        self.attempts += 1
        return _PREFETCH if self.attempts <= _MAX_ATTEMPTS else 0

    def add(self, page: Page[Run], position: int, total: int | None, page_length: int) -> None:
        """Record a page, and that all runs before `position` were read when the list had this total."""
        times = [run.created_at for run in page.items if run.created_at is not None]
        if len(times) < len(page.items) or times != sorted(times, reverse=True):
            self.is_ordered = False
        elif times and times[0] > times[-1]:
            self.descends = True
        old = self.checkpoint
        # A checkpoint stays valid until a later one replaces it, even while pages before it are read again.
        if total is not None and (old is None or old.position - max(0, old.total - total) < position):
            self.checkpoint = Checkpoint(position, total, page_length)
            self.attempts = 0

    def is_past_horizon(self, page: Page[Run]) -> bool:
        """Whether all runs after this page are older than the horizon."""
        if self.horizon is None or not self.is_newest_first:
            return False
        oldest = page.items[-1].created_at
        return oldest is not None and oldest < self.horizon


def leaves_no_gap(checkpoint: Checkpoint | None, start_page: int, total: int | None) -> bool:
    """Whether no unread run is before `start_page`, given the total in the first response."""
    if start_page == 1:
        return True
    return checkpoint is not None and total is not None and start_page <= checkpoint.next_page(total)


@define
class ExportState:
    """The state of an unfinished export."""

    selection: Selection
    replaces: bool
    """Whether an existing file may be replaced."""
    base: FileStamp | None
    """The existing file that runs are added to, when the export started; None if the export writes a new file."""
    lists: dict[str, ListState]
    """By workflow id."""
    size: int = 0
    """The number of valid bytes in the rows file."""
    runs: int = 0
    refreshed: int = 0
    by_status: Counter[str] = Factory(Counter[str])
    credits: int = 0
    is_complete: bool = False
    """Whether all runs are read and written, so that only the file `source` has to be moved into place."""
    source: str | None = None
    """The name of the complete file; None if there is nothing to add to the base."""

    def expected_runs(self) -> int | None:
        """Return the number of runs that the export will have; None if it does not read every list to its end."""
        totals = [list_state.total for list_state in self.lists.values() if list_state.total is not None]
        reads_all = self.base is None and self.selection.since in {None, LAST}
        return sum(totals) if reads_all and len(totals) == len(self.lists) else None
