"""A FastAPI service that awaits a run inside a request, and takes webhooks at the same time.

Settings come from the environment: COPYAI_API_KEY and COPYAI_WORKFLOW_ID.

    uvicorn --app-dir docs/examples fastapi_service:app --no-access-log
    curl -X POST 'http://127.0.0.1:8000/fit?company=Northwind'
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException

from aiocopyai import CopyAIError, CopyAISession, RunFailedError, RunTimeoutError, WebhookEvent
from aiocopyai.webhooks import WebhookReceiver


WORKFLOW_ID = os.environ["COPYAI_WORKFLOW_ID"]
over: list[str | None] = []
"""The runs whose end was told by a webhook, and confirmed by the API."""


async def remember(event: WebhookEvent) -> None:
    """Keep an event."""
    over.append(event.run_id)


session = CopyAISession()
receiver = WebhookReceiver(session, remember, secret=os.environ.get("COPYAI_WEBHOOK_SECRET"))


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Hold one session and one receiver open for all requests."""
    async with session, receiver:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/fit")
async def fit(company: str) -> dict[str, object]:
    """Start a run, wait for it without holding up other requests, and answer with its output."""
    try:
        run = await session.run_workflow(WORKFLOW_ID, {"Company": company}, timeout=60)
    except RunFailedError as error:
        raise HTTPException(422, f"the workflow failed: {error.run.error}") from error
    except RunTimeoutError as error:
        raise HTTPException(504, f"run {error.run_id} goes on; ask again later") from error
    except CopyAIError as error:
        raise HTTPException(502, "Copy.ai can't be asked now") from error
    return {"run": run.id, "output": dict(run.output), "credits": run.credits}


@app.get("/over")
async def over_runs() -> list[str | None]:
    """Tell which runs are over."""
    return over


# Behind the routes: what else is posted is a delivery, or answered with 404.
app.mount("/", receiver.asgi)
