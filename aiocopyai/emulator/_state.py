"""What the emulator knows: workflows and their runs, the newest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Literal, TypeAlias

from attrs import define, field

from aiocopyai.emulator._json import JSON
from aiocopyai.emulator._seed import SeededRun


Entry: TypeAlias = "SeededRun | JSON"


def _item(entry: Entry) -> JSON:
    return entry.make() if isinstance(entry, SeededRun) else entry


def _id(entry: Entry) -> JSON:
    if isinstance(entry, SeededRun):
        return entry.id
    return entry.get("id") if isinstance(entry, dict) else None


@define
class Workflow:
    """One workflow's list of runs, in the order in which pages show them."""

    id: str
    seed: int
    _entries: list[Entry] = field(factory=list[Entry])
    _newest: int = -1
    _oldest: int = 0

    def __len__(self) -> int:
        return len(self._entries)

    def slice(self, start: int, stop: int) -> list[JSON]:
        """Give the runs at these positions, not copied: they are there to be sent."""
        return [_item(entry) for entry in self._entries[start:stop]]

    def objects(self) -> list[dict[str, JSON]]:
        """Give copies of all items that are objects."""
        items = (_item(entry) for entry in self._entries)
        return [deepcopy(item) for item in items if isinstance(item, dict)]

    def add(self, count: int, where: Literal["head", "tail"], fields: Mapping[str, JSON]) -> list[str]:
        """Invent runs newer or older than all before; give their ids in the list's order."""
        serials = self._newer(count) if where == "head" else self._older(count)
        added = [SeededRun(self.seed, self.id, serial, fields) for serial in serials]
        position = 0 if where == "head" else len(self._entries)
        self._entries[position:position] = added
        return [run.id for run in added]

    def put(self, items: Iterable[JSON]) -> None:
        """Replace the list."""
        self._entries = list(items)

    def remove(self, ids: Iterable[str]) -> None:
        """Take out the runs with these ids."""
        gone = frozenset(ids)
        self._entries = [entry for entry in self._entries if not (isinstance(key := _id(entry), str) and key in gone)]

    def _newer(self, count: int) -> range:
        self._newest += count
        return range(self._newest, self._newest - count, -1)

    def _older(self, count: int) -> range:
        self._oldest -= count
        return range(self._oldest + count - 1, self._oldest - 1, -1)


@define
class State:
    """All workflows, by id."""

    seed: int
    workflows: dict[str, Workflow] = field(factory=dict[str, Workflow])

    def workflow(self, workflow_id: str) -> Workflow:
        """Give a workflow; one not known yet is made."""
        if workflow_id not in self.workflows:
            self.workflows[workflow_id] = Workflow(workflow_id, self.seed)
        return self.workflows[workflow_id]
