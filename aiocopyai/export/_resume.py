"""Where a walk can be taken up by another process: a record of one walk that never awaits.

The rule of the walk (docs/pagination.md) speaks of any two answers, however long apart: if the first `pos` places
of the list were read when its total was `T`, and the total is `T'` now, then no unread run stands before the place
``pos - max(0, T - T')``, provided that runs are added in front only. So a mark is a page with all before it read, and
the total of the very answer that held it. It is trusted while the list proves to be newest first; some pages are read
once more on top, and the ids of what was met before keep everything single.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from aiocopyai.export._state import Mark, Walked
from aiocopyai.models import Changes, Page, Run


MARGIN: Final = 5
"""Pages that are read again beyond what the rule asks for."""


def first_page(walked: Walked, total: int | None) -> int:
    """Return the page to go on from where the list has this total now."""
    mark = walked.mark
    if mark is None or total is None or not (walked.is_ordered and walked.descends):
        return 1
    return max(1, _border(mark, total) - MARGIN)


def joins(walked: Walked, page: int, total: int | None) -> bool:
    """Whether a walk that began at this page, the total being this, leaves nothing out."""
    return page == 1 or (walked.mark is not None and total is not None and page <= _border(walked.mark, total))


def _border(mark: Mark, total: int) -> int:
    """Return the page on which the first unread run may stand."""
    fallen = max(0, mark.total - total)
    return mark.page + 1 - -(-fallen // mark.step)


class Trail:
    """Follows a walk, page by page as the pager gives them."""

    def __init__(self, walked: Walked) -> None:
        self._walked = walked
        self._rereads = 0
        self._step = 0
        self.is_joined = False
        """Whether all before the latest page was read."""

    def follow(self, page: Page[Run], changes: Changes) -> None:
        """Account for a page, with what had moved when it was given."""
        # The first page of a walk holds nothing that was given before, so it shows how long a page is.
        self._step = self._step or len(page.items)
        self._judge_order(page.items)
        # The pager counts each return to pages before; while it counts none, the latest page joined up.
        self.is_joined = changes.reread == self._rereads
        self._rereads = changes.reread
        believed = page.total is not None and (page.number - 1) * self._step + len(page.items) <= page.total
        if self.is_joined and believed and page.total is not None:
            self._put_mark(Mark(page.number, page.total, self._step))

    def is_past_horizon(self, page: Page[Run]) -> bool:
        """Whether everything from here on must be older than what is of interest."""
        walked = self._walked
        if walked.horizon is None or not (walked.is_ordered and walked.descends and self.is_joined):
            return False
        oldest = page.items[-1].created_at
        return oldest is not None and oldest < walked.horizon

    def _put_mark(self, mark: Mark) -> None:
        """Keep the mark that leads further: one never expires, and pages that are read again are behind it."""
        old = self._walked.mark
        if old is None or _border(old, mark.total) <= mark.page + 1:
            self._walked.mark = mark

    def _judge_order(self, runs: Sequence[Run]) -> None:
        moments = [run.created_at for run in runs]
        for newer, older in pairwise(moments):
            if newer is None or older is None or newer < older:
                self._walked.is_ordered = False
            elif newer > older:
                self._walked.descends = True
