"""``aiocopyai webhooks listen``: receive webhooks and show their events."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Container, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Final

import typer

import aiocopyai
from aiocopyai.cli import _demo
from aiocopyai.cli._errors import listen_error, usage_errors
from aiocopyai.cli._options import FormatOption, Settings, WebhookWorkflow, shared_options
from aiocopyai.cli._output import echo_err, open_writer
from aiocopyai.cli._progress import ItemCount
from aiocopyai.cli._runner import run_in_session


if TYPE_CHECKING:
    from aiocopyai import JSON, CopyAISession, WebhookEvent
    from aiocopyai.webhooks import WebhookReceiver


_DELETION_TIMEOUT: Final = 5.0
"""The time limit, in seconds, for deleting the webhooks at the end."""
_PORT: Final = 8041
_DEFAULT_EVENTS: Final = ("workflowRun.completed", "workflowRun.failed")


@shared_options
def listen(
    settings: Settings,
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL",
            help="The public URL of this machine, such as https://….ngrok.app. Webhooks are created for it, and "
            "deleted at the end; by default, none are created.",
            show_default=False,
        ),
    ] = None,
    *,
    event: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EVENT",
            help=f"Receive events of this type; repeat the option for more. [{', '.join(_DEFAULT_EVENTS)}]",
            show_default=False,
        ),
    ] = None,
    workflow: WebhookWorkflow = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Listen on this address.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help=f"Listen on this port, by default {_PORT}, or with --demo a free one; 0 selects a free one.",
            show_default=False,
        ),
    ] = None,
    confirm: Annotated[
        bool, typer.Option(help="Confirm each event with the API; --no-confirm shows forged events too.")
    ] = True,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after this many events.")] = None,
    output_format: FormatOption = None,
) -> None:
    """Receive webhooks, and show each event as it arrives, until Ctrl-C.

    Each event is shown after the API has confirmed it, with the run from the API.
    The path contains the secret in COPYAI_WEBHOOK_SECRET, or a random one.

    \b
    Examples:
      aiocopyai webhooks listen --demo
      aiocopyai webhooks listen https://0a1b2c.ngrok.app --port 8041
      aiocopyai webhooks listen https://0a1b2c.ngrok.app | jq -r --unbuffered .run.output
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    from aiocopyai._validation import is_loopback  # noqa: PLC0415 (loads msgspec, which --help of all commands does not)

    if not host:
        raise typer.BadParameter("--host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0")
    if settings.demo and url is not None:
        raise typer.BadParameter("pass either a URL or --demo, whose emulator sends webhooks to this machine")
    if settings.demo and not is_loopback(host):
        raise typer.BadParameter("the emulator of --demo sends webhooks to loopback addresses only: omit --host")
    if url is None and not settings.demo and (event or workflow):
        raise typer.BadParameter(f"{'--event' if event else '--workflow'} requires a URL to create webhooks for")
    if port is None:
        port = 0 if settings.demo else _PORT
    shown = ItemCount("event")

    async def receive(session: CopyAISession) -> None:
        from aiocopyai.webhooks import WebhookReceiver  # noqa: PLC0415 (loads a server)

        events: asyncio.Queue[WebhookEvent] = asyncio.Queue(1)
        with usage_errors():
            secret = os.environ.get("COPYAI_WEBHOOK_SECRET")
            receiver = WebhookReceiver(session, events.put, secret=secret, confirm=confirm, grace=0)
        async with receiver, _serve(receiver, host, port) as address:
            public_url = (url or (address if settings.demo else "")).rstrip("/")
            webhooks = _temporary_webhooks(
                session, public_url + receiver.path, event or _DEFAULT_EVENTS, workflow, settings
            )
            async with (
                webhooks if public_url else nullcontext(),
                _demo.starting_runs(session) if settings.demo else nullcontext(),
            ):
                writer = open_writer(
                    output_format, _EventTable, _event_row, aiocopyai.WebhookEvent.parse({"type": "-"})
                )
                writer.flush()  # the header of a table or of CSV
                while shown.count != limit:
                    writer.write(await events.get())
                    writer.flush()
                    shown.count += 1
        settings.inform(str(shown))

    raise typer.Exit(run_in_session(receive, settings, progress=shown))


@asynccontextmanager
async def _serve(receiver: WebhookReceiver, host: str, port: int) -> AsyncGenerator[str]:
    """Serve the receiver, and yield the server's address on this machine."""
    from aiohttp import web  # noqa: PLC0415 (loads a server)
    from yarl import URL  # noqa: PLC0415 (comes with aiohttp)

    app = web.Application()
    app.add_routes([receiver.route()])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise listen_error(host, port, error) from error
        address = str(URL.build(scheme="http", host=host, port=runner.addresses[0][1])).rstrip("/")
        echo_err(f"listening at {address}{receiver.path}")
        yield address
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _temporary_webhooks(
    session: CopyAISession, url: str, event_types: Sequence[str], workflow_id: str | None, settings: Settings
) -> AsyncGenerator[None]:
    """Create webhooks, and delete them at the end. Webhooks that existed before are kept."""
    existing = {webhook.id async for webhook in session.webhooks()}
    try:
        for event_type in event_types:
            with usage_errors(workflow_id="--workflow", event_type="--event"):
                await session.ensure_webhook(url, event_type, workflow_id)
        settings.inform(f"created webhooks for {', '.join(event_types)}")
        yield
    finally:
        await _delete_webhooks(session, url, existing)


async def _delete_webhooks(session: CopyAISession, url: str, kept_ids: Container[str]) -> None:
    """Delete the webhooks with a URL. Print an error if the API does not respond within a few seconds."""
    try:
        async with asyncio.timeout(_DELETION_TIMEOUT):
            async for webhook in session.webhooks():
                if webhook.url != url or webhook.id in kept_ids:
                    continue
                try:
                    await session.delete_webhook(webhook.id)
                except aiocopyai.NotFoundError:
                    pass  # already deleted
                except aiocopyai.CopyAIError as error:
                    echo_err(f"could not delete the webhook {webhook.id}: {error}")
    except (aiocopyai.CopyAIError, TimeoutError) as error:
        echo_err(
            f"could not list the webhooks to delete: {str(error) or f'no response within {_DELETION_TIMEOUT:g} s'}"
        )


class _EventTable:
    """Prints events as a table of their runs."""

    def __init__(self) -> None:
        from aiocopyai.cli._tables import RunTable  # noqa: PLC0415 (loads rich)

        self._table = RunTable()

    def write(self, event: WebhookEvent, /) -> None:
        unconfirmed = aiocopyai.Run(
            event.run_id or "-",
            event.workflow_id,
            output=event.output or {"Event": event.type.value},
            credits=event.credits,
        )
        self._table.write(event.run or unconfirmed)

    def flush(self) -> None:
        self._table.flush()


def _event_row(event: WebhookEvent) -> dict[str, JSON]:
    return {
        "type": event.type,
        "run_id": event.run_id,
        "workflow_id": event.workflow_id,
        "output": dict(event.output),
        "metadata": dict(event.metadata),
        "credits": event.credits,
        "run": None if event.run is None else event.run.to_dict(),
        "extra": dict(event.extra),
    }
