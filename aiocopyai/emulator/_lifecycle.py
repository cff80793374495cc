"""Started runs: what one looks like is a function of the clock."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Final

from attrs import define, field, frozen

from aiocopyai.emulator._json import JSON
from aiocopyai.emulator._scenarios import Script


_FILLING: Final = "PROCESSING"
_ALMOST: Final = math.nextafter(1, 0)


@define
class Clock:
    """Seconds since 1970 that never jump: what a stored run began at still means something after a restart."""

    _offset: float = field(factory=lambda: time.time() - time.monotonic())

    def now(self) -> float:
        """Read the clock."""
        return time.monotonic() + self._offset


@frozen(kw_only=True)
class StartedRun:
    """A run that was started by a call, or is thought to have been."""

    id: str
    workflow_id: str
    inputs: dict[str, JSON]
    metadata: JSON
    started: float
    """When, in seconds since 1970."""
    run_time: float
    """Seconds from its start to its last state."""
    script: Script
    """How it goes, with its output given."""

    @property
    def ends(self) -> float:
        """When it reaches its last state, in seconds since 1970."""
        return self.started + self._way

    def make(self, now: float) -> dict[str, JSON]:
        """Make the run as the API sends it at this moment."""
        part = self._part(now)
        over = part >= 1
        return {
            "id": self.id,
            "workflowRunId": self.id,
            "workflowId": self.workflow_id,
            "status": self.script.states[int(part * (len(self.script.states) - 1))],
            "input": self.inputs,
            "output": self._output(part),
            "metadata": self.metadata,
            "createdAt": _date(self.started),
            "credits": int(self.script.credits * part),
            "error": self.script.error if over else None,
        }

    def _part(self, now: float) -> float:
        """Give how much of the run's time is over, from 0 to 1."""
        if not self._way or now >= self.ends:
            return 1.0
        # Rounding must not end a run before `ends`, nor a clock set back begin it before its start.
        return min(_ALMOST, max(0.0, (now - self.started) / self._way))

    @property
    def _way(self) -> float:
        """Seconds to the last state: none where it is the first."""
        return self.run_time if len(self.script.states) > 1 else 0.0

    def _output(self, part: float) -> dict[str, JSON]:
        steps = dict(self.script.output or {})
        if part >= 1:
            return steps
        before = self.script.states[:-1]
        place = part * len(before)
        passed = int(place)
        done = before[:passed].count(_FILLING) + (place - passed) * (before[passed] == _FILLING)
        filled = int(len(steps) * done / max(1, before.count(_FILLING)))
        return dict(list(steps.items())[:filled])


def _date(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
