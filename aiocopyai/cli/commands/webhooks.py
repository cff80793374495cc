"""``aiocopyai webhooks``: list, create and delete webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import aiocopyai
from aiocopyai._display import printable
from aiocopyai.cli._errors import usage_errors
from aiocopyai.cli._options import FormatOption, Settings, WebhookWorkflow, shared_options
from aiocopyai.cli._output import open_writer, print_json
from aiocopyai.cli._runner import run_in_session
from aiocopyai.models import utc_isoformat


if TYPE_CHECKING:
    from aiocopyai import JSON, CopyAISession, Webhook


@shared_options
def list_(settings: Settings, *, output_format: FormatOption = None) -> None:
    """List the webhooks of the workspace.

    \b
    Examples:
      aiocopyai webhooks list --demo
      aiocopyai webhooks list | jq -r .url
    """  # noqa: D301 (the backspace makes click keep the line breaks)

    async def show(session: CopyAISession) -> None:
        writer = open_writer(output_format, _WebhookTable, _webhook_row, aiocopyai.Webhook(""))
        async for webhook in session.webhooks():
            writer.write(webhook)
        writer.flush()

    raise typer.Exit(run_in_session(show, settings))


@shared_options
def create(
    settings: Settings,
    url: Annotated[str, typer.Argument(metavar="URL", help="The URL that Copy.ai posts events to.")],
    event: Annotated[
        str,
        typer.Argument(
            help="The event type: workflowRun.started, workflowRun.completed, workflowRun.failed or "
            "workflowCreditLimit.reached.",
            metavar="EVENT",
        ),
    ],
    *,
    workflow: WebhookWorkflow = None,
) -> None:
    """Create a webhook, unless the same one already exists, and show it.

    Copy.ai does not sign webhooks: use a URL that contains a secret.

    \b
    Examples:
      aiocopyai webhooks create https://example.com/copyai/… workflowRun.completed
      aiocopyai webhooks create https://example.com/copyai/… workflowRun.failed --workflow WCFG-6db59f06-…
    """  # noqa: D301 (the backspace makes click keep the line breaks)

    async def create_and_show(session: CopyAISession) -> None:
        with usage_errors(workflow_id="--workflow"):
            webhook = await session.ensure_webhook(url, event, workflow)
        print_json(_webhook_row(webhook))

    raise typer.Exit(run_in_session(create_and_show, settings))


@shared_options
def delete(
    settings: Settings,
    webhook_ids: Annotated[
        list[str],
        typer.Argument(metavar="WEBHOOK_ID", help="The webhooks' ids, as `aiocopyai webhooks list` shows them."),
    ],
) -> None:
    """Delete webhooks.

    \b
    Examples:
      aiocopyai webhooks delete 0d7a3c56-…
      aiocopyai webhooks list | jq -r 'select(.url | contains("old.example.com")) | .id' \\
        | xargs -r aiocopyai webhooks delete
    """  # noqa: D301 (the backspace makes click keep the line breaks)

    async def delete_each(session: CopyAISession) -> None:
        for webhook_id in webhook_ids:
            with usage_errors():
                await session.delete_webhook(webhook_id)
            settings.inform(f"deleted {webhook_id}")

    raise typer.Exit(run_in_session(delete_each, settings))


class _WebhookTable:
    """Prints webhooks in columns when all are known. Lines are not wrapped, so that ids and URLs can be copied."""

    def __init__(self) -> None:
        self._lines = [("EVENT", "WORKFLOW", "ID", "URL")]

    def write(self, webhook: Webhook, /) -> None:
        texts = (webhook.event_type or "-", webhook.workflow_id or "(all)", webhook.id, webhook.url or "-")
        event, workflow, webhook_id, url = map(printable, texts)
        self._lines.append((event, workflow, webhook_id, url))

    def flush(self) -> None:
        from aiocopyai.cli._tables import open_console  # noqa: PLC0415 (loads rich)

        widths = [max(map(len, column)) for column in zip(*self._lines, strict=True)]
        console = open_console()
        for number, line in enumerate(self._lines):
            cells = (text.ljust(width) for text, width in zip(line, widths, strict=True))
            console.print("  ".join(cells).rstrip(), style="" if number else "bold", soft_wrap=True)


def _webhook_row(webhook: Webhook) -> dict[str, JSON]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "event_type": webhook.event_type,
        "workflow_id": webhook.workflow_id,
        "created_at": utc_isoformat(webhook.created_at),
        "extra": dict(webhook.extra),
    }
