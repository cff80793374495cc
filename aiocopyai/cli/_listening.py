"""What ``aiocopyai webhooks listen`` does: a receiver in a server, webhooks that last as long, and what comes in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Final

from aiohttp import web
from attrs import define, frozen

from aiocopyai import JSON, CopyAIError, CopyAISession, Run, WebhookEvent
from aiocopyai.cli._common import open_workspace, perform, usage_errors
from aiocopyai.cli._demo import starting_runs
from aiocopyai.cli._formats import CSV, Format, JSONLines, Sink, Table, row_of, say
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


@define
class Shown:
    """How many events were shown so far."""

    count: int = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        return f"{self.count:,} event{'' if self.count == 1 else 's'}"


def run(wanted: Wanted, key: str | None, *, debug: bool) -> int:
    """Listen; return the exit code."""
    shown = Shown()
    return perform(_listen(wanted, key, shown), debug=debug, so_far=shown)


async def _listen(wanted: Wanted, key: str | None, shown: Shown) -> None:
    events: asyncio.Queue[WebhookEvent] = asyncio.Queue(1)
    async with open_workspace(key, demo=wanted.demo) as session:
        with usage_errors():
            secret = os.environ.get("COPYAI_WEBHOOK_SECRET")
            receiver = WebhookReceiver(session, events.put, secret=secret, confirm=wanted.confirm, grace=0)
        async with receiver, _serving(receiver, wanted) as address:
            url = wanted.url or (address if wanted.demo else None)
            async with (
                _registered(session, url + receiver.path, wanted) if url else nullcontext(),
                starting_runs(session) if wanted.demo else nullcontext(),
            ):
                await _show(events, wanted, shown)
    say(str(shown))


async def _show(events: asyncio.Queue[WebhookEvent], wanted: Wanted, shown: Shown) -> None:
    out = _sink(wanted.format)
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
        port = runner.addresses[0][1]
        address = f"http://{wanted.host}:{port}"
        say(f"listening at {address}{receiver.path}")
        yield address
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _registered(session: CopyAISession, url: str, wanted: Wanted) -> AsyncGenerator[None, None]:
    """Have webhooks as long as this lasts; those that were there before stay."""
    before = {webhook.id async for webhook in session.webhooks()}
    ours: list[str] = []
    try:
        for event in wanted.events:
            with usage_errors():
                webhook = await session.ensure_webhook(url, event, wanted.workflow)
            if webhook.id not in before:
                ours.append(webhook.id)
        say(f"registered for {', '.join(wanted.events)}")
        yield
    finally:
        await _delete(session, ours)


async def _delete(session: CopyAISession, webhook_ids: Sequence[str]) -> None:
    left = list(webhook_ids)
    try:
        async with asyncio.timeout(_FAREWELL):
            while left:
                await session.delete_webhook(left[-1])
                left.pop()
    except (CopyAIError, TimeoutError) as error:
        say(f"could not delete the webhooks {', '.join(left)}: {str(error) or 'no answer in time'}")


def _sink(chosen: Format) -> Sink[WebhookEvent]:
    if chosen is Format.TABLE:
        return _Runs()
    empty = WebhookEvent.parse({"type": "-"})
    return JSONLines(_row) if chosen is Format.JSONL else CSV(_row, tuple(_row(empty)))


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
