"""Search for the runs of idempotency keys in one listing; `_idempotency` decides when."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from attrs import evolve, frozen

from aiocopyai.errors import (
    AmbiguousStartError,
    BadRequestError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RequestInvalidError,
)
from aiocopyai.models import JSON, Run


FoundRuns: TypeAlias = "dict[str, Run | AmbiguousStartError]"

KEY_NAME: Final = "idempotencyKey"
"""The name of the idempotency key in a run's metadata."""
LOOK_BACK: Final = timedelta(hours=1)
"""The maximum difference between the times of a start and its run: clocks differ, and starts may be delayed."""
CLOCK_SKEW: Final = timedelta(minutes=5)
"""The maximum difference between the clocks of client and server, where a run is recognized by its time only."""
_UNREADABLE: Final = (NotFoundError, BadRequestError, RequestInvalidError, PermissionDeniedError, InvalidResponseError)
"""Errors that affect one run only. For example, a new run may not be found for a few seconds."""
_MAX_USELESS_READS: Final = 20
"""The number of consecutive reads of single runs that fail or add nothing to the list, after which they stop."""


@frozen
class KeySearch:
    """A key to search for.

    Attributes:
        key: the idempotency key.
        inputs: the inputs of the start; None if unknown.
        sent: when the start was first and last sent, by the local clock; None if unknown.
    """

    key: str
    inputs: Mapping[str, JSON] | None = None
    sent: tuple[datetime, datetime] | None = None

    def is_candidate(self, run: Run, *, is_complete: bool) -> bool:
        """Return whether a run without a visible key may be the run of this key.

        A list may omit fields. If `is_complete`, reading the run by its id would not return more fields.
        """
        if run.metadata:  # without the key, if the server does not return the metadata that was sent
            return self.inputs is not None and (
                not run.input or _may_be_inputs(self.inputs, run.input, is_complete=is_complete)
            )
        if not is_complete:
            return True
        if self.sent is not None:
            first, last = self.sent
            if run.created_at is None or first - CLOCK_SKEW <= run.created_at <= last + LOOK_BACK:
                return True
        return not run.input or (self.inputs is not None and _may_be_equal(dict(self.inputs), dict(run.input)))


class ListSearch:
    """A search for the runs of several keys in one listing.

    Attributes:
        remaining: the searches without a result, by key.
    """

    def __init__(
        self,
        workflow_id: str,
        searches: Iterable[KeySearch],
        own_runs: Mapping[str, str | None],
        get_run: Callable[[str, str], Awaitable[Run]],
    ) -> None:
        self.remaining = {search.key: search for search in searches}
        self._workflow_id = workflow_id
        self._own_runs = own_runs
        self._get_run = get_run
        self._found: FoundRuns = {}
        self._candidates: dict[str, str] = {}  # the id of a run that may have the key, by key
        self._useless_reads = 0  # in a row
        self._failed_reads = 0  # in a row

    def results(self) -> FoundRuns:
        """Return the runs that were found, and an error for each key that an incomplete run may have."""
        for key in self.remaining.keys() & self._candidates:
            reason = f"run {self._candidates[key]} may have this key, but does not show the metadata of its start"
            self._found[key] = AmbiguousStartError(reason, self._workflow_id, key)
        return self._found

    async def examine(self, listed: Run) -> None:
        """Compare a listed run with the keys; read it by its id if the list omits fields."""
        run, is_complete = listed, self._useless_reads >= _MAX_USELESS_READS
        is_worth_reading = max(self._useless_reads, self._failed_reads) < _MAX_USELESS_READS
        if is_worth_reading and any(self._possible_keys(run, is_complete=False)):
            run, is_complete = await self._read(listed)
            if not is_complete:
                self._failed_reads += 1
            elif (run.metadata, run.input) == (listed.metadata, listed.input):
                self._useless_reads += 1
            else:
                self._useless_reads = self._failed_reads = 0
        key = run.metadata.get(KEY_NAME)
        if isinstance(key, str) and key in self.remaining:
            inputs = self.remaining.pop(key).inputs
            if not run.input and inputs is None and not is_complete:
                run, _ = await self._read(run)
            # Lists may omit these fields.
            workflow_id = run.workflow_id or self._workflow_id
            self._found[key] = evolve(run, workflow_id=workflow_id, input=run.input or inputs or {})
            return
        for possible in self._possible_keys(run, is_complete=is_complete):
            self._candidates.setdefault(possible, run.id)

    def _possible_keys(self, run: Run, *, is_complete: bool) -> Iterator[str]:
        """Yield the keys that a run without a visible key may have."""
        if KEY_NAME in run.metadata or run.metadata.get("webapp") is True:
            return
        for key, search in self.remaining.items():
            if self._own_runs.get(run.id, key) == key and search.is_candidate(run, is_complete=is_complete):
                yield key

    async def _read(self, listed: Run) -> tuple[Run, bool]:
        """Read a listed run by its id, and return it, and whether it is complete."""
        try:
            return await self._get_run(self._workflow_id, listed.id), True
        except _UNREADABLE:
            return listed, False
        except ValueError:  # the id is not valid in a path, so the run cannot be read
            return listed, True


def inputs_differ(sent: Mapping[str, JSON], shown: Mapping[str, JSON]) -> bool:
    """Return whether the inputs of a run contradict the inputs that were sent."""
    return any(name in shown and not _may_be_equal(value, shown[name]) for name, value in sent.items())


def _may_be_inputs(sent: Mapping[str, JSON], shown: Mapping[str, JSON], *, is_complete: bool) -> bool:
    """Return whether the inputs of a run may be those that were sent, with defaults added or numbers as strings.

    Unless `is_complete`, text may also be truncated.
    """
    filled: dict[str, JSON] = {name: value for name, value in sent.items() if value not in (None, "", [], {})}
    if not filled:
        return sent == shown  # any inputs would match empty ones
    if not is_complete:
        return _may_be_equal(filled, dict(shown))
    return all(name in shown and _as_text(value) == _as_text(shown[name]) for name, value in filled.items())


def _may_be_equal(sent: JSON, shown: JSON) -> bool:
    """Return whether a value may be the one sent, with defaults added, numbers as strings, or truncated text."""
    if sent in (None, "", [], {}) or sent == shown:
        return True
    if isinstance(sent, dict) and isinstance(shown, dict):
        return all(_may_be_equal(value, shown.get(name)) for name, value in sent.items())
    if isinstance(sent, list) and isinstance(shown, list):
        return len(sent) == len(shown) and all(map(_may_be_equal, sent, shown))
    full, visible = _as_text(sent), _as_text(shown)
    beginning = visible.removesuffix("…").removesuffix("...").rstrip()
    return full == visible or (bool(beginning) and full.startswith(beginning))


def _as_text(value: JSON) -> str:
    text = (value if isinstance(value, str) else json.dumps(value)).strip().casefold()
    try:
        return repr(float(text))
    except ValueError:
        return text
