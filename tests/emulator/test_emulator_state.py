"""The emulator's state in a file: what a restart keeps."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiocopyai.emulator import Emulator, Script
from tests.support.bare import asking, receiving, travel
from tests.support.strategies import JSON_VALUES


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """A file that isn't there yet."""
    return tmp_path / "state.db"


async def test_everything_survives(path: Path) -> None:
    """A second emulator on the same file answers as the first one would have."""
    async with Emulator(5, state=path, credits=20, run_time=60) as first, asking(first) as bare:
        first.script_next_runs(Script(states=("NEW", "ODD", "FAILED"), output={"a": [None]}, error={"e": 1}, credits=7))
        await bare.start(startVariables={"x": "\ud800"}, metadata={"k": 1})
        await bare.start()
        gone = await bare.start()
        first.remove_runs([gone, str(first.runs()[-1]["id"])])
        first.add_runs(2, status="COMPLETE")
        first.add_runs(1, at="tail")
        first.replace_runs([None, {"id": "raw"}], workflow_id="other")
        hook = await bare.register("http://127.0.0.1:9/", "workflowRun.failed", "other")
        await bare.call("DELETE", f"/webhook/{await bare.register('http://x', 'workflowRun.failed')}")
    async with Emulator(state=str(path)) as second, asking(second) as bare:
        second._state.clock = first._state.clock
        assert second.runs() == first.runs()
        assert len(second.runs()) == 9
        assert second.runs("other") == first.runs("other") == [{"id": "raw"}]
        assert second.webhooks == first.webhooks
        assert [each["id"] for each in second.webhooks] == [hook]
        assert second.credits == first.credits == 7
        assert (await bare.call("GET", "/workflow/other/run"))[1]["data"]["total"] == 2


async def test_runs_go_on(path: Path) -> None:
    """A run started before the restart ends when it would have, and is told of then."""
    async with receiving() as receiver:
        async with Emulator(state=path, run_time=60) as first, asking(first) as bare:
            await bare.register(receiver.url, "workflowRun.completed")
            run_id = await bare.start()
        async with Emulator(state=path) as second, asking(second) as bare, asyncio.timeout(5):
            assert (await bare.run(run_id))["status"] == "NEW"
            travel(second, 60)
            body = await receiver.inbox.get()
            assert (body["workflowRunId"], (await bare.run(run_id))["status"]) == (run_id, "COMPLETE")


async def test_changes_after_a_restart(path: Path) -> None:
    """New runs go where they would have gone without the restart, and outputs don't repeat."""
    async with Emulator(2, run_time=0) as whole, asking(whole) as bare:
        await bare.start()
        whole.add_runs()
        await bare.start()
    async with Emulator(2, state=path, run_time=0) as first, asking(first) as bare:
        await bare.start()
    Emulator(state=path).add_runs()
    async with Emulator(state=path, run_time=0) as third, asking(third) as bare:
        await bare.start()
    own = {"id", "workflowRunId", "createdAt"}
    runs, expected = ([{k: v for k, v in run.items() if k not in own} for run in e.runs()] for e in (third, whole))
    assert runs == expected
    assert [run["id"] for run in third.runs()[2:]] == [run["id"] for run in whole.runs()[2:]]


def test_the_file_comes_first(path: Path) -> None:
    """What the file holds comes before the arguments; a workflow that it doesn't know is filled by them."""
    first = Emulator(3, state=path, seed=1, credits=5)
    second = Emulator(9, state=path, seed=2, credits=100)
    assert (second.runs(), second.credits) == (first.runs(), 5)
    third = Emulator([{"id": "x"}], state=path, seed=3, workflow_id="other")
    assert (third.runs(), third.runs(first.workflow_id)) == ([{"id": "x"}], first.runs())


def test_credits_without_a_limit(path: Path) -> None:
    """Where the file knows no limit, the argument sets it; a limit taken away stays away."""
    Emulator(state=path)
    Emulator(state=path, credits=5)
    emulator = Emulator(state=path)
    assert emulator.credits == 5
    emulator.credits = None
    assert Emulator(state=path).credits is None


def test_many_seeded_runs_are_a_small_file(path: Path) -> None:
    """Invented runs are not stored but invented again."""
    first, second = (Emulator(100_000, state=path)._state for _ in range(2))
    lists = [each.workflow(Emulator().workflow_id) for each in (first, second)]
    assert [each.count(0) for each in lists] == [100_000] * 2
    newest, again = (each.slice(0, 3, now=0, visible_until=0) for each in lists)
    assert newest == again
    assert path.stat().st_size < 50_000


async def test_a_thousand_starts(path: Path) -> None:
    """Each of a thousand starts is in the file."""
    async with Emulator(state=path) as emulator, asking(emulator) as bare:
        ids = [await bare.start() for _ in range(1000)]
    assert [run["id"] for run in Emulator(state=path).runs()] == ids[::-1]


async def test_a_killed_process_loses_nothing(path: Path) -> None:
    """What was answered is in the file, though the emulator never stopped."""
    async with Emulator(state=path) as emulator, asking(emulator) as bare:
        run_id = await bare.start()
        assert [run["id"] for run in Emulator(state=path).runs()] == [run_id]


def test_no_file_without_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a `state`, nothing is written."""
    monkeypatch.chdir(tmp_path)
    Emulator(5)
    assert list(tmp_path.iterdir()) == []


async def test_stopped_emulators_leave_one_file(path: Path) -> None:
    """SQLite's own files beside the state are gone with the emulator."""
    async with Emulator(1, state=path) as emulator:
        emulator.add_runs()
    assert list(path.parent.iterdir()) == [path]


def _write_text(path: Path) -> None:
    path.write_text("No database, but long enough to be taken for one. " * 100)


def _write_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")


@pytest.mark.parametrize("write", [_write_text, _write_database])
def test_other_files(path: Path, write: Callable[[Path], None]) -> None:
    """A file that is something else is refused, and left as it is."""
    write(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not a state file"):
        Emulator(state=path)
    assert path.read_bytes() == before


def test_no_such_folder(tmp_path: Path) -> None:
    """A file that can't be made is SQLite's own error."""
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        Emulator(state=tmp_path / "none" / "state.db")


@settings(max_examples=30)
@given(items=st.lists(JSON_VALUES, max_size=5))
def test_raw_items_survive(tmp_path_factory: pytest.TempPathFactory, items: list[Any]) -> None:
    """Raw items, however malformed, are the same after a restart."""
    path = tmp_path_factory.mktemp("state") / "state.db"
    first = Emulator(items, state=path)
    second = Emulator(state=path)
    assert second._state.workflow(second.workflow_id).entries == items
    assert second.runs() == first.runs()
