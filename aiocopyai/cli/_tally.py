"""Runs counted by status, with what they cost: how every command ends."""

from __future__ import annotations

from collections import Counter

from attrs import Factory, define

from aiocopyai import Run
from aiocopyai.cli._formats import count_of


@define
class Tally:
    """What was seen so far."""

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
        return f"{count_of(count)}{': ' if count else ''}{statuses}; {self.credits:,} credits"
