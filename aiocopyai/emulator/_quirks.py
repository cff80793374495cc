"""`Quirks`: the behavior of the emulator where the pages of Copy.ai's reference disagree or say nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from attrs import frozen

from aiocopyai.emulator._argument_checks import check_boolean, check_choice, check_integer, check_seconds
from aiocopyai.emulator._messages import JSON


TotalQuirk: TypeAlias = "Literal['int', 'string', 'absent'] | Callable[[int], Any]"

_ABSENT_IF_SPARSE: Final = frozenset({"status", "input", "output"})


@frozen(kw_only=True)
class Quirks:
    """The behavior of the emulator where the pages of Copy.ai's reference disagree or say nothing.

    The defaults are the most convenient for a client.

    Attributes:
        total: how a list's `total` is sent: vendor pages show integers and strings. A callable receives the true count
            and returns the value to send.
        max_size: the maximum number of runs on a page; 100 in the reference.
        oversize: the response to a `size` above `max_size`: pages of `max_size`, or a 400. Not documented.
        past_end: the response to a page after the end: no runs, the last page again, or this status. Not documented.
        page_zero: the response to `page=0`: the first page, or a 400. Not documented.
        ignore_page: whether every page is the first one.
        sparse: whether runs in a list lack `status`, `input` and `output`, as in one vendor example.
        mixed_dates: whether about half of the `createdAt` values lack milliseconds (those with an even number of them),
            as in one vendor example.
        credits: how a run's credits are sent: vendor pages show both.
        short_pages: the number of runs that are missing at the end of each page, and are not on the next page either.
            With 1 and three runs, the list is as in one vendor example: a `total` of 3 with two runs.
        text_404: whether a 404 is plain text instead of JSON; the reference shows both.
        lists_metadata: whether runs in a list have their `metadata`; in one vendor example they do not.
        late_runs: seconds after its start during which a run is neither listed nor found. A 404 for a run that was just
            started has been seen.
        retention: the maximum number of runs in a list: each further run removes the oldest one. None for no limit. Not
            documented.
        delivery: the body of a `workflowRun.completed` delivery: with the output as `result`, as in the current
            reference; with `result.output`, as in an older one; or the whole run with a `type`, as captured in 2025.

    Raises:
        ValueError: a value is invalid.
    """

    total: TotalQuirk = "int"
    max_size: int = 100
    oversize: Literal["clamp", "reject"] = "clamp"
    past_end: Literal["empty", "last", 400, 404, 422] = "empty"
    page_zero: Literal["first", 400] = "first"
    ignore_page: bool = False
    sparse: bool = False
    mixed_dates: bool = False
    credits: Literal["int", "string"] = "int"
    short_pages: int = 0
    text_404: bool = False
    lists_metadata: bool = True
    late_runs: float = 0.0
    retention: int | None = None
    delivery: Literal["today", "older", "run"] = "today"

    def __attrs_post_init__(self) -> None:
        if not callable(self.total):
            check_choice("total", self.total, ("int", "string", "absent"))
        check_choice("oversize", self.oversize, ("clamp", "reject"))
        check_choice("past_end", self.past_end, ("empty", "last", 400, 404, 422))
        check_choice("page_zero", self.page_zero, ("first", 400))
        check_choice("credits", self.credits, ("int", "string"))
        check_choice("delivery", self.delivery, ("today", "older", "run"))
        for name in ("ignore_page", "sparse", "mixed_dates", "text_404", "lists_metadata"):
            check_boolean(name, getattr(self, name))
        check_integer("max_size", self.max_size, 1)
        check_integer("short_pages", self.short_pages, 0)
        check_seconds("late_runs", self.late_runs)
        if self.retention is not None:
            check_integer("retention", self.retention, 0)


def apply_list_quirks(items: list[JSON], quirks: Quirks) -> list[JSON]:
    """Return the items of a list as they are sent; items that are not objects are unchanged."""
    absent: frozenset[str] = _ABSENT_IF_SPARSE if quirks.sparse else frozenset()
    if not quirks.lists_metadata:
        absent |= {"metadata"}
    if absent:
        items = [
            {name: value for name, value in item.items() if name not in absent} if isinstance(item, dict) else item
            for item in items
        ]
    return [apply_quirks(item, quirks) for item in items]


def apply_quirks(item: JSON, quirks: Quirks) -> JSON:
    """Return one run as it is sent; an item that is not an object is unchanged."""
    if not isinstance(item, dict):
        return item
    changes: dict[str, JSON] = {}
    created_at, cost = item.get("createdAt"), item.get("credits")
    if quirks.mixed_dates and isinstance(created_at, str):
        seconds, _, fraction = created_at.partition(".")
        # The digits of the date decide, so that a run always has the same date.
        if fraction[2:3] in {"0", "2", "4", "6", "8"}:
            changes["createdAt"] = f"{seconds}Z"
    if quirks.credits == "string" and isinstance(cost, int):
        changes["credits"] = str(cost)
    return item | changes if changes else item
