"""Inject faults into iterations, starts, `run_many` and watches, and count what is lost, repeated and leaked.

    python -m tests.support.storm            prints the table of docs/fault-injection-results.md after about ten minutes
    python -m tests.support.storm --scale 1  the same, with the numbers of the tests
    AIOCOPYAI_STORM_SEED=7 …                 with other faults

The seed determines which requests fail, but not the order of requests, which depends on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeAlias

import aiohttp
from attrs import astuple, define, field, frozen

from aiocopyai import CopyAIError, CopyAISession, RetryPolicy, Run, _idempotency
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from tests.support.leftovers import counting_leftovers
from tests.support.proxying import Authority, CutProxy, tls_front


SEED: Final = int(os.environ.get("AIOCOPYAI_STORM_SEED", "1"))
RATE: Final = 0.4
"""The fraction of requests that fail."""
SHORT_TIMEOUT: Final = 0.1
"""The time-out in seconds if responses are slow or missing."""
LONG_TIMEOUT: Final = 10.0
"""The time-out in seconds otherwise, so that no attempt times out."""
LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
HANDSHAKE: Final = 1_500
"""Bytes within which a TLS handshake is not complete."""

MakeFault: TypeAlias = Callable[[random.Random], Fault]
KINDS: Final[Mapping[str, MakeFault]] = {
    "reset before execution": lambda _: Fault(reset="before"),
    "reset after execution": lambda _: Fault(reset="after"),
    "truncated response": lambda rng: Fault(truncate=rng.randrange(60)),
    "no response": lambda _: Fault(delay=9),
    "slow response": lambda _: Fault(drip=SHORT_TIMEOUT / 8),
    "429 with Retry-After": lambda rng: Fault(
        status=429, headers={"Retry-After": rng.choice(["0", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"])}
    ),
    "500, 502, 503 or 504": lambda rng: Fault(status=rng.choice([500, 502, 503, 504]), body=b"<html>Oops</html>"),
    "invalid JSON": lambda rng: Fault(body=rng.choice([b"", b"<html>", b'{"data":', rng.randbytes(40)])),
    "invalid gzip": lambda rng: Fault(body=rng.randbytes(40), headers={"Content-Encoding": "gzip"}),
    "JSON of another structure": lambda rng: Fault(body=rng.choice([[], {"data": None}, {"status": "error"}])),
}
SLOW: Final = frozenset({"no response", "slow response"})
FAST: Final = tuple(kind for kind in KINDS if kind not in SLOW)
WRONG_TOTALS: Final[tuple[Callable[[random.Random, int], Any], ...]] = (
    lambda rng, count: rng.choice([None, "many", -1, 2.5, count, str(count)]),
    lambda _, count: count + 1_000,
    lambda _, count: str(10 * count),
    lambda _rng, _count: 0,
)
"""What a server sends instead of the true count: sometimes invalid, always too high, or always too low."""
NO_QUIRKS: Final = Quirks()
ENDLESS: Final = RetryPolicy(attempts=None, timeout=None, wait_initial=0, wait_max=0)


@define
class Storm:
    """Makes some requests fail; set as the emulator's `on_request`."""

    kinds: Mapping[str, MakeFault]
    rng: random.Random
    timeout: float
    injected: Counter[str] = field(factory=Counter[str])
    requests: int = 0

    def __call__(self, emulator: Emulator, request: Request) -> None:
        """Count a request, and perhaps make it fail."""
        self.requests += 1
        if self.kinds and self.rng.random() < RATE:
            name = self.rng.choice(list(self.kinds))
            self.injected[name] += 1
            emulator.inject(self.kinds[name](self.rng), method=request.method)


@define
class Counts:
    """The counts in the columns of docs/fault-injection-results.md."""

    expected: int = 0
    lost: int = 0
    repeated: int = 0
    errors: int = 0
    leaked: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def compare(self, expected: list[str], actual: list[str]) -> None:
        """Count missing and repeated items."""
        times = Counter(actual)
        self.expected += len(expected)
        self.lost += sum(times[name] == 0 for name in expected)
        self.repeated += sum(times.values()) - len(times)


OpenSession: TypeAlias = Callable[[Emulator, float], AbstractAsyncContextManager[CopyAISession]]


@frozen
class Setup:
    """The arguments of a scenario."""

    emulator: Emulator
    session: CopyAISession
    counts: Counts
    scale: int


async def repeat_until_success(step: Callable[[], Awaitable[object]], counts: Counts) -> None:
    """Call a function again until it raises no error."""
    while True:
        try:
            await step()
        except CopyAIError:
            counts.errors += 1
        else:
            return


async def iterate(setup: Setup) -> None:
    """Iterate over a list, without and with prefetch."""
    setup.emulator.add_runs(100 * setup.scale, status="COMPLETE")
    expected = [str(run["id"]) for run in setup.emulator.runs()]
    for prefetch in (0, 4):
        actual: list[str] = []
        runs = aiter(setup.session.runs(setup.emulator.workflow_id, page_size=10, prefetch=prefetch))

        async def read(actual: list[str] = actual, runs: AsyncIterator[Run] = runs) -> None:
            # The same iterator continues with the failed page.
            async for run in runs:
                actual.append(run.id)  # noqa: PERF401 (kept where the loop raises)

        await repeat_until_success(read, setup.counts)
        setup.counts.compare(expected, actual)


async def start(setup: Setup) -> None:
    """Start runs with keys, eight at a time; repeat an unconfirmed start with the same key."""
    slots = asyncio.Semaphore(8)
    returned: list[str] = []

    async def start_with(key: str) -> None:
        async def start() -> None:
            run = await setup.session.start_run(setup.emulator.workflow_id, {"row": key}, idempotency_key=key)
            returned.append(run.id)

        async with slots:
            await repeat_until_success(start, setup.counts)

    keys = [f"start-{number}" for number in range(12 * setup.scale)]
    before = {str(run["id"]) for run in setup.emulator.runs()}
    await asyncio.gather(*(start_with(key) for key in keys))
    created = [run for run in setup.emulator.runs() if run["id"] not in before]
    setup.counts.compare(keys, [key_of(run) for run in created])
    setup.counts.compare([str(run["id"]) for run in created], returned)


async def run_many(setup: Setup) -> None:
    """Run a workflow for many rows."""
    rows = [{"row": number} for number in range(8 * setup.scale)]
    results = setup.session.run_many(
        setup.emulator.workflow_id,
        rows,
        idempotency_key=lambda index, _row: f"many-{index}",
        max_poll_interval=0.01,
        timeout=60,
    )
    actual = []
    async for result in results:
        actual.append(f"many-{result.index}")
        setup.counts.errors += not result.ok
    expected = [f"many-{index}" for index in range(len(rows))]
    created = [key_of(run) for run in setup.emulator.runs() if key_of(run).startswith("many-")]
    setup.counts.compare(expected, actual)
    setup.counts.repeated += len(created) - len(set(created))


async def watch(setup: Setup) -> None:
    """Watch while others start runs: each is reported until it is complete, and nothing is reported twice."""
    actual: list[str] = []
    expected: list[str] = []
    events = setup.session.watch(setup.emulator.workflow_id, interval=0.005, since=LONG_AGO)

    async def follow() -> None:
        async for event in events:
            actual.append(f"{event.run.id} {event.run.status}")
            if len(expected) == 8 * setup.scale and set(expected) <= set(actual):
                return

    following = asyncio.create_task(repeat_until_success(follow, setup.counts))
    for _ in range(8 * setup.scale):
        (run_id,) = setup.emulator.add_runs(1, status="PROCESSING", createdAt=datetime.now(UTC).isoformat())
        await asyncio.sleep(0.002)
        others = [run for run in setup.emulator.runs() if run["id"] != run_id]
        setup.emulator.replace_runs([{**setup.emulator.runs()[0], "status": "COMPLETE"}, *others])
        expected.append(f"{run_id} COMPLETE")
    async with asyncio.timeout(120):
        await following
    setup.counts.compare(expected, actual)


def key_of(run: Mapping[str, object]) -> str:
    """Return the key that a run was started with."""
    metadata = run["metadata"]
    return str(metadata.get("idempotencyKey", "")) if isinstance(metadata, dict) else ""


SCENARIOS: Final = (iterate, start, run_many, watch)


def storm_of(*kinds: str) -> Storm:
    """Return a storm of the given kinds of faults."""
    timeout = SHORT_TIMEOUT if set(kinds) & SLOW else LONG_TIMEOUT
    return Storm({kind: KINDS[kind] for kind in kinds}, random.Random(SEED), timeout)


@asynccontextmanager
async def direct(emulator: Emulator, timeout: float) -> AsyncIterator[CopyAISession]:  # noqa: ASYNC109 (a session's option)
    """Open a session that connects to the emulator directly."""
    async with CopyAISession(emulator.api_key, base_url=emulator.url, retry=ENDLESS, timeout=timeout) as session:
        yield session


@define
class ThroughProxy:
    """Opens sessions that connect to the emulator over TLS, through a proxy that closes connections."""

    proxy: CutProxy
    authority: Authority = field(factory=Authority)

    @asynccontextmanager
    async def __call__(self, emulator: Emulator, timeout: float) -> AsyncIterator[CopyAISession]:  # noqa: ASYNC109 (as above)
        """Open a session whose connections are used once."""
        connector = aiohttp.TCPConnector(ssl=self.authority.client_context(), force_close=True)
        async with (
            tls_front(emulator, self.authority.server_context()) as url,
            self.proxy.serve() as address,
            aiohttp.ClientSession(connector=connector, proxy=address) as http,
            CopyAISession(emulator.api_key, base_url=url, http_session=http, retry=ENDLESS, timeout=timeout) as session,
        ):
            yield session


async def run_scenarios(
    storm: Storm, *, scale: int = 1, open_session: OpenSession = direct, quirks: Quirks = NO_QUIRKS
) -> Counts:
    """Run all scenarios in a storm, and count the leftovers of each after its session is closed."""
    counts = Counts()
    for scenario in SCENARIOS:
        async with counting_leftovers() as left, Emulator(quirks=quirks) as emulator:
            emulator.on_request = storm
            async with open_session(emulator, storm.timeout) as session:
                await scenario(Setup(emulator, session, counts, scale))
        counts.leaked += left.tasks + left.files
    return counts


async def with_faults(scale: int, *kinds: str) -> tuple[Storm, Counts]:
    """Run all scenarios with the given kinds of faults."""
    storm = storm_of(*kinds)
    return storm, await run_scenarios(storm, scale=scale)


async def with_wrong_totals(scale: int) -> tuple[Storm, Counts]:
    """Run all scenarios with each kind of wrong `total`."""
    rng = random.Random(SEED)
    storm, counts = storm_of(), Counts()
    for wrong in WRONG_TOTALS:

        def total(count: int, wrong: Callable[[random.Random, int], Any] = wrong) -> Any:  # noqa: ANN401 (raw JSON)
            storm.injected["wrong total"] += 1
            return wrong(rng, count)

        counts += await run_scenarios(storm, scale=scale, quirks=Quirks(total=total))
    return storm, counts


async def through_proxy(scale: int, max_bytes: int) -> tuple[Storm, Counts]:
    """Run all scenarios through a proxy that closes connections within some bytes."""
    proxy = CutProxy(random.Random(SEED), RATE, max_bytes)
    storm = storm_of()
    counts = await run_scenarios(storm, scale=scale, open_session=ThroughProxy(proxy))
    storm.injected["closed connection"] = proxy.cuts
    return storm, counts


async def measure_memory(rounds: int) -> list[int]:
    """Iterate and start in a storm, several times; return the traced memory after each round, in KiB.

    It uses one session and one server, because yarl caches some hundreds of URLs.
    """
    sizes = []
    storm = storm_of(*FAST)
    async with Emulator() as emulator, direct(emulator, LONG_TIMEOUT) as session:
        emulator.on_request = storm
        tracemalloc.start()
        try:
            for _ in range(rounds):
                emulator.replace_runs([])
                setup = Setup(emulator, session, Counts(), 1)
                await iterate(setup)
                await start(setup)
                emulator.requests.clear()
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0] // 1024)
        finally:
            tracemalloc.stop()
    return sizes


def table_rows(scale: int) -> list[tuple[str, Callable[[], Awaitable[tuple[Storm, Counts]]]]]:
    """Return the rows of the table: their names, and the functions that measure them."""
    return [
        *((kind, partial(with_faults, scale, kind)) for kind in KINDS),
        ("wrong `total`", partial(with_wrong_totals, scale)),
        ("TLS handshake interrupted, through a proxy", partial(through_proxy, scale, HANDSHAKE)),
        ("connection closed anywhere, by a proxy", partial(through_proxy, scale, 20_000)),
        ("all of the first ten at once", partial(with_faults, scale, *KINDS)),
    ]


async def main(scale: int) -> None:
    """Print the table."""
    # The searches for a lost start would take most of the time. The emulator lists runs at once.
    _idempotency.SEARCH_DELAYS = (0.0,)
    print("| fault | injected | in requests | expected | lost | repeated | errors | leaked |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, measure in table_rows(scale):
        storm, counts = await measure()
        cells = (storm.injected.total(), storm.requests, *astuple(counts))
        print(f"| {name} |", " | ".join(f"{cell:,}" for cell in cells), "|", flush=True)
    sizes = await measure_memory(8 * scale)
    first, last = min(sizes[: scale * 3]), min(sizes[-scale * 3 :])
    print(f"\nTraced memory in {len(sizes)} rounds of one session: {first:,} KiB at first, {last:,} KiB at the end.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=20, help="how many times as large as in the tests (default: 20)")
    logging.disable(logging.CRITICAL)
    asyncio.run(main(parser.parse_args().scale))
