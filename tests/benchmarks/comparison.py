"""Read the same changing list in several ways, and print the runs that each one loses and repeats.

``python tests/benchmarks/comparison.py`` prints the tables of docs/comparison.md. The list has 3,000 runs, newest
first, in pages of 100, and changes in the same way at the same requests of each client. A run is lost if it was in the
list from the first request to the last and was not yielded. It is repeated if it was yielded more than once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import requests
from attrs import define, field, frozen
from contenders import with_openai, with_requests
from dlt.sources.rest_api import rest_api_resources
from dlt.sources.rest_api.typing import PageNumberPaginatorConfig, RESTAPIConfig
from openai import AsyncOpenAI
from pages import PAGE_SIZE, WORKFLOW

from aiocopyai import CopyAISession


RUNS: Final = 3_000
MOST_REQUESTS: Final = 4 * RUNS // PAGE_SIZE
"""The number of requests after which a reading is stopped, because it may never end."""


@define
class ChangingList:
    """A workflow's runs, which may change before each response."""

    change: Callable[[ChangingList], None] = lambda _: None
    """Changes the list before a response; by default it does nothing."""
    total: Callable[[int], int] = lambda count: count
    """Returns the `total` of a response for the true count."""
    ignores_page: bool = False
    """Whether every page is the first one."""
    ids: list[str] = field(factory=lambda: [f"WRUN-{number:05d}" for number in range(RUNS, 0, -1)])
    removed: set[str] = field(factory=set[str])
    requests: int = 0

    def add(self) -> None:
        """Start a run."""
        self.ids.insert(0, f"WRUN-new-{self.requests}-{len(self.ids)}")

    def remove(self, place: int) -> None:
        """Delete a run."""
        self.removed.add(self.ids.pop(place))

    def respond(self, page: int) -> bytes | None:
        """Return the body for a page, or None after too many requests."""
        self.requests += 1
        if self.requests > MOST_REQUESTS:
            return None
        self.change(self)
        first = 0 if self.ignores_page else (page - 1) * PAGE_SIZE
        runs = [{"id": run_id, "status": "COMPLETE"} for run_id in self.ids[first : first + PAGE_SIZE]]
        return json.dumps({"status": "success", "data": {"total": self.total(len(self.ids)), "data": runs}}).encode()


def _every_third(change: Callable[[ChangingList], None]) -> Callable[[ChangingList], None]:
    def change_sometimes(changing: ChangingList) -> None:
        if changing.requests > 1 and changing.requests % 3 == 0:
            change(changing)

    return change_sometimes


def _replace_oldest(changing: ChangingList) -> None:
    changing.add()
    changing.ids.pop()


SCENARIOS: Final[dict[str, Callable[[], ChangingList]]] = {
    "nothing changes": ChangingList,
    "a run is started every 3 requests": lambda: ChangingList(_every_third(ChangingList.add)),
    "a read run is deleted every 3 requests": lambda: ChangingList(_every_third(lambda each: each.remove(0))),
    "each new run replaces the oldest": lambda: ChangingList(_every_third(_replace_oldest)),
    "`total` is 500 too high": lambda: ChangingList(total=lambda count: count + 500),
    "`total` is 500 too low": lambda: ChangingList(total=lambda count: count - 500),
    "every page is the first": lambda: ChangingList(ignores_page=True),
}


@frozen
class Result:
    """The result of one reading."""

    lost: int
    repeated: int
    requests: int
    end: str
    """``yes``, ``no``, or the error that ended it."""


async def _with_aiocopyai(base_url: str, take: Callable[[str], None]) -> None:
    async with CopyAISession("benchmark-key", base_url=base_url) as session:
        async for run in session.runs(WORKFLOW):
            take(run.id)


async def _with_openai(base_url: str, take: Callable[[str], None]) -> None:
    async with AsyncOpenAI(api_key="benchmark-key", base_url=base_url, max_retries=0) as client:
        async for run in with_openai.iterate_runs(client):
            take(run.id)


async def _with_requests(base_url: str, take: Callable[[str], None]) -> None:
    def read() -> None:
        with requests.Session() as session:
            for run in with_requests.iterate_runs(session, f"{base_url}/workflow/{WORKFLOW}/run"):
                take(run["id"])

    await asyncio.to_thread(read)


async def _with_dlt(base_url: str, take: Callable[[str], None]) -> None:
    # Without `total_path`, which dlt reads as a number of pages, an empty page ends the list.
    paginator: PageNumberPaginatorConfig = {"type": "page_number", "base_page": 1, "total_path": None}
    config: RESTAPIConfig = {
        "client": {"base_url": base_url, "paginator": paginator},
        "resources": [
            {
                "name": "runs",
                "endpoint": {
                    "path": f"workflow/{WORKFLOW}/run",
                    "params": {"size": PAGE_SIZE},
                    "data_selector": "data.data",
                },
            }
        ],
    }

    def read() -> None:
        [resource] = rest_api_resources(config)
        for run in resource:
            take(run["id"])

    await asyncio.to_thread(read)


READERS: Final = {
    "aiocopyai": _with_aiocopyai,
    "requests loop": _with_requests,
    "openai pager": _with_openai,
    "dlt REST source": _with_dlt,
}


@contextmanager
def _served(changing: ChangingList) -> Generator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            page = re.search(r"[?&]page=(\d+)", self.path)
            with lock:
                body = changing.respond(int(page[1]) if page else 1)
            self.send_response(410 if body is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: Any) -> None:  # noqa: ANN401 (http.server's signature)
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:  # noqa: ANN401 (http.server's signature)
            """Ignore a client that has disconnected."""

    lock = threading.Lock()
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/api"
        finally:
            server.shutdown()


def compare(reader: str, scenario: str) -> Result:
    """Read the list of a scenario with one client."""
    changing = SCENARIOS[scenario]()
    expected = set(changing.ids)
    yielded: list[str] = []
    end = "yes"
    with _served(changing) as base_url:
        try:
            asyncio.run(READERS[reader](base_url, yielded.append))
        except Exception as error:  # noqa: BLE001 (each library has its own)
            end = "no" if changing.requests > MOST_REQUESTS else type(error).__name__
    remaining = expected & set(changing.ids)
    return Result(len(remaining - set(yielded)), len(yielded) - len(set(yielded)), changing.requests, end)


def outcome(result: Result) -> str:
    """Describe a result: ``exact``, or the losses, repetitions and errors."""
    faults = [f"{count:,} {name}" for count, name in ((result.lost, "lost"), (result.repeated, "repeated")) if count]
    if result.end == "no":
        faults.append("never ends")
    elif result.end != "yes":
        faults.append(f"`{result.end}`")
    return ", ".join(faults) or "exact"


def main() -> None:
    """Print two tables in Markdown: the results, and the numbers of requests."""
    logging.getLogger("aiocopyai").setLevel(logging.ERROR)
    results = {scenario: [compare(reader, scenario) for reader in READERS] for scenario in SCENARIOS}
    for show in (outcome, lambda result: str(result.requests)):
        lines = [["list", *READERS], ["---"] * (1 + len(READERS))]
        lines += [[scenario, *map(show, row)] for scenario, row in results.items()]
        sys.stdout.writelines(f"| {' | '.join(line)} |\n" for line in lines)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
