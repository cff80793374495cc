"""``aiocopyai webhooks listen``: its arguments and options."""

from __future__ import annotations

from typing import Annotated

import typer

from aiocopyai import WebhookEventType
from aiocopyai.cli._common import find_key
from aiocopyai.cli._formats import Format
from aiocopyai.cli._options import Debug, Demo, OutputFormat
from aiocopyai.cli._webhooks import Workflow


def listen(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL",
            help="Where Copy.ai reaches this machine, such as https://….ngrok.app: webhooks are registered for it, and "
            "deleted at the end. Without it nothing is registered.",
            show_default=False,
        ),
    ] = None,
    *,
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="EVENT", help="What to register for; repeat it for more. [ends of runs]"),
    ] = None,
    workflow: Workflow = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 for any that is free.")] = 8041,
    confirm: Annotated[
        bool, typer.Option(help="Ask the API whether an event is true; without, forged ones are shown, too.")
    ] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many events.")] = None,
    output_format: OutputFormat = None,
    demo: Demo = False,
    debug: Debug = False,
) -> None:
    """Receive webhooks, and show each event as it comes, until Ctrl-C.

    An event is shown once the API has confirmed it, with the run as the API tells it.
    The secret in the path is another each time, unless COPYAI_WEBHOOK_SECRET holds one.

    \b
    Examples:
      aiocopyai webhooks listen --demo
      aiocopyai webhooks listen https://0a1b2c.ngrok.app --port 8041
      aiocopyai webhooks listen https://0a1b2c.ngrok.app | jq -r --unbuffered .run.output
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    # Here, as no other command but the emulator needs a server.
    from aiocopyai.cli._listening import Wanted, run  # noqa: PLC0415

    if demo and url is not None:
        raise typer.BadParameter("the demo's emulator delivers to this machine: give either a URL or --demo")
    events = event or [WebhookEventType.RUN_COMPLETED, WebhookEventType.RUN_FAILED]
    chosen = output_format or Format.fitting_stdout()
    wanted = Wanted(url, events, workflow, host, 0 if demo else port, confirm, limit, chosen, demo)
    raise typer.Exit(run(wanted, find_key(demo=demo), debug=debug))
