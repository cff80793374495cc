"""Webhook deliveries: builds their bodies, and sends them when events happen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Final, Literal

import aiohttp
from aiohttp.hdrs import CONTENT_TYPE
from attrs import define, field, frozen

from aiocopyai.emulator._argument_checks import bounded_repr
from aiocopyai.emulator._messages import JSON, encode_json, is_loopback_url
from aiocopyai.emulator._quirks import Quirks
from aiocopyai.emulator._run_scripts import StartedRun
from aiocopyai.emulator._state import (
    CREDIT_LIMIT_REACHED,
    RUN_COMPLETED,
    RUN_FAILED,
    RUN_STARTED,
    EmulatorState,
    RegisteredWebhook,
)


_HEADERS: Final = {CONTENT_TYPE: "application/json"}
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
_FINAL_EVENTS: Final = {"COMPLETE": RUN_COMPLETED, "FAILED": RUN_FAILED}
# The fields in addition to the type and the ids. Only the body of a completed run is documented.
_EXTRA_FIELDS: Final = {RUN_STARTED: ("metadata",), RUN_FAILED: ("error", "metadata", "credits")}


@frozen
class Delivery:
    """One delivery to one webhook.

    Attributes:
        url: the URL of the webhook.
        event_type: the type of the event, such as `workflowRun.completed`.
        body: the JSON body.
        status: the status of the response; None if there was no response, or if nothing was sent because the URL is not
            on the loopback interface.
    """

    url: str = field(repr=bounded_repr)
    event_type: str
    body: dict[str, Any] = field(repr=bounded_repr)
    status: int | None


def run_body(event_type: str, run: Mapping[str, JSON], variant: Literal["today", "older", "run"]) -> dict[str, JSON]:
    """Build the body of an event about a run."""
    common: dict[str, JSON] = {
        "type": event_type,
        "workflowRunId": run.get("id"),
        "workflowId": run.get("workflowId"),
    }
    if event_type != RUN_COMPLETED:
        return common | {name: run.get(name) for name in _EXTRA_FIELDS.get(event_type, ())}
    output, metadata = run.get("output"), run.get("metadata")
    match variant:
        case "today":
            return {**common, "result": output, "metadata": metadata, "credits": run.get("credits")}
        case "older":
            return {**common, "result": {"output": output}, "metadata": metadata}
        case "run":
            return {**run, "type": event_type}


def workflow_body(event_type: str, workflow_id: str) -> dict[str, JSON]:
    """Build the body of an event that is not about a run."""
    return {"type": event_type, "workflowId": workflow_id}


@define
class WebhookSender:
    """Sends events to the registered webhooks, between `start()` and `stop()`."""

    state: EmulatorState
    quirks: Callable[[], Quirks]
    deliveries: list[Delivery] = field(factory=list[Delivery])
    _session: aiohttp.ClientSession | None = None
    _running: list[tuple[float, str, StartedRun]] = field(factory=list[tuple[float, str, StartedRun]])
    """A heap of the runs that have not ended, by their end. The ids differ, so that runs are never compared."""
    _timer: asyncio.TimerHandle | None = None
    _tasks: set[asyncio.Task[Delivery]] = field(factory=set[asyncio.Task[Delivery]])

    def start(self) -> None:
        """Start sending events. The end of a run is sent only if it is in the future."""
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, headers=_HEADERS)
        now = self.state.clock.now()
        self._running = [(run.ends, run.id, run) for run in self.state.started_runs() if now < run.ends < inf]
        heapify(self._running)
        self.schedule()

    async def stop(self) -> None:
        """Stop immediately. Deliveries in progress are cancelled, and are not recorded."""
        session, self._session = self._session, None
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if session is not None:
            await session.close()

    def run_started(self, run: StartedRun) -> None:
        """Send the start of a run now, and its end when it happens."""
        self._send_run_event(RUN_STARTED, run, run.started)
        if run.ends < inf:
            heappush(self._running, (run.ends, run.id, run))
            if self._running[0][2] is run:
                self.schedule()

    def credit_limit_reached(self, workflow_id: str) -> None:
        """Send the event of a start that was rejected, because the remaining credits do not cover it."""
        webhooks = self.state.subscribers(CREDIT_LIMIT_REACHED, workflow_id)
        self.send(webhooks, CREDIT_LIMIT_REACHED, workflow_body(CREDIT_LIMIT_REACHED, workflow_id))

    def send(
        self, webhooks: Iterable[RegisteredWebhook], event_type: str, body: dict[str, JSON]
    ) -> list[asyncio.Task[Delivery]]:
        """Send a body to several webhooks concurrently."""
        if self._session is None:
            return []
        session = self._session
        tasks = [asyncio.create_task(self._deliver(session, webhook.url, event_type, body)) for webhook in webhooks]
        for task in tasks:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return tasks

    def schedule(self) -> None:
        """Set the timer to the next end of a run."""
        if self._timer is not None:
            self._timer.cancel()
        if self._running and self._session is not None:
            delay = max(0.0, self._running[0][0] - self.state.clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._send_ended)

    def _send_ended(self) -> None:
        now = self.state.clock.now()
        while self._running and self._running[0][0] <= now:
            run = heappop(self._running)[2]
            event_type = _FINAL_EVENTS.get(run.script.states[-1])
            with self.state.lock:
                is_listed = self.state.workflow(run.workflow_id).started_run(run.id) is run
            if event_type is not None and is_listed:
                self._send_run_event(event_type, run, now)
        self.schedule()

    def _send_run_event(self, event_type: str, run: StartedRun, now: float) -> None:
        webhooks = self.state.subscribers(event_type, run.workflow_id)
        if webhooks:
            self.send(webhooks, event_type, run_body(event_type, run.to_json(now), self.quirks().delivery))

    async def _deliver(
        self, session: aiohttp.ClientSession, url: str, event_type: str, body: dict[str, JSON]
    ) -> Delivery:
        status = None
        if is_loopback_url(url):
            with suppress(aiohttp.ClientError, TimeoutError):
                # A redirect could lead to another machine.
                async with session.post(url, data=encode_json(body), allow_redirects=False) as response:
                    status = response.status
        delivery = Delivery(url, event_type, body, status)
        self.deliveries.append(delivery)
        return delivery
