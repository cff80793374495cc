"""The emulator's state: workflows with their runs, webhooks, credits, scripts and the clock."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from copy import deepcopy
from math import inf
from threading import RLock
from typing import Final, Literal, TypeAlias
from uuid import uuid4

from attrs import define, evolve, field, frozen

from aiocopyai.emulator._messages import JSON
from aiocopyai.emulator._run_scripts import ScriptQueue, StartedRun
from aiocopyai.emulator._sample_data import SampleRun, sample_digest, sample_output


RUN_STARTED: Final = "workflowRun.started"
RUN_COMPLETED: Final = "workflowRun.completed"
RUN_FAILED: Final = "workflowRun.failed"
CREDIT_LIMIT_REACHED: Final = "workflowCreditLimit.reached"

EVENT_TYPES: Final = (RUN_STARTED, RUN_COMPLETED, RUN_FAILED, CREDIT_LIMIT_REACHED)
"""The documented event types. A webhook is registered for one of them."""


@frozen
class RawItem:
    """An item of a list that was given as JSON, and may be malformed."""

    content: JSON

    @property
    def id(self) -> str | None:
        """The item's id, or None if it is missing or not a string."""
        value = self.content.get("id") if isinstance(self.content, dict) else None
        return value if isinstance(value, str) else None

    def to_json(self) -> JSON:
        """Return the item as the API sends it."""
        return self.content


Entry: TypeAlias = SampleRun | RawItem
"""A run in a list that was not started by a call."""


@define
class Workflow:
    """One workflow's runs: the started ones, newest first, then the other entries in the order of the list."""

    id: str
    seed: int
    entries: list[Entry] = field(factory=list[Entry])
    newest_serial: int = -1
    """The serial number of the newest sample run so far."""
    oldest_serial: int = 0
    """The serial number of the oldest sample run so far."""
    start_count: int = 0
    """The number of runs that were started, including those that were removed."""
    _started: dict[str, StartedRun] = field(factory=dict[str, StartedRun])
    """By id, oldest first. The list shows them in reverse order."""
    _entries_by_id: dict[str, Entry] | None = None
    """Built on first use, because computing the ids of many sample runs takes long."""

    def count(self, visible_until: float = inf) -> int:
        """Return the number of runs, without those started after this time."""
        return self._visible(visible_until) + len(self.entries)

    def slice(self, start: int, stop: int, *, now: float, visible_until: float = inf) -> list[JSON]:
        """Return the items at these positions of the list. They are not copied.

        Runs started after `visible_until` are omitted, as if they did not exist.
        """
        visible = self._visible(visible_until)
        started = list(self._started.values())[max(0, visible - stop) : max(0, visible - start)]
        entries = self.entries[max(0, start - visible) : max(0, stop - visible)]
        return [*(run.to_json(now) for run in reversed(started)), *(entry.to_json() for entry in entries)]

    def find(self, run_id: str, *, now: float, visible_until: float = inf) -> JSON:
        """Return the current state of a run, or None if the id is unknown or the run is not visible yet."""
        started = self._started.get(run_id)
        if started is not None:
            return started.to_json(now) if started.started <= visible_until else None
        if self._entries_by_id is None:
            self._entries_by_id = {key: entry for entry in self.entries if (key := entry.id) is not None}
        entry = self._entries_by_id.get(run_id)
        return None if entry is None else entry.to_json()

    def started_run(self, run_id: str) -> StartedRun | None:
        """Return the started run with this id."""
        return self._started.get(run_id)

    def started_runs(self) -> list[StartedRun]:
        """Return the started runs, oldest first."""
        return list(self._started.values())

    def objects(self, now: float) -> list[dict[str, JSON]]:
        """Return copies of all items that are objects."""
        return [deepcopy(item) for item in self.slice(0, self.count(), now=now) if isinstance(item, dict)]

    def add_samples(self, count: int, where: Literal["head", "tail"], fields: Mapping[str, JSON]) -> list[str]:
        """Add sample runs that are newer or older than all others, and return their ids in the order of the list."""
        if where == "head":
            self.newest_serial += count
            position, first = 0, self.newest_serial
        else:
            position, first = len(self.entries), self.oldest_serial - 1
            self.oldest_serial -= count
        added = sample_range(self, first, count, fields)
        self.entries[position:position] = added
        ids = [run.id for run in added]
        if self._entries_by_id is not None:
            self._entries_by_id.update(zip(ids, added, strict=True))
        return ids

    def replace(self, items: Iterable[JSON]) -> None:
        """Replace the whole list, including the started runs, with raw items."""
        self.entries = [RawItem(item) for item in items]
        self._started.clear()
        self._entries_by_id = None

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the runs with these ids."""
        removed = frozenset(ids)
        self.entries = [entry for entry in self.entries if entry.id not in removed]
        self._entries_by_id = None
        for run_id in removed:
            self._started.pop(run_id, None)

    def add_started(self, run: StartedRun) -> None:
        """Add a run that was started after all others."""
        self._started[run.id] = run
        self.start_count += 1

    def next_output(self, status: str, inputs: Mapping[str, JSON]) -> dict[str, JSON]:
        """Generate the output of the next started run, if it ends with this status."""
        digest = sample_digest(f"{self.seed}/{self.id}/started/{self.start_count}")
        return sample_output(digest, status, inputs)

    def _visible(self, until: float) -> int:
        """Return the number of runs that were started at or before this time."""
        if until == inf:
            return len(self._started)
        return bisect_right(list(self._started.values()), until, key=lambda run: run.started)


def sample_range(workflow: Workflow, first: int, count: int, fields: Mapping[str, JSON]) -> list[SampleRun]:
    """Return `count` sample runs with descending serial numbers."""
    return [SampleRun(workflow.seed, workflow.id, serial, fields) for serial in range(first, first - count, -1)]


@frozen(kw_only=True)
class RegisteredWebhook:
    """A webhook that was registered by an API call."""

    id: str = field(factory=lambda: str(uuid4()))
    url: str
    event_type: str
    workflow_id: str | None
    """None for all workflows of the workspace."""

    def to_json(self) -> dict[str, JSON]:
        """Return the webhook as the API sends it."""
        return {"id": self.id, "url": self.url, "eventType": self.event_type, "workflowId": self.workflow_id}


class Storage:
    """Receives every change that must survive a restart. This base class discards them."""

    def save_list(self, workflow: Workflow) -> None:
        """Save a workflow's list after it was changed other than by a start."""

    def save_start(self, workflow: Workflow, run: StartedRun, credits_left: int | None) -> None:
        """Save a run that was started, and the remaining credits."""

    def save_credits(self, credits_left: int | None) -> None:
        """Save the remaining credits."""

    def save_webhook(self, webhook: RegisteredWebhook) -> None:
        """Save a webhook that was registered."""

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook."""


@define
class Clock:
    """A clock that returns seconds since 1970, and never jumps. Its times are still valid after a restart."""

    _offset: float = field(factory=lambda: time.time() - time.monotonic())

    def now(self) -> float:
        """Return the current time."""
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._offset += seconds


@define
class EmulatorState:
    """The data of the emulator. Each method that changes it also passes the change to `storage`.

    Hold `lock` while using it: the emulator may run in its own thread.
    """

    seed: int
    run_time: float
    credits: int | None
    workflows: dict[str, Workflow] = field(factory=dict[str, Workflow])
    webhooks: dict[str, RegisteredWebhook] = field(factory=dict[str, RegisteredWebhook])
    """By id, oldest first."""
    scripts: ScriptQueue = field(factory=ScriptQueue)
    clock: Clock = field(factory=Clock)
    storage: Storage = field(factory=Storage)
    lock: RLock = field(factory=RLock)

    def workflow(self, workflow_id: str) -> Workflow:
        """Return a workflow, and create it if it is unknown."""
        if workflow_id not in self.workflows:
            self.workflows[workflow_id] = Workflow(workflow_id, self.seed)
        return self.workflows[workflow_id]

    def find_run(self, run_id: str) -> JSON:
        """Return the current state of a run of any workflow, or None if the id is unknown."""
        now = self.clock.now()
        found = (workflow.find(run_id, now=now) for workflow in self.workflows.values())
        return next((run for run in found if run is not None), None)

    def started_runs(self) -> list[StartedRun]:
        """Return the started runs of all workflows."""
        return [run for workflow in self.workflows.values() for run in workflow.started_runs()]

    def subscribers(self, event_type: str, workflow_id: str) -> list[RegisteredWebhook]:
        """Return the webhooks that receive an event of a workflow."""
        return [
            webhook
            for webhook in self.webhooks.values()
            if webhook.event_type == event_type and webhook.workflow_id in {None, workflow_id}
        ]

    def add_samples(
        self, workflow_id: str, count: int, where: Literal["head", "tail"], fields: Mapping[str, JSON]
    ) -> list[str]:
        """Add sample runs to one end of a workflow's list, and return their ids in the order of the list."""
        workflow = self.workflow(workflow_id)
        ids = workflow.add_samples(count, where, fields)
        self.storage.save_list(workflow)
        return ids

    def replace_runs(self, workflow_id: str, items: Iterable[JSON]) -> None:
        """Replace a workflow's list with raw items."""
        workflow = self.workflow(workflow_id)
        workflow.replace(items)
        self.storage.save_list(workflow)

    def remove_runs(self, workflow_id: str, ids: Iterable[str]) -> None:
        """Remove runs from a workflow's list."""
        workflow = self.workflow(workflow_id)
        workflow.remove(ids)
        self.storage.save_list(workflow)

    def set_credits(self, credits_left: int | None) -> None:
        """Set the remaining credits; None for no limit."""
        self.credits = credits_left
        self.storage.save_credits(credits_left)

    def start_run(self, workflow: Workflow, inputs: dict[str, JSON], metadata: JSON) -> StartedRun | None:
        """Start a run with the next script. Return None if the remaining credits do not cover it."""
        script = self.scripts.peek()
        credits_left = None if self.credits is None else self.credits - script.credits
        if credits_left is not None and credits_left < 0:
            return None
        self.scripts.advance()
        output = script.output
        if output is None:
            output = workflow.next_output(script.states[-1], inputs)
        run = StartedRun(
            id=f"WRUN-{uuid4()}",
            workflow_id=workflow.id,
            inputs=inputs,
            metadata=metadata,
            started=self.clock.now(),
            run_time=self.run_time,
            script=evolve(script, output=dict(output)),
        )
        self.credits = credits_left
        workflow.add_started(run)
        self.storage.save_start(workflow, run, credits_left)
        return run

    def add_webhook(self, webhook: RegisteredWebhook) -> None:
        """Register a webhook, even if one exists for the same URL and event."""
        self.webhooks[webhook.id] = webhook
        self.storage.save_webhook(webhook)

    def remove_webhook(self, webhook_id: str) -> None:
        """Delete a registered webhook."""
        del self.webhooks[webhook_id]
        self.storage.delete_webhook(webhook_id)
