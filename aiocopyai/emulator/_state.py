"""What the emulator knows, and every way in which that changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal
from uuid import uuid4

from attrs import define, evolve, field

from aiocopyai.emulator._json import JSON
from aiocopyai.emulator._lifecycle import Clock, StartedRun
from aiocopyai.emulator._scenarios import Plans
from aiocopyai.emulator._webhooks import Hook, Webhooks
from aiocopyai.emulator._workflow import Workflow


def _forget(_kind: str, _change: Mapping[str, object]) -> None:
    """Keep no record: the state is in memory only."""


@define
class State:
    """All workflows by id, the webhooks, and what starts of runs need.

    Each method that changes something a restart should not lose tells `record` of it, with its own
    name and arguments: `_store` does the same calls again.
    """

    seed: int
    run_time: float
    credits: int | None
    workflows: dict[str, Workflow] = field(factory=dict[str, Workflow])
    webhooks: Webhooks = field(factory=Webhooks)
    plans: Plans = field(factory=Plans)
    clock: Clock = field(factory=Clock)
    record: Callable[[str, Mapping[str, object]], None] = _forget

    def workflow(self, workflow_id: str) -> Workflow:
        """Give a workflow; one not known yet is made."""
        if workflow_id not in self.workflows:
            self.workflows[workflow_id] = Workflow(workflow_id, self.seed)
        return self.workflows[workflow_id]

    def find(self, run_id: str) -> JSON:
        """Give the run with this id as it is now, whatever its workflow; None where there is none."""
        now = self.clock.now()
        found = (workflow.find(run_id, now=now) for workflow in self.workflows.values())
        return next((run for run in found if run is not None), None)

    def started_runs(self) -> list[StartedRun]:
        """Give the started runs of all workflows."""
        return [run for workflow in self.workflows.values() for run in workflow.started_runs()]

    def add(self, workflow_id: str, count: int, where: Literal["head", "tail"], fields: dict[str, JSON]) -> list[str]:
        """Invent runs at one end of a workflow's list; give their ids in the list's order."""
        ids = self.workflow(workflow_id).add(count, where, fields)
        self.record("add", {"workflow_id": workflow_id, "count": count, "where": where, "fields": fields})
        return ids

    def put(self, workflow_id: str, items: Iterable[JSON]) -> None:
        """Replace a workflow's list."""
        kept = list(items)
        self.workflow(workflow_id).put(kept)
        self.record("put", {"workflow_id": workflow_id, "items": kept})

    def remove(self, workflow_id: str, ids: Iterable[str]) -> None:
        """Take runs out of a workflow's list."""
        gone = list(ids)
        self.workflow(workflow_id).remove(gone)
        self.record("remove", {"workflow_id": workflow_id, "ids": gone})

    def register(self, hook: Hook) -> None:
        """Add a webhook."""
        self.webhooks.add(hook)
        self.record("register", {"hook": hook})

    def unregister(self, hook_id: str) -> None:
        """Take out a webhook that is there."""
        self.webhooks.remove(hook_id)
        self.record("unregister", {"hook_id": hook_id})

    def leave(self, credits: int | None) -> None:  # noqa: A002 (the API's own word)
        """Say how many credits are left; None for no limit."""
        self.credits = credits
        self.record("leave", {"credits": credits})

    def begin(self, run: StartedRun, credits: int | None) -> None:  # noqa: A002 (as above)
        """Take in a run that starts, and leave this many credits."""
        self.credits = credits
        self.workflow(run.workflow_id).begin(run)
        self.record("begin", {"run": run, "credits": credits})

    def start(self, workflow: Workflow, inputs: dict[str, JSON], metadata: JSON) -> StartedRun | None:
        """Start a run as planned; None where the credits left can't pay for it."""
        script = self.plans.next
        left = None if self.credits is None else self.credits - script.credits
        if left is not None and left < 0:
            return None
        self.plans.use()
        output = workflow.next_output(script.states[-1]) if script.output is None else dict(script.output)
        run = StartedRun(
            id=f"WRUN-{uuid4()}",
            workflow_id=workflow.id,
            inputs=inputs,
            metadata=metadata,
            started=self.clock.now(),
            run_time=self.run_time,
            script=evolve(script, output=output),
        )
        self.begin(run, left)
        return run
