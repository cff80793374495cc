"""Walks, starts, many runs and watches in a storm of faults: what is lost, repeated and left behind, by counting.

    python -m tests.support.storm            prints the table of docs/faults.md, after some minutes
    python -m tests.support.storm --scale 1  the same as small as in the tests
    AIOCOPYAI_STORM_SEED=7 …         with other faults

Which request a fault befalls is drawn from a seed. Only the faults are: how requests interleave is the machine's.
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

from aiocopyai import CopyAIError, CopyAISession, RetryPolicy, Run
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from tests.support.leftovers import counting_leftovers
from tests.support.proxying import Authority, CutProxy, tls_front


SEED: Final = int(os.environ.get("AIOCOPYAI_STORM_SEED", "1"))
IMPATIENT: Final = 0.1
"""Seconds that an attempt may take where answers stall."""
PATIENT: Final = 10.0
"""The same elsewhere, where no time-out is wanted."""
LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)

Make: TypeAlias = Callable[[random.Random], Fault]
KINDS: Final[Mapping[str, Make]] = {
    "reset before execution": lambda _: Fault(reset="before"),
    "reset after execution": lambda _: Fault(reset="after"),
    "truncated response": lambda dice: Fault(truncate=dice.randrange(60)),
    "no response": lambda _: Fault(delay=9),
    "slow response": lambda _: Fault(drip=IMPATIENT / 8),
    "429 with Retry-After": lambda dice: Fault(
        status=429, headers={"Retry-After": dice.choice(["0", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"])}
    ),
    "500, 502, 503 or 504": lambda dice: Fault(status=dice.choice([500, 502, 503, 504]), body=b"<html>Oops</html>"),
    "invalid JSON": lambda dice: Fault(body=dice.choice([b"", b"<html>", b'{"data":', dice.randbytes(40)])),
    "invalid gzip": lambda dice: Fault(body=dice.randbytes(40), headers={"Content-Encoding": "gzip"}),
    "JSON of another structure": lambda dice: Fault(body=dice.choice([[], {"data": None}, {"status": "error"}])),
}
"""What befalls a request, as the emulator makes it."""
STALLS: Final = frozenset({"no response", "slow response"})
QUICK: Final = tuple(kind for kind in KINDS if kind not in STALLS)
LIES: Final[tuple[Callable[[random.Random, int], Any], ...]] = (
    lambda dice, count: dice.choice([None, "many", -1, 2.5, count, str(count)]),
    lambda _, count: count + 1_000,
    lambda _, count: str(10 * count),
    lambda _dice, _count: 0,
)
"""Totals that are wrong: at times nonsense, or always too high, or too low. Which of them all holds for a server."""
CALM: Final = Quirks()
ENDLESS: Final = RetryPolicy(attempts=None, timeout=None, wait_initial=0, wait_max=0)


@define
class Storm:
    """Faults that befall a part of the requests; the emulator's `on_request`."""

    kinds: Mapping[str, Make]
    dice: random.Random
    rate: float = 0.4
    timeout: float = IMPATIENT
    injected: Counter[str] = field(factory=Counter[str])
    requests: int = 0

    def __call__(self, emulator: Emulator, request: Request) -> None:
        """Count a request, and perhaps let it go wrong."""
        self.requests += 1
        if self.kinds and self.dice.random() < self.rate:
            name = self.dice.choice(list(self.kinds))
            self.injected[name] += 1
            emulator.inject(self.kinds[name](self.dice), method=request.method)


@define
class Tally:
    """What came of it."""

    wanted: int = 0
    lost: int = 0
    repeated: int = 0
    told: int = 0
    """Errors that reached the caller, who then went on."""
    left: int = 0
    """Tasks, open files and sockets."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def count(self, wanted: list[str], got: list[str]) -> None:
        """Count what is missing, and what is there more than once."""
        times = Counter(got)
        self.wanted += len(wanted)
        self.lost += sum(times[name] == 0 for name in wanted)
        self.repeated += sum(times.values()) - len(times)


Opening: TypeAlias = Callable[[Emulator, float], AbstractAsyncContextManager[CopyAISession]]


@frozen
class Place:
    """Where a scenario takes place."""

    emulator: Emulator
    session: CopyAISession
    tally: Tally
    scale: int


async def going_on(step: Callable[[], Awaitable[object]], tally: Tally) -> None:
    """Do something again until it isn't an error."""
    while True:
        try:
            await step()
        except CopyAIError:
            tally.told += 1
        else:
            return


async def walks(place: Place) -> None:
    """Walk a list, with and without asking ahead."""
    place.emulator.add_runs(100 * place.scale, status="COMPLETE")
    wanted = [str(run["id"]) for run in place.emulator.runs()]
    for prefetch in (0, 4):
        got: list[str] = []
        runs = aiter(place.session.runs(place.emulator.workflow_id, page_size=10, prefetch=prefetch))

        async def walk(got: list[str] = got, runs: AsyncIterator[Run] = runs) -> None:
            # The iterator that raised goes on with the page that it failed at.
            async for run in runs:
                got.append(run.id)  # noqa: PERF401 (what came before an error counts)

        await going_on(walk, place.tally)
        place.tally.count(wanted, got)


async def starts(place: Place) -> None:
    """Start runs with keys, eight at a time; where one is in doubt, ask again with the same key."""
    turn = asyncio.Semaphore(8)
    got: list[str] = []

    async def one(key: str) -> None:
        async def start() -> None:
            run = await place.session.start_run(place.emulator.workflow_id, {"row": key}, idempotency_key=key)
            got.append(run.id)

        async with turn:
            await going_on(start, place.tally)

    keys = [f"start-{number}" for number in range(12 * place.scale)]
    before = {str(run["id"]) for run in place.emulator.runs()}
    await asyncio.gather(*(one(key) for key in keys))
    made = [run for run in place.emulator.runs() if run["id"] not in before]
    place.tally.count(keys, [key_of(run) for run in made])
    place.tally.count([str(run["id"]) for run in made], got)


async def many_runs(place: Place) -> None:
    """Run a workflow for many rows."""
    rows = [{"row": number} for number in range(8 * place.scale)]
    results = place.session.run_many(
        place.emulator.workflow_id,
        rows,
        idempotency_key=lambda index, _row: f"many-{index}",
        max_poll_interval=0.01,
        timeout=60,
    )
    got = []
    async for result in results:
        got.append(f"many-{result.index}")
        place.tally.told += not result.ok
    wanted = [f"many-{index}" for index in range(len(rows))]
    made = [key_of(run) for run in place.emulator.runs() if key_of(run).startswith("many-")]
    place.tally.count(wanted, got)
    place.tally.repeated += len(made) - len(set(made))


async def watches(place: Place) -> None:
    """Watch while runs are started by somebody else: each is told, to its end, and nothing is told twice."""
    told: list[str] = []
    wanted: list[str] = []
    news = place.session.watch(place.emulator.workflow_id, interval=0.005, since=LONG_AGO)

    async def follow() -> None:
        async for run in news:
            told.append(f"{run.id} {run.status}")
            if len(wanted) == 8 * place.scale and set(wanted) <= set(told):
                return

    following = asyncio.create_task(going_on(follow, place.tally))
    for _ in range(8 * place.scale):
        (run_id,) = place.emulator.add_runs(1, status="PROCESSING", createdAt=datetime.now(UTC).isoformat())
        await asyncio.sleep(0.002)
        others = [run for run in place.emulator.runs() if run["id"] != run_id]
        place.emulator.replace_runs([{**place.emulator.runs()[0], "status": "COMPLETE"}, *others])
        wanted.append(f"{run_id} COMPLETE")
    async with asyncio.timeout(120):
        await following
    place.tally.count(wanted, told)


def key_of(run: Mapping[str, object]) -> str:
    """Give the key that a run was started with."""
    metadata = run["metadata"]
    return str(metadata.get("idempotencyKey", "")) if isinstance(metadata, dict) else ""


SCENARIOS: Final = (walks, starts, many_runs, watches)


def storm_of(*kinds: str, seed: int = SEED, rate: float = 0.4) -> Storm:
    """Make a storm of some kinds of faults."""
    timeout = IMPATIENT if set(kinds) & STALLS else PATIENT
    return Storm({kind: KINDS[kind] for kind in kinds}, random.Random(seed), rate, timeout)


@asynccontextmanager
async def straight(emulator: Emulator, timeout: float) -> AsyncIterator[CopyAISession]:  # noqa: ASYNC109 (a session's option)
    """Give a session that meets the emulator directly."""
    async with CopyAISession(emulator.api_key, base_url=emulator.url, retry=ENDLESS, timeout=timeout) as session:
        yield session


@define
class ByProxy:
    """Gives sessions that meet the emulator over TLS through a proxy that cuts."""

    proxy: CutProxy
    authority: Authority = field(factory=Authority)

    @asynccontextmanager
    async def __call__(self, emulator: Emulator, timeout: float) -> AsyncIterator[CopyAISession]:  # noqa: ASYNC109 (as above)
        """Give such a session, on connections that are not kept."""
        connector = aiohttp.TCPConnector(ssl=self.authority.client_context(), force_close=True)
        async with (
            tls_front(emulator, self.authority.server_context()) as url,
            self.proxy.serve() as address,
            aiohttp.ClientSession(connector=connector, proxy=address) as http,
            CopyAISession(emulator.api_key, base_url=url, http_session=http, retry=ENDLESS, timeout=timeout) as session,
        ):
            yield session


async def weather(storm: Storm, *, scale: int = 1, opening: Opening = straight, quirks: Quirks = CALM) -> Tally:
    """Go through all scenarios in a storm; count what each leaves behind once its session is closed."""
    tally = Tally()
    for scenario in SCENARIOS:
        async with counting_leftovers() as left, Emulator(quirks=quirks) as emulator:
            emulator.on_request = storm
            async with opening(emulator, storm.timeout) as session:
                await scenario(Place(emulator, session, tally, scale))
        tally.left += left.tasks + left.files
    return tally


async def in_storms(scale: int, *kinds: str) -> tuple[Storm, Tally]:
    """Go through one storm of the emulator's faults."""
    storm = storm_of(*kinds)
    return storm, await weather(storm, scale=scale)


async def among_liars(scale: int) -> tuple[Storm, Tally]:
    """Go through all scenarios with each kind of wrong total."""
    dice = random.Random(SEED)
    storm, tally = storm_of(), Tally()
    for lie in LIES:

        def total(count: int, lie: Callable[[random.Random, int], Any] = lie) -> Any:  # noqa: ANN401 (raw JSON)
            storm.injected["total that lies"] += 1
            return lie(dice, count)

        tally += await weather(storm, scale=scale, quirks=Quirks(total=total))
    return storm, tally


async def through_cuts(scale: int, most: int) -> tuple[Storm, Tally]:
    """Go through all scenarios behind a proxy that cuts connections, within so many bytes."""
    proxy = CutProxy(random.Random(SEED), 0.4, most)
    storm = storm_of()
    tally = await weather(storm, scale=scale, opening=ByProxy(proxy))
    storm.injected["cuts"] = proxy.cuts
    return storm, tally


HANDSHAKE: Final = 1_500
"""Bytes, before which a TLS handshake is not over."""


async def memory(rounds: int) -> list[int]:
    """Walk and start through one session in a storm, again and again; give the traced memory after each round, in KiB.

    One session and one server, as yarl remembers some hundreds of addresses.
    """
    sizes = []
    storm = storm_of(*QUICK)
    async with Emulator() as emulator, straight(emulator, PATIENT) as session:
        emulator.on_request = storm
        tracemalloc.start()
        try:
            for _ in range(rounds):
                emulator.replace_runs([])
                place = Place(emulator, session, Tally(), 1)
                await walks(place)
                await starts(place)
                emulator.requests.clear()
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0] // 1024)
        finally:
            tracemalloc.stop()
    return sizes


def rows(scale: int) -> list[tuple[str, Callable[[], Awaitable[tuple[Storm, Tally]]]]]:
    """Name what the table has rows for."""
    return [
        *((kind, partial(in_storms, scale, kind)) for kind in KINDS),
        ("wrong `total`", partial(among_liars, scale)),
        ("TLS handshake interrupted, through a proxy", partial(through_cuts, scale, HANDSHAKE)),
        ("connection closed anywhere, by a proxy", partial(through_cuts, scale, 20_000)),
        ("all of the first ten at once", partial(in_storms, scale, *KINDS)),
    ]


async def main(scale: int) -> None:
    """Print the table."""
    print("| fault | injected | in requests | expected | lost | repeated | errors | leaked |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, run in rows(scale):
        storm, tally = await run()
        cells = (storm.injected.total(), storm.requests, *astuple(tally))
        print(f"| {name} |", " | ".join(f"{cell:,}" for cell in cells), "|", flush=True)
    sizes = await memory(8 * scale)
    first, last = min(sizes[: scale * 3]), min(sizes[-scale * 3 :])
    print(f"\nTraced memory in {len(sizes)} rounds of one session: {first:,} KiB at first, {last:,} KiB at the end.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=20, help="how many times as large as in the tests (default 20)")
    logging.disable(logging.CRITICAL)
    asyncio.run(main(parser.parse_args().scale))
