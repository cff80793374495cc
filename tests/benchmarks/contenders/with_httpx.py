"""httpx and pydantic: a loop over the pages that validates each body in one call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

import httpx
from pages import PAGE_SIZE, WORKFLOW
from pydantic import BaseModel, Field

from contenders import Read


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
    """The envelope's content."""

    total: int
    data: list[Run]


class Response(BaseModel):
    """The envelope."""

    data: Listing


@asynccontextmanager
async def reader(base_url: str, _prefetch: int | None) -> AsyncGenerator[Read]:
    """Open a client."""
    async with httpx.AsyncClient() as client:

        async def read() -> int:
            count, number, total = 0, 1, 1
            while count < total:
                query = {"size": PAGE_SIZE, "page": number}
                response = await client.get(f"{base_url}/workflow/{WORKFLOW}/run", params=query)
                listing = Response.model_validate_json(response.raise_for_status().content).data
                for _ in listing.data:
                    count += 1
                number, total = number + 1, listing.total
            return count

        yield read
