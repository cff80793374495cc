"""httpx and pydantic, by hand: a loop over the pages that validates each body in one go."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

import httpx
from pages import PAGE_SIZE, WORKFLOW
from pydantic import BaseModel, Field

from contenders import Walk


class Run(BaseModel):
    """A run."""

    id: str
    workflow_id: str | None = Field(None, alias="workflowId")
    status: Literal["NEW", "WAITING", "PROCESSING", "RETRYING", "COMPLETE", "FAILED"] | None = None
    input: dict[str, object] | None = None
    output: dict[str, object] | None = None
    metadata: dict[str, object] | None = None
    created_at: datetime | None = Field(None, alias="createdAt")
    credits: int | None = None
    error: object = None


class Listing(BaseModel):
    """What stands in the envelope."""

    total: int
    data: list[Run]


class Answer(BaseModel):
    """The envelope."""

    data: Listing


@asynccontextmanager
async def walker(base_url: str, _prefetch: int) -> AsyncGenerator[Walk]:
    """Open a client."""
    async with httpx.AsyncClient() as client:

        async def walk() -> int:
            count, number, total = 0, 1, 1
            while count < total:
                query = {"size": PAGE_SIZE, "page": number}
                answer = await client.get(f"{base_url}/workflow/{WORKFLOW}/run", params=query)
                listing = Answer.model_validate_json(answer.raise_for_status().content).data
                for _ in listing.data:
                    count += 1
                number, total = number + 1, listing.total
            return count

        yield walk
