"""Exports that are broken off and gone on with."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal, cast

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import CopyAISession, Page, Pager, PermissionDeniedError, Run
from aiocopyai._pager import Plan
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from aiocopyai.export import Progress, _export, _reading, _resume, export_runs
from aiocopyai.export._journal import Part
from tests.support.exporting import break_off, ids_in, ids_of, leftovers, pages_asked, raw_run


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every page at once, and go back by no more than the rule asks for."""
    monkeypatch.setattr(_reading, "_AT_STAKE_RUNS", 1)
    monkeypatch.setattr(_resume, "MARGIN", 0)


class TestGoingOn:
    """`resume`, after an export that broke off."""

    async def test_it_goes_on_where_it_was(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        """There is no file until it is whole; the second process reads only what the first has not."""
        ids = [emulator.workflow_id]
        await break_off(emulator, 6, lambda: export_runs(session, ids, path))
        beside = leftovers(path)
        exported = await export_runs(session, ids, path, resume=True)

        assert beside == [f"{path.name}.part", f"{path.name}.part.db"]
        assert pages_asked(emulator) == [6, 7, 8, 9, 10, 11]
        assert ids_in(path) == ids_of(emulator)
        assert (exported.runs, exported.by_status, exported.credits) == (1050, {"COMPLETE": 1050}, 1050)
        assert leftovers(path) == []

    async def test_what_moved_in_between_is_accounted_for(
        self, session: CopyAISession, emulator: Emulator, path: Path
    ) -> None:
        """Runs that slid to other pages while nobody looked are in the file once."""
        ids, before = [emulator.workflow_id], ids_of(emulator)
        await break_off(emulator, 6, lambda: export_runs(session, ids, path))
        emulator.remove_runs(before[20:330])
        emulator.replace_runs([*(raw_run(number) for number in range(1095, 1050, -1)), *emulator.runs()])
        await export_runs(session, ids, path, resume=True)
        found = ids_in(path)

        assert len(found) == len(set(found))
        assert set(before) - set(before[20:330]) <= set(found)

    async def test_it_gets_on_however_often_it_is_broken_off(
        self, session: CopyAISession, emulator: Emulator, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that ends while it reads again what was read takes nothing back."""
        monkeypatch.setattr(_resume, "MARGIN", 5)
        ids = [emulator.workflow_id]
        await break_off(emulator, 9, lambda: export_runs(session, ids, lines))
        for _ in range(3):
            await break_off(emulator, 5, lambda: export_runs(session, ids, lines, resume=True))
        await export_runs(session, ids, lines, resume=True)

        assert pages_asked(emulator)[0] == 4
        assert ids_in(lines) == ids_of(emulator)

    @pytest.mark.parametrize("quirks", [Quirks(total="absent"), Quirks(sparse=True, total=lambda _: "many")])
    async def test_without_a_total_it_reads_from_the_start(
        self, session: CopyAISession, emulator: Emulator, lines: Path, quirks: Quirks
    ) -> None:
        """Where nothing tells how far the list moved, all of it is read again, and what is known is passed over."""
        emulator.quirks = quirks
        ids = [emulator.workflow_id]
        await break_off(emulator, 6, lambda: export_runs(session, ids, lines))
        await export_runs(session, ids, lines, resume=True)

        assert pages_asked(emulator)[0] == 1
        assert ids_in(lines) == ids_of(emulator)

    async def test_a_list_in_another_order_is_read_from_the_start(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """The rule holds for lists that grow in front; one that isn't newest first may grow anywhere."""
        emulator.replace_runs([raw_run(number) for number in range(1050)])
        ids = [emulator.workflow_id]
        await break_off(emulator, 6, lambda: export_runs(session, ids, lines))
        await export_runs(session, ids, lines, resume=True)

        assert pages_asked(emulator)[0] == 1
        assert ids_in(lines) == ids_of(emulator)

    async def test_a_server_with_short_pages_is_gone_on_with(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """The pages are counted as long as the server makes them."""
        emulator.quirks = Quirks(max_size=30)
        ids, before = [emulator.workflow_id], ids_of(emulator)
        await break_off(emulator, 20, lambda: export_runs(session, ids, lines))
        emulator.remove_runs(before[:45])
        await export_runs(session, ids, lines, resume=True)

        assert pages_asked(emulator)[0] == 18
        assert set(ids_in(lines)) == set(before)

    async def test_a_list_that_shrinks_at_the_worst_moment_loses_nothing(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """What is removed between the count and the first page is noticed by that page."""
        ids, before = [emulator.workflow_id], ids_of(emulator)
        await break_off(emulator, 6, lambda: export_runs(session, ids, lines))

        def shrink(server: Emulator, request: Request) -> None:
            if request.page == 6:
                server.remove_runs(before[:250])

        emulator.on_request = shrink
        await export_runs(session, ids, lines, resume=True)
        found = ids_in(lines)

        assert sorted(found) == sorted(before)

    @pytest.mark.parametrize("past_end", ["empty", "last", 400, 404, 422])
    async def test_a_list_that_nearly_vanishes_is_no_error(
        self,
        session: CopyAISession,
        emulator: Emulator,
        lines: Path,
        past_end: Literal["empty", "last", 400, 404, 422],
    ) -> None:
        """Where the page to go on from is no longer there, the first one is."""
        emulator.quirks = Quirks(past_end=past_end)
        ids, before = [emulator.workflow_id], ids_of(emulator)
        await break_off(emulator, 6, lambda: export_runs(session, ids, lines))

        def shrink(server: Emulator, request: Request) -> None:
            if request.page == 6:
                server.remove_runs(before[:-5])

        emulator.on_request = shrink
        await export_runs(session, ids, lines, resume=True)
        found = ids_in(lines)

        assert len(found) == len(set(found))
        assert set(before[:500] + before[-5:]) <= set(found)

    async def test_a_workflow_that_was_read_is_not_read_again(
        self, session: CopyAISession, emulator: Emulator, lines: Path
    ) -> None:
        """Of several workflows, those that are done are left alone."""
        emulator.replace_runs([raw_run(number) for number in range(3050, 2000, -1)], workflow_id="WCFG-2")
        ids = [emulator.workflow_id, "WCFG-2"]
        emulator.inject(Fault(status=403), page=4, path="WCFG-2")
        with pytest.raises(PermissionDeniedError):
            await export_runs(session, ids, lines)
        emulator.requests.clear()
        told: list[Progress] = []
        await export_runs(session, ids, lines, resume=True, on_progress=told.append)

        assert {request.path.split("/")[3] for request in emulator.requests} == {"WCFG-2"}
        assert (told[0].runs, told[0].total) == (1350, 2100)
        assert ids_in(lines) == ids_of(emulator) + ids_of(emulator, "WCFG-2")

    async def test_a_cancelled_export_keeps_what_it_read(
        self, session: CopyAISession, emulator: Emulator, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Cancelling keeps what was read, and does not wait for the server."""
        monkeypatch.setattr(_reading, "_AT_STAKE_RUNS", 10_000)
        monkeypatch.setattr(_reading, "_AT_STAKE_SECONDS", 1000)
        emulator.inject(Fault(delay=60), page=6)
        ids = [emulator.workflow_id]
        export = asyncio.ensure_future(export_runs(session, ids, lines))
        while max(pages_asked(emulator), default=0) < 9:
            await asyncio.sleep(0.005)
        export.cancel()
        with pytest.raises(asyncio.CancelledError):
            await export
        emulator.requests.clear()
        await export_runs(session, ids, lines, resume=True)

        assert pages_asked(emulator)[0] == 6
        assert ids_in(lines) == ids_of(emulator)


class TestTheEnd:
    """A process that ends when all is read."""

    @pytest.mark.parametrize("step", ["_assemble", "_place"])
    @pytest.mark.parametrize("since", [None, "last"])
    async def test_nothing_is_read_again(
        self,
        session: CopyAISession,
        emulator: Emulator,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        step: str,
        since: Literal["last"] | None,
    ) -> None:
        """The second process puts the file together, and in its place."""
        if since:
            await self.export_first_half(session, emulator, path)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
            patch.setattr(_export, step, cut_the_power)
            await export_runs(session, [emulator.workflow_id], path, since=since)
        emulator.requests.clear()
        exported = await export_runs(session, [emulator.workflow_id], path, since=since, resume=True)

        assert pages_asked(emulator) == []
        assert sorted(ids_in(path)) == sorted(ids_of(emulator))
        assert exported.runs == (550 if since else 1050)
        assert leftovers(path) == []

    @pytest.mark.parametrize("since", [None, "last"])
    async def test_a_file_in_its_place_is_seen_to_be_there(
        self,
        session: CopyAISession,
        emulator: Emulator,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        since: Literal["last"] | None,
    ) -> None:
        """A process that ended just before it cleared up leaves a whole file; the next clears up."""
        if since:
            await self.export_first_half(session, emulator, path)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
            patch.setattr(Part, "remove", cut_the_power)
            await export_runs(session, [emulator.workflow_id], path, since=since)
        exported = await export_runs(session, [emulator.workflow_id], path, since=since, resume=True)

        assert not exported.is_written
        assert sorted(ids_in(path)) == sorted(ids_of(emulator))
        assert leftovers(path) == []

    async def test_half_an_assembly_is_begun_anew(
        self, session: CopyAISession, emulator: Emulator, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was put together in part is not built upon."""
        await self.export_first_half(session, emulator, path)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
            patch.setattr(os, "fsync", cut_the_power_at(2))
            await export_runs(session, [emulator.workflow_id], path, since="last")
        await export_runs(session, [emulator.workflow_id], path, since="last", resume=True)

        assert sorted(ids_in(path)) == sorted(ids_of(emulator))

    async def export_first_half(self, session: CopyAISession, emulator: Emulator, path: Path) -> None:
        emulator.replace_runs([raw_run(number) for number in range(500, 0, -1)])
        await export_runs(session, [emulator.workflow_id], path)
        emulator.replace_runs([raw_run(number) for number in range(1050, 0, -1)])


def cut_the_power(*_: object) -> None:
    raise OSError("power cut")


def cut_the_power_at(call: int) -> Callable[..., None]:
    calls = itertools.count(1)

    def fsync(*_: object) -> None:
        if next(calls) == call:
            cut_the_power()

    return fsync


class Killed(BaseException):
    """The process is no more."""


@define
class ShiftingList:
    """A session with one list, newest first, that moves between any two requests, and kills who asks at some."""

    numbers: list[int]
    moves: Iterator[tuple[int, int]]
    chance: Random
    deaths: set[int]
    stayed: set[int] = field(init=False)
    requests: int = 0
    is_dead: bool = False

    def __attrs_post_init__(self) -> None:
        self.stayed = set(self.numbers)

    def move(self) -> None:
        added, removed = next(self.moves, (0, 0))
        newest = max(self.numbers, default=1000)
        self.numbers[:0] = range(newest + added, newest, -1)
        for _ in range(min(removed, len(self.numbers))):
            self.stayed.discard(self.numbers.pop(self.chance.randrange(len(self.numbers))))

    async def page(self, number: int, size: int) -> Page[Run]:
        self.move()
        self.requests += 1
        if self.requests in self.deaths:
            self.is_dead = True
            raise Killed
        held = self.numbers[(number - 1) * size : number * size]
        runs = [Run(f"WRUN-{run}", created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(run)) for run in held]
        return Page(number, size, len(self.numbers), runs)

    async def runs_page(self, _: str, *, size: int) -> Page[Run]:
        return await self.page(1, size)

    def runs(self, name: str, *, start_page: int, since: None) -> Pager[Run]:
        return Pager(self.page, Plan(name, 5, start_page=start_page, since=since, prefetch=0))


@st.composite
def shifting_lists(draw: st.DrawFn) -> ShiftingList:
    """Draw a list of up to 30 pages, its moves and the moments of death."""
    numbers = list(range(draw(st.integers(20, 150)), 0, -1))
    moves = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=40, max_size=80))
    deaths = draw(st.sets(st.integers(4, 50), min_size=1, max_size=6))
    return ShiftingList(numbers, iter(moves), draw(st.randoms(use_true_random=False)), deaths)


async def export_until_done(shifting: ShiftingList, path: Path) -> None:
    """Start a process after the other, while the list moves on, until one lives to the end."""
    session, resume = cast("CopyAISession", shifting), False
    while True:
        try:
            await export_runs(session, ["WCFG-1"], path, resume=resume)
        except Killed:
            shifting.is_dead, resume = False, True
            for _ in range(6):
                shifting.move()
        else:
            return


@pytest.mark.slow
@given(shifting_lists(), st.integers(1, 25))
def test_no_death_and_no_move_loses_or_repeats_a_run(shifting: ShiftingList, at_stake: int) -> None:
    """Whatever is added in front, removed anywhere, and killed whenever: what stayed on the list is there once."""
    commit = Part.commit

    def commit_if_alive(part: Part, *, durably: bool = False) -> None:
        if shifting.is_dead:
            raise Killed
        commit(part, durably=durably)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_reading, "_AT_STAKE_RUNS", at_stake)
        patch.setattr(Part, "commit", commit_if_alive)
        path = Path(folder, "runs.jsonl")
        asyncio.run(export_until_done(shifting, path))
        found = ids_in(path)

    assert len(found) == len(set(found))
    assert {f"WRUN-{number}" for number in shifting.stayed} <= set(found)
