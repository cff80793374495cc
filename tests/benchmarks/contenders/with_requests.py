"""requests, by hand: a loop over the pages that gives plain dictionaries."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import requests
from pages import PAGE_SIZE, WORKFLOW

from contenders import Walk


@asynccontextmanager
async def walker(base_url: str, _prefetch: int) -> AsyncGenerator[Walk]:
    """Open a session."""
    with requests.Session() as session:

        async def walk() -> int:
            return sum(1 for _ in _runs(session, f"{base_url}/workflow/{WORKFLOW}/run"))

        yield walk


def _runs(session: requests.Session, url: str) -> Iterator[object]:
    position, number, total = 0, 1, 1
    while position < total:
        answer = session.get(url, params={"size": PAGE_SIZE, "page": number}, timeout=30)
        answer.raise_for_status()
        data = answer.json()["data"]
        yield from data["data"]
        position += len(data["data"])
        number, total = number + 1, data["total"]
