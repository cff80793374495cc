"""Tests of the dlt source: tables in DuckDB are compared with the runs on the server."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import dlt
import pyarrow as pa
import pytest
from attrs import define
from dlt.pipeline.exceptions import PipelineStepFailed

from aiocopyai import CopyAISession, PermissionDeniedError
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from aiocopyai.integrations.dlt import copyai_source
from tests.conftest import AT_ONCE
from tests.support.arguments import INVALID_SPANS, problem_of
from tests.support.exporting import change, raw_run
from tests.support.loading import query, rows_in, truth


DAY = timedelta(days=1)
pytestmark = pytest.mark.xdist_group("dlt")  # a load uses one core for seconds, so run one at a time

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
        """A new pipeline, as another process would create it."""
        destination = dlt.destinations.duckdb(str(self.database))
        return dlt.pipeline(
            "copyai", destination=destination, dataset_name="copyai", pipelines_dir=str(self.folder / "dlt")
        )

    def source(self, *workflow_ids: str, **options: Any) -> dlt.sources.DltSource:  # noqa: ANN401 (any option of the source)
        session = partial(CopyAISession, self.emulator.api_key, base_url=self.emulator.url, retry=AT_ONCE)
        return copyai_source(workflow_ids or [self.emulator.workflow_id], session=session, **options)

    async def load(self, source: dlt.sources.DltSource | None = None) -> int:
        """Load in another thread, because the emulator runs in this one, and return the number of requests."""
        before = len(self.emulator.requests)
        await asyncio.to_thread(self.pipeline.run, source or self.source())
        return len(self.emulator.requests) - before


@pytest.fixture(name="loads")
def _loads(copyai_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    """A pipeline with its files in the temporary folder of the test."""
    use_folder(tmp_path, monkeypatch)
    return Loads(copyai_emulator, tmp_path)


def use_folder(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make dlt store its files in a folder."""
    patch.setenv("DLT_DATA_DIR", str(folder / "data"))
    patch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    patch.chdir(folder)


def run_at_hour(number: int, status: str = "COMPLETE", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (any JSON)
    """Return a run that was created `number` hours after the start of 2020."""
    created = datetime(2020, 1, 1, tzinfo=UTC) + number * timedelta(hours=1)
    return raw_run(number) | {"createdAt": created.isoformat(), "status": status} | fields


def number_of(run_id: object) -> int:
    return int(str(run_id).removeprefix("WRUN-"))


async def test_rows_equal_the_runs_while_the_list_changes(loads: Loads) -> None:
    """If runs are added, removed and changed between requests, the table has all runs on the server in the end."""
    emulator, chance = loads.emulator, Random(7)  # noqa: S311 (repeatable, not secret)
    emulator.replace_runs([run_at_hour(number, ["NEW", "COMPLETE"][number % 2]) for number in range(700, 0, -1)])
    removed_ids = set[str]()
    updates = iter(range(30))

    def update(server: Emulator, _request: Request) -> None:
        number = next(updates, None)
        if number is None:
            return
        server.replace_runs([run_at_hour(1000 + number, "PROCESSING"), *server.runs()])
        if number % 4 == 0:
            # More than the runs added, so that the total falls.
            removed = [str(run["id"]) for run in chance.sample(server.runs(), 20)]
            removed_ids.update(removed)
            server.remove_runs(removed)

    emulator.on_request = update
    await loads.load(loads.source(open_for=100 * DAY))
    first = rows_in(loads.database)
    stayed = truth(emulator, emulator.workflow_id)
    assert {key for key in stayed if number_of(key[1]) <= 700} <= set(first)
    assert all(first[key] == row for key, row in stayed.items() if key in first)

    oldest_open = min(number_of(key[1]) for key, row in first.items() if row[0] != "COMPLETE")
    ended = {"status": "COMPLETE", "output": {"Post": "…"}}
    emulator.replace_runs([run | ended if number_of(run["id"]) >= oldest_open else run for run in emulator.runs()])
    updates = iter(range(100, 105))
    await loads.load(loads.source(open_for=100 * DAY))
    assert next(updates, None) is None
    await loads.load(loads.source(open_for=100 * DAY))
    rows = rows_in(loads.database)
    now = truth(emulator, emulator.workflow_id)

    assert {key: rows[key] for key in now} == now
    assert {key[1] for key in set(rows) - set(now)} <= removed_ids


@define
class History:
    """Four loads of lists that change between them. Several tests share it because loads are slow.

    Attributes:
        requests: the number of requests by list, for each load.
        rows: all rows after the last load.
        truth: the expected rows, by list.
    """

    requests: list[Counter[str]]
    rows: dict[tuple[str, str], tuple[object, ...]]
    truth: dict[str, dict[tuple[str, str], tuple[object, ...]]]


@pytest.fixture(name="history", scope="module")
def _history(tmp_path_factory: pytest.TempPathFactory) -> History:
    undated = {"id": "WRUN-undated", "status": "NEW"}
    dated = [run_at_hour(number) for number in range(600, 0, -1)]
    lists = {
        "finished": [run_at_hour(number) for number in range(1000, 0, -1)],
        "unfinished": [
            run_at_hour(number, "PROCESSING" if number in {40, 500} else "COMPLETE") for number in range(999, 0, -1)
        ],
        "undated": [*dated[:500], undated, *dated[500:]],
        "oldest first": [run_at_hour(number) for number in range(1, 300)],
        "renamed": [run_at_hour(1, "NEW")],
    }
    folder, requests = tmp_path_factory.mktemp("history"), list[Counter[str]]()
    with Emulator() as emulator, pytest.MonkeyPatch.context() as patch:
        use_folder(folder, patch)
        loads = Loads(emulator, folder)

        def load() -> None:
            emulator.requests.clear()
            loads.pipeline.run(loads.source(*lists))
            requests.append(Counter(unquote(request.path.split("/")[3]) for request in emulator.requests))

        for name, runs in lists.items():
            emulator.replace_runs(runs, workflow_id=name)
        load()
        change(emulator, "WRUN-990", "finished", output={"Post": "edited"})
        emulator.replace_runs([run_at_hour(1001), *emulator.runs("finished")], workflow_id="finished")
        for number in (40, 500):
            change(emulator, f"WRUN-{number}", "unfinished", status="COMPLETE", output={"Post": "at last"})
        change(emulator, "WRUN-undated", "undated", status="COMPLETE")
        emulator.replace_runs([*emulator.runs("oldest first"), run_at_hour(300)], workflow_id="oldest first")
        change(emulator, "WRUN-1", "renamed", workflowId="renamed")
        load()
        change(emulator, "WRUN-1", "renamed", workflowId="PKGW-1")
        load()
        (folder / "dlt").rename(folder / "lost")
        load()
        return History(requests, rows_in(loads.database), {name: truth(emulator, name) for name in lists})


def rows_of(history: History, name: str) -> dict[tuple[str, str], tuple[object, ...]]:
    """Return the rows of a list after the last load."""
    return {key: row for key, row in history.rows.items() if key[0] == name}


def test_second_load_reads_only_what_may_have_changed(history: History) -> None:
    """Only the runs of the day before the newest run are read again and updated."""
    first, second, *_ = (requests["finished"] for requests in history.requests)

    assert first == 12  # ten pages, an empty page, and a verification after the prefetched pages
    assert second < 8  # one page, and the prefetched ones
    assert rows_of(history, "finished") == history.truth["finished"]


def test_unfinished_run_is_updated_later(history: History) -> None:
    """A run is read again until it is finished, unless it is more than 30 days older than the newest run."""
    statuses = {key[1]: row[0] for key, row in rows_of(history, "unfinished").items()}

    assert (statuses["WRUN-40"], statuses["WRUN-500"]) == ("PROCESSING", "COMPLETE")
    assert history.requests[2]["unfinished"] < 8


def test_unfinished_run_without_a_creation_time_is_updated(history: History) -> None:
    """If an unfinished run has no creation time, the whole list is read until it is finished."""
    _, second, third, _ = (requests["undated"] for requests in history.requests)

    assert second == 8 > third
    assert rows_of(history, "undated") == history.truth["undated"]


def test_list_that_is_oldest_first(history: History) -> None:
    """If a list is oldest first, new runs at its end are loaded."""
    assert rows_of(history, "oldest first") == history.truth["oldest first"]


def test_state_is_in_the_database(history: History) -> None:
    """A load on another machine, without dlt's folder, continues from the state in the database."""
    assert history.requests[3]["finished"] < 8


def test_run_whose_workflow_id_changes_is_one_row(history: History) -> None:
    """The key has the id that was passed to the source, and the row has the server's latest id in `extra`."""
    rows = [(key, row[-1]) for key, row in history.rows.items() if key[1] == "WRUN-1" and row[0] == "NEW"]

    assert rows == [(("renamed", "WRUN-1"), {"workflowId": "PKGW-1"})]


async def test_list_without_statuses_and_workflow_ids(loads: Loads) -> None:
    """Runs without a status are updated, and runs without a workflow id have the id that was passed."""
    loads.emulator.quirks = Quirks(sparse=True, mixed_dates=True, credits="string", total="absent")
    loads.emulator.replace_runs(
        [{key: value for key, value in run_at_hour(n).items() if key != "workflowId"} for n in range(300, 0, -1)]
    )
    await loads.load()
    change(loads.emulator, "WRUN-100", credits=77)
    await loads.load()
    rows = query(loads.database, "SELECT workflow_id, id, status, credits FROM copyai.runs ORDER BY created_at DESC")

    assert rows == [(loads.emulator.workflow_id, f"WRUN-{n}", None, 77 if n == 100 else 1) for n in range(300, 0, -1)]


async def test_failed_load_changes_nothing(loads: Loads) -> None:
    """If one list cannot be read, nothing is loaded. The error is the cause of dlt's error, and the next load works."""
    emulator = loads.emulator
    emulator.add_runs(250, status="COMPLETE")
    emulator.add_runs(250, workflow_id="WCFG-2")
    both = (emulator.workflow_id, "WCFG-2")
    await loads.load(loads.source(*both))
    before = rows_in(loads.database)
    for workflow_id in both:
        emulator.add_runs(120, workflow_id=workflow_id, status="COMPLETE")
    # More than a day of runs, which would be lost if the progress of the first list were kept.
    emulator.add_runs(2_000, status="COMPLETE")
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


async def test_only_selected_resources_are_read(loads: Loads) -> None:
    """By default each list is read once, into one table. Other resources have their own tables and states."""
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


async def test_same_run_id_in_several_workflows(loads: Loads) -> None:
    """A run id in several workflows is several rows, and workflows with similar ids have their own tables."""
    ids = ["A-1", "a_1", "東京", "x/y"]
    for workflow_id in ids:
        loads.emulator.replace_runs([run_at_hour(1, output={"of": workflow_id})], workflow_id=workflow_id)
    source = loads.source(*ids)
    await loads.load(source.with_resources(*source.resources))
    tables = query(
        loads.database, "SELECT table_name FROM duckdb_tables WHERE schema_name = 'copyai' AND table_name LIKE 'runs_%'"
    )

    assert rows_in(loads.database) == truth(loads.emulator, *ids)
    assert len(tables) == 4
    assert [rows_in(loads.database, name).popitem()[0][1] for (name,) in tables] == ["WRUN-1"] * 4


async def test_pending_load_package_is_loaded_next(loads: Loads) -> None:
    """The next run of the pipeline loads the runs that were extracted and normalized before."""
    loads.emulator.add_runs(120)
    await loads.load()
    added = loads.emulator.add_runs(5)
    pipeline = loads.pipeline
    await asyncio.to_thread(pipeline.extract, loads.source())
    await asyncio.to_thread(pipeline.normalize)
    loads.emulator.remove_runs(added)
    await asyncio.to_thread(loads.pipeline.run)

    assert {key[1] for key in rows_in(loads.database)} > set(added)


async def test_replaced_table_has_all_runs(loads: Loads) -> None:
    """If dlt replaces the table or drops its data, the whole list is loaded."""
    loads.emulator.replace_runs([run_at_hour(number) for number in range(300, 0, -1)])
    await loads.load()
    source = loads.source()
    source.resources["runs"].apply_hints(write_disposition="replace")
    loads.emulator.remove_runs(["WRUN-7"])
    await loads.load(source)
    assert rows_in(loads.database) == truth(loads.emulator, loads.emulator.workflow_id)

    loads.emulator.remove_runs(["WRUN-8"])
    await asyncio.to_thread(partial(loads.pipeline.run, loads.source(), refresh="drop_data"))
    assert rows_in(loads.database) == truth(loads.emulator, loads.emulator.workflow_id)


async def test_key_is_not_stored(loads: Loads, caplog: pytest.LogCaptureFixture) -> None:
    """The API key is not in a file of dlt, the database, the log or an error."""
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
        assert key not in repr(query(loads.database, f"SELECT * FROM {schema}.{table}"))  # noqa: S608 (names from the database)
    assert key not in caplog.text + repr(caught.value) + str(caught.value)


async def test_unusual_values_are_loaded(loads: Loads) -> None:
    """Any string, numbers of any size, and the earliest and the latest datetime can be loaded."""
    odd: list[dict[str, Any]] = [
        {"id": "\ud83d", "status": "\0", "output": {"\udc00": "\ud83d", "": [1e300, 10**40, None], "n\0": "\0"}},
        {"id": "'; DROP TABLE runs; --", "createdAt": "0001-01-01T00:00:00Z", "credits": -(2**63)},
        {"id": "WRUN-far", "createdAt": "9999-12-31T23:59:59.999999Z", "credits": 10**30, "error": "\ud83d"},
        {"id": "x" * 10_000, "createdAt": "yesterday", "credits": "many", "input": 7, "metadata": [], "error": []},
        {"id": "WRUN-deep", "output": {"deep": json.loads("[" * 200 + "]" * 200)}, "error": {"a": {"b": "🎈"}}},
    ]
    loads.emulator.replace_runs([*odd, *[run_at_hour(number) for number in range(150, 0, -1)]])
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
    ("arguments", "message"),
    [
        ({"workflow_ids": []}, "must contain at least one id"),
        ({"workflow_ids": ["WCFG-1"], "look_back": -DAY}, "look_back must be a timedelta of 0 or more, such as"),
        ({"workflow_ids": ["WCFG-1"], "open_for": -DAY}, "open_for must be a timedelta of 0 or more, such as"),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], message: str) -> None:
    """An invalid argument raises ValueError before anything is sent."""
    with pytest.raises(ValueError, match=message):
        copyai_source(**arguments)


@pytest.mark.parametrize("name", ["look_back", "open_for"])
def test_absurd_times(name: str) -> None:
    """An absurd duration raises a ValueError that names the parameter."""
    for value in INVALID_SPANS.values():
        with pytest.raises(ValueError, match=rf"^{name} must ") as caught:
            copyai_source(["WCFG-1"], **{name: value})

        assert problem_of(caught.value) == ""


def test_single_id_as_string() -> None:
    """A string is accepted as one workflow id."""
    assert list(copyai_source("WCFG-1").resources) == ["runs", "runs_WCFG-1"]


async def test_several_workflows_are_read_at_the_same_time(loads: Loads) -> None:
    """Eight lists are requested before the first response."""
    emulator = loads.emulator
    ids = [f"WCFG-{number}" for number in range(20)]
    for workflow_id in ids:
        emulator.replace_runs([run_at_hour(1)], workflow_id=workflow_id)
    emulator.latency = 3600
    load = asyncio.ensure_future(loads.load(loads.source(*ids)))
    async with asyncio.timeout(30):
        while len(emulator.requests) < 8:
            await asyncio.sleep(0.005)
    await emulator.stop()
    with pytest.raises(PipelineStepFailed):
        await load

    assert sorted(request.path.split("/")[3] for request in emulator.requests) == sorted(ids[:8])


@pytest.mark.parametrize("failing", [None, "WCFG-12"])
async def test_workflows_are_loaded_in_order(loads: Loads, failing: str | None) -> None:
    """Pages and errors are in the order of the workflows, although several are read at the same time."""
    ids = [f"WCFG-{number}" for number in range(20)]
    if failing:
        loads.emulator.inject(Fault(status=403), path=failing)
    for number, workflow_id in enumerate(ids):
        loads.emulator.replace_runs([run_at_hour(1)], workflow_id=workflow_id)
        loads.emulator.inject(Fault(delay=0.02 if number % 2 else 0.0), path=workflow_id)
    source, order = loads.source(*ids), list[str]()

    def record_order(batch: pa.RecordBatch) -> pa.RecordBatch:
        order.extend(batch.column("workflow_id").to_pylist())
        return batch

    source.resources["runs"].add_map(record_order)
    with pytest.raises(PipelineStepFailed) if failing else nullcontext():
        await loads.load(source)

    assert order == ids[: ids.index(failing) if failing else None]


async def test_workflows_share_the_rate_limit(loads: Loads) -> None:
    """All workflows together send at most `max_rate` requests per second."""
    emulator, rate = loads.emulator, 100
    ids = [f"WCFG-{number}" for number in range(20)]
    for workflow_id in ids:
        emulator.replace_runs([run_at_hour(1)], workflow_id=workflow_id)
    times: list[float] = []
    emulator.on_request = lambda *_: times.append(time.monotonic())

    def make_session() -> CopyAISession:
        times.append(time.monotonic())
        return CopyAISession(emulator.api_key, base_url=emulator.url, max_rate=rate)

    await loads.load(copyai_source(ids, session=make_session))

    assert times[-1] - times[0] >= (len(emulator.requests) - 1) / rate
