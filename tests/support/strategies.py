"""Strategies for property tests: lists that change between requests, and JSON of any shape."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from attrs import define, field
from hypothesis import strategies as st

from aiocopyai import JSON, Page, Run


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


EVIL = "A\r\nWARNING forged\x1b[2J\x1b]0;title\x07\x9b31m\u2028\u202eB\ud800"
"""A string with line breaks, terminal control sequences, a change of direction and a lone surrogate."""


@define
class ChangingList:
    """A list of ids, newest first, that may grow at its head and shrink anywhere between two requests.

    Attributes:
        ids: the ids on the list now.
        changes: for each request, how many ids are added before it, and where ids are removed: 0 is the head, and just
            below 1 the end of the list. When they are used up, the list stays as it is.
        stayed: the ids that have been on the list from the beginning.
        requests: the number of requests served.
    """

    ids: list[str]
    changes: Iterator[tuple[int, Sequence[float]]] = field(factory=lambda: iter(()), repr=False)
    stayed: set[str] = field(init=False)
    requests: int = 0

    def __attrs_post_init__(self) -> None:
        self.stayed = set(self.ids)

    @classmethod
    def of(cls, count: int, changes: Iterable[tuple[int, Sequence[float]]] = ()) -> ChangingList:
        """Create a list of `count` ids."""
        return cls([f"run-{number}" for number in range(count)], iter(changes))

    def change(self) -> None:
        """Make the next changes."""
        added, removed = next(self.changes, (0, ()))
        self.ids[:0] = [f"new-{self.requests}-{number}" for number in range(added)]
        for place in removed:
            if self.ids:
                self.stayed.discard(self.ids.pop(int(place * len(self.ids))))

    def page(self, number: int, size: int) -> Page[Run]:
        """Serve a page of the list after its next change."""
        self.change()
        self.requests += 1
        ids = self.ids[(number - 1) * size : number * size]
        return Page(number, size, len(self.ids), [Run(run_id) for run_id in ids])


AT_THE_END = 1 - 2**-30
"""The place of the oldest run in `ChangingList.changes`."""
KINDS_OF_CHANGE = ("unchanged", "growing", "shrinking", "purged", "capped", "any")


@st.composite
def changing_lists(draw: st.DrawFn, kind: str = "any") -> ChangingList:
    """Draw a list of up to 120 runs, and some changes of one of `KINDS_OF_CHANGE`.

    A purged list loses its oldest runs. A capped list loses one for each run that is added. The total falls at most 19
    times, because 20 falls in a row may end in a `PaginationError`.
    """
    place = st.just(AT_THE_END) if kind in {"purged", "capped"} else st.floats(0, AT_THE_END)
    most_added = 0 if kind in {"unchanged", "shrinking", "purged"} else 6
    most_removed = {"unchanged": 0, "growing": 0, "any": 12}.get(kind, 6)
    changes: list[tuple[int, Sequence[float]]] = []
    for _ in range(draw(st.integers(0, 40 if kind in {"growing", "capped"} else 19))):
        added = draw(st.integers(0, most_added))
        removed = draw(st.lists(place, max_size=most_removed)) if kind != "capped" else [AT_THE_END] * added
        changes.append((added, removed))
    return ChangingList.of(draw(st.integers(0, 120)), changes)


RUN: dict[str, JSON] = {
    "id": "WRUN-1",
    "workflowRunId": "WRUN-1",
    "workflowId": "WCFG-1",
    "status": "COMPLETE",
    "input": {"Input 1": "…"},
    "output": {"Output 1": "…", "Output 2": [{"a": 1}]},
    "metadata": {"api": True},
    "createdAt": "2023-04-29T15:08:01.326Z",
    "credits": "2",
    "error": None,
}
WEBHOOK: dict[str, JSON] = {"id": "1", "url": "https://h/x", "eventType": "workflowRun.failed", "workflowId": "WCFG-1"}
DOCUMENTED: list[JSON] = [
    {"status": "success", "data": {"total": 2, "data": [RUN, {"id": "WRUN-2", "createdAt": "2023-09-27T18:24:47Z"}]}},
    {"status": "success", "data": RUN},
    {"status": "success", "data": {"id": "WRUN-1"}},
    {"status": "success", "data": WEBHOOK},
    {"total": 1, "data": [WEBHOOK]},
    {"status": "error", "errorCode": "REQUEST_INVALID", "details": {"url": ["bad"]}},
    {"type": "workflowRun.completed", **RUN, "result": {"output": {"a": "b"}}},
    {},
]
"""The bodies in the vendor's reference."""


@st.composite
def mutated(draw: st.DrawFn) -> JSON:
    """Draw a documented body with up to three values replaced or removed, anywhere in it."""
    body = copy.deepcopy(draw(st.sampled_from(DOCUMENTED)))
    for _ in range(draw(st.integers(0, 3))):
        holder = body
        while isinstance(holder, dict | list) and holder:
            place: Any = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
            inner = holder[place]
            if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
                _change(holder, place, draw)
                break
            holder = inner
    return body


def _change(holder: Any, place: Any, draw: st.DrawFn) -> None:  # noqa: ANN401 (an object or an array)
    if draw(st.booleans()):
        del holder[place]
    else:
        holder[place] = draw(JSON_VALUES | st.sampled_from([EVIL, "9" * 5_000, -1, 10**400, {"id": ".."}]))


BODIES = st.binary(max_size=80) | st.one_of(JSON_VALUES, mutated()).map(lambda value: json.dumps(value).encode())
"""Any bytes, any JSON, and JSON that is almost as documented."""
