"""A bot with aiohttp.web: a message starts a run, and a webhook triggers the reply.

Settings come from the environment:

    COPYAI_API_KEY      your key
    COPYAI_WORKFLOW_ID  your workflow
    BOT_SECRET          at least 16 letters and digits, the same after each restart
    BOT_PORT            the local port; 8080 by default
    BOT_URL             the URL for Copy.ai, such as https://bot.example.com

    python docs/examples/aiohttp_bot.py
    curl --data 'Northwind Traders' http://127.0.0.1:8080/messages
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from aiohttp import web

from aiocopyai import CopyAISession, WebhookEvent, WebhookEventType
from aiocopyai.webhooks import WebhookReceiver


WORKFLOW_ID = os.environ["COPYAI_WORKFLOW_ID"]
PORT = int(os.environ.get("BOT_PORT", "8080"))
URL = os.environ.get("BOT_URL", f"http://127.0.0.1:{PORT}")


async def reply(event: WebhookEvent) -> None:
    """Reply to a message; the receiver has confirmed the event with the API."""
    if event.type == WebhookEventType.RUN_COMPLETED:
        print(f"{event.metadata['message']}: {dict(event.output)}", flush=True)
    elif event.type == WebhookEventType.RUN_FAILED and event.run is not None:
        print(f"{event.metadata['message']}: failed, {event.run.error}", flush=True)


def make_app() -> web.Application:
    """Create the application, which opens and closes the session and the receiver."""
    session = CopyAISession()
    receiver = WebhookReceiver(session, reply, secret=os.environ["BOT_SECRET"])

    async def receive_message(request: web.Request) -> web.Response:
        message = await request.text()
        run = await session.start_run(
            WORKFLOW_ID, {"Company": message}, metadata={"message": message}
        )
        return web.Response(text=f"started {run.id}\n", status=202)

    async def open_session(_app: web.Application) -> AsyncIterator[None]:
        async with session, receiver:
            for event_type in (
                WebhookEventType.RUN_COMPLETED,
                WebhookEventType.RUN_FAILED,
            ):
                await session.ensure_webhook(
                    URL + receiver.path, event_type, WORKFLOW_ID
                )
            yield

    app = web.Application()
    app.add_routes([web.post("/messages", receive_message), receiver.route()])
    app.cleanup_ctx.append(open_session)
    return app


if __name__ == "__main__":
    # No access log: the receiver's path is a secret.
    web.run_app(make_app(), host="127.0.0.1", port=PORT, access_log=None)
