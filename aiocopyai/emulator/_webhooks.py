"""The webhooks createed with the emulator, and which of them an event concerns."""

from __future__ import annotations

from typing import Final
from uuid import uuid4

from attrs import define, field, frozen

from aiocopyai.emulator._json import JSON


STARTED: Final = "workflowRun.started"
COMPLETED: Final = "workflowRun.completed"
FAILED: Final = "workflowRun.failed"
LIMIT_REACHED: Final = "workflowCreditLimit.reached"

EVENT_TYPES: Final = (STARTED, COMPLETED, FAILED, LIMIT_REACHED)
"""One of these for each registration."""


@frozen(kw_only=True)
class Hook:
    """One registered webhook."""

    id: str = field(factory=lambda: str(uuid4()))
    url: str
    event_type: str
    workflow_id: str | None
    """None for the whole workspace."""

    def make(self) -> dict[str, JSON]:
        """Make the webhook as the API sends it."""
        return {"id": self.id, "url": self.url, "eventType": self.event_type, "workflowId": self.workflow_id}

    def concerns(self, event_type: str, workflow_id: str) -> bool:
        """Tell whether an event of a workflow is to be delivered to it."""
        return self.event_type == event_type and self.workflow_id in {None, workflow_id}


@define
class Webhooks:
    """All registered webhooks by id, the oldest first."""

    _hooks: dict[str, Hook] = field(factory=dict[str, Hook])

    def all(self) -> list[Hook]:
        """Give them all."""
        return list(self._hooks.values())

    def get(self, hook_id: str) -> Hook | None:
        """Give one; None where there is none with this id."""
        return self._hooks.get(hook_id)

    def add(self, hook: Hook) -> None:
        """Register one; the same URL and event may be there already."""
        self._hooks[hook.id] = hook

    def remove(self, hook_id: str) -> None:
        """Take out one that is there."""
        del self._hooks[hook_id]

    def concerned(self, event_type: str, workflow_id: str) -> list[Hook]:
        """Give those that want an event of a workflow."""
        return [hook for hook in self._hooks.values() if hook.concerns(event_type, workflow_id)]
