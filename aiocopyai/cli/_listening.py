"""What ``aiocopyai webhooks listen`` does: a receiver in a server, webhooks that last as long, and what comes in."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Container, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Final

from aiohttp import web
from attrs import frozen
from yarl import URL

from aiocopyai import JSON, CopyAIError, CopyAISession, NotFoundError, Run, WebhookEvent
from aiocopyai.cli._common import open_workspace, perform, usage_errors
from aiocopyai.cli._demo import starting_runs
from aiocopyai.cli._formats import Format, Table, row_of, say, sink_of
from aiocopyai.cli._tally import Count
from aiocopyai.webhooks import WebhookReceiver


_FAREWELL: Final = 5.0
"""Seconds that the deletion of webhooks may take at the end."""


@frozen
class Wanted:
    """What the command was asked for."""

    url: str | None
    """Where Copy.ai reaches this machine; None to register nothing."""
    events: Sequence[str]
    workflow: str | None
    host: str
    port: int
    confirm: bool
    limit: int | None
    format: Format
    demo: bool


def run(wanted: Wanted, key: str | None, *, debug: bool) -> int:
    """Listen; return the exit code."""
    # An end of these kinds is one at which webhooks are deleted, too.
    for name in ("SIGTERM", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.default_int_handler)
    shown = Count("event")
    return perform(_listen(wanted, key, shown), debug=debug, so_far=shown)


async def _listen(wanted: Wanted, key: str | None, shown: Count) -> None:
    events: asyncio.Queue[WebhookEvent] = asyncio.Queue(1)
    async with open_workspace(key, demo=wanted.demo) as session:
        with usage_errors():
            secret = os.environ.get("COPYAI_WEBHOOK_SECRET")
            receiver = WebhookReceiver(session, events.put, secret=secret, confirm=wanted.confirm, grace=0)
        async with receiver, _serving(receiver, wanted) as address:
            url = wanted.url.rstrip("/") if wanted.url else address if wanted.demo else None
            async with (
                _registered(session, url + receiver.path, wanted) if url else nullcontext(),
                starting_runs(session) if wanted.demo else nullcontext(),
            ):
                await _show(events, wanted, shown)
    say(str(shown))


async def _show(events: asyncio.Queue[WebhookEvent], wanted: Wanted, shown: Count) -> None:
    out = sink_of(wanted.format, _Runs, _row, WebhookEvent.parse({"type": "-"}))
    out.flush()
    while shown.count != wanted.limit:
        out.write(await events.get())
        out.flush()
        shown.count += 1


@asynccontextmanager
async def _serving(receiver: WebhookReceiver, wanted: Wanted) -> AsyncGenerator[str, None]:
    """Serve the receiver; give the address on this machine."""
    app = web.Application()
    app.add_routes([receiver.route()])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, wanted.host, wanted.port).start()
        address = str(URL.build(scheme="http", host=wanted.host, port=runner.addresses[0][1])).rstrip("/")
        say(f"listening at {address}{receiver.path}")
        yield address
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _registered(session: CopyAISession, url: str, wanted: Wanted) -> AsyncGenerator[None, None]:
    """Have webhooks as long as this lasts; those that were there before stay."""
    before = {webhook.id async for webhook in session.webhooks()}
    try:
        for event in wanted.events:
            with usage_errors():
                await session.ensure_webhook(url, event, wanted.workflow)
        say(f"registered for {', '.join(wanted.events)}")
        yield
    finally:
        await _delete(session, url, before)


async def _delete(session: CopyAISession, url: str, spared: Container[str]) -> None:
    """Delete the webhooks for an address, as far as that is possible in a few seconds."""
    try:
        async with asyncio.timeout(_FAREWELL):
            async for webhook in session.webhooks():
                if webhook.url != url or webhook.id in spared:
                    continue
                await _delete_one(session, webhook.id)
    except (CopyAIError, TimeoutError) as error:
        say(f"could not look for webhooks to delete: {str(error) or 'no answer in time'}")


async def _delete_one(session: CopyAISession, webhook_id: str) -> None:
    try:
        await session.delete_webhook(webhook_id)
    except NotFoundError:
        pass  # gone already
    except CopyAIError as error:
        say(f"could not delete the webhook {webhook_id}: {error}")


class _Runs:
    """Events as a table of their runs."""

    def __init__(self) -> None:
        self._table = Table()

    def write(self, event: WebhookEvent, /) -> None:
        told = Run(
            event.run_id or "-",
            event.workflow_id,
            output=event.output or {"Event": event.type.value},
            credits=event.credits,
        )
        self._table.write(event.run or told)

    def flush(self) -> None:
        self._table.flush()


def _row(event: WebhookEvent) -> dict[str, JSON]:
    return {
        "type": event.type,
        "run_id": event.run_id,
        "workflow_id": event.workflow_id,
        "output": dict(event.output),
        "metadata": dict(event.metadata),
        "credits": event.credits,
        "run": None if event.run is None else row_of(event.run),
        "extra": dict(event.extra),
    }
