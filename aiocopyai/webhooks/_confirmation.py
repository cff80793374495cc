"""Confirmation of events: the run of each event is read from the API. `_receiver` checks the secret of a delivery."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Final, Protocol

from aiocopyai._text import escape
from aiocopyai.errors import CopyAIError, NotFoundError
from aiocopyai.models import Run, RunStatus, WebhookEventType
from aiocopyai.webhooks._event import WebhookEvent


_EXPECTED_STATUS: Final = {
    WebhookEventType.RUN_COMPLETED: RunStatus.COMPLETE,
    WebhookEventType.RUN_FAILED: RunStatus.FAILED,
}
_MAX_REASON_LENGTH: Final = 300


class RunReader(Protocol):
    """An object that reads a run from the API: a `CopyAISession`, or a substitute in a test."""

    def get_run(self, workflow_id: str, run_id: str, /) -> Awaitable[Run]:
        """Read one run."""
        ...


class UnconfirmedError(Exception):
    """The API does not confirm an event.

    Attributes:
        reason: why the event is not confirmed; one line of limited length.
        may_change: whether a later read may confirm the event.
        level: the level to log the reason with.
    """

    def __init__(self, reason: str, *, may_change: bool = False, level: int = logging.WARNING) -> None:
        super().__init__(reason)
        self.reason = escape(reason, _MAX_REASON_LENGTH)
        self.may_change = may_change
        self.level = level


async def confirm(reader: RunReader, event: WebhookEvent, *, accept_empty_output: bool) -> WebhookEvent:
    """Read an event's run, and return the event with the API's content.

    Only the type is taken from the delivery, because anyone may have sent it.

    Args:
        reader: reads the run.
        event: the event as it was delivered.
        accept_empty_output: whether a completed run may have no output. The API was observed to set the status before
            the output.

    Raises:
        UnconfirmedError: the run cannot be read, or does not have the event's status.
    """
    run = await _read_run(reader, event)
    expected = _EXPECTED_STATUS.get(event.type)
    if expected is not None and run.status != expected:
        is_final = run.status is not None and run.status.is_final
        raise UnconfirmedError(f"the run's status is {run.status and run.status.value!r}", may_change=not is_final)
    if expected == RunStatus.COMPLETE and not run.output and not accept_empty_output:
        raise UnconfirmedError("the run has no output", may_change=True)
    return WebhookEvent(
        type=event.type,
        run_id=run.id,
        workflow_id=run.workflow_id or event.workflow_id,
        output=run.output,
        metadata=run.metadata,
        credits=run.credits,
        run=run,
        extra=run.extra,
    )


async def _read_run(reader: RunReader, event: WebhookEvent) -> Run:
    if event.workflow_id is None or event.run_id is None:
        raise UnconfirmedError("the event has no run id or no workflow id")
    try:
        return await reader.get_run(event.workflow_id, event.run_id)
    except NotFoundError as error:
        raise UnconfirmedError(str(error), may_change=True) from None
    except CopyAIError as error:
        level = logging.WARNING if error.retryable else logging.ERROR
        raise UnconfirmedError(str(error), may_change=error.retryable, level=level) from None
    except ValueError as error:  # an invalid id
        raise UnconfirmedError(str(error)) from None
    except Exception as error:  # noqa: BLE001 (an error of one event must not affect other events)
        raise UnconfirmedError(f"{type(error).__name__}: {error}", level=logging.ERROR) from None


def describe(event: WebhookEvent) -> str:
    """Return a description of an event for the log. Strings from the delivery are escaped and truncated."""
    return f"{event.type.value!r:.80} of run {event.run_id!r:.80} of workflow {event.workflow_id!r:.80}"
