"""What an export was asked for and how far it has come: plain values that the ledger keeps as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from attrs import Factory, define, frozen
from cattrs.preconf.json import make_converter

from aiocopyai.models import Run


LAST: Final = "last"
"""`Asked.since` for what a file has not."""


@frozen
class Asked:
    """What an export was asked for; one that goes on must be asked for the same."""

    workflow_ids: tuple[str, ...]
    since: str | None
    """An ISO time in UTC, ``last``, or None for everything."""

    def __str__(self) -> str:
        return f"{', '.join(self.workflow_ids)}{f' since {self.since}' if self.since else ''}"


@frozen
class Base:
    """The file that is added to, as it was when its ids were read."""

    size: int
    modified: int
    """In nanoseconds."""

    @classmethod
    def of(cls, path: Path) -> Base:
        """Look at a file."""
        seen = path.stat()
        return cls(seen.st_size, seen.st_mtime_ns)


@frozen
class Mark:
    """A place where a walk can be taken up: all up to the end of this page was read when the list had this total."""

    page: int
    total: int
    step: int
    """How many runs a page surely has."""


@define
class Walked:
    """How far one workflow's list was read."""

    total: int | None = None
    """How many runs the list has, as it was last told."""
    is_done: bool = False
    mark: Mark | None = None
    is_ordered: bool = True
    """Whether every page so far ran from newer to older."""
    descends: bool = False
    """Whether a step from newer to older was seen at all."""
    horizon: datetime | None = None
    """Where the list is newest first, nothing older than this is of interest."""


@define
class State:
    """All that is known of an export."""

    asked: Asked
    replaces: bool
    """Whether a file that is there already may be replaced."""
    base: Base | None
    walks: dict[str, Walked]
    size: int = 0
    """The bytes of the part that count."""
    runs: int = 0
    by_status: Counter[str] = Factory(Counter[str])
    credits: int = 0
    is_finished: bool = False
    """Whether all is read and written, and only `source` is left to be put in its place."""
    source: str | None = None
    """The name of what becomes the file."""

    def count(self, runs: Sequence[Run]) -> None:
        """Account for runs that are in the part now."""
        self.runs += len(runs)
        self.by_status.update([str(run.status or "no status") for run in runs])
        self.credits += sum([run.credits or 0 for run in runs])


_CONVERTER: Final = make_converter()


def dump_state(state: State) -> str:
    """Give a state as JSON."""
    return _CONVERTER.dumps(state)


def load_state(document: str) -> State:
    """Read a state back."""
    return _CONVERTER.loads(document, State)
