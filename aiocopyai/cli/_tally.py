"""What a command has shown, counted: how every one ends."""

from __future__ import annotations

from collections import Counter

from attrs import Factory, define

from aiocopyai import Run
from aiocopyai._display import plural


@define
class Tally:
    """Runs by status, with what they cost."""

    by_status: Counter[str] = Factory(Counter[str])
    credits: int = 0

    def add(self, run: Run) -> None:
        """Count one run."""
        self.by_status[str(run.status or "no status")] += 1
        self.credits += run.credits or 0

    def __bool__(self) -> bool:
        return bool(self.by_status)

    def __str__(self) -> str:
        count = self.by_status.total()
        statuses = ", ".join(f"{number:,} {status}" for status, number in self.by_status.most_common())
        return f"{plural(count, 'run')}{': ' if count else ''}{statuses}; {self.credits:,} credits"


@define
class Count:
    """How many of something there were so far."""

    one: str
    several: str = Factory(lambda self: f"{self.one}s", takes_self=True)
    count: int = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        return f"{self.count:,} {self.one if self.count == 1 else self.several}"
