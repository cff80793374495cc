"""How far an export has come, as plain values, and from which page another process continues it; never awaits.

The pagination rule (docs/pagination.md) holds for any two responses, however far apart in time: if the first `n`
positions of a list were read when its total was `T`, and the total is now `T'`, then no unread run is before position
``n - max(0, T - T')``, as long as runs are added at the head only. A checkpoint is such an `n` and `T`, once the pager
has proven that nothing is missing. It is used only while the list proves to be newest first; some pages before it are
read again for safety, and the ids that were seen keep each run single.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from attrs import Factory, define, frozen
from cattrs.preconf.json import make_converter

from aiocopyai.models import Page, Run


LAST: Final = "last"
"""`Selection.since` for the runs that a file does not have yet."""
MARGIN: Final = 5
"""Pages that are read again beyond what the rule requires."""
_PREFETCH: Final[int | None] = None
"""The `prefetch` of `runs()`: as many pages as are needed."""
_MAX_ATTEMPTS: Final = 3


@frozen
class Selection:
    """What to export; an export can only be resumed for the same."""

    workflow_ids: tuple[str, ...]
    since: str | None
    """An ISO 8601 time in UTC, ``last``, or None for everything."""

    def __str__(self) -> str:
        return f"{', '.join(self.workflow_ids)}{f' since {self.since}' if self.since else ''}"


@frozen
class FileStamp:
    """What shows that a file has changed."""

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
    """The first runs of a list, up to a position, were read when the list had this total."""

    position: int
    total: int
    page_length: int
    """How many runs a page of this server has."""

    def next_page(self, total: int) -> int:
        """Return the first page that may have an unread run now that the list has this total."""
        removed = max(0, self.total - total)
        return max(0, self.position - removed) // self.page_length + 1


@define
class ListState:
    """How far the list of one workflow was read."""

    total: int | None = None
    """How many runs the list has, according to the latest response."""
    is_done: bool = False
    checkpoint: Checkpoint | None = None
    attempts: int = 0
    """How often reading was started since the checkpoint was set."""
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


def leaves_no_gap(checkpoint: Checkpoint | None, start_page: int, total: int | None) -> bool:
    """Whether reading from `start_page` leaves out no unread run, given the total of its first response."""
    if start_page == 1:
        return True
    return checkpoint is not None and total is not None and start_page <= checkpoint.next_page(total)


class Tracker:
    """Keeps the `ListState` up to date during one iteration over the list's pages."""

    def __init__(self, listed: ListState) -> None:
        self._list = listed
        listed.attempts += 1

    @property
    def prefetch(self) -> int | None:
        """The `prefetch` to read with: 0 if several attempts were too short to prove any pages."""
        return _PREFETCH if self._list.attempts <= _MAX_ATTEMPTS else 0

    def add(self, page: Page[Run], position: int, total: int | None, page_length: int) -> None:
        """Record a page, and the position up to which the list was read for certain, as of a total."""
        for newer, older in pairwise(run.created_at for run in page.items):
            if newer is None or older is None or newer < older:
                self._list.is_ordered = False
            elif newer > older:
                self._list.descends = True
        old = self._list.checkpoint
        # A checkpoint stays valid until it is overtaken, also while pages in front of it are read again.
        if total is not None and (old is None or old.position - max(0, old.total - total) < position):
            self._list.checkpoint = Checkpoint(position, total, page_length)
            self._list.attempts = 0

    def is_past_horizon(self, page: Page[Run]) -> bool:
        """Whether all runs behind this page are older than those of interest."""
        if self._list.horizon is None or not self._list.is_newest_first:
            return False
        oldest = page.items[-1].created_at
        return oldest is not None and oldest < self._list.horizon


@define
class ExportState:
    """The state of an unfinished export."""

    selection: Selection
    replaces: bool
    """Whether an existing file may be replaced."""
    base: FileStamp | None
    """The file that runs are added to, when its runs were read; None if the export writes a new file."""
    lists: dict[str, ListState]
    """By workflow id."""
    size: int = 0
    """How many bytes of the rows file are valid."""
    runs: int = 0
    refreshed: int = 0
    by_status: Counter[str] = Factory(Counter[str])
    credits: int = 0
    is_complete: bool = False
    """Whether everything is read and written, and only the file named `source` has to be moved into place."""
    source: str | None = None

    def count(self, runs: Sequence[Run], refreshed: int) -> None:
        """Count runs that were added to the rows file, `refreshed` of which replace a row of the base."""
        self.runs += len(runs)
        self.refreshed += refreshed
        self.by_status.update([str(run.status or "no status") for run in runs])
        self.credits += sum([run.credits or 0 for run in runs])

    def expected_runs(self) -> int | None:
        """Return how many runs the export will have; None unless it reads every list to its end."""
        totals = [listed.total for listed in self.lists.values() if listed.total is not None]
        reads_all = self.base is None and self.selection.since in {None, LAST}
        return sum(totals) if reads_all and len(totals) == len(self.lists) else None


_CONVERTER: Final = make_converter()


def dump_state(state: ExportState) -> str:
    """Return a state as JSON."""
    return _CONVERTER.dumps(state)


def load_state(document: str) -> ExportState:
    """Return the state that `dump_state` wrote.

    Raises:
        ValueError, KeyError, TypeError, ExceptionGroup: it is not one.
    """
    return _CONVERTER.loads(document, ExportState)
