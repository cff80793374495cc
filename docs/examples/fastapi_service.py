"""A FastAPI service that awaits runs, streams their changes, and receives webhooks.

Settings come from the environment: COPYAI_API_KEY and COPYAI_WORKFLOW_ID.

    uvicorn --app-dir docs/examples fastapi_service:app --no-access-log
    curl -X POST 'http://127.0.0.1:8000/fit?company=Northwind'
    curl -X POST 'http://127.0.0.1:8000/runs?company=Northwind'
    curl -N http://127.0.0.1:8000/runs/WRUN-…/events
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from aiocopyai import (
    CopyAIError,
    CopyAISession,
    RunFailedError,
    RunTimeoutError,
    RunWatch,
    WebhookEvent,
)
from aiocopyai.webhooks import WebhookReceiver


WORKFLOW_ID = os.environ["COPYAI_WORKFLOW_ID"]
ended_runs: list[str | None] = []
"""Ids of the runs whose end was reported by a webhook and confirmed by the API."""


async def remember(event: WebhookEvent) -> None:
    """Store the id of an event's run."""
    ended_runs.append(event.run_id)


session = CopyAISession()
receiver = WebhookReceiver(
    session, remember, secret=os.environ.get("COPYAI_WEBHOOK_SECRET")
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Open one session and one receiver for all requests."""
    async with session, receiver:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/fit")
async def fit(company: str) -> dict[str, object]:
    """Run the workflow without blocking other requests, and return its output."""
    try:
        run = await session.run_workflow(WORKFLOW_ID, {"Company": company}, timeout=60)
    except RunFailedError as error:
        raise HTTPException(422, f"the workflow failed: {error.run.error}") from error
    except RunTimeoutError as error:
        raise HTTPException(504, f"run {error.run_id} is still in progress") from error
    except CopyAIError as error:
        raise HTTPException(502, "Copy.ai is not available") from error
    return {"run": run.id, "output": dict(run.output), "credits": run.credits}


@app.post("/runs")
async def start(company: str) -> dict[str, str]:
    """Start a run, and return its id immediately."""
    try:
        run = await session.start_run(WORKFLOW_ID, {"Company": company})
    except CopyAIError as error:
        raise HTTPException(502, "Copy.ai is not available") from error
    return {"run": run.id}


@app.get("/runs/{run_id}/events")
async def events(run_id: str) -> StreamingResponse:
    """Follow a run as server-sent events, for an ``EventSource`` in a browser."""
    try:
        watched = session.watch_run(WORKFLOW_ID, run_id, max_poll_interval=2)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    return StreamingResponse(
        server_sent_events(watched), media_type="text/event-stream"
    )


async def server_sent_events(watched: RunWatch) -> AsyncIterator[str]:
    """Yield an event for each change, and a final one after which clients close."""
    async with aclosing(watched):
        try:
            async for run in watched:
                state = {
                    "status": run.status,
                    "output": dict(run.output),
                    "error": run.error,
                }
                yield f"data: {json.dumps(state)}\n\n"
        except CopyAIError:
            yield "event: failure\ndata: the run cannot be read\n\n"
    yield "event: end\ndata: end\n\n"


@app.get("/ended")
async def ended() -> list[str | None]:
    """Return the ids of the runs that have ended."""
    return ended_runs


# Mounted after the routes, so that it receives only other requests. It responds with
# 404 to requests that are not deliveries.
app.mount("/", receiver.asgi)
