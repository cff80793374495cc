"""Which runs of a list are wanted, by status and metadata: the API itself has no filters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, cast

from aiocopyai._display import value_text
from aiocopyai._text import excerpt
from aiocopyai._validation import json_object
from aiocopyai.models import Run


_SEVERAL: Final = (list, tuple, set, frozenset)


def run_filter(
    status: str | Collection[str] | None, metadata: Mapping[str, object] | None
) -> Callable[[Run], bool] | None:
    """Return a function that says whether a run is wanted; None if all are.

    Args:
        status: one status, or several of which a run has one, in any case; None for any status, or none.
        metadata: for each required key one value, or several of which a run has one. Values are compared as text, so
            that ``7`` and ``"7"`` are equal.

    Raises:
        ValueError: an argument is invalid.
    """
    statuses = None if status is None else _statuses(status)
    wanted = {key: _texts(key, value) for key, value in json_object("metadata", _as_lists(metadata or {})).items()}
    if statuses is None and not wanted:
        return None

    def matches(run: Run) -> bool:
        if statuses is not None and (run.status or "").upper() not in statuses:
            return False
        return all(key in run.metadata and value_text(run.metadata[key]) in texts for key, texts in wanted.items())

    return matches


def _statuses(value: str | Collection[str]) -> frozenset[str]:
    statuses = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else []
    if not statuses or not all(isinstance(status, str) and status for status in statuses):
        raise ValueError(
            f"status must be a status such as 'FAILED', or a collection of at least one, got {excerpt(value)}"
        )
    return frozenset(status.upper() for status in statuses)


def _as_lists(metadata: object) -> object:
    """Return metadata with lists of values in place of single values; anything else is refused later."""
    if not isinstance(metadata, Mapping):
        return metadata
    items = cast("Mapping[object, object]", metadata).items()
    return {key: list(cast("list[object]", v)) if isinstance(v, _SEVERAL) else [v] for key, v in items}


def _texts(key: str, values: object) -> frozenset[str]:
    texts = frozenset(map(value_text, cast("list[str]", values)))
    if not texts:
        raise ValueError(f"metadata[{excerpt(key)}] must be a value, or a collection of at least one, got none")
    return texts
