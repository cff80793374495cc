"""Is an event true? One read of its run from the API tells."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Final, Protocol

from aiocopyai.errors import NotFoundError
from aiocopyai.models import Run, RunStatus, WebhookEventType
from aiocopyai.webhooks._event import WebhookEvent


logger = logging.getLogger("aiocopyai")

_END: Final = {
    WebhookEventType.RUN_COMPLETED: RunStatus.COMPLETE,
    WebhookEventType.RUN_FAILED: RunStatus.FAILED,
}
"""Where a run must stand for an event of its end to be true."""


class RunReader(Protocol):
    """Whatever reads one run from the API: a `CopyAISession`, or a stand-in for one."""

    def get_run(self, workflow_id: str, run_id: str, /) -> Awaitable[Run]:
        """Read one run."""
        ...


async def confirm(reader: RunReader, event: WebhookEvent) -> WebhookEvent | None:
    """Read an event's run, and return the event as the API tells it; None, and a log line, if it can't be confirmed.

    Nothing but the type is taken over from the delivery, whose sender may claim anything.
    """
    run = await _read_run(reader, event)
    if run is None:
        return None
    expected = _END.get(event.type)
    if expected is not None and run.status != expected:
        status = f"{run.status and run.status.value!r:.80}"
        logger.warning("webhook event dropped: %s, but the run's status is %s", label(event), status)
        return None
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


def label(event: WebhookEvent) -> str:
    """Name an event in a log line. It comes from anyone: each piece is escaped and cut."""
    return f"{event.type.value!r:.80} of run {event.run_id!r:.80} of workflow {event.workflow_id!r:.80}"


async def _read_run(reader: RunReader, event: WebhookEvent) -> Run | None:
    if event.workflow_id is None or event.run_id is None:
        logger.warning("webhook event dropped: %s can't be confirmed without both ids", label(event))
        return None
    try:
        return await reader.get_run(event.workflow_id, event.run_id)
    except (NotFoundError, ValueError) as error:
        logger.warning("webhook event dropped: %s: %.300r", label(event), str(error))
    except Exception as error:  # noqa: BLE001 (whatever befalls one read, the next event is to be read)
        reason = f"{type(error).__name__}: {error}"
        logger.error("webhook event dropped: %s could not be confirmed: %.300r", label(event), reason)  # noqa: TRY400 (a trace would be the session's own)
    return None
