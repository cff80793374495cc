"""``aiocopyai webhooks``: list, register and delete them; `listen` is in a file of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from aiocopyai import JSON, Webhook, WebhookEventType
from aiocopyai.cli._common import find_key, open_workspace, perform, usage_errors
from aiocopyai.cli._formats import Format, Sink, console, printable, say, show_json, sink_of, utc_text
from aiocopyai.cli._options import Debug, Demo, OutputFormat


Workflow = Annotated[
    str | None,
    typer.Option(
        "--workflow", metavar="WORKFLOW_ID", help="Only runs of this workflow; else of all.", show_default=False
    ),
]


def list_(*, output_format: OutputFormat = None, demo: Demo = False, debug: Debug = False) -> None:
    """List the workspace's webhooks.

    \b
    Examples:
      aiocopyai webhooks list --demo
      aiocopyai webhooks list | jq -r .url
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    out = sink_of(output_format or Format.fitting_stdout(), Table, _row, Webhook(""))
    raise typer.Exit(perform(_list(find_key(demo=demo), out, demo=demo), debug=debug))


def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where Copy.ai is to post to.")],
    event: Annotated[
        str, typer.Argument(help=f"What is to be told, such as {', '.join(WebhookEventType)}.", metavar="EVENT")
    ],
    *,
    workflow: Workflow = None,
    demo: Demo = False,
    debug: Debug = False,
) -> None:
    """Register a webhook, unless there is one that does the same, and show it.

    Nothing that Copy.ai posts is signed: let the URL hold a secret.

    \b
    Examples:
      aiocopyai webhooks create https://example.com/copyai/… workflowRun.completed
      aiocopyai webhooks create https://example.com/copyai/… workflowRun.failed --workflow WCFG-6db59f06-…
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    raise typer.Exit(perform(_create(find_key(demo=demo), url, event, workflow, demo=demo), debug=debug))


def delete(
    webhook_ids: Annotated[
        list[str], typer.Argument(metavar="WEBHOOK_ID…", help="Their ids, as `webhooks list` shows them.")
    ],
    *,
    demo: Demo = False,
    debug: Debug = False,
) -> None:
    """Delete webhooks.

    \b
    Examples:
      aiocopyai webhooks delete 0d7a3c56-…
      aiocopyai webhooks list | jq -r 'select(.url | contains("old.example.com")) | .id' \\
        | xargs -r aiocopyai webhooks delete
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    raise typer.Exit(perform(_delete(find_key(demo=demo), webhook_ids, demo=demo), debug=debug))


class Table:
    """Webhooks as a table, once all are known; its lines are never broken, so that ids and URLs can be copied."""

    def __init__(self) -> None:
        self._lines = [("EVENT", "WORKFLOW", "ID", "URL")]

    def write(self, webhook: Webhook, /) -> None:
        texts = (webhook.event_type or "-", webhook.workflow_id or "(all)", webhook.id, webhook.url or "-")
        event, workflow, webhook_id, url = map(printable, texts)
        self._lines.append((event, workflow, webhook_id, url))

    def flush(self) -> None:
        widths = [max(map(len, column)) for column in zip(*self._lines, strict=True)]
        out = console()
        for number, line in enumerate(self._lines):
            cells = (text.ljust(width) for text, width in zip(line, widths, strict=True))
            out.print("  ".join(cells).rstrip(), style="" if number else "bold", soft_wrap=True)


def _row(webhook: Webhook) -> dict[str, JSON]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "event_type": webhook.event_type,
        "workflow_id": webhook.workflow_id,
        "created_at": utc_text(webhook.created_at),
        "extra": dict(webhook.extra),
    }


async def _list(key: str | None, out: Sink[Webhook], *, demo: bool) -> None:
    async with open_workspace(key, demo=demo) as session:
        async for webhook in session.webhooks():
            out.write(webhook)
    out.flush()


async def _create(key: str | None, url: str, event: str, workflow: str | None, *, demo: bool) -> None:
    async with open_workspace(key, demo=demo) as session:
        with usage_errors():
            webhook = await session.ensure_webhook(url, event, workflow)
    show_json(_row(webhook))


async def _delete(key: str | None, webhook_ids: list[str], *, demo: bool) -> None:
    async with open_workspace(key, demo=demo) as session:
        for webhook_id in webhook_ids:
            with usage_errors():
                await session.delete_webhook(webhook_id)
            say(f"deleted {webhook_id}")
