"""Time a Dask data frame against the workers that read it; print a table of ratios to one worker.

``python tests/benchmarks/dask_workers.py`` takes some two minutes; ``--quick`` half of one. The first part is of
processes with one thread each and a server that answers at once, so that all time is the client's: it shows something
up to as many workers as there are cores beside the server's. The second part is a simulation of more: each page comes
100 ms late, and threads of one process stand for workers that wait for them. The runs are small there, since all these
threads have one core between them, as workers of their own would not. (It isn't named after Dask, whose package it
would hide from whatever else is run from here.)
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Final

import dask
from distributed import Client, LocalCluster
from pages import PAGE_SIZE, WORKFLOW
from servers import slow_server, small_server

from aiocopyai import CopyAISession
from aiocopyai.integrations.dask import read_runs


LATENCY: Final = 0.1
KEY: Final = {"COPYAI_API_KEY": "benchmark-key"}


def read(base_url: str, partition_pages: int) -> int:
    """Make a frame and compute it where it is read; return how many rows it has."""
    frame = read_runs(WORKFLOW, base_url=base_url, partition_pages=partition_pages)
    return int(frame.map_partitions(len, meta=("rows", "int64")).sum().compute())


async def walk(base_url: str, prefetch: int) -> int:
    """Read the same by one session."""
    async with CopyAISession(base_url=base_url) as session:
        return len([run async for run in session.runs(WORKFLOW, prefetch=prefetch)])


@contextmanager
def processes(workers: int) -> Generator[None]:
    """Have Dask compute in so many processes, each with what it needs imported."""
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, env=KEY) as cluster,
        Client(cluster) as client,
    ):
        client.run(_import)
        yield


def _import() -> None:
    import aiocopyai.integrations.dask  # noqa: F401, PLC0415 (in the worker)


@contextmanager
def threads(workers: int) -> Generator[None]:
    """Have Dask compute in so many threads."""
    with dask.config.set(scheduler="threads", num_workers=workers):
        yield


def measure(runs: int, rounds: int, work: Callable[[], int]) -> float:
    """Return the seconds of the best round."""
    taken = list[float]()
    for _ in range(rounds):
        began = time.perf_counter()
        found = work()
        taken.append(time.perf_counter() - began)
        if found != runs:
            raise RuntimeError(f"{found} runs were read of {runs}")
    return min(taken)


def report(title: str, runs: int, rows: Iterable[tuple[str, float]]) -> None:
    """Print a part of the table; all ratios are to its first line."""
    sys.stdout.write(f"\n{title}\n")
    first: float | None = None
    for what, seconds in rows:
        first = first or seconds
        sys.stdout.write(f"  {what:<28} {seconds:7.2f} s {runs / seconds:10,.0f} runs/s {first / seconds:6.2f} x\n")
        sys.stdout.flush()


def cores(pages: int, rounds: int) -> None:
    """Measure processes, where the client's work is what takes time."""
    runs = pages * PAGE_SIZE

    def rows(url: str) -> Generator[tuple[str, float]]:
        for workers in (1, 2):
            with processes(workers):
                yield f"Dask, {workers} process(es)", measure(runs, rounds, lambda: read(url, 50))
        yield "a walk, nothing kept", measure(runs, rounds, lambda: asyncio.run(walk(url, 4)))

    with slow_server(runs, 0.0) as url:
        report(f"{runs:,} runs of 1 KB, answered at once, {os.cpu_count()} cores", runs, rows(url))


def waiting(pages: int, all_workers: Iterable[int]) -> None:
    """Measure threads, where waiting for the server is what takes time."""
    runs = pages * PAGE_SIZE

    def rows(url: str) -> Generator[tuple[str, float]]:
        for workers in all_workers:
            with threads(workers):
                yield f"Dask, {workers} thread(s)", measure(runs, 1, lambda: read(url, 5))
        for prefetch in (0, 4, 32):
            yield f"a walk, prefetch={prefetch}", measure(runs, 1, lambda: asyncio.run(walk(url, prefetch)))  # noqa: B023 (called at once)

    with small_server(runs, LATENCY) as url:
        report(f"{runs:,} small runs, each page {LATENCY * 1e3:.0f} ms late, partitions of 5 pages", runs, rows(url))


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="do little, for a look: the figures are rough")
    options = parser.parse_args()
    os.environ.update(KEY)
    cores(200 if options.quick else 1_000, 1 if options.quick else 3)
    waiting(80 if options.quick else 320, (1, 2, 8, 32))


if __name__ == "__main__":
    main()
