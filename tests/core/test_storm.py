"""Fault injection: iterations, starts, `run_many` and watches lose, repeat and leak nothing.

`nox -s storm` does the same on a larger scale. A failure names the seed, which ``AIOCOPYAI_STORM_SEED`` repeats.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from attrs import evolve

from tests.support.leftovers import counting_leftovers, leaving_nothing
from tests.support.storm import (
    HANDSHAKE,
    KINDS,
    SEED,
    Counts,
    Storm,
    measure_memory,
    through_proxy,
    with_faults,
    with_wrong_totals,
)


pytestmark = pytest.mark.slow

NOT_RETRIED = "JSON of another structure"
"""The fault that is not retried, so that the caller receives an error."""


def check(storm: Storm, counts: Counts, *, raises: bool = False) -> None:
    """Check that requests failed, and that nothing is lost, repeated or leaked, or raised unless `raises`."""
    assert storm.injected.total() > 10, f"seed {SEED}: {storm}"
    assert evolve(counts, errors=0) == Counts(counts.expected), f"seed {SEED}: {counts}"
    assert raises or counts.errors == 0, f"seed {SEED}: {counts}"


@pytest.mark.parametrize("kind", KINDS)
async def test_one_kind_of_fault(kind: str) -> None:
    """If 40 % of the requests fail in one way, nothing is lost, repeated or leaked."""
    check(*await with_faults(1, kind), raises=kind == NOT_RETRIED)


async def test_all_kinds_of_faults() -> None:
    """If requests fail in different ways, nothing is lost, repeated or leaked."""
    check(*await with_faults(1, *KINDS), raises=True)


async def test_wrong_totals() -> None:
    """No run is lost if the total is invalid, or always too high or too low."""
    check(*await with_wrong_totals(1))


@pytest.mark.parametrize("max_bytes", [HANDSHAKE, 20_000])
async def test_proxy_that_closes_connections(max_bytes: int) -> None:
    """If a proxy closes TLS connections at any time, no run is lost or started twice."""
    check(*await through_proxy(1, max_bytes))


async def test_memory(caplog: pytest.LogCaptureFixture) -> None:
    """The memory of a session does not grow with each round of faults."""
    caplog.set_level(logging.CRITICAL)  # pytest stores log records
    sizes = await measure_memory(6)

    # The minimum, because garbage varies. A leak of 200 KiB per round would raise each of the last rounds.
    assert min(sizes[3:]) < max(sizes[:3]) + 200, f"seed {SEED}: {sizes}"


async def test_leftovers_are_counted() -> None:
    """A task and sockets that are left open are counted."""
    async with counting_leftovers(patience=0.02) as left:
        task = asyncio.create_task(asyncio.sleep(9))
        one_end, other_end = socket.socketpair()

    assert (left.tasks, left.files) == (1, 2)
    with pytest.raises(AssertionError, match="tasks=1"):
        async with leaving_nothing(patience=0.02):
            second = asyncio.create_task(asyncio.sleep(9))
    for started in (task, second):
        started.cancel()
    one_end.close()
    other_end.close()
