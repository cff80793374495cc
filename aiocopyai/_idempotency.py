"""Starting a run so that it is paid for once: what is sent again, what is looked for first, and what stays in doubt.

The API has no idempotency keys, and every accepted start spends credits. So a key of our own travels in the run's
metadata, and after a lost answer the newest runs are searched for it before anything is sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from attrs import evolve, field, frozen

from aiocopyai._retry import RetryPolicy
from aiocopyai._text import escape
from aiocopyai._validation import check_string
from aiocopyai.errors import AmbiguousStartError, CopyAIError, NotFoundError
from aiocopyai.models import JSON, Run


logger = logging.getLogger("aiocopyai")

Found: TypeAlias = "dict[str, Run | AmbiguousStartError]"

KEY_NAME: Final = "idempotencyKey"
"""Under which name an idempotency key stands in a run's metadata."""
_LOOKS: Final = 3
"""How often the list is searched before a start is sent again: a run just started may not be on it at once."""
_LOOK_BACK: Final = timedelta(hours=1)
"""How much older than the start a run may seem, for clocks that differ."""
_SUSPECTS: Final = 20
"""After so many runs that could be the one and don't show it, no more are read one by one."""


@frozen
class Start:
    """A start that was asked for; checked by whoever makes it."""

    workflow_id: str
    inputs: Mapping[str, JSON]
    metadata: Mapping[str, JSON]
    """What is sent, an idempotency key included."""
    key: str | None
    moment: datetime = field(factory=lambda: datetime.now(UTC))
    """When it was asked for, by the clock of this machine."""

    @property
    def sought(self) -> Sought:
        """What to search for it by."""
        return Sought(self.key or "", self.inputs)


@frozen
class Sought:
    """A start that is searched for."""

    key: str
    inputs: Mapping[str, JSON] | None
    """What it was started with; None where that isn't known."""

    def may_be(self, run: Run, *, is_listed: bool) -> bool:
        """Whether a run that shows no key could still be the one: nothing that is known of it speaks against it.

        Lists may leave out fields; a run that was read by its id, and shows what it was started with, has no metadata
        where it shows none.
        """
        if KEY_NAME in run.metadata or run.metadata.get("webapp") is True:
            return False
        if self.inputs is None:
            return not run.metadata and (is_listed or not run.input)
        return not run.input or dict(run.input) == dict(self.inputs)


@frozen
class Calls:
    """What a start needs of the API."""

    post: Callable[[Start], Awaitable[Run]]
    newest: Callable[[str, datetime | None], AsyncIterable[Run]]
    """Lists a workflow's runs created since a moment, or all."""
    get: Callable[[str, str], Awaitable[Run]]


async def start(wanted: Start, calls: Calls, retry: RetryPolicy, *, unconfirmed: bool) -> Run:
    """Start one run, and no second one.

    `unconfirmed` says that an earlier start with the same key may have been taken: then the run is looked for first.

    Raises:
        AmbiguousStartError: a run may or may not have been started.
        CopyAIError: it was not.
    """
    if unconfirmed and (found := await _look_again(wanted, calls, retry, 1)) is not None:
        return found
    sent = 0
    while True:
        sent += 1
        try:
            return await calls.post(wanted)
        except CopyAIError as error:
            if not error.ambiguous:
                raise
            lost = error
        if wanted.key is None:
            raise AmbiguousStartError(lost.message, wanted.workflow_id) from lost
        logger.warning("start of %s: %s; looking whether it was taken", escape(wanted.workflow_id), lost)
        found = await _look_again(wanted, calls, retry, sent)
        if found is not None:
            return found
        if not lost.retryable or (retry.attempts is not None and sent >= retry.attempts):
            raise AmbiguousStartError(lost.message, wanted.workflow_id, wanted.key) from lost


async def find(workflow_id: str, sought: Iterable[Sought], calls: Calls, since: datetime | None) -> Found:
    """Search the runs created since a moment, or all, for the keys of some starts, in one walk.

    Returns:
        What was found under each key: its run, or an `AmbiguousStartError` where some run shows too little to be told
        from it. A key that is missing belongs to no run that is listed.

    Raises:
        CopyAIError: the runs can't be read.
    """
    left = {one.key: one for one in sought}
    found: Found = {}
    suspects: dict[str, str] = {}
    unclear = 0
    async for run in calls.newest(workflow_id, since):
        if _take(run, left, found) or not any(one.may_be(run, is_listed=True) for one in left.values()):
            if not left:
                break
            continue
        # A list may leave out what the run itself shows.
        whole = await _read(run, workflow_id, calls) if unclear < _SUSPECTS else run
        if not _take(whole, left, found):
            may_be = {key: run.id for key, one in left.items() if one.may_be(whole, is_listed=False)}
            unclear += bool(may_be)
            suspects = may_be | suspects
    for key in left.keys() & suspects:
        reason = f"run {suspects[key]} may be it, and does not show the metadata that it was started with"
        found[key] = AmbiguousStartError(reason, workflow_id, key)
    return found


def _take(run: Run, left: dict[str, Sought], found: Found) -> bool:
    """Take a run that shows one of the keys."""
    key = run.metadata.get(KEY_NAME)
    if not isinstance(key, str) or key not in left:
        return False
    del left[key]
    found[key] = run
    return True


async def _read(run: Run, workflow_id: str, calls: Calls) -> Run:
    """Read a listed run; where that can't be done, what the list shows is all there is to know."""
    try:
        return await calls.get(workflow_id, run.id)
    except (NotFoundError, ValueError):  # it may not be known yet, or have an id that no path can hold
        return run


async def _look_again(wanted: Start, calls: Calls, retry: RetryPolicy, sent: int) -> Run | None:
    """Search a few times, with waits in front, as a start that timed out may be taken late."""
    for look in range(_LOOKS):
        await asyncio.sleep(retry.wait_after(sent + look))
        try:
            found = await find(wanted.workflow_id, [wanted.sought], calls, wanted.moment - _LOOK_BACK)
        except CopyAIError as error:
            reason = f"its answer was lost, and the runs could not be searched for it: {error.message}"
            raise AmbiguousStartError(reason, wanted.workflow_id, wanted.key) from error
        run = found.get(wanted.sought.key)
        if isinstance(run, AmbiguousStartError):
            raise run
        if run is not None:
            return evolve(run, metadata={**wanted.metadata, **run.metadata})
    return None


def with_key(metadata: dict[str, JSON], key: str | None) -> dict[str, JSON]:
    """Add an idempotency key to a run's metadata.

    Raises:
        ValueError: the key is not a string, or the metadata has another one.
    """
    if key is None:
        return metadata
    check_string("idempotency_key", key)
    if metadata.get(KEY_NAME, key) != key:
        raise ValueError(f"metadata has another {KEY_NAME!r} than idempotency_key: pass only one of them")
    return {**metadata, KEY_NAME: key}
