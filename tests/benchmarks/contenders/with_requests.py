"""requests: a loop over the pages that yields plain dictionaries."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import requests
from pages import PAGE_SIZE, WORKFLOW

from contenders import Read


@asynccontextmanager
async def reader(base_url: str, _prefetch: int | None) -> AsyncGenerator[Read]:
    """Open a session."""
    with requests.Session() as session:

        async def read() -> int:
            return sum(1 for _ in iterate_runs(session, f"{base_url}/workflow/{WORKFLOW}/run"))

        yield read


def iterate_runs(session: requests.Session, url: str) -> Iterator[Any]:
    """Yield the runs as plain dictionaries, page by page, until `total` runs were read."""
    position, number, total = 0, 1, 1
    while position < total:
        response = session.get(url, params={"size": PAGE_SIZE, "page": number}, timeout=30)
        response.raise_for_status()
        data = response.json()["data"]
        yield from data["data"]
        position += len(data["data"])
        number, total = number + 1, data["total"]
