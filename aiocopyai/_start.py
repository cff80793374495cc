"""Starting a run so that it is paid for once: what is sent again, what is looked for first, and what stays in doubt.

The API has no idempotency keys, and every accepted start spends credits. So a key of our own travels in the run's
metadata, and after a lost answer the newest runs are searched for it before anything is sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from attrs import evolve, field, frozen

from aiocopyai._retry import RetryPolicy
from aiocopyai.errors import AmbiguousStartError, CopyAIError, NotFoundError, printable
from aiocopyai.models import JSON, Run


logger = logging.getLogger("aiocopyai")

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

    def may_be(self, run: Run) -> bool:
        """Whether a run that shows no key could still be the one: nothing that is known of it speaks against it."""
        return KEY_NAME not in run.metadata and (not run.input or dict(run.input) == dict(self.inputs))


@frozen
class Calls:
    """What a start needs of the API."""

    post: Callable[[Start], Awaitable[Run]]
    newest: Callable[[str, datetime | None], AsyncIterable[Run]]
    """Lists a workflow's runs created since a moment, or all."""
    get: Callable[[str, str], Awaitable[Run]]


async def start(wanted: Start, calls: Calls, retry: RetryPolicy, *, in_doubt: bool) -> Run:
    """Start one run, and no second one.

    `in_doubt` says that an earlier start with the same key may have been taken: then the run is looked for first.

    Raises:
        AmbiguousStartError: a run may or may not have been started.
        CopyAIError: it was not.
    """
    if in_doubt and (found := await _look_again(wanted, calls, retry, 1)) is not None:
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
        logger.warning("start of %s: %s; looking whether it was taken", printable(wanted.workflow_id), lost)
        found = await _look_again(wanted, calls, retry, sent)
        if found is not None:
            return found
        if not lost.transient or (retry.attempts is not None and sent >= retry.attempts):
            raise AmbiguousStartError(lost.message, wanted.workflow_id, wanted.key) from lost


async def find(wanted: Start, calls: Calls, since: datetime | None) -> Run | None:
    """Search the runs created since a moment, or all, for the start's key.

    Raises:
        AmbiguousStartError: it is not there, but some run shows too little to be told from it.
        CopyAIError: the runs can't be read.
    """
    suspects: list[str] = []
    async for run in calls.newest(wanted.workflow_id, since):
        if run.metadata.get(KEY_NAME) == wanted.key:
            return run
        if not wanted.may_be(run):
            continue
        # A list may leave out what the run itself shows.
        whole = await _read(run, wanted, calls) if len(suspects) < _SUSPECTS else run
        if whole is not None and whole.metadata.get(KEY_NAME) == wanted.key:
            return whole
        if whole is not None and wanted.may_be(whole):
            suspects.append(run.id)
    if suspects:
        reason = f"run {suspects[0]} may be it, and does not show the metadata that it was started with"
        raise AmbiguousStartError(reason, wanted.workflow_id, wanted.key)
    return None


async def _read(run: Run, wanted: Start, calls: Calls) -> Run | None:
    try:
        return await calls.get(wanted.workflow_id, run.id)
    except NotFoundError:
        return None
    except ValueError:
        # An id that no path can hold: what the list shows is all there is to know.
        return run


async def _look_again(wanted: Start, calls: Calls, retry: RetryPolicy, sent: int) -> Run | None:
    """Search a few times, with waits in front, as a start that timed out may be taken late."""
    for look in range(_LOOKS):
        await asyncio.sleep(retry.wait_after(sent + look))
        try:
            found = await find(wanted, calls, wanted.moment - _LOOK_BACK)
        except AmbiguousStartError:
            raise
        except CopyAIError as error:
            reason = f"its answer was lost, and the runs could not be searched for it: {error.message}"
            raise AmbiguousStartError(reason, wanted.workflow_id, wanted.key) from error
        if found is not None:
            return evolve(found, metadata={**wanted.metadata, **found.metadata})
    return None
