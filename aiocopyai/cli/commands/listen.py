"""``aiocopyai webhooks listen``: receive webhooks and show their events."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Container, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Final

import typer
from attrs import field, frozen

import aiocopyai
from aiocopyai.cli._client import find_key, open_session
from aiocopyai.cli._demo import starting_runs
from aiocopyai.cli._errors import run_async, usage_errors
from aiocopyai.cli._options import FormatOption, Settings, shared_options
from aiocopyai.cli._output import ItemCount, OutputFormat, echo_err, open_writer
from aiocopyai.cli.commands.webhooks import WebhookWorkflow


if TYPE_CHECKING:
    from aiocopyai import JSON, CopyAISession, WebhookEvent
    from aiocopyai.webhooks import WebhookReceiver


_DELETION_TIMEOUT: Final = 5.0
"""Seconds that deleting the webhooks may take at the end."""
_DEFAULT_EVENTS: Final = ("workflowRun.completed", "workflowRun.failed")


@shared_options
def listen(
    settings: Settings,
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL",
            help="Where Copy.ai reaches this machine, such as https://….ngrok.app: webhooks are created for it, and "
            "deleted at the end. Without it none are created.",
            show_default=False,
        ),
    ] = None,
    *,
    event: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EVENT",
            help=f"The event type; repeat it for more. [{', '.join(_DEFAULT_EVENTS)}]",
            show_default=False,
        ),
    ] = None,
    workflow: WebhookWorkflow = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for any free port.")] = 8041,
    confirm: Annotated[
        bool, typer.Option(help="Confirm each event with the API; without it, forged events are shown too.")
    ] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many events.")] = None,
    output_format: FormatOption = None,
) -> None:
    """Receive webhooks, and show each event as it arrives, until Ctrl-C.

    An event is shown once the API has confirmed it, with the run as the API returns it.
    The secret in the path is a new one each time, unless COPYAI_WEBHOOK_SECRET holds one.

    \b
    Examples:
      aiocopyai webhooks listen --demo
      aiocopyai webhooks listen https://0a1b2c.ngrok.app --port 8041
      aiocopyai webhooks listen https://0a1b2c.ngrok.app | jq -r --unbuffered .run.output
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    if settings.demo and url is not None:
        raise typer.BadParameter("pass either a URL or --demo, whose emulator sends webhooks to this machine")
    options = _ListenOptions(
        url,
        event or _DEFAULT_EVENTS,
        workflow,
        host,
        0 if settings.demo else port,
        confirm=confirm,
        limit=limit,
        output_format=output_format,
    )
    shown = ItemCount("event")
    raise typer.Exit(run_async(_listen(options, settings, find_key(settings), shown), settings, so_far=shown))


@frozen
class _ListenOptions:
    """The options of the command."""

    url: str | None
    """The address that Copy.ai reaches this machine at; None to create no webhooks."""
    event_types: Sequence[str]
    workflow_id: str | None
    host: str
    port: int
    confirm: bool = field(kw_only=True)
    limit: int | None = field(kw_only=True)
    output_format: OutputFormat | None = field(kw_only=True)


async def _listen(options: _ListenOptions, settings: Settings, key: str | None, shown: ItemCount) -> None:
    from aiocopyai.webhooks import WebhookReceiver  # noqa: PLC0415 (loads a server)

    events: asyncio.Queue[WebhookEvent] = asyncio.Queue(1)
    async with open_session(settings, key) as session:
        with usage_errors():
            secret = os.environ.get("COPYAI_WEBHOOK_SECRET")
            receiver = WebhookReceiver(session, events.put, secret=secret, confirm=options.confirm, grace=0)
        async with receiver, _serve(receiver, options) as address:
            url = options.url.rstrip("/") if options.url else address if settings.demo else None
            async with (
                _webhooks(session, url + receiver.path, options, settings) if url else nullcontext(),
                starting_runs(session) if settings.demo else nullcontext(),
            ):
                await _show(events, options, shown)
    settings.inform(str(shown))


async def _show(events: asyncio.Queue[WebhookEvent], options: _ListenOptions, shown: ItemCount) -> None:
    writer = open_writer(options.output_format, _EventTable, _row, aiocopyai.WebhookEvent.parse({"type": "-"}))
    writer.flush()  # the header of a table or of CSV
    while shown.count != options.limit:
        writer.write(await events.get())
        writer.flush()
        shown.count += 1


@asynccontextmanager
async def _serve(receiver: WebhookReceiver, options: _ListenOptions) -> AsyncGenerator[str]:
    """Serve the receiver, and yield the server's address on this machine."""
    from aiohttp import web  # noqa: PLC0415 (loads a server)
    from yarl import URL  # noqa: PLC0415 (comes with aiohttp)

    app = web.Application()
    app.add_routes([receiver.route()])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
        address = str(URL.build(scheme="http", host=options.host, port=runner.addresses[0][1])).rstrip("/")
        echo_err(f"listening at {address}{receiver.path}")
        yield address
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _webhooks(
    session: CopyAISession, url: str, options: _ListenOptions, settings: Settings
) -> AsyncGenerator[None]:
    """Create webhooks, and delete them at the end; those that existed before are kept."""
    existing = {webhook.id async for webhook in session.webhooks()}
    try:
        for event_type in options.event_types:
            with usage_errors(workflow_id="--workflow", event_type="--event"):
                await session.ensure_webhook(url, event_type, options.workflow_id)
        settings.inform(f"created webhooks for {', '.join(options.event_types)}")
        yield
    finally:
        await _delete_webhooks(session, url, existing)


async def _delete_webhooks(session: CopyAISession, url: str, kept: Container[str]) -> None:
    """Delete the webhooks with a URL, as far as the API responds within a few seconds."""
    try:
        async with asyncio.timeout(_DELETION_TIMEOUT):
            async for webhook in session.webhooks():
                if webhook.url != url or webhook.id in kept:
                    continue
                try:
                    await session.delete_webhook(webhook.id)
                except aiocopyai.NotFoundError:
                    pass  # deleted by someone else
                except aiocopyai.CopyAIError as error:
                    echo_err(f"could not delete the webhook {webhook.id}: {error}")
    except (aiocopyai.CopyAIError, TimeoutError) as error:
        echo_err(
            f"could not list the webhooks to delete: {str(error) or f'no response within {_DELETION_TIMEOUT:g} s'}"
        )


class _EventTable:
    """Prints events as a table of their runs."""

    def __init__(self) -> None:
        from aiocopyai.cli._run_table import RunTable  # noqa: PLC0415 (loads rich)

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


def _row(event: WebhookEvent) -> dict[str, JSON]:
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
