"""A workflow and its runs, the newest first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from copy import deepcopy
from math import inf
from typing import Literal, TypeAlias

from attrs import define, field

from aiocopyai.emulator._json import JSON
from aiocopyai.emulator._lifecycle import StartedRun
from aiocopyai.emulator._sample_data import SeededRun, invent_output


Entry: TypeAlias = "StartedRun | SeededRun | JSON"


def _item(entry: Entry, now: float) -> JSON:
    match entry:
        case StartedRun():
            return entry.make(now)
        case SeededRun():
            return entry.make()
        case _:
            return entry


def _id(entry: Entry) -> JSON:
    if isinstance(entry, StartedRun | SeededRun):
        return entry.id
    return entry.get("id") if isinstance(entry, dict) else None


@define
class Workflow:
    """One workflow's list of runs: the started ones newest first, then the others as pages show them."""

    id: str
    seed: int
    _entries: list[Entry] = field(factory=list[Entry])
    _newest: int = -1
    _oldest: int = 0
    _started: list[StartedRun] = field(factory=list[StartedRun])
    """In the order of their starts: the list shows them in reverse."""
    _starts: int = 0
    _started_by_id: dict[str, StartedRun] = field(factory=dict[str, StartedRun])
    _others_by_id: dict[str, Entry] | None = None
    """Made when first asked for, kept up to date while the list only grows."""

    def count(self, known_until: float) -> int:
        """Count the runs, but those started after this moment."""
        return self._known(known_until) + len(self._entries)

    def slice(self, start: int, stop: int, *, now: float, known_until: float) -> list[JSON]:
        """Give the runs at these positions, not copied: they are there to be sent.

        Those started after `known_until` are passed over, as if they were not there.
        """
        known = self._known(known_until)
        shown: list[Entry] = []
        shown += self._started[max(0, known - stop) : max(0, known - start)][::-1]
        shown += self._entries[max(0, start - known) : max(0, stop - known)]
        return [_item(entry, now) for entry in shown]

    def find(self, run_id: str, *, now: float, known_until: float = inf) -> JSON:
        """Give the run with this id as it is now; None where there is none, or none known yet."""
        started = self.started(run_id)
        if started is None:
            return _item(self._others().get(run_id), now)
        return started.make(now) if started.started <= known_until else None

    def started(self, run_id: str) -> StartedRun | None:
        """Give the started run with this id."""
        return self._started_by_id.get(run_id)

    def started_runs(self) -> list[StartedRun]:
        """Give the started runs, the oldest first."""
        return list(self._started)

    def objects(self, now: float) -> list[dict[str, JSON]]:
        """Give copies of all items that are objects."""
        items = self.slice(0, len(self._started) + len(self._entries), now=now, known_until=inf)
        return [deepcopy(item) for item in items if isinstance(item, dict)]

    def add(self, count: int, where: Literal["head", "tail"], fields: Mapping[str, JSON]) -> list[str]:
        """Invent runs newer or older than all before; give their ids in the list's order."""
        serials = self._newer(count) if where == "head" else self._older(count)
        added = [SeededRun(self.seed, self.id, serial, fields) for serial in serials]
        position = 0 if where == "head" else len(self._entries)
        self._entries[position:position] = added
        ids = [run.id for run in added]
        if self._others_by_id is not None:
            self._others_by_id.update(zip(ids, added, strict=True))
        return ids

    def put(self, items: Iterable[JSON]) -> None:
        """Replace the list, started runs included."""
        self._entries = list(items)
        self._started = []
        self._started_by_id = {}
        self._others_by_id = None

    def remove(self, ids: Iterable[str]) -> None:
        """Take out the runs with these ids."""
        gone = frozenset(ids)
        self._entries = [entry for entry in self._entries if not (isinstance(key := _id(entry), str) and key in gone)]
        self._started = [run for run in self._started if run.id not in gone]
        self._started_by_id = {run.id: run for run in self._started}
        self._others_by_id = None

    def begin(self, run: StartedRun) -> None:
        """Take in a run that has just been started."""
        self._started.append(run)
        self._started_by_id[run.id] = run
        self._starts += 1

    def next_output(self, status: str) -> dict[str, JSON]:
        """Invent what the next started run puts out if it ends like this."""
        return invent_output(f"{self.seed}/{self.id}/started/{self._starts}", status)

    def _others(self) -> dict[str, Entry]:
        if self._others_by_id is None:
            self._others_by_id = {key: entry for entry in self._entries if isinstance(key := _id(entry), str)}
        return self._others_by_id

    def _known(self, until: float) -> int:
        return bisect_right(self._started, until, key=lambda run: run.started)

    def _newer(self, count: int) -> range:
        self._newest += count
        return range(self._newest, self._newest - count, -1)

    def _older(self, count: int) -> range:
        self._oldest -= count
        return range(self._oldest + count - 1, self._oldest - 1, -1)
