"""The state of an export that `_export` resumes, and the page from which it continues; never awaits.

The pagination rule (docs/pagination.md) holds for any two responses, however far apart in time: if the first `n`
positions of a list were read when its total was `T`, and the total is now `T'`, then no unread run is before position
``n - max(0, T - T')``, as long as runs are added at the head only. A checkpoint is such an `n` and `T`, once the pager
has proven that nothing is missing. It is used only while the list proves to be newest first. A few pages before it are
read again for safety; runs that were seen before are not written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from attrs import Factory, define, frozen

from aiocopyai.models import Page, Run


LAST: Final = "last"
"""The `since` that selects the runs that a file does not have yet."""
MARGIN: Final = 5
"""Pages that are read again beyond what the rule requires."""
_PREFETCH: Final[int | None] = None
"""The `prefetch` of `runs()`; None selects its default."""
_MAX_ATTEMPTS: Final = 3
"""After how many attempts without a new checkpoint pages are read one by one, so that each is proven at once."""


@frozen
class Selection:
    """The runs to export; an export can only be resumed with the same selection."""

    workflow_ids: tuple[str, ...]
    since: str | None
    """An ISO 8601 time in UTC, ``last``, or None for everything."""

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
        """Return the stamp of a file as it is now."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


@frozen
class Checkpoint:
    """The runs before a position of a list were read when the list had this total."""

    position: int
    total: int
    page_length: int
    """The length of a full page of this server."""

    def next_page(self, total: int) -> int:
        """Return the first page that may have an unread run if the list has this total now."""
        removed = max(0, self.total - total)
        return max(0, self.position - removed) // self.page_length + 1


@define
class ListState:
    """How far the list of one workflow was read, and in which order its runs are."""

    total: int | None = None
    """The number of runs on the list according to the latest response."""
    is_done: bool = False
    checkpoint: Checkpoint | None = None
    attempts: int = 0
    """How often reading was started since the latest checkpoint."""
    is_ordered: bool = True
    """Whether no page so far had an older run before a newer one."""
    descends: bool = False
    """Whether some page had a newer run before an older one."""
    horizon: datetime | None = None
    """If the list is newest first, runs created before this time need not be read."""

    @property
    def is_newest_first(self) -> bool:
        """Whether the list has proved to be newest first."""
        return self.is_ordered and self.descends

    def start_page(self) -> int:
        """Return the page to continue from, given the current `total`."""
        if self.checkpoint is None or self.total is None or not self.is_newest_first:
            return 1
        return max(1, self.checkpoint.next_page(self.total) - MARGIN)

    def start_reading(self) -> int | None:
        """Count an attempt, and return its `prefetch`: 0 if several attempts were too short to prove any pages."""
        self.attempts += 1
        return _PREFETCH if self.attempts <= _MAX_ATTEMPTS else 0

    def add(self, page: Page[Run], position: int, total: int | None, page_length: int) -> None:
        """Record a page, and the position before which all runs were certainly read when the list had this total."""
        for newer, older in pairwise(run.created_at for run in page.items):
            if newer is None or older is None or newer < older:
                self.is_ordered = False
            elif newer > older:
                self.descends = True
        old = self.checkpoint
        # A checkpoint stays valid until a later one replaces it, even while pages in front of it are read again.
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
    """Whether there is no unread run before `start_page`, given the total of its first response."""
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
    """The existing file that runs are added to, as it was when they were read; None if the export writes a new file."""
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

    def count(self, runs: Sequence[Run], refreshed: int) -> None:
        """Count runs that were added, `refreshed` of which replace a row of the base."""
        self.runs += len(runs)
        self.refreshed += refreshed
        self.by_status.update([str(run.status or "no status") for run in runs])
        self.credits += sum([run.credits or 0 for run in runs])

    def expected_runs(self) -> int | None:
        """Return the number of runs that the export will have; None unless it reads every list to its end."""
        totals = [listed.total for listed in self.lists.values() if listed.total is not None]
        reads_all = self.base is None and self.selection.since in {None, LAST}
        return sum(totals) if reads_all and len(totals) == len(self.lists) else None
