"""Watching a workflow over the emulator's socket: each new run once, each change of its status once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiocopyai import CopyAISession, NotFoundError, Run, RunStatus
from aiocopyai._watch import _Memory
from aiocopyai.emulator import Emulator, Fault, Quirks, Script


SOON = 0.005


def watch(session: CopyAISession, emulator: Emulator, **arguments: Any) -> AsyncIterator[Run]:  # noqa: ANN401 (any argument of watch)
    return session.watch(emulator.workflow_id, **{"interval": SOON, **arguments})


async def take(news: AsyncIterator[Run], count: int) -> list[tuple[str, str | None]]:
    async with asyncio.timeout(20):
        return [(run.id, run.status) for run in [await anext(news) for _ in range(count)]]


async def ready(emulator: Emulator, rounds: int = 3) -> None:
    """Wait until a watch has learnt what was there before."""
    while len(emulator.requests) < rounds:
        await asyncio.sleep(0.001)


async def test_new_runs_and_changes(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """What was there before is not told; a run started later is told at each of its states, once."""
    copyai_emulator.add_runs(120, status="COMPLETE")
    copyai_emulator.run_time = 0.2
    copyai_emulator.script_next_runs(Script(states=("NEW", "PROCESSING", "COMPLETE")))
    task = asyncio.ensure_future(take(watch(session, copyai_emulator), 3))
    await ready(copyai_emulator)
    run = await session.start_run(copyai_emulator.workflow_id, {})

    assert await task == [(run.id, "NEW"), (run.id, "PROCESSING"), (run.id, "COMPLETE")]


async def test_from_a_time(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A watch from a given time begins with the runs created since then, and goes on with the new ones."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    copyai_emulator.replace_runs(
        [
            {"id": f"WRUN-{n}", "status": "COMPLETE", "createdAt": (moment - timedelta(days=n - 5)).isoformat()}
            for n in range(10)
        ]
    )
    news = watch(session, copyai_emulator, since=moment)

    assert await take(news, 6) == [(f"WRUN-{n}", "COMPLETE") for n in range(6)]
    (late,) = copyai_emulator.add_runs(1, status="NEW", createdAt="2026-02-01T00:00:00Z")
    assert await take(news, 1) == [(late, "NEW")]


async def test_an_outage(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Runs that come while the server is down are told once it is back."""
    news = watch(session, copyai_emulator, since=datetime(2000, 1, 1, tzinfo=UTC))
    (first,) = copyai_emulator.add_runs(1, status="COMPLETE")
    assert await take(news, 1) == [(first, "COMPLETE")]
    copyai_emulator.inject(Fault(status=503), times=14)
    copyai_emulator.inject(Fault(reset="before"), times=6)
    (second,) = copyai_emulator.add_runs(1, status="COMPLETE")

    assert await take(news, 1) == [(second, "COMPLETE")]


async def test_old_runs_that_are_still_open(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run that is older than what is listed again is still followed, and so is one whose list shows no status."""
    old = {"id": "WRUN-old", "status": "PROCESSING", "createdAt": "2026-01-01T00:00:00Z"}
    new = {"id": "WRUN-new", "status": "COMPLETE", "createdAt": "2026-03-01T00:00:00Z"}
    copyai_emulator.replace_runs([new, old])
    news = watch(session, copyai_emulator, since=datetime(2025, 1, 1, tzinfo=UTC))
    assert await take(news, 2) == [("WRUN-new", "COMPLETE"), ("WRUN-old", "PROCESSING")]
    copyai_emulator.replace_runs([new, {**old, "status": "FAILED"}])

    assert await take(news, 1) == [("WRUN-old", "FAILED")]


async def test_a_sparse_list(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Where the list shows no status, the runs themselves are asked, and nothing is told twice."""
    copyai_emulator.quirks = Quirks(sparse=True)
    news = watch(session, copyai_emulator, since=datetime(2000, 1, 1, tzinfo=UTC))
    (run_id,) = copyai_emulator.add_runs(1, status="COMPLETE")

    assert await take(news, 2) == [(run_id, None), (run_id, "COMPLETE")]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(news)


async def test_a_run_that_is_deleted(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """An open run that disappears is forgotten, and the watch goes on."""
    copyai_emulator.replace_runs([{"id": "WRUN-old", "status": "NEW", "createdAt": "2026-01-01T00:00:00Z"}])
    news = watch(session, copyai_emulator, since=datetime(2025, 1, 1, tzinfo=UTC))
    assert await take(news, 1) == [("WRUN-old", "NEW")]
    copyai_emulator.replace_runs([{"id": "WRUN-new", "status": "COMPLETE", "createdAt": "2026-03-01T00:00:00Z"}])

    assert await take(news, 1) == [("WRUN-new", "COMPLETE")]


async def test_what_will_not_pass(session: CopyAISession) -> None:
    """A workflow that is not there is an error, and not an outage."""
    with pytest.raises(NotFoundError):
        await anext(session.watch("WCFG-none", interval=SOON))


async def test_many_runs_are_told_once_each(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Through a busy time with faults, each run and each state comes once, in its order."""
    seen: Counter[tuple[str, str | None]] = Counter()
    copyai_emulator.run_time = 0.06

    async def follow() -> None:
        async for run in watch(session, copyai_emulator, since=datetime(2000, 1, 1, tzinfo=UTC)):
            seen[run.id, run.status] += 1

    task = asyncio.create_task(follow())
    ids = []
    for number in range(40):
        if number % 5 == 0:
            copyai_emulator.inject(Fault(truncate=20), method="GET")
        ids.append((await session.start_run(copyai_emulator.workflow_id, {})).id)
    async with asyncio.timeout(20):
        while not all((run_id, "COMPLETE") in seen for run_id in ids):
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert set(seen.values()) == {1}
    assert {run_id for run_id, _ in seen} == set(ids)
    assert not session._tasks


def test_memory_is_bounded() -> None:
    """A watch remembers runs that are over only as long as the list may show them again."""
    memory = _Memory()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(20_000):
        memory.update(Run(f"WRUN-{number}", created_at=start + timedelta(seconds=number), status=None))
        memory.update(Run(f"WRUN-{number}", created_at=start + timedelta(seconds=number), status=RunStatus.COMPLETE))

    assert len(memory._runs) < 2_500


@pytest.mark.parametrize("arguments", [{"interval": 0}, {"since": datetime(2026, 1, 1)}])  # noqa: DTZ001 (bad on purpose)
def test_bad_arguments(arguments: Any) -> None:  # noqa: ANN401 (bad on purpose)
    """A bad argument is a ValueError at the call."""
    with pytest.raises(ValueError, match=r"interval|since"):
        CopyAISession("key").watch("WCFG-1", **arguments)
