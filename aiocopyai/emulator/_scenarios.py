"""How started runs go: scripts, and which one is next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, field, frozen

from aiocopyai.emulator._json import JSON


def _as_tuple(states: Iterable[str]) -> tuple[str, ...]:
    if isinstance(states, str):
        raise TypeError(f"states are several texts; for only one, write ({states!r},)")
    return tuple(states)


@frozen(kw_only=True)
class Script:
    """How a started run goes; see `Emulator.plan`.

    ::

        Script(states=("NEW", "PROCESSING", "RETRYING", "PROCESSING", "FAILED"), error={"message": "No."})

    Raises:
        TypeError: the states are one text.
        ValueError: there are no states, or the credits are negative.
    """

    states: tuple[str, ...] = field(default=("NEW", "WAITING", "PROCESSING", "COMPLETE"), converter=_as_tuple)
    """The statuses it passes through, any text. All but the last take equal parts of the run's
    time; the last one stays."""
    output: Mapping[str, JSON] | None = None
    """What each step puts out, by its name. The steps fill one by one while the status is
    `PROCESSING`, and the last state has all of them. None for invented ones."""
    error: JSON = None
    """The run's `error` in its last state, null before."""
    credits: int = 3
    """What the run costs: taken from `Emulator.credits` at the start, and on the run a number that
    grows to this until its end."""

    def __attrs_post_init__(self) -> None:
        if not self.states:
            raise ValueError("a script needs at least one state")
        if self.credits < 0:
            raise ValueError(f"a run's credits can't be negative: {self.credits}")


@define
class _Planned:
    script: Script
    left: int | None


@define
class Plans:
    """The scripts that wait for runs, in the order in which they were asked for."""

    _waiting: list[_Planned] = field(factory=list[_Planned])

    def add(self, script: Script, times: int | None) -> None:
        """Let a script wait for `times` runs, or for all."""
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1, or None for all: {times}")
        self._waiting.append(_Planned(script, times))

    @property
    def next(self) -> Script:
        """The script of the next run; it is used up by `use()` only, since a start may be refused."""
        return self._waiting[0].script if self._waiting else Script()

    def use(self) -> None:
        """Count the next run as started."""
        if not self._waiting or self._waiting[0].left is None:
            return
        self._waiting[0].left -= 1
        if not self._waiting[0].left:
            del self._waiting[0]
