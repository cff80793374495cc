"""How the emulator deviates: what vendor pages disagree on or do not say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from attrs import frozen

from aiocopyai.emulator._json import JSON


TotalQuirk: TypeAlias = "Literal['int', 'string', 'absent'] | Callable[[int], JSON]"


@frozen(kw_only=True)
class Quirks:
    """The corners of the API that the vendor's reference leaves open.

    The defaults are a server that does everything as one would hope. Each attribute names one
    point on which vendor pages disagree, or which they leave out.
    """

    total: TotalQuirk = "int"
    """How the list's `total` is sent: both forms are on vendor pages. A callable gets the true
    count and returns what is sent."""
    max_size: int = 100
    """The largest page, in runs; 100 in the reference."""
    oversize: Literal["clamp", "reject"] = "clamp"
    """What a `size` above `max_size` gets: pages of `max_size`, or a 400. Not documented."""
    past_end: Literal["empty", "last", 400, 404, 422] = "empty"
    """What a page past the end gets: no runs, the last page again, or this status. Not
    documented."""
    page_zero: Literal["first", 400] = "first"
    """What `page=0` gets: the first page, or a 400. Not documented."""
    ignore_page: bool = False
    """Whether every page is the first one."""
    sparse: bool = False
    """Whether runs in a list lack `status`, `input` and `output`, as in one vendor example."""
    mixed_dates: bool = False
    """Whether about half of the `createdAt` lack milliseconds (those with an even number of them),
    as in one vendor example."""
    credits: Literal["int", "string"] = "int"
    """How a run's credits are sent: both forms are on vendor pages."""
    short_pages: int = 0
    """How many runs at the end of each page are left out, and not sent with the next one either.
    With 1 and three runs, the vendor's example: a `total` of 3 with two runs."""
    text_404: bool = False
    """Whether a 404 is plain text instead of JSON; the reference shows both."""
    lists_metadata: bool = True
    """Whether runs in a list have their `metadata`; one vendor example shows none."""
    late_runs: float = 0.0
    """Seconds after a start during which neither the list nor the call for one run knows it: a 404
    for a run just started has been seen."""
    delivery: Literal["today", "older", "run"] = "today"
    """The body of a `workflowRun.completed` delivery: as in today's reference, with the outputs as
    `result`; as in an older one, with `result.output`; or the whole run with a `type`, as captured
    in 2025."""
