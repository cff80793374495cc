"""The openai SDK's own client, models and asynchronous pager, configured for this API's page numbers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Generic, Literal, TypeVar

from openai import AsyncOpenAI, BaseModel
from openai._base_client import BaseAsyncPage, BasePage, PageInfo, make_request_options
from pages import PAGE_SIZE, WORKFLOW
from pydantic import Field

from contenders import Read


T = TypeVar("T")


class Run(BaseModel):
    """A run, declared like the SDK's own models."""

    id: str
    workflow_id: str | None = Field(None, alias="workflowId")
    status: Literal["NEW", "WAITING", "PROCESSING", "RETRYING", "COMPLETE", "FAILED"] | None = None
    input: dict[str, object] | None = None
    output: dict[str, object] | None = None
    metadata: dict[str, object] | None = None
    created_at: datetime | None = Field(None, alias="createdAt")
    credits: int | None = None
    error: object = None


class Listing(BaseModel, Generic[T]):
    """The envelope's content."""

    total: int
    data: list[T]


class RunPage(BaseAsyncPage[T], BasePage[T], Generic[T]):
    """A page; the next one is requested by its number."""

    data: Listing[T]

    def _get_page_items(self) -> list[T]:
        return self.data.data

    def next_page_info(self) -> PageInfo | None:
        """Return the parameters of the next page, or None after `total` runs."""
        number = self._options.params.get("page")
        if not isinstance(number, int) or number * PAGE_SIZE >= self.data.total:
            return None
        return PageInfo(params={"page": number + 1})


@asynccontextmanager
async def reader(base_url: str, _prefetch: int | None) -> AsyncGenerator[Read]:
    """Open a client."""
    async with AsyncOpenAI(api_key="benchmark-key", base_url=base_url) as client:

        async def read() -> int:
            count = 0
            async for _ in iterate_runs(client):
                count += 1
            return count

        yield read


def iterate_runs(client: AsyncOpenAI) -> AsyncIterable[Run]:
    """Return the SDK's iterator over the runs of all pages."""
    options = make_request_options(query={"size": PAGE_SIZE, "page": 1})
    return client.get_api_list(f"/workflow/{WORKFLOW}/run", model=Run, page=RunPage[Run], options=options)
