"""Delivering events to webhooks, at the moment they happen, whether anyone polls or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

import aiohttp
from aiohttp.hdrs import CONTENT_TYPE
from attrs import define, field

from aiocopyai.emulator._deliveries import Delivery, last_event, run_body, stays_here, workflow_body
from aiocopyai.emulator._json import JSON, encode
from aiocopyai.emulator._lifecycle import StartedRun
from aiocopyai.emulator._quirks import Quirks
from aiocopyai.emulator._state import State
from aiocopyai.emulator._webhooks import LIMIT_REACHED, STARTED, Hook


_HEADERS: Final = {CONTENT_TYPE: "application/json"}
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)


@define
class Postman:
    """Sends what registered webhooks want to know, from `start()` to `stop()`."""

    state: State
    quirks: Callable[[], Quirks]
    deliveries: list[Delivery] = field(factory=list[Delivery])
    _http: aiohttp.ClientSession | None = None
    _due: list[tuple[float, str, StartedRun]] = field(factory=list[tuple[float, str, StartedRun]])
    """The ends of runs to come, a heap; the id keeps two runs from being compared."""
    _alarm: asyncio.TimerHandle | None = None
    _under_way: set[asyncio.Task[Delivery]] = field(factory=set[asyncio.Task[Delivery]])

    def start(self) -> None:
        """Begin: runs whose end lies ahead are told of then, those that ended meanwhile never."""
        self._http = aiohttp.ClientSession(timeout=_TIMEOUT, headers=_HEADERS)
        now = self.state.clock.now()
        self._due = [(run.ends, run.id, run) for run in self.state.started_runs() if now < run.ends < inf]
        heapify(self._due)
        self._set_alarm()

    async def stop(self) -> None:
        """End at once: what is under way is broken off and not recorded."""
        http, self._http = self._http, None
        if self._alarm is not None:
            self._alarm.cancel()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if http is not None:
            await http.close()

    def run_started(self, run: StartedRun) -> None:
        """Tell that a run has been started, and at its end of that."""
        self._tell_of_run(STARTED, run, run.started)
        if run.ends < inf:
            heappush(self._due, (run.ends, run.id, run))
        if self._due and self._due[0][2] is run:
            self._set_alarm()

    def limit_reached(self, workflow_id: str) -> None:
        """Tell that a start could not be paid for."""
        hooks = self.state.webhooks.concerned(LIMIT_REACHED, workflow_id)
        self.send(hooks, LIMIT_REACHED, workflow_body(LIMIT_REACHED, workflow_id))

    def send(self, hooks: Iterable[Hook], event_type: str, body: dict[str, JSON]) -> list[asyncio.Task[Delivery]]:
        """Send a body to some webhooks, side by side."""
        if self._http is None:
            return []
        tasks = [asyncio.create_task(self._send(self._http, hook.url, event_type, body)) for hook in hooks]
        for task in tasks:
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return tasks

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._due and self._http is not None:
            wait = max(0.0, self._due[0][0] - self.state.clock.now())
            self._alarm = asyncio.get_running_loop().call_later(wait, self._ring)

    def _ring(self) -> None:
        now = self.state.clock.now()
        while self._due and self._due[0][0] <= now:
            run = heappop(self._due)[2]
            event_type = last_event(run)
            if event_type is not None and self.state.workflow(run.workflow_id).started(run.id) is run:
                self._tell_of_run(event_type, run, now)
        self._set_alarm()

    def _tell_of_run(self, event_type: str, run: StartedRun, now: float) -> None:
        hooks = self.state.webhooks.concerned(event_type, run.workflow_id)
        if hooks:
            self.send(hooks, event_type, run_body(event_type, run.make(now), self.quirks().delivery))

    async def _send(self, http: aiohttp.ClientSession, url: str, event_type: str, body: dict[str, JSON]) -> Delivery:
        status = None
        if stays_here(url):
            with suppress(aiohttp.ClientError, TimeoutError):
                # A redirect could lead off this machine.
                async with http.post(url, data=encode(body), allow_redirects=False) as response:
                    status = response.status
        delivery = Delivery(url, event_type, body, status)
        self.deliveries.append(delivery)
        return delivery
