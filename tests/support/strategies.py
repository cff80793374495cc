"""What the property tests draw: a list that moves between requests, and JSON of any shape."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from attrs import define, field
from hypothesis import strategies as st

from aiocopyai import JSON, Page, Run


if TYPE_CHECKING:
    from collections.abc import Iterator

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
"""A text that breaks lines, steers terminals, turns the writing round, and is no Unicode."""


@define
class MovingList:
    """A list of ids, newest first, that grows at its head and shrinks anywhere between any two requests."""

    ids: list[str]
    moves: Iterator[tuple[int, list[float]]] = field(repr=False)
    stayed: set[str] = field(init=False)
    requests: int = 0

    def __attrs_post_init__(self) -> None:
        self.stayed = set(self.ids)

    def move(self) -> None:
        """Add and remove what the next move says; when the moves are out the list stands still."""
        added, removed = next(self.moves, (0, []))
        self.ids[:0] = [f"new-{self.requests}-{number}" for number in range(added)]
        for place in removed:
            if self.ids:
                self.stayed.discard(self.ids.pop(int(place * len(self.ids))))

    def page(self, number: int, size: int) -> Page[Run]:
        """Answer a request as an honest server does, after a move."""
        self.move()
        self.requests += 1
        held = self.ids[(number - 1) * size : number * size]
        return Page(number, size, len(self.ids), [Run(run_id) for run_id in held])


@st.composite
def moving_lists(draw: st.DrawFn, *, moves: bool = True) -> MovingList:
    """Draw a list of up to 120 runs and the up to 40 moves that it makes."""
    count = draw(st.integers(0, 120))
    one_move = st.tuples(
        st.integers(0, 6), st.lists(st.floats(0, 1, exclude_max=True), max_size=draw(st.integers(0, 12)))
    )
    drawn = draw(st.lists(one_move, max_size=40)) if moves else []
    return MovingList([f"run-{number}" for number in range(count)], iter(drawn))


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
"""The bodies of the vendor's reference."""


@st.composite
def mutated(draw: st.DrawFn) -> JSON:
    """Draw a documented body with up to three values replaced or gone, anywhere in it."""
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
"""Any bytes, any JSON, and what is nearly as documented."""
