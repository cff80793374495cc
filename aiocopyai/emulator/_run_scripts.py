"""Scripts, and the started runs that follow them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from attrs import define, field, frozen

from aiocopyai.emulator._argument_checks import bounded_repr, check_integer, check_json, check_string, short_repr
from aiocopyai.emulator._messages import JSON


_PROCESSING: Final = "PROCESSING"
_JUST_BELOW_1: Final = math.nextafter(1, 0)


def _to_tuple(states: Iterable[str]) -> tuple[str, ...]:
    if isinstance(states, str):
        raise TypeError(f"states must be several strings, got {states!r}; for a single state write ({states!r},)")
    return tuple(states)


@frozen(kw_only=True)
class Script:
    """The states, outputs and costs of a started run, for `Emulator.script_next_runs`.

    ::

        states = ("NEW", "PROCESSING", "RETRYING", "PROCESSING", "FAILED")
        Script(states=states, error={"message": "No."})

    Attributes:
        states: the statuses of the run, one after another: any strings. All but the last take equal parts of the run's
            time, and the last one is final.
        output: the output of each step, by its name. The steps appear one by one while the status is `PROCESSING`. In
            the last state, the output is complete. None for sample output about the first input that is a string.
        error: the run's `error` in its last state; it is null before.
        credits: the cost of the run. It is deducted from `Emulator.credits` at the start. The run's own `credits`
            increase to this number.

    Raises:
        TypeError: `states` is a single string.
        ValueError: `states` is empty or has something other than strings, `credits` is not an integer of 0 or more,
            `output` is not a mapping, or `output` or `error` is not JSON.
    """

    states: tuple[str, ...] = field(default=("NEW", "WAITING", "PROCESSING", "COMPLETE"), converter=_to_tuple)
    output: Mapping[str, Any] | None = field(default=None, repr=bounded_repr)
    error: Any = field(default=None, repr=bounded_repr)
    credits: int = 3

    def __attrs_post_init__(self) -> None:
        if not self.states:
            raise ValueError("states must have at least one status, got none")
        for state in self.states:
            check_string("states", state)
        check_integer("credits", self.credits, 0)
        if not isinstance(self.output, Mapping | None):
            raise ValueError(f"output must be a mapping of names to JSON values, got {short_repr(self.output)}")  # noqa: TRY004 (as in the client)
        check_json("output", None if self.output is None else dict(self.output))
        check_json("error", self.error)


@define
class _QueuedScript:
    """A script for the next `remaining` runs."""

    script: Script
    remaining: float


@define
class ScriptQueue:
    """The scripts for the next runs, in the order in which they were added."""

    _queued: list[_QueuedScript] = field(factory=list[_QueuedScript])

    def add(self, script: Script, times: int | None) -> None:
        """Use a script for `times` runs, or for all following ones if None."""
        self._queued.append(_QueuedScript(script, math.inf if times is None else times))

    def peek(self) -> Script:
        """Return the script of the next run, and leave it in the queue, as the start may be rejected."""
        return self._queued[0].script if self._queued else Script()

    def advance(self) -> None:
        """Count the next run as started."""
        if self._queued:
            self._queued[0].remaining -= 1
            if not self._queued[0].remaining:
                del self._queued[0]


@frozen(kw_only=True)
class StartedRun:
    """A run that was started by an API call."""

    id: str
    workflow_id: str
    inputs: dict[str, JSON]
    metadata: JSON
    started: float
    """The start time, in seconds since 1970."""
    run_time: float
    """Seconds from the start to the last state."""
    script: Script
    """The script of the run. Its `output` is not None."""

    @property
    def ends(self) -> float:
        """The time of the last state, in seconds since 1970."""
        return self.started + (self.run_time if len(self.script.states) > 1 else 0.0)

    def to_json(self, now: float) -> dict[str, JSON]:
        """Return the run as the API sends it at this time."""
        progress = 1.0
        duration = self.ends - self.started
        if duration and now < self.ends:
            # Rounding must not end a run before `ends`, and the progress must not be negative if a clock is set back.
            progress = min(_JUST_BELOW_1, max(0.0, (now - self.started) / duration))
        created_at = datetime.fromtimestamp(self.started, UTC).isoformat(timespec="milliseconds")
        return {
            "id": self.id,
            "workflowRunId": self.id,
            "workflowId": self.workflow_id,
            "status": self.script.states[int(progress * (len(self.script.states) - 1))],
            "input": self.inputs,
            "output": self._output(progress),
            "metadata": self.metadata,
            "createdAt": created_at.removesuffix("+00:00") + "Z",
            "credits": int(self.script.credits * progress),
            "error": self.script.error if progress >= 1 else None,
        }

    def _output(self, progress: float) -> dict[str, JSON]:
        """Return the finished steps: their number grows with the time spent in PROCESSING."""
        steps = dict(self.script.output or {})
        if progress >= 1:
            return steps
        states = self.script.states[:-1]
        position = progress * len(states)
        passed = int(position)
        processed = states[:passed].count(_PROCESSING) + (position - passed) * (states[passed] == _PROCESSING)
        filled = int(len(steps) * processed / max(1, states.count(_PROCESSING)))
        return dict(list(steps.items())[:filled])
