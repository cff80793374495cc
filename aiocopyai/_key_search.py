"""Finding the runs that were started with some idempotency keys, in one listing; `_idempotency` decides when."""

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
"""How much older or newer than its start a run may seem, as clocks differ, and the server may execute a start late."""
CLOCK_SKEW: Final = timedelta(minutes=5)
"""How much the clocks of client and server may differ where only the age of a run decides."""
_UNREADABLE: Final = (NotFoundError, BadRequestError, RequestInvalidError, PermissionDeniedError, InvalidResponseError)
"""Errors of reading one run that say nothing about other runs. A new run may be unknown for a few seconds."""
_FRUITLESS_READS: Final = 20
"""After this many reads in a row that show no more than the list, or fail, runs are no longer read one by one."""


@frozen
class KeySearch:
    """A key to search for.

    Attributes:
        key: the idempotency key.
        inputs: the inputs that it was started with; None if unknown.
        sent: when the start was first and last sent, by the clock of this machine; None if unknown.
    """

    key: str
    inputs: Mapping[str, JSON] | None = None
    sent: tuple[datetime, datetime] | None = None

    def is_candidate(self, run: Run, *, is_complete: bool) -> bool:
        """Return whether a run that does not show any key could still be the one.

        A list may omit fields. `is_complete` says that the run was read by its id, or that reading it shows no more.
        """
        if run.metadata:  # without the key: only a run with similar inputs may be the one, if metadata is not returned
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
        remaining: the searches whose run was not found yet, by key.
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
        self._candidates: dict[str, str] = {}  # the id of a run that may be the one, by key
        self._fruitless_reads = 0  # in a row
        self._failed_reads = 0  # in a row

    def results(self) -> FoundRuns:
        """Return the runs found, and an error for each key that some run may have without showing it."""
        for key in self.remaining.keys() & self._candidates:
            reason = f"run {self._candidates[key]} may be it, but does not show the metadata that it was started with"
            self._found[key] = AmbiguousStartError(reason, self._workflow_id, key)
        return self._found

    async def examine(self, listed: Run) -> None:
        """Compare a listed run with the keys; read it by its id if the list shows too little of it."""
        run, is_complete = listed, self._fruitless_reads >= _FRUITLESS_READS
        is_worth_reading = max(self._fruitless_reads, self._failed_reads) < _FRUITLESS_READS
        if is_worth_reading and any(self._possible_keys(run, is_complete=False)):
            run, is_complete = await self._read(listed)
            if not is_complete:
                self._failed_reads += 1
            elif (run.metadata, run.input) == (listed.metadata, listed.input):
                self._fruitless_reads += 1
            else:
                self._fruitless_reads = self._failed_reads = 0
        key = run.metadata.get(KEY_NAME)
        if isinstance(key, str) and key in self.remaining:
            inputs = self.remaining.pop(key).inputs
            if not run.input and inputs is None and not is_complete:
                run, _ = await self._read(run)
            # Lists may omit both.
            workflow_id = run.workflow_id or self._workflow_id
            self._found[key] = evolve(run, workflow_id=workflow_id, input=run.input or inputs or {})
            return
        for possible in self._possible_keys(run, is_complete=is_complete):
            self._candidates.setdefault(possible, run.id)

    def _possible_keys(self, run: Run, *, is_complete: bool) -> Iterator[str]:
        """Yield the keys that a run may have without showing one."""
        if KEY_NAME in run.metadata or run.metadata.get("webapp") is True:
            return
        for key, search in self.remaining.items():
            if self._own_runs.get(run.id, key) == key and search.is_candidate(run, is_complete=is_complete):
                yield key

    async def _read(self, listed: Run) -> tuple[Run, bool]:
        """Read a listed run by its id, and return whether the API shows nothing more of it."""
        try:
            return await self._get_run(self._workflow_id, listed.id), True
        except _UNREADABLE:
            return listed, False
        except ValueError:  # an id that does not fit into a path: the API shows no more than the list
            return listed, True


def inputs_differ(sent: Mapping[str, JSON], shown: Mapping[str, JSON]) -> bool:
    """Return whether a run that shows these inputs was started with others than those sent."""
    return any(name in shown and not _may_be_equal(value, shown[name]) for name, value in sent.items())


def _may_be_inputs(sent: Mapping[str, JSON], shown: Mapping[str, JSON], *, is_complete: bool) -> bool:
    """Return whether a run with other metadata could show the inputs like this: with defaults, or numbers as strings.

    Text may be cut unless `is_complete`, as reading the run shows all of it.
    """
    filled: dict[str, JSON] = {name: value for name, value in sent.items() if value not in (None, "", [], {})}
    if not filled:
        return sent == shown  # any inputs would be similar to none
    if not is_complete:
        return _may_be_equal(filled, dict(shown))
    return all(name in shown and _as_text(value) == _as_text(shown[name]) for name, value in filled.items())


def _may_be_equal(sent: JSON, shown: JSON) -> bool:
    """Return whether a value could be shown like this: with defaults added, numbers as strings, or text cut."""
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
