"""What the quirks make of a run before it is sent."""

from __future__ import annotations

from typing import Final

from aiocopyai.emulator._json import JSON
from aiocopyai.emulator._quirks import Quirks


_ABSENT_IN_SPARSE: Final = frozenset({"status", "input", "output"})


def listed(items: list[JSON], quirks: Quirks) -> list[JSON]:
    """Make of a list's runs what is sent; items that are no objects stay as they are."""
    absent: frozenset[str] = _ABSENT_IN_SPARSE if quirks.sparse else frozenset()
    if not quirks.lists_metadata:
        absent |= {"metadata"}
    if absent:
        items = [_without(item, absent) for item in items]
    return [dressed(item, quirks) for item in items]


def dressed(item: JSON, quirks: Quirks) -> JSON:
    """Make of one run what is sent."""
    if not isinstance(item, dict) or not (quirks.mixed_dates or quirks.credits == "string"):
        return item
    run = dict(item)
    if quirks.mixed_dates:
        run.update(_without_even_milliseconds(run.get("createdAt")))
    cost = run.get("credits")
    if quirks.credits == "string" and isinstance(cost, int):
        run["credits"] = str(cost)
    return run


def _without(item: JSON, absent: frozenset[str]) -> JSON:
    if not isinstance(item, dict):
        return item
    return {name: value for name, value in item.items() if name not in absent}


def _without_even_milliseconds(created_at: JSON) -> dict[str, JSON]:
    """Shorten a date or leave it; by its own digits, so that a run always looks the same."""
    if not isinstance(created_at, str):
        return {}
    seconds, _, rest = created_at.partition(".")
    even = rest[2:3] in {"0", "2", "4", "6", "8"}
    return {"createdAt": f"{seconds}Z"} if even else {}
