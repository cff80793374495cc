"""The dlt source: loads into DuckDB, compared by SQL with what the server has."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import dlt
import pyarrow as pa
import pytest
from attrs import define
from dlt.pipeline.exceptions import PipelineStepFailed
from hypothesis import given

from aiocopyai import CopyAISession, PermissionDeniedError, RetryPolicy, Run
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from aiocopyai.integrations._flat import FLAT, flat_batch
from aiocopyai.integrations.arrow import SCHEMA
from aiocopyai.integrations.dlt import copyai_source
from tests.support.exporting import ODDITIES, change, raw_run
from tests.support.loading import query, rows_in, truth


pytestmark = pytest.mark.xdist_group("dlt")  # loads use a core for seconds: one at a time

AT_ONCE = RetryPolicy(wait_initial=0, wait_max=0)
DAY = timedelta(days=1)
TABLE = "runs_wcfg_6db59f06_2f6c_4d3e_9a51_7c0b8e4d1f27"


@define
class Loads:
    """A pipeline from the emulator to a DuckDB file."""

    emulator: Emulator
    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "runs.duckdb"

    @property
    def pipeline(self) -> dlt.Pipeline:
        """The pipeline, as a process that starts would make it."""
        destination = dlt.destinations.duckdb(str(self.database))
        return dlt.pipeline(
            "copyai", destination=destination, dataset_name="copyai", pipelines_dir=str(self.folder / "dlt")
        )

    def source(self, *workflow_ids: str, **options: Any) -> dlt.sources.DltSource:  # noqa: ANN401 (any option of the source)
        session = partial(CopyAISession, self.emulator.api_key, base_url=self.emulator.url, retry=AT_ONCE)
        return copyai_source(workflow_ids or [self.emulator.workflow_id], session=session, **options)

    async def load(self, source: dlt.sources.DltSource | None = None) -> int:
        """Load in a thread, as the server is in this one; return how many requests that took."""
        before = len(self.emulator.requests)
        await asyncio.to_thread(self.pipeline.run, source or self.source())
        return len(self.emulator.requests) - before


@pytest.fixture(name="loads")
def _loads(copyai_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    """Keep dlt in the test's folder, and quiet."""
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.chdir(tmp_path)
    return Loads(copyai_emulator, tmp_path)


def hour(number: int, status: str = "COMPLETE", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (any JSON)
    """Make a run of an hour; a higher one is later."""
    created = datetime(2020, 1, 1, tzinfo=UTC) + number * timedelta(hours=1)
    return raw_run(number) | {"createdAt": created.isoformat(), "status": status} | fields


def number_of(run_id: object) -> int:
    return int(str(run_id).removeprefix("WRUN-"))


async def test_every_row_is_the_servers_while_the_list_moves(loads: Loads) -> None:
    """Loaded twice, with runs that start, go and change between any two requests, the table is what the server has."""
    emulator, chance = loads.emulator, Random(7)  # noqa: S311 (repeatable, not secret)
    emulator.replace_runs([hour(number, ["NEW", "COMPLETE"][number % 2]) for number in range(700, 0, -1)])
    gone = set[str]()
    moves = iter(range(30))

    def move(server: Emulator, _request: Request) -> None:
        number = next(moves, None)
        if number is None:
            return
        server.replace_runs([hour(1000 + number, "PROCESSING"), *server.runs()])
        if number % 4 == 0:
            # So many that no runs that are added hide them.
            removed = [str(run["id"]) for run in chance.sample(server.runs(), 20)]
            gone.update(removed)
            server.remove_runs(removed)

    emulator.on_request = move
    await loads.load(loads.source(open_for=100 * DAY))
    first = rows_in(loads.database)
    stayed = truth(emulator, emulator.workflow_id)
    assert {key for key in stayed if number_of(key[1]) <= 700} <= set(first)
    assert all(first[key] == row for key, row in stayed.items() if key in first)

    oldest_open = min(number_of(key[1]) for key, row in first.items() if row[0] != "COMPLETE")
    ended = {"status": "COMPLETE", "output": {"Post": "…"}}
    emulator.replace_runs([run | ended if number_of(run["id"]) >= oldest_open else run for run in emulator.runs()])
    moves = iter(range(100, 105))
    await loads.load(loads.source(open_for=100 * DAY))
    assert next(moves, None) is None
    await loads.load(loads.source(open_for=100 * DAY))
    rows = rows_in(loads.database)
    now = truth(emulator, emulator.workflow_id)

    assert {key: rows[key] for key in now} == now
    assert {key[1] for key in set(rows) - set(now)} <= gone


async def test_a_load_reads_no_more_than_it_needs(loads: Loads) -> None:
    """The day before the newest run is read again, with a run that was over and changed; older ones are not."""
    loads.emulator.replace_runs([hour(number) for number in range(1000, 0, -1)])
    requests = [await loads.load()]
    change(loads.emulator, "WRUN-990", output={"Post": "edited"})
    loads.emulator.replace_runs([hour(1001), *loads.emulator.runs()])
    requests.append(await loads.load())

    assert requests[0] == 10
    assert requests[1] < 8  # one page, and those that were asked for ahead
    assert rows_in(loads.database) == truth(loads.emulator, loads.emulator.workflow_id)


async def test_a_run_that_stays_open_for_long_is_still_updated(loads: Loads) -> None:
    """It is read until it is over, however long ago it was started; one past the bound is given up."""
    loads.emulator.replace_runs(
        [hour(number, "PROCESSING" if number in {40, 500} else "COMPLETE") for number in range(1000, 0, -1)]
    )
    await loads.load()
    for number in (40, 500):
        change(loads.emulator, f"WRUN-{number}", status="COMPLETE", output={"Post": "at last"})
    await loads.load()
    statuses = {key[1]: row[0] for key, row in rows_in(loads.database).items()}

    assert (statuses["WRUN-40"], statuses["WRUN-500"]) == ("PROCESSING", "COMPLETE")
    assert await loads.load() < 8


async def test_a_run_without_a_time_is_updated_and_lost_never(loads: Loads) -> None:
    """While it is not over it makes the next load read everything."""
    undated = {"id": "WRUN-undated", "status": "NEW"}
    runs = [hour(number) for number in range(600, 0, -1)]
    loads.emulator.replace_runs([*runs[:500], undated, *runs[500:]])
    await loads.load()
    change(loads.emulator, "WRUN-undated", status="COMPLETE")
    requests = [await loads.load(), await loads.load()]

    assert requests[0] == 7 > requests[1]
    assert rows_in(loads.database) == truth(loads.emulator, loads.emulator.workflow_id)


async def test_a_list_that_says_little_is_kept_up_to_date(loads: Loads) -> None:
    """Runs without status, workflow or metadata are taken for such that may change, and get the id asked for."""
    loads.emulator.quirks = Quirks(sparse=True, mixed_dates=True, credits="string", total="absent")
    loads.emulator.replace_runs(
        [{key: value for key, value in hour(n).items() if key != "workflowId"} for n in range(300, 0, -1)]
    )
    await loads.load()
    change(loads.emulator, "WRUN-100", credits=77)
    await loads.load()
    rows = query(loads.database, "SELECT workflow_id, id, status, credits FROM copyai.runs ORDER BY created_at DESC")

    assert rows == [(loads.emulator.workflow_id, f"WRUN-{n}", None, 77 if n == 100 else 1) for n in range(300, 0, -1)]


async def test_a_list_in_no_order_is_read_whole(loads: Loads) -> None:
    """Where the newest don't come first, nothing new is missed."""
    loads.emulator.replace_runs([hour(number) for number in range(1, 300)])
    await loads.load()
    loads.emulator.replace_runs([*loads.emulator.runs(), hour(300)])
    await loads.load()

    assert rows_in(loads.database) == truth(loads.emulator, loads.emulator.workflow_id)


async def test_a_failed_load_changes_nothing_and_loses_nothing(loads: Loads) -> None:
    """A list that breaks off takes back how far the others came; the error tells why, and the next load is whole."""
    emulator = loads.emulator
    emulator.add_runs(250, status="COMPLETE")
    emulator.add_runs(250, workflow_id="WCFG-2")
    both = (emulator.workflow_id, "WCFG-2")
    await loads.load(loads.source(*both))
    before = rows_in(loads.database)
    for workflow_id in both:
        emulator.add_runs(120, workflow_id=workflow_id, status="COMPLETE")
    emulator.add_runs(
        2_000, status="COMPLETE"
    )  # for more than a day: were the first list taken for read, they'd be lost
    emulator.inject(Fault(status=403), path="WCFG-2", page=2)
    with pytest.raises(PipelineStepFailed) as caught:
        await loads.load(loads.source(*both))
    untouched = rows_in(loads.database)
    await loads.load(loads.source(*both))

    causes = [caught.value, caught.value.__cause__, caught.value.__cause__ and caught.value.__cause__.__cause__]
    assert isinstance(causes[-1], PermissionDeniedError)
    assert causes[-1].page == 2
    assert untouched == before
    assert rows_in(loads.database) == truth(emulator, *both)


async def test_only_what_is_selected_is_read(loads: Loads) -> None:
    """By default one table, each list read once; others by name, which then have all and a state of their own."""
    emulator = loads.emulator
    emulator.add_runs(130, status="COMPLETE")
    emulator.add_runs(5, workflow_id="WCFG-2")
    source = loads.source(emulator.workflow_id, "WCFG-2", emulator.workflow_id)
    names = ["runs", f"runs_{emulator.workflow_id}", "runs_WCFG-2"]
    assert (list(source.resources), list(source.selected_resources)) == (names, ["runs"])
    requests = [await loads.load(source)]
    requests.append(await loads.load(loads.source(emulator.workflow_id, "WCFG-2").with_resources(names[1])))

    assert requests == [3, 2]
    assert {request.path.split("/")[3] for request in emulator.requests[3:]} == {emulator.workflow_id}
    assert len(rows_in(loads.database)) == 135
    assert rows_in(loads.database, TABLE) == truth(emulator, emulator.workflow_id)


async def test_workflows_keep_their_runs_apart(loads: Loads) -> None:
    """Runs of one id in two workflows are two rows, and ids that dlt would take for one have tables of their own."""
    ids = ["A-1", "a_1", "東京", "x/y"]
    for workflow_id in ids:
        loads.emulator.replace_runs([hour(1, output={"of": workflow_id})], workflow_id=workflow_id)
    source = loads.source(*ids)
    await loads.load(source.with_resources(*source.resources))
    tables = query(
        loads.database, "SELECT table_name FROM duckdb_tables WHERE schema_name = 'copyai' AND table_name LIKE 'runs_%'"
    )

    assert rows_in(loads.database) == truth(loads.emulator, *ids)
    assert len(tables) == 4
    assert [rows_in(loads.database, name).popitem()[0][1] for (name,) in tables] == ["WRUN-1"] * 4


async def test_a_load_that_was_not_loaded_is_loaded_by_the_next(loads: Loads) -> None:
    """What was read stays ready where the database was not to be had, and dlt's next run takes it there."""
    loads.emulator.add_runs(120)
    await loads.load()
    added = loads.emulator.add_runs(5)
    pipeline = loads.pipeline
    await asyncio.to_thread(pipeline.extract, loads.source())
    await asyncio.to_thread(pipeline.normalize)
    loads.emulator.remove_runs(added)
    await asyncio.to_thread(loads.pipeline.run)

    assert {key[1] for key in rows_in(loads.database)} > set(added)


async def test_another_machine_goes_on_where_the_database_is(loads: Loads) -> None:
    """The state is in the database: without dlt's folder, no more is read than with it."""
    loads.emulator.replace_runs([hour(number) for number in range(1000, 0, -1)])
    await loads.load()
    (loads.folder / "dlt").rename(loads.folder / "lost")

    assert await loads.load() < 8


async def test_a_table_that_is_begun_anew_has_all_runs(loads: Loads) -> None:
    """Whoever lets dlt replace the table, or drop its data, gets all that is on the list into it."""
    loads.emulator.replace_runs([hour(number) for number in range(300, 0, -1)])
    await loads.load()
    source = loads.source()
    source.resources["runs"].apply_hints(write_disposition="replace")
    loads.emulator.remove_runs(["WRUN-7"])
    await loads.load(source)
    assert rows_in(loads.database) == truth(loads.emulator, loads.emulator.workflow_id)

    loads.emulator.remove_runs(["WRUN-8"])
    await asyncio.to_thread(partial(loads.pipeline.run, loads.source(), refresh="drop_data"))
    assert rows_in(loads.database) == truth(loads.emulator, loads.emulator.workflow_id)


async def test_the_key_is_nowhere(loads: Loads, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in what dlt keeps of pipeline, state, schema and trace, nor in the database, nor in a log."""
    caplog.set_level("DEBUG")
    loads.emulator.add_runs(30)
    await loads.load()
    loads.emulator.inject(Fault(status=403))
    with pytest.raises(PipelineStepFailed) as caught:
        await loads.load()
    key = loads.emulator.api_key
    files = [path for path in loads.folder.rglob("*") if path.is_file()]
    tables = query(loads.database, "SELECT schema_name, table_name FROM duckdb_tables")

    assert {"state.json", "trace.pickle", "runs.duckdb"} <= {path.name for path in files}
    assert [path for path in files if key.encode() in path.read_bytes()] == []
    assert len(tables) >= 4
    for schema, table in tables:
        assert key not in repr(query(loads.database, f"SELECT * FROM {schema}.{table}"))  # noqa: S608 (its own names)
    assert key not in caplog.text + repr(caught.value) + str(caught.value)


@given(ODDITIES)
def test_maps_are_json_objects(runs: list[Run]) -> None:
    """Whatever runs hold, each map is the text of an object of the same values under the same names."""
    batch: pa.RecordBatch = flat_batch(
        [Run("WRUN-1", workflow_id="WCFG-1", extra=run.extra, output=run.output) for run in runs]
    )
    rows = batch.to_pylist()

    def escaped(names: Any) -> Any:  # noqa: ANN401 (any JSON object)
        return {name.encode("utf-8", "backslashreplace").decode(): value for name, value in names.items()}

    assert batch.schema.equals(FLAT)
    assert [json.loads(row["output"]) for row in rows] == [escaped(run.output) for run in runs]
    assert [json.loads(row["extra"]) for row in rows] == [escaped(run.extra) for run in runs]


def test_the_columns_are_those_of_the_one_schema() -> None:
    """They have the same names in the same order, and other types only where there is a map."""
    assert FLAT.names == SCHEMA.names
    assert all(
        flat.type == (pa.string() if pa.types.is_map(column.type) else column.type)
        for flat, column in zip(FLAT, SCHEMA, strict=True)
    )


async def test_odd_runs_load(loads: Loads) -> None:
    """Texts of any kind, numbers of any size, and times at the calendar's ends get into the database."""
    odd: list[dict[str, Any]] = [
        {"id": "\ud83d", "status": "\0", "output": {"\udc00": "\ud83d", "": [1e300, 10**40, None], "n\0": "\0"}},
        {"id": "'; DROP TABLE runs; --", "createdAt": "0001-01-01T00:00:00Z", "credits": -(2**63)},
        {"id": "WRUN-far", "createdAt": "9999-12-31T23:59:59.999999Z", "credits": 10**30, "error": "\ud83d"},
        {"id": "x" * 10_000, "createdAt": "yesterday", "credits": "many", "input": 7, "metadata": [], "error": []},
        {"id": "WRUN-deep", "output": {"deep": json.loads("[" * 200 + "]" * 200)}, "error": {"a": {"b": "🎈"}}},
    ]
    loads.emulator.replace_runs([*odd, *[hour(number) for number in range(150, 0, -1)]])
    await loads.load()
    await loads.load()
    rows = rows_in(loads.database)
    named = {key[1]: row for key, row in rows.items()}

    assert len(rows) == 155
    assert named["\\ud83d"][4] == {"\\udc00": "\ud83d", "": [1e300, 10**40, None], "n\0": "\0"}
    assert named["WRUN-far"][2] is None
    assert named["WRUN-far"][6:] == ("\ud83d", {"credits": 10**30})
    assert named["'; DROP TABLE runs; --"][2] == -(2**63)
    assert named["x" * 10_000][7] == {"createdAt": "yesterday", "credits": "many", "input": 7, "metadata": []}
    assert named["WRUN-deep"][6] == {"a": {"b": "🎈"}}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"workflow_ids": []}, "at least one workflow"),
        ({"workflow_ids": ["WCFG-1"], "look_back": -DAY}, "no negative times"),
        ({"workflow_ids": ["WCFG-1"], "open_for": -DAY}, "no negative times"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], complaint: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match=complaint):
        copyai_source(**arguments)


def test_one_id_needs_no_list() -> None:
    """A text is one id, not many of a letter each."""
    assert list(copyai_source("WCFG-1").resources) == ["runs", "runs_WCFG-1"]
