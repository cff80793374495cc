"""Time Dask data frames with different numbers of workers, and print the speed relative to one worker or one session.

``python tests/benchmarks/dask_workers.py`` takes about three minutes; ``--quick`` less than one. The first part uses
processes with one thread each, and a server that responds at once, so that only the client takes time. It is
meaningful if each worker and the server have a core. The second part simulates more workers with threads of one
process, and delays each page by 100 ms. The third part compares four processes with one session that has the same
number of requests in progress, and delays each page by 50 ms. In the last two parts, the runs are small, because all
workers share few cores. (A file named dask.py would hide the package.)
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Final

import dask
from distributed import Client, LocalCluster
from pages import PAGE_SIZE, WORKFLOW
from servers import page_server

from aiocopyai import CopyAISession
from aiocopyai.integrations.dask import read_runs


LATENCY: Final = 0.1
KEY: Final = {"COPYAI_API_KEY": "benchmark-key"}


def read(base_url: str, partition_pages: int = 100) -> int:
    """Read a frame, and return its number of rows, which the workers count."""
    frame = read_runs(WORKFLOW, base_url=base_url, partition_pages=partition_pages)
    return int(frame.map_partitions(len, meta=("rows", "int64")).sum().compute())


async def iterate(base_url: str, prefetch: int) -> int:
    """Read the same list with one session."""
    async with CopyAISession(base_url=base_url) as session:
        return len([run async for run in session.runs(WORKFLOW, prefetch=prefetch)])


@contextmanager
def processes(workers: int) -> Generator[None]:
    """Compute with Dask in processes that have imported the package."""
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", env=KEY) as cluster,
        Client(cluster) as client,
    ):
        client.run(_import)
        yield


def _import() -> None:
    import aiocopyai.integrations.dask  # noqa: F401, PLC0415 (in the worker)


@contextmanager
def threads(workers: int) -> Generator[None]:
    """Compute with Dask in threads."""
    with dask.config.set(scheduler="threads", num_workers=workers):
        yield


def measure(runs: int, rounds: int, work: Callable[[], int]) -> float:
    """Return the seconds of the best round."""
    taken = list[float]()
    for _ in range(rounds):
        started = time.perf_counter()
        found = work()
        taken.append(time.perf_counter() - started)
        if found != runs:
            raise RuntimeError(f"{found} of {runs} runs were read")
    return min(taken)


def report(title: str, runs: int, rows: Iterable[tuple[str, float]]) -> None:
    """Print one part of the table; the ratios are relative to its first line."""
    sys.stdout.write(f"\n{title}\n")
    first: float | None = None
    for what, seconds in rows:
        first = first or seconds
        sys.stdout.write(f"  {what:<28} {seconds:7.2f} s {runs / seconds:10,.0f} runs/s {first / seconds:6.2f} x\n")
        sys.stdout.flush()


def cores(pages: int, rounds: int) -> None:
    """Measure processes without latency, so that the CPU is the limit."""
    runs = pages * PAGE_SIZE

    def rows(url: str) -> Generator[tuple[str, float]]:
        for workers in (1, 2):
            with processes(workers):
                yield f"Dask, {workers} process(es)", measure(runs, rounds, lambda: read(url, 50))
        yield "an iteration, nothing kept", measure(runs, rounds, lambda: asyncio.run(iterate(url, 4)))

    with page_server(runs) as url:
        report(f"{runs:,} runs of 1 KB, no latency, {os.cpu_count()} cores", runs, rows(url))


def waiting(pages: int, all_workers: Iterable[int]) -> None:
    """Measure threads with latency, so that waiting for the server is the limit."""
    runs = pages * PAGE_SIZE

    def rows(url: str) -> Generator[tuple[str, float]]:
        for workers in all_workers:
            with threads(workers):
                yield f"Dask, {workers} thread(s)", measure(runs, 1, lambda: read(url, 5))
        for prefetch in (0, 4, 32):
            yield f"an iteration, prefetch={prefetch}", measure(runs, 1, lambda: asyncio.run(iterate(url, prefetch)))  # noqa: B023 (called at once)

    with page_server(runs, latency=LATENCY, size="small") as url:
        report(f"{runs:,} small runs, each page {LATENCY * 1e3:.0f} ms late, partitions of 5 pages", runs, rows(url))


def against_one_session(all_pages: Iterable[int], rounds: int) -> None:
    """Measure four processes and one session, in turns, with 16 requests in progress each."""
    with processes(4):
        for pages in all_pages:
            runs = pages * PAGE_SIZE
            with page_server(runs, latency=0.05, size="small") as url:
                read(url)
                taken = [
                    (measure(runs, 1, lambda: asyncio.run(iterate(url, 16))), measure(runs, 1, lambda: read(url)))
                    for _ in range(rounds)
                ]
            session, dask_workers = (statistics.median(seconds) for seconds in zip(*taken, strict=True))
            report(
                f"{pages} pages, each 50 ms late, medians of {rounds}",
                runs,
                [("an iteration, prefetch=16", session), ("Dask, 4 processes", dask_workers)],
            )


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="measure less: the figures are rough")
    options = parser.parse_args()
    os.environ.update(KEY)
    cores(200 if options.quick else 1_000, 1 if options.quick else 3)
    waiting(80 if options.quick else 320, (1, 2, 8, 32))
    against_one_session((100, 320) if options.quick else (100, 200, 320, 333, 500, 1000), 3 if options.quick else 5)


if __name__ == "__main__":
    main()
