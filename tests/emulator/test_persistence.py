"""Tests of the emulator's state file, which keeps the state across restarts."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai.emulator import Emulator, Script
from tests.support.raw_api import advance_clock, delivery_server, raw_api
from tests.support.strategies import JSON_VALUES


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "state.db"


async def test_state_is_kept_after_a_restart(path: Path) -> None:
    """An emulator with the state file of another one has the same runs, webhooks and credits."""
    async with Emulator(5, state=path, credits=20, run_time=60) as first, raw_api(first) as api:
        first.script_next_runs(
            Script(states=("NEW", "OTHER", "FAILED"), output={"a": [None]}, error={"e": 1}, credits=7)
        )
        await api.start_run(startVariables={"x": "\ud800"}, metadata={"k": 1})
        await api.start_run()
        gone = await api.start_run()
        first.remove_runs([gone, str(first.runs()[-1]["id"])])
        first.add_runs(2, status="COMPLETE")
        first.add_runs(1, at="tail")
        first.replace_runs([None, {"id": "raw"}], workflow_id="other")
        hook = await api.create_webhook("http://127.0.0.1:9/", "workflowRun.failed", "other")
        await api.call("DELETE", f"/webhook/{await api.create_webhook('http://x', 'workflowRun.failed')}")
    async with Emulator(state=str(path)) as second, raw_api(second) as api:
        second._state.clock = first._state.clock
        assert second.runs() == first.runs()
        assert len(second.runs()) == 9
        assert second.runs("other") == first.runs("other") == [{"id": "raw"}]
        assert second.webhooks == first.webhooks
        assert [each["id"] for each in second.webhooks] == [hook]
        assert second.credits == first.credits == 7
        assert (await api.call("GET", "/workflow/other/run"))[1]["data"]["total"] == 2


async def test_runs_continue(path: Path) -> None:
    """A run that was started before a restart ends at its planned time, and its end is delivered then."""
    async with delivery_server() as receiver:
        async with Emulator(state=path, run_time=60) as first, raw_api(first) as api:
            await api.create_webhook(receiver.url, "workflowRun.completed")
            run_id = await api.start_run()
        async with Emulator(state=path) as second, raw_api(second) as api:
            assert (await api.get_run(run_id))["status"] == "NEW"
            advance_clock(second, 60)
            [body] = await receiver.next_bodies()
            assert (body["workflowRunId"], (await api.get_run(run_id))["status"]) == (run_id, "COMPLETE")


async def test_changes_after_a_restart(path: Path) -> None:
    """Runs that are added or started after a restart are the same as without a restart."""
    async with Emulator(2, run_time=0) as uninterrupted, raw_api(uninterrupted) as api:
        await api.start_run()
        uninterrupted.add_runs()
        await api.start_run()
    async with Emulator(2, state=path, run_time=0) as first, raw_api(first) as api:
        await api.start_run()
    Emulator(state=path).add_runs()
    async with Emulator(state=path, run_time=0) as third, raw_api(third) as api:
        await api.start_run()
    varying = {"id", "workflowRunId", "createdAt"}
    runs, expected = (
        [{k: v for k, v in run.items() if k not in varying} for run in e.runs()] for e in (third, uninterrupted)
    )
    assert runs == expected
    assert [run["id"] for run in third.runs()[2:]] == [run["id"] for run in uninterrupted.runs()[2:]]


def test_the_file_replaces_arguments(path: Path) -> None:
    """The content of the file replaces the arguments, which apply only to a workflow that is not in it."""
    first = Emulator(3, state=path, seed=1, credits=5)
    second = Emulator(9, state=path, seed=2, credits=100)
    assert (second.runs(), second.credits) == (first.runs(), 5)
    third = Emulator([{"id": "x"}], state=path, seed=3, workflow_id="other")
    assert (third.runs(), third.runs(first.workflow_id)) == ([{"id": "x"}], first.runs())


def test_credits_without_a_limit(path: Path) -> None:
    """If the file has no credit limit, the argument sets it. A removed limit remains removed."""
    Emulator(state=path)
    Emulator(state=path, credits=5)
    emulator = Emulator(state=path)
    assert emulator.credits == 5
    emulator.credits = None
    assert Emulator(state=path).credits is None


def test_sample_runs_take_little_space(path: Path) -> None:
    """Sample runs are not stored but generated again."""
    first, second = (Emulator(100_000, state=path)._state for _ in range(2))
    lists = [each.workflow(Emulator().workflow_id) for each in (first, second)]
    assert [each.count() for each in lists] == [100_000] * 2
    newest, same = (each.slice(0, 3, now=0) for each in lists)
    assert newest == same
    assert path.stat().st_size < 50_000


async def test_many_starts(path: Path) -> None:
    """Each of 1,000 started runs is in the file."""
    async with Emulator(state=path) as emulator, raw_api(emulator) as api:
        ids = [await api.start_run() for _ in range(1000)]
    assert [run["id"] for run in Emulator(state=path).runs()] == ids[::-1]


async def test_starts_are_saved_at_once(path: Path) -> None:
    """A run whose start was confirmed is in the file before the emulator stops."""
    async with Emulator(state=path) as emulator, raw_api(emulator) as api:
        run_id = await api.start_run()
        assert [run["id"] for run in Emulator(state=path).runs()] == [run_id]


def test_no_file_without_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a `state`, nothing is written."""
    monkeypatch.chdir(tmp_path)
    Emulator(5)
    assert list(tmp_path.iterdir()) == []


async def test_no_other_files_remain(path: Path) -> None:
    """SQLite's own files beside the state file are removed when the emulator stops."""
    async with Emulator(1, state=path) as emulator:
        emulator.add_runs()
    assert list(path.parent.iterdir()) == [path]


def _write_text(path: Path) -> None:
    path.write_text("Not a database, but long enough to be one. " * 100)


def _write_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")


@pytest.mark.parametrize("write", [_write_text, _write_database])
def test_other_files(path: Path, write: Callable[[Path], None]) -> None:
    """Any other file is rejected and not changed."""
    write(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not a state file"):
        Emulator(state=path)
    assert path.read_bytes() == before


def test_missing_folder(tmp_path: Path) -> None:
    """A file that cannot be created raises SQLite's own error."""
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        Emulator(state=tmp_path / "none" / "state.db")


def test_file_of_another_version(path: Path) -> None:
    """A state file of another version is rejected, with a message that says what to do."""
    Emulator(1, state=path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(ValueError, match="another version of the emulator: use a new file"):
        Emulator(state=path)


@pytest.mark.parametrize(
    "damage",
    [
        *(f"DROP TABLE {table}" for table in ("settings", "workflows", "entries", "started_runs", "webhooks")),
        *(
            f"UPDATE {table} SET content = '{content}'"  # noqa: S608 (fixed values)
            for table in ("entries", "started_runs", "webhooks")
            for content in ("{", "[]", "null", "5", '"x"')
        ),
        "UPDATE entries SET content = X'80'",
        "UPDATE entries SET first_serial = 'x'",
        "UPDATE entries SET count = -1",
        "UPDATE entries SET count = 1000000000000",
        "UPDATE workflows SET newest_serial = 'x'",
        "UPDATE settings SET value = '[]' WHERE name = 'seed'",
        "UPDATE settings SET value = '-1' WHERE name = 'credits'",
        """UPDATE started_runs SET content = replace(content, '"started": ', '"started": null, "x": ')""",
        "UPDATE started_runs SET content = '{}'",
        "UPDATE webhooks SET content = '{}'",
    ],
)
async def test_damaged_state(path: Path, damage: str) -> None:
    """A state file with missing tables or invalid values raises a `ValueError` that says what to do."""
    async with Emulator(5, state=path, credits=100) as emulator, raw_api(emulator) as api:
        await api.start_run()
        await api.create_webhook("http://127.0.0.1:1/", "workflowRun.started")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)

    with pytest.raises(ValueError, match="is damaged: delete it or use a new file"):
        Emulator(state=path)


@given(data=st.data())
def test_any_bytes_in_a_state_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A state file with changed bytes, or without its end, is read or raises `ValueError`."""
    path = tmp_path_factory.mktemp("state") / "state.db"
    Emulator(5, state=path, credits=100).replace_runs([{"id": "WRUN-1"}], workflow_id="WCFG-2")
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=50)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])

    try:
        Emulator(state=path).runs()
    except ValueError as error:
        assert re.search("is damaged: delete it|not a state file|another version", str(error))


@given(data=st.data())
def test_changes_are_kept_after_a_restart(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """After any changes of the list, another emulator with the file has the same list, and adds equal runs."""
    path = tmp_path_factory.mktemp("state") / "state.db"
    first = Emulator(data.draw(st.integers(0, 5)), state=path, run_time=0)
    for change in data.draw(
        st.lists(st.sampled_from(["head", "tail", "fields", "remove", "replace", "start"]), max_size=8)
    ):
        match change:
            case "head" | "tail":
                first.add_runs(data.draw(st.integers(0, 4)), at=change)
            case "fields":
                first.add_runs(2, status="FAILED")
            case "remove":
                first.remove_runs(data.draw(st.lists(st.sampled_from([run["id"] for run in first.runs()] or [""]))))
            case "replace":
                first.replace_runs([None, {"id": "raw"}])
            case _:
                first._state.start_run(first._state.workflow(first.workflow_id), {}, None)
    second = Emulator(state=path)
    second._state.clock = first._state.clock
    assert second.runs() == first.runs()
    for emulator in (first, second):
        emulator.add_runs(2)
        emulator.add_runs(2, at="tail")
    assert second.runs() == first.runs()


@given(items=st.lists(JSON_VALUES, max_size=5))
def test_raw_items_are_kept_after_a_restart(tmp_path_factory: pytest.TempPathFactory, items: list[Any]) -> None:
    """Raw items are the same after a restart, even if they are malformed."""
    path = tmp_path_factory.mktemp("state") / "state.db"
    first = Emulator(items, state=path)
    second = Emulator(state=path)
    assert [entry.to_json() for entry in second._state.workflow(second.workflow_id).entries] == items
    assert second.runs() == first.runs()
