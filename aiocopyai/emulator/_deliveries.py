"""What is delivered to webhooks: the bodies, and the record of each."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final, Literal

from attrs import frozen
from yarl import URL

from aiocopyai.emulator._json import JSON
from aiocopyai.emulator._lifecycle import StartedRun
from aiocopyai.emulator._webhooks import COMPLETED, FAILED, STARTED


_AT_THE_END: Final = {"COMPLETE": COMPLETED, "FAILED": FAILED}
# What a body has beside its type and ids. Only that of a completed run is documented.
_FIELDS: Final = {STARTED: ("metadata",), FAILED: ("error", "metadata", "credits")}


@frozen
class Delivery:
    """One delivery to one webhook."""

    url: str
    """Where it went."""
    event_type: str
    """Such as `workflowRun.completed`."""
    body: dict[str, JSON]
    """What was sent."""
    status: int | None
    """The status it was answered with; None where there was no answer, or where it wasn't sent
    because the URL leads off this machine."""


def last_event(run: StartedRun) -> str | None:
    """Give the event of a run's end; None where it stays in a state that is no end."""
    return _AT_THE_END.get(run.script.states[-1])


def run_body(event_type: str, run: Mapping[str, JSON], variant: Literal["today", "older", "run"]) -> dict[str, JSON]:
    """Make the body of a run's event."""
    plain: dict[str, JSON] = {
        "type": event_type,
        "workflowRunId": run.get("id"),
        "workflowId": run.get("workflowId"),
    }
    if event_type != COMPLETED:
        return plain | {name: run.get(name) for name in _FIELDS.get(event_type, ())}
    output, metadata = run.get("output"), run.get("metadata")
    match variant:
        case "today":
            return {**plain, "result": output, "metadata": metadata, "credits": run.get("credits")}
        case "older":
            return {**plain, "result": {"output": output}, "metadata": metadata}
        case "run":
            return {**run, "type": event_type}


def workflow_body(event_type: str, workflow_id: str) -> dict[str, JSON]:
    """Make the body of an event that is no single run's."""
    return {"type": event_type, "workflowId": workflow_id}


def stays_here(url: str) -> bool:
    """Tell whether a URL leads to this machine's loopback interface."""
    host = URL(url).host or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
