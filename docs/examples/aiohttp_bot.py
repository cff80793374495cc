"""A bot on aiohttp.web: it starts a run for each message, and answers when Copy.ai says that the run is over.

Settings come from the environment:

    COPYAI_API_KEY, COPYAI_WORKFLOW_ID   yours
    BOT_SECRET                           16 letters and digits or more, the same at every start
    BOT_PORT                             where it listens on this machine; 8080 by default
    BOT_URL                              where Copy.ai reaches it, such as https://bot.example.com

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
    """Answer a message; the API has confirmed the event, so it is as true as the run itself."""
    if event.type == WebhookEventType.RUN_COMPLETED:
        print(f"{event.metadata['message']}: {dict(event.output)}", flush=True)
    elif event.type == WebhookEventType.RUN_FAILED and event.run is not None:
        print(f"{event.metadata['message']}: failed, {event.run.error}", flush=True)


def make_app() -> web.Application:
    """Make the application; the session and the receiver live as long as it does."""
    session = CopyAISession()
    receiver = WebhookReceiver(session, reply, secret=os.environ["BOT_SECRET"])

    async def take_message(request: web.Request) -> web.Response:
        message = await request.text()
        run = await session.start_run(WORKFLOW_ID, {"Company": message}, metadata={"message": message})
        return web.Response(text=f"working on it: {run.id}\n", status=202)

    async def live(_app: web.Application) -> AsyncIterator[None]:
        async with session, receiver:
            for event_type in (WebhookEventType.RUN_COMPLETED, WebhookEventType.RUN_FAILED):
                await session.ensure_webhook(URL + receiver.path, event_type, WORKFLOW_ID)
            yield

    app = web.Application()
    app.add_routes([web.post("/messages", take_message), receiver.route()])
    app.cleanup_ctx.append(live)
    return app


if __name__ == "__main__":
    # No access log: the receiver's path is a secret.
    web.run_app(make_app(), host="127.0.0.1", port=PORT, access_log=None)
