"""Tests of `run_batch`: every row has one run and one result, even after crashes."""

# ruff: noqa: ASYNC240 (a test's own files are small, and nothing else waits)
from __future__ import annotations

import asyncio
import json
import re
import resource
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiocopyai import (
    JSON,
    AmbiguousStartError,
    AuthenticationError,
    CopyAISession,
    CreditLimitReachedError,
    RetryPolicy,
    RunResult,
)
from aiocopyai.batch import BatchError, BatchResults, run_batch
from aiocopyai.emulator import Emulator, Fault, Quirks, Request, Script
from aiocopyai.export import read_export
from tests.support.commands import PATIENCE
from tests.support.exporting import change
from tests.support.raw_api import wait_until


WORKFLOW_ID = "WCFG-6db59f06-2f6c-4d3e-9a51-7c0b8e4d1f27"
AT_ONCE = RetryPolicy(wait_initial=0, wait_max=0)
ROWS: list[dict[str, JSON]] = [{"n": number, "text": f'"{number}", ü'} for number in range(6)]
QUIRKS = [
    Quirks(),
    Quirks(lists_metadata=False),
    Quirks(sparse=True, lists_metadata=False),
    Quirks(late_runs=0.1),
]


@pytest.fixture(name="emulator")
def _emulator(copyai_emulator: Emulator) -> Emulator:
    return copyai_emulator


def connect(emulator: Emulator) -> CopyAISession:
    return CopyAISession(emulator.api_key, base_url=emulator.url, retry=AT_ONCE)


def start(
    session: CopyAISession, path: Path, rows: Sequence[Mapping[str, JSON]] = ROWS, **options: object
) -> BatchResults:
    """Make a batch that polls and searches fast."""
    fast = {"max_poll_interval": 0.01, "listing_delay": 0.05, **options}
    return run_batch(session, WORKFLOW_ID, rows, path, **fast)  # type: ignore[arg-type]  # the values are of any type


async def collect(batch: BatchResults) -> list[RunResult]:
    return [result async for result in batch]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def started(emulator: Emulator) -> Counter[str]:
    """Count the runs by their inputs."""
    return Counter(json.dumps(run["input"], sort_keys=True) for run in emulator.runs())


def finish_runs(emulator: Emulator, count: int = len(ROWS)) -> None:
    """Complete the runs that were started first."""
    for run in list(reversed(emulator.runs()))[:count]:
        change(emulator, str(run["id"]), status="COMPLETE", output={"Fit": "good"})


async def crash(emulator: Emulator, batch: BatchResults, requests: int) -> bool:
    """Iterate until the emulator receives a request, and leave the files in their state after a crash.

    Returns:
        Whether it crashed; False if the batch ended before.
    """
    folder = batch.path.parent
    saved = folder.with_name(f"{folder.name}-saved")
    task = asyncio.create_task(collect(batch))
    left = requests

    def count(_emulator: Emulator, _request: Request) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            shutil.copytree(folder, saved)
            task.cancel()

    emulator.on_request = count
    with suppress(asyncio.CancelledError):
        await task
    emulator.on_request = None
    if not saved.exists():
        return False
    shutil.rmtree(folder)  # written by the orderly end after the crash
    saved.rename(folder)
    return True


async def test_each_row_is_one_run_and_one_line(emulator: Emulator, session: CopyAISession, tmp_path: Path) -> None:
    """Every row has a result and a line, and no other file remains."""
    path = tmp_path / "results.jsonl"
    batch = start(session, path, metadata={"batch": 7}, concurrency=2)
    results = await collect(batch)

    assert started(emulator) == Counter(json.dumps(row) for row in ROWS)
    assert {result.index: result.inputs for result in results} == dict(enumerate(ROWS))
    assert all(result.ok and result.run is not None and result.run.status == "COMPLETE" for result in results)
    assert {line["row"]: line["input"] for line in lines(path)} == dict(enumerate(ROWS, start=1))
    assert {(line["status"], line["problem"], line["unconfirmed"]) for line in lines(path)} == {
        ("COMPLETE", None, False)
    }
    assert {run.id for run in read_export(path)} == {run["id"] for run in emulator.runs()}
    assert all(run.metadata["batch"] == 7 for run in read_export(path))
    assert [found.name for found in tmp_path.iterdir()] == ["results.jsonl"]
    assert (batch.total, batch.finished, batch.failed, batch.in_progress) == (6, 6, 0, ())


async def test_results_have_the_keys_of_their_starts(
    emulator: Emulator, session: CopyAISession, tmp_path: Path
) -> None:
    """A result has the key in its run's metadata, and is reused only if an earlier process started the run."""
    path = tmp_path / "results.jsonl"
    only_started = await collect(start(session, path, wait=False, limit=2))
    results = await collect(start(session, path, resume=True))

    keys = {run["id"]: run["metadata"]["idempotencyKey"] for run in emulator.runs()}
    for result in (*only_started, *results):
        assert result.idempotency_key == keys[result.unwrap().id]
    assert {result.reused for result in only_started} == {False}
    assert {result.index: result.reused for result in results} == {index: index < 2 for index in range(6)}


async def test_a_finished_batch_is_not_started_again(
    emulator: Emulator, session: CopyAISession, tmp_path: Path
) -> None:
    """With `resume`, a finished batch sends nothing. Without it, or with other rows, BatchError is raised."""
    path = tmp_path / "results.jsonl"
    emulator.script_next_runs(Script(states=("FAILED",)))
    await collect(start(session, path))
    emulator.requests.clear()
    resumed = start(session, path, resume=True)

    assert await collect(resumed) == []
    assert (resumed.finished, resumed.failed, emulator.requests) == (6, 1, [])
    with pytest.raises(
        BatchError, match=r"results\.jsonl already exists: pass resume=True to continue, or another path"
    ):
        await collect(start(session, path))
    with pytest.raises(BatchError, match="contains the results of other rows"):
        await collect(start(session, path, ROWS[:-1], resume=True))


@settings(max_examples=20)
@given(data=st.data())
def test_a_crash_at_any_request_starts_no_second_run(data: st.DataObject) -> None:
    """Each row has one run and one line after any number of crashes, even if lists omit fields."""
    quirks = data.draw(st.sampled_from(QUIRKS))
    crashes = data.draw(st.lists(st.integers(1, 25), max_size=4))
    wait = data.draw(st.booleans())
    limit = data.draw(st.none() | st.integers(1, 4))

    async def check(folder: Path) -> None:
        folder.mkdir()
        path = folder / "results.jsonl"
        async with Emulator(quirks=quirks, run_time=0.02) as emulator:
            options = {"resume": True, "wait": wait, "concurrency": 3, "listing_delay": 0.15}
            for requests in crashes:
                # Each process has its own session: a session remembers the starts that were interrupted.
                async with connect(emulator) as session:
                    await crash(emulator, start(session, path, limit=limit, **options), requests)
            async with connect(emulator) as session:
                await collect(start(session, path, **options))

            assert started(emulator) == Counter(json.dumps(row) for row in ROWS)
            assert sorted(str(line["row"]) for line in lines(path)) == ["1", "2", "3", "4", "5", "6"]
            assert {line["id"] for line in lines(path)} == {run["id"] for run in emulator.runs()}
            assert [found.name for found in folder.iterdir()] == ["results.jsonl"]

    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(check(Path(temporary, "batch")))


async def test_a_run_that_is_listed_late_is_found(emulator: Emulator, tmp_path: Path) -> None:
    """A run that the list does not show yet is searched for again before its row is started."""
    path = tmp_path / "batch" / "results.jsonl"
    path.parent.mkdir()
    emulator.quirks = Quirks(late_runs=0.2)
    async with connect(emulator) as session:
        assert await crash(emulator, start(session, path, ROWS[:1]), 1)
    async with connect(emulator) as session:
        [result] = await collect(start(session, path, ROWS[:1], resume=True, listing_delay=0.3))

    assert result.ok
    assert len(emulator.runs()) == 1


async def test_leaving_the_loop_keeps_started_runs(emulator: Emulator, session: CopyAISession, tmp_path: Path) -> None:
    """After `async with`, the files are closed. The next call waits for the runs in progress without a search."""
    path = tmp_path / "results.jsonl"
    emulator.run_time = 3600
    async with start(session, path, concurrency=3) as batch:
        first = asyncio.create_task(anext(batch))
        await wait_until(lambda: len(batch.in_progress) == 3)
        finish_runs(emulator, count=1)
        assert (await first).ok
    in_progress = len(batch.in_progress)
    finish_runs(emulator)
    emulator.run_time = 0
    emulator.requests.clear()
    await collect(start(session, path, resume=True))

    assert in_progress == 2
    assert [request for request in emulator.requests if request.page is not None] == []
    assert started(emulator) == Counter(json.dumps(row) for row in ROWS)


async def test_a_run_is_recorded_before_it_is_waited_for(emulator: Emulator, tmp_path: Path) -> None:
    """After a crash during the wait, runs are read by their ids, although no list shows which run a row has."""
    path = tmp_path / "batch" / "results.jsonl"
    path.parent.mkdir()
    emulator.quirks = Quirks(sparse=True, lists_metadata=False)
    emulator.run_time = 3600
    rows = [ROWS[0]] * 3
    async with connect(emulator) as session:
        assert await crash(emulator, start(session, path, rows, concurrency=3), 30)
    ids = {run["id"] for run in emulator.runs()}
    finish_runs(emulator)
    emulator.requests.clear()
    async with connect(emulator) as session:
        results = await collect(start(session, path, rows, resume=True))

    assert len(ids) == 3
    assert {result.unwrap().id for result in results} == ids
    assert Counter(request.method for request in emulator.requests) == {"GET": 3}
    assert [request for request in emulator.requests if request.page is not None] == []


async def test_a_run_whose_id_cannot_be_recorded_is_logged(
    emulator: Emulator, session: CopyAISession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If the disk is full after a start, the log has the run's id, and no more rows are started."""
    path = tmp_path / "results.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    emulator.on_request = lambda _emulator, _request: resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match=r"results\.jsonl\.ledger"):
            await collect(start(session, path, concurrency=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    emulator.on_request = None
    [run] = emulator.runs()
    await collect(start(session, path, resume=True))

    assert f"row 1: run {run['id']} was started, but its id cannot be written" in caplog.text
    assert started(emulator) == Counter(json.dumps(row) for row in ROWS)


@pytest.mark.parametrize("removed", ["results.jsonl", "."])
async def test_results_that_disappear_stop_the_batch(
    emulator: Emulator, session: CopyAISession, tmp_path: Path, removed: str
) -> None:
    """If the results or their folder are moved, no row is started. When they are back, the batch can be resumed."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "results.jsonl"
    batch = start(session, path, concurrency=1)
    assert (await anext(batch)).ok
    (folder / removed).resolve().rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"moved, replaced or deleted; restore it: .*results"):
        await collect(batch)
    assert len(emulator.runs()) == 1
    (tmp_path / "moved").rename((folder / removed).resolve())
    await collect(start(session, path, resume=True))

    assert started(emulator) == Counter(json.dumps(row) for row in ROWS)
    assert {line["id"] for line in lines(path)} == {run["id"] for run in emulator.runs()}


async def test_a_full_disk_is_reported_with_the_file(
    emulator: Emulator, session: CopyAISession, tmp_path: Path
) -> None:
    """If a result cannot be written, the error has the path of the results."""
    path = tmp_path / "results.jsonl"
    emulator.script_next_runs(Script(output={"Fit": "x" * 20_000}))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"results\.jsonl'$"):
            await collect(start(session, path, concurrency=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert path.read_bytes() == b""
    assert started(emulator).total() == 1


async def test_a_batch_that_is_dropped_closes_its_files(
    emulator: Emulator, session: CopyAISession, tmp_path: Path
) -> None:
    """After `break` without `async with` the event loop closes the ledger, and the batch can be resumed."""
    path = tmp_path / "results.jsonl"
    async for result in start(session, path, concurrency=2):
        assert result.ok
        break
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await collect(start(session, path, resume=True))
            except OSError:  # still locked
                await asyncio.sleep(0.001)
            else:
                break

    assert started(emulator) == Counter(json.dumps(row) for row in ROWS)
    assert [found.name for found in tmp_path.iterdir()] == ["results.jsonl"]


async def test_unconfirmed_rows_are_logged_by_their_keys(
    emulator: Emulator, session: CopyAISession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cancelled batch logs the keys of the rows that may have been started. Each key ends with the row number."""
    path = tmp_path / "results.jsonl"
    await collect(start(session, path, limit=4))
    emulator.inject(Fault(delay=60), method="POST", times=None)
    batch = start(session, path, resume=True)
    waiting = asyncio.ensure_future(anext(batch))
    await wait_until(lambda: len(emulator.runs()) == len(ROWS))
    waiting.cancel()
    await asyncio.wait([waiting])

    assert re.search(r"may have been started: [0-9a-f-]{36}-5, [0-9a-f-]{36}-6$", caplog.text, re.MULTILINE)


async def test_a_cancelled_step_ends_the_iteration(emulator: Emulator, session: CopyAISession, tmp_path: Path) -> None:
    """A time-out of one step ends the iteration and closes the files, so that the batch can be resumed."""
    path = tmp_path / "results.jsonl"
    emulator.run_time = 3600
    batch = start(session, path, concurrency=6)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(batch), 0.15)
    with pytest.raises(StopAsyncIteration):
        await anext(batch)
    finish_runs(emulator)
    emulator.run_time = 0
    await collect(start(session, path, resume=True))

    assert started(emulator) == Counter(json.dumps(row) for row in ROWS)


async def test_results_are_yielded_as_resumed_runs_end(
    emulator: Emulator, session: CopyAISession, tmp_path: Path
) -> None:
    """The results of an earlier process's runs are yielded while another of its runs is in progress."""
    path = tmp_path / "batch" / "results.jsonl"
    path.parent.mkdir()
    emulator.run_time = 3600
    assert await crash(emulator, start(session, path, concurrency=6), 10)
    finish_runs(emulator, count=5)
    async with start(session, path, resume=True) as batch, asyncio.timeout(PATIENCE):
        finished = [(await anext(batch)).ok for _ in range(5)]
        in_progress = len(batch.in_progress)
        finish_runs(emulator)
        finished += [result.ok async for result in batch]

    assert finished == [True] * 6
    assert in_progress == 1


async def test_lost_responses_start_no_second_run(emulator: Emulator, session: CopyAISession, tmp_path: Path) -> None:
    """The run of a start whose response was lost is found by the same process."""
    emulator.inject(Fault(reset="after"), method="POST", times=3)
    results = await collect(start(session, tmp_path / "results.jsonl"))

    assert all(result.ok for result in results)
    assert started(emulator) == Counter(json.dumps(row) for row in ROWS)


async def test_an_unconfirmed_start_is_not_sent_again(
    emulator: Emulator, session: CopyAISession, tmp_path: Path
) -> None:
    """If the search for a run fails, its row is unconfirmed, and the resumed batch finds the run."""
    path = tmp_path / "results.jsonl"
    emulator.inject(Fault(reset="after"), method="POST")
    emulator.inject(Fault(status=403), method="GET")
    [unconfirmed] = await collect(start(session, path, ROWS[:1], wait=False))
    [line] = lines(path)
    [found] = await collect(start(session, path, ROWS[:1], wait=False, resume=True))

    assert isinstance(unconfirmed.error, AmbiguousStartError)
    assert (line["id"], line["unconfirmed"]) == (None, True)
    assert found.run is not None
    assert [found.run.id] == [run["id"] for run in emulator.runs()]


async def test_used_up_credits_stop_the_batch(emulator: Emulator, session: CopyAISession, tmp_path: Path) -> None:
    """When the credits are used up, no more rows are started. A resumed batch with new credits starts the rest."""
    path = tmp_path / "results.jsonl"
    emulator.credits = 9
    stopped = start(session, path, concurrency=2)
    await collect(stopped)
    emulator.credits = None
    resumed = start(session, path, resume=True)
    await collect(resumed)

    assert isinstance(stopped.stopped_by, CreditLimitReachedError)
    assert (stopped.finished, resumed.finished, resumed.stopped_by) == (3, 6, None)
    assert started(emulator) == Counter(json.dumps(row) for row in ROWS)
    assert sorted(str(line["row"]) for line in lines(path)) == ["1", "2", "3", "4", "5", "6"]


async def test_a_row_that_fails_is_a_result(emulator: Emulator, session: CopyAISession, tmp_path: Path) -> None:
    """A row whose run failed is finished. A row whose start was rejected is started when the batch is resumed."""
    path = tmp_path / "results.jsonl"
    emulator.script_next_runs(Script(states=("NEW", "FAILED"), error={"message": "no such site"}))
    emulator.inject(Fault(status=422), method="POST")
    first = await collect(start(session, path, ROWS[:3], concurrency=1))
    again = await collect(start(session, path, ROWS[:3], resume=True))

    assert sorted(type(result.error).__name__ for result in first) == [
        "NoneType",
        "RequestInvalidError",
        "RunFailedError",
    ]
    assert [(result.index, result.ok) for result in again] == [(0, True)]
    assert [line["problem"] is None for line in lines(path)].count(True) == 2


async def test_limit_leaves_rows_for_later(emulator: Emulator, session: CopyAISession, tmp_path: Path) -> None:
    """`limit` rows are started, a resumed batch starts the rest, and `pending` returns their indexes."""
    path = tmp_path / "results.jsonl"
    first = start(session, path, limit=2)
    assert first.pending() == [0, 1]
    assert not path.exists()
    await collect(first)
    rest = start(session, path, resume=True)
    pending = rest.pending()
    await collect(rest)

    assert (first.finished, first.postponed) == (2, 4)
    assert (pending, rest.finished, rest.postponed) == ([2, 3, 4, 5], 6, 0)
    assert start(session, path, resume=True).pending() == []
    assert started(emulator) == Counter(json.dumps(row) for row in ROWS)


@pytest.fixture(name="half_done")
async def _half_done(emulator: Emulator, session: CopyAISession, tmp_path: Path) -> Path:
    """The results of a batch that has two rows left."""
    path = tmp_path / "results.jsonl"
    await collect(start(session, path, limit=4))
    emulator.requests.clear()
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda _content: b"",
        lambda content: content[:1],
        lambda content: content[:100],
        lambda content: content[:4096],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: bytes(len(content)),
        lambda content: content.replace(b"SQLite format 3", b"not a database!"),
        lambda content: content[:4096] + bytes(len(content) - 4096),
        lambda content: content.replace(b"complete", b"hardly a"),
        lambda _content: b"{}\n",
    ],
)
async def test_a_damaged_ledger_starts_nothing(
    emulator: Emulator, session: CopyAISession, half_done: Path, damage: Callable[[bytes], bytes]
) -> None:
    """An empty, truncated or overwritten ledger is an error that names every file; nothing is sent or changed."""
    ledger = half_done.with_name("results.jsonl.ledger")
    ledger.write_bytes(damage(ledger.read_bytes()))
    before = {path.name: path.read_bytes() for path in half_done.parent.iterdir()}
    batch = start(session, half_done, resume=True)

    with pytest.raises(
        BatchError, match=r"results\.jsonl\.ledger \(and results\.jsonl\.ledger-journal, if it existed\)"
    ):
        batch.pending()
    with pytest.raises(BatchError, match=r"nothing was started"):
        await collect(batch)
    assert emulator.requests == []
    assert {path.name: path.read_bytes() for path in half_done.parent.iterdir()} == before


async def test_an_older_copy_of_the_ledger_starts_nothing(
    emulator: Emulator, session: CopyAISession, tmp_path: Path
) -> None:
    """A ledger without a row that has a result raises BatchError, and nothing is sent."""
    path = tmp_path / "results.jsonl"
    ledger = tmp_path / "results.jsonl.ledger"
    await collect(start(session, path, limit=1))
    old = ledger.read_bytes()
    await collect(start(session, path, limit=2, resume=True))
    ledger.write_bytes(old)
    emulator.requests.clear()

    with pytest.raises(BatchError, match=r"has no entry for row \d, which has a result"):
        await collect(start(session, path, resume=True))
    assert emulator.requests == []


@pytest.mark.parametrize(
    "content",
    ["", "{}\n", "[1]\n", '{"row": "1", "id": "1", "status": "COMPLETE", "problem": null}\n', "[" * 9999 + "\n"],
)
async def test_another_file_is_rejected_as_results(
    emulator: Emulator, session: CopyAISession, tmp_path: Path, content: str
) -> None:
    """A file of results without a ledger and without these rows raises BatchError, and is not changed."""
    path = tmp_path / "results.jsonl"
    path.write_text(content, "utf-8")

    with pytest.raises(BatchError, match=r"results\.jsonl"):
        await collect(start(session, path, resume=True))
    assert emulator.requests == []
    assert path.read_text("utf-8") == content


@pytest.mark.parametrize("count", [0, 2])
async def test_results_without_their_ledger_start_nothing(
    emulator: Emulator, session: CopyAISession, half_done: Path, count: int
) -> None:
    """If only the ledger is deleted, nothing is sent, and the error warns that rows without a result may have a run."""
    half_done.write_bytes(b"".join(half_done.read_bytes().splitlines(keepends=True)[:count]))
    half_done.with_name("results.jsonl.ledger").unlink()

    message = (
        rf"no ledger, and contains the results of {count} of 6 rows; other rows may have been started: "
        r"restore results\.jsonl\.ledger, or list the runs .* pass only the rows that have no run, and another path"
    )
    with pytest.raises(BatchError, match=message):
        await collect(start(session, half_done, resume=True))
    assert emulator.requests == []


async def test_a_read_only_ledger_is_reported_with_its_path(
    emulator: Emulator, session: CopyAISession, half_done: Path
) -> None:
    """A read-only ledger raises an OSError with its path and what to check, and nothing is sent."""
    ledger = half_done.with_name("results.jsonl.ledger")
    content = bytearray(ledger.read_bytes())
    content[18] = 3  # a later version of the format; permissions do not apply to root
    ledger.write_bytes(content)

    message = r"results\.jsonl\.ledger cannot be used \(.* readonly .*\): check the permissions of the file"
    with pytest.raises(OSError, match=message):
        await collect(start(session, half_done, resume=True))
    assert emulator.requests == []


async def test_missing_results_start_nothing(emulator: Emulator, session: CopyAISession, half_done: Path) -> None:
    """A missing file of results raises BatchError. A missing line is written again from its run."""
    saved = half_done.read_bytes()
    half_done.unlink()
    with pytest.raises(BatchError, match=r"delete results\.jsonl\.ledger and results\.jsonl\.ledger-journal to start"):
        await collect(start(session, half_done, resume=True))
    assert emulator.requests == []
    half_done.write_bytes(b"".join(saved.splitlines(keepends=True)[1:]) + b'{"row": 7, "output": "\xc3')
    await collect(start(session, half_done, resume=True))

    assert {line["id"] for line in lines(half_done)} == {run["id"] for run in emulator.runs()}
    assert len(lines(half_done)) == started(emulator).total() == 6


async def test_other_rows_are_rejected(emulator: Emulator, session: CopyAISession, half_done: Path) -> None:
    """Other rows, other metadata or another workflow raises BatchError, and nothing is sent."""
    batches = [
        start(session, half_done, ROWS[::-1], resume=True),
        start(session, half_done, metadata={"batch": 7}, resume=True),
        run_batch(session, "WCFG-1", ROWS, half_done, resume=True),
    ]
    for batch in batches:
        with pytest.raises(BatchError, match="was started with another workflow, other rows or other metadata"):
            await collect(batch)
    assert emulator.requests == []


async def test_a_batch_in_use_is_an_error(emulator: Emulator, session: CopyAISession, tmp_path: Path) -> None:
    """While a batch is iterated, another batch with the same files raises OSError."""
    path = tmp_path / "results.jsonl"
    emulator.run_time = 60
    async with start(session, path, concurrency=1) as batch:
        waiting = asyncio.create_task(anext(batch))
        await wait_until(lambda: bool(emulator.runs()))
        with pytest.raises(OSError, match=r"results\.jsonl\.ledger is in use by another process"):
            await collect(start(session, path, resume=True))
        waiting.cancel()
        await asyncio.wait([waiting])
    assert started(emulator).total() == 1


async def test_a_rejected_key_stops_the_batch(emulator: Emulator, tmp_path: Path) -> None:
    """A rejected key stops the batch, and no line is written for its rows."""
    path = tmp_path / "results.jsonl"
    async with CopyAISession("wrong-key", base_url=emulator.url, retry=AT_ONCE) as session:
        batch = start(session, path)
        await collect(batch)

    assert isinstance(batch.stopped_by, AuthenticationError)
    assert (batch.finished, lines(path)) == (0, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": {"n": 1}}, "rows must be an iterable of mappings"),
        ({"rows": [{"n": 1}, 2]}, "row 2 must be a mapping"),
        ({"rows": [{"n": object()}]}, "row 1"),
        ({"concurrency": 0}, "concurrency must be"),
        ({"limit": -1}, "limit must be at least 0, got -1"),
        ({"listing_delay": -1}, "listing_delay must be"),
        ({"timeout": 0}, "timeout must be"),
        ({"metadata": {"idempotencyKey": "a"}}, "idempotencyKey"),
    ],
)
async def test_invalid_arguments(
    session: CopyAISession, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    """An invalid argument or row raises ValueError at the call, and no file is created."""
    with pytest.raises(ValueError, match=message):
        start(session, tmp_path / "results.jsonl", **options)  # type: ignore[arg-type]  # invalid on purpose
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["results.csv", "missing/results.jsonl", "folder.jsonl"])
async def test_invalid_path(emulator: Emulator, session: CopyAISession, tmp_path: Path, name: str) -> None:
    """A path with another suffix, in a missing folder, or of a folder raises BatchError, and nothing is sent."""
    (tmp_path / "folder.jsonl").mkdir()

    with pytest.raises(BatchError, match=name.replace(".", r"\.") + "|must end in"):
        await collect(start(session, tmp_path / name))
    assert emulator.requests == []


async def test_pending_during_an_iteration(emulator: Emulator, session: CopyAISession, tmp_path: Path) -> None:
    """`pending` raises OSError while the batch is iterated, and does not reset the number of finished rows."""
    emulator.run_time = 0
    async with start(session, tmp_path / "results.jsonl", resume=True, concurrency=1) as batch:
        await anext(batch)
        with pytest.raises(OSError, match="is in use by another process"):
            batch.pending()
        assert batch.finished == 1
