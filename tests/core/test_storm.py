"""Walks, starts, many runs and watches through each kind of fault: nothing lost, nothing twice, nothing left behind.

`nox -s storm` does the same on a larger scale. A failure names the seed, which ``AIOCOPYAI_STORM_SEED`` repeats.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from attrs import evolve

from tests.support.leftovers import counting_leftovers, leaving_nothing
from tests.support.storm import HANDSHAKE, KINDS, SEED, Storm, Tally, among_liars, in_storms, memory, through_cuts


pytestmark = pytest.mark.slow

ONE = "JSON of another shape"
"""What is no reason to try again by itself, and so reaches the caller."""


def check(storm: Storm, tally: Tally, *, is_told: bool = False) -> None:
    """Hold that faults fell, and that nothing is lost, there twice or left behind, nor told where it needn't be."""
    assert storm.injected.total() > 10, f"seed {SEED}: {storm}"
    assert evolve(tally, told=0) == Tally(tally.wanted), f"seed {SEED}: {tally}"
    assert is_told or tally.told == 0, f"seed {SEED}: {tally}"


@pytest.mark.parametrize("kind", KINDS)
async def test_one_kind_of_fault(kind: str) -> None:
    """Where two of five requests go wrong in one way, all goes well in the end, and most of it unnoticed."""
    check(*await in_storms(1, kind), is_told=kind == ONE)


async def test_all_at_once() -> None:
    """The same where each request may go wrong in another way."""
    check(*await in_storms(1, *KINDS), is_told=True)


async def test_totals_that_lie() -> None:
    """A total that is nonsense, or always too high or too low, costs no run."""
    check(*await among_liars(1))


@pytest.mark.parametrize("most", [HANDSHAKE, 20_000])
async def test_connections_cut_by_a_proxy(most: int) -> None:
    """TLS through a proxy that cuts connections, in the handshake or anywhere, costs no run, and starts none twice."""
    check(*await through_cuts(1, most))


async def test_memory(caplog: pytest.LogCaptureFixture) -> None:
    """Storms in one session leave nothing in memory: with each round it would grow."""
    caplog.set_level(logging.CRITICAL)  # pytest keeps what is logged
    sizes = await memory(6)

    # One that leaks 200 KiB a round or more has none of its last rounds below that; garbage alone comes and goes.
    assert min(sizes[3:]) < max(sizes[:3]) + 200, f"seed {SEED}: {sizes}"


async def test_what_is_left_is_counted() -> None:
    """The count of what is left behind sees a task and a socket that are."""
    async with counting_leftovers(patience=0.02) as left:
        task = asyncio.create_task(asyncio.sleep(9))
        open_one, other = socket.socketpair()

    assert (left.tasks, left.files) == (1, 2)
    with pytest.raises(AssertionError, match="tasks=1"):
        async with leaving_nothing(patience=0.02):
            second = asyncio.create_task(asyncio.sleep(9))
    for started in (task, second):
        started.cancel()
    open_one.close()
    other.close()
