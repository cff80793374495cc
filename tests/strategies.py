"""What the property tests draw: a list that moves between requests, and JSON of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from hypothesis import strategies as st

from aiocopyai import Page, Run


if TYPE_CHECKING:
    from collections.abc import Iterator

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


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
