"""Tests of ``aiocopyai start`` with the emulator: its options, its output, and one run per row."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random

import pytest

from aiocopyai import JSON
from aiocopyai.batch import run_batch
from aiocopyai.emulator import Emulator, Fault, Quirks, Request, Script
from tests.support.commands import (
    LONG_PATIENCE,
    MAIN,
    START,
    Done,
    await_event,
    cli,
    environment,
    finish,
    start,
    terminal,
)
from tests.support.exporting import change


KILLS = 12
LISTING_DELAY = 0.4
HASTY = f"""
import functools, aiocopyai.batch as batch, aiocopyai.cli as cli
batch.run_batch = functools.partial(batch.run_batch, listing_delay={LISTING_DELAY})
cli.main()
"""
"""The command, with a shorter wait for runs that are listed late."""


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the command in this process wait less for runs that are listed late."""
    monkeypatch.setattr("aiocopyai.batch.run_batch", partial(run_batch, listing_delay=LISTING_DELAY))


def write(name: str, content: str | bytes) -> None:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def folder() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def write_rows(count: int) -> None:
    write("rows.csv", "n,text\n" + "".join(f'{n},"a ""b"", c"\n' for n in range(count)))


def lines(name: str = "results.jsonl") -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(name).read_text("utf-8").split("\n")[:-1]]


def unwrapped(text: str) -> str:
    """Return a message without its box."""
    return " ".join(text.replace("│", " ").split())


def inputs_of(emulator: Emulator) -> Counter[str]:
    """Count the runs by their inputs."""
    return Counter(json.dumps(run["input"], sort_keys=True) for run in emulator.runs())


async def batch(emulator: Emulator, *options: str) -> Done:
    """Start the rows of rows.csv, with the results in a file."""
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "-o", "results.jsonl", *options)
    return await cli(*arguments, emulator=emulator)


async def test_one_run(emulator: Emulator) -> None:
    """Inputs and metadata are sent unchanged, and the run is printed at once as one line of JSON."""
    emulator.run_time = 3600
    arguments = ("-i", "Input 1=a=b", "-i", "Ω=", "-m", "batch=7")
    done = await cli("start", emulator.workflow_id, *arguments, emulator=emulator)
    [run] = emulator.runs()
    [shown] = done.rows

    assert (done.code, done.err) == (0, "1 run started\n")
    assert run["input"] == {"Input 1": "a=b", "Ω": ""}
    assert isinstance(run["metadata"], dict)
    assert run["metadata"]["batch"] == "7"
    assert (shown["id"], shown["row"], shown["problem"], shown["unconfirmed"]) == (run["id"], 1, None, False)


async def test_wait(emulator: Emulator) -> None:
    """With `--wait`, the run is printed with its outputs."""
    emulator.script_next_runs(Script(output={"Fit": "good"}, credits=5))
    done = await cli("start", emulator.workflow_id, "--no-input", "--wait", emulator=emulator)

    assert (done.code, done.err) == (0, "1 run: 1 COMPLETE; 5 credits\n")
    assert done.rows[0]["output"] == {"Fit": "good"}


async def test_one_run_on_a_terminal(emulator: Emulator) -> None:
    """A single run is printed on a terminal as indented JSON, and is not truncated."""
    emulator.script_next_runs(Script(output={"Fit": "good " * 100}))
    code, shown = await terminal(
        "start", emulator.workflow_id, "--no-input", "--wait", width=80, env=environment(emulator)
    )

    assert code == 0
    assert '\n  "output": {\n    "Fit": "' + "good " * 100 in shown


async def test_failed_run(emulator: Emulator) -> None:
    """A failed run is printed like any other run, standard error has the reason, and the exit code is 1."""
    emulator.script_next_runs(Script(states=("NEW", "FAILED"), error={"message": "no such site"}))
    done = await cli("start", emulator.workflow_id, "--no-input", "--wait", emulator=emulator)

    assert done.code == 1
    assert done.rows[0]["status"] == "FAILED"
    assert re.match(r"row 1: .*no such site.*\n1 run: 1 FAILED; ", done.err)
    assert "Traceback" not in done.err


async def test_csv_file(emulator: Emulator) -> None:
    """Each row of a CSV file starts a run with the inputs of the row and of `-i`. Each result has its row number."""
    write_rows(25)
    arguments = ("--input-file", "rows.csv", "-i", "Tone=Formal", "--wait", "--concurrency", "4")
    done = await cli("start", emulator.workflow_id, *arguments, emulator=emulator)
    wanted = [{"Tone": "Formal", "n": str(n), "text": 'a "b", c'} for n in range(25)]

    assert done.code == 0
    assert inputs_of(emulator) == Counter(json.dumps(inputs) for inputs in wanted)
    assert {row["row"]: row["input"] for row in done.rows} == dict(enumerate(wanted, start=1))
    assert {row["status"] for row in done.rows} == {"COMPLETE"}


async def test_tab_as_delimiter() -> None:
    r"""`--delimiter '\t'` selects tabs."""
    write("rows.csv", "a,b\tc\n1\t2\n")
    done = await cli("start", "WCFG-1", "--input-file", "rows.csv", "--delimiter", r"\t", "--dry-run")

    assert done.rows == [{"row": 1, "input": {"a,b": "1", "c": "2"}}]


async def test_json_lines_file(emulator: Emulator) -> None:
    """The rows of a JSON lines file may have any JSON values."""
    rows = [{"a": [1, None, {"b": "ü"}]}, {"a": 1.5}]
    write("rows.jsonl", "\n\n".join(map(json.dumps, rows)))
    done = await cli("start", emulator.workflow_id, "--input-file", "rows.jsonl", emulator=emulator)

    assert done.code == 0
    assert inputs_of(emulator) == Counter(json.dumps(row, sort_keys=True) for row in rows)


async def test_table_on_a_terminal(emulator: Emulator) -> None:
    """The runs of a file are printed as a table on a terminal."""
    write_rows(3)
    env = environment(emulator, NO_COLOR="1")
    code, shown = await terminal("start", emulator.workflow_id, "--input-file", "rows.csv", "--wait", env=env)

    assert code == 0
    assert shown.count("COMPLETE   ") == 3
    assert shown.startswith("CREATED ")


async def test_output_file(emulator: Emulator) -> None:
    """With `-o`, the file has one line per row, and no other file is left. A second command starts nothing."""
    write_rows(9)
    done = await batch(emulator, "--wait")
    again = await batch(emulator, "--wait")
    resumed = await batch(emulator, "--wait", "--resume")

    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("; 9 rows in results.jsonl\n")
    assert sorted(line["row"] for line in lines()) == list(range(1, 10))
    assert folder() == ["results.jsonl", "rows.csv"]
    assert again.code == 2
    assert "results.jsonl already exists: pass --resume to continue, or another file with -o" in unwrapped(again.err)
    assert resumed == (0, "", "results.jsonl is already complete\n")
    assert len(emulator.runs()) == 9


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "a,b\n1,2\n3\n", "rows.csv, line 3: 1 cell for 2 columns"),
        (
            "rows.csv",
            "Company;Price, EUR\nA;2\n",
            "separated by commas or semicolons; pass the correct one with --delimiter",
        ),
        ("rows.csv", "a\n", "rows.csv has no rows"),
        ("rows.jsonl", '{"a": 1}\n[1]\n', "rows.jsonl, line 2: must be a JSON object"),
        ("rows.xlsx", "a", "got rows.xlsx"),
    ],
)
async def test_invalid_file(emulator: Emulator, name: str, content: str, message: str) -> None:
    """An invalid file ends the command with exit code 2 and a message that names the line, and no run is started."""
    write(name, content)
    arguments = ("--input-file", name, "-o", "results.jsonl")
    done = await cli("start", emulator.workflow_id, *arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert message in done.err
    assert folder() == [name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass either a WORKFLOW_ID or --demo"),
        (["WCFG-1", "--demo"], "pass either a WORKFLOW_ID or --demo"),
        (["WCFG-1"], "or --no-input for a workflow without inputs"),
        (["WCFG-1", "-i", "a=b", "--no-input"], "or --no-input for a workflow without inputs"),
        (["WCFG-1", "-i", "Input"], "--input must be KEY=VALUE"),
        (["WCFG-1", "-i", "a=b", "--metadata", "=7"], "--metadata must be KEY=VALUE"),
        (["WCFG-1", "-i", "a=b", "--metadata", "idempotencyKey=7"], "which differs per row: the command makes a key"),
        (["WCFG-1", "-i", "a=b", "-i", "a=c"], "--input has two values for 'a'"),
        (["WCFG-1", "-i", "a=b", "-m", "a=c", "-m", "a=c"], "--metadata has two values for 'a'"),
        (["WCFG-1", "-i", "a=b", "--wait", "--timeout", "inf"], "--timeout must be a positive number of seconds, got"),
        (["WCFG-1", "--input-file", "missing.csv"], "missing.csv does not exist, or is not a file"),
        (["WCFG-1", "--input-file", __file__, "--delimiter", "||"], "--delimiter must be one character"),
        (["WCFG-1", "-i", "a=b", "--delimiter", ";"], "--delimiter requires --input-file"),
        (["WCFG-1", "--input-file", "rows.jsonl", "--delimiter", ";"], "--delimiter requires a .csv or .tsv file, got"),
        (["WCFG-1", "-i", "a=b", "--resume"], "--resume requires -o FILE.jsonl, the file with the results so far"),
        (["WCFG-1", "-i", "a=b", "--limit", "0"], "--limit"),
        (["WCFG-1", "-i", "a=b", "-o", "results.csv"], "the path must end in .jsonl, got results.csv"),
        (["WCFG-1", "-i", "a=b", "-o", "nowhere/results.jsonl"], "is in a folder that does not exist"),
        (["WCFG-1", "-i", "a=b", "--concurrency", "0"], "concurrency"),
        (["..", "-i", "a=b", "-o", "results.jsonl"], "WORKFLOW_ID must be an id"),
    ],
)
async def test_usage_errors(emulator: Emulator, arguments: list[str], message: str) -> None:
    """Invalid arguments are exit code 2 with the reason, nothing is sent, and no file is written."""
    done = await cli("start", *arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert message in done.err
    assert "Traceback" not in done.err
    assert folder() == []


async def test_lost_responses(emulator: Emulator) -> None:
    """If the response to a start is lost, its run is found, and the row is not started again."""
    write_rows(6)
    emulator.inject(Fault(reset="after"), method="POST", times=3)
    done = await batch(emulator, "--wait")

    assert done.code == 0
    assert inputs_of(emulator).total() == len(inputs_of(emulator)) == 6


async def test_used_up_credits(emulator: Emulator) -> None:
    """When the credits are used up, no more rows are started. Later, `--resume` starts only the rest."""
    write_rows(20)
    emulator.credits = 30
    stopped = await batch(emulator, "--wait")
    emulator.credits = None
    resumed = await batch(emulator, "--wait", "--resume")

    assert stopped.code == 1
    assert "no more runs are started: " in stopped.err
    assert stopped.err.endswith("10 of 20 rows are left; continue with --resume\n")
    assert resumed.code == 0
    assert sorted(line["row"] for line in lines()) == list(range(1, 21))
    assert {line["problem"] for line in lines()} == {None}
    assert inputs_of(emulator).total() == len(inputs_of(emulator)) == 20
    assert folder() == ["results.jsonl", "rows.csv"]


async def test_unconfirmed_start(emulator: Emulator) -> None:
    """A start that may have been accepted is reported as unconfirmed, and `--resume` finds its run."""
    write_rows(1)
    emulator.inject(Fault(reset="after"), method="POST")
    emulator.inject(Fault(status=401), method="GET")
    unconfirmed = await batch(emulator)
    [line] = lines()
    resumed = await batch(emulator, "--resume")

    assert unconfirmed.code == 1
    assert (line["id"], line["unconfirmed"]) == (None, True)
    assert resumed.code == 0
    assert [line["id"] for line in lines()] == [run["id"] for run in emulator.runs()]


async def test_timeout_of_wait(emulator: Emulator) -> None:
    """A run that is not finished in time is stored with its id, and `--resume --wait` waits for it."""
    write_rows(2)
    emulator.run_time = 3600
    late = await batch(emulator, "--wait", "--timeout", "0.2")
    early = lines()
    for run in emulator.runs():
        change(emulator, str(run["id"]), status="COMPLETE", output={"Fit": "good"})
    resumed = await batch(emulator, "--wait", "--resume")

    assert late.code == 1
    assert {line["id"] for line in early} == {run["id"] for run in emulator.runs()}
    assert resumed.code == 0
    assert [(line["status"], line["problem"]) for line in lines()] == [("COMPLETE", None)] * 2
    assert len(emulator.runs()) == 2


async def test_resume_with_other_rows(emulator: Emulator) -> None:
    """`--resume` with changed rows is a usage error, and nothing is sent."""
    write_rows(2)
    emulator.credits = 0
    await batch(emulator)
    write_rows(3)
    emulator.requests.clear()
    done = await batch(emulator, "--resume")

    assert (done.code, emulator.requests) == (2, [])
    assert "was started with another workflow, other rows or other metadata" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupt(emulator: Emulator, number: int) -> None:
    """After Ctrl-C or SIGTERM, the message has the ids of the runs in progress, and says how to resume."""
    write_rows(3)
    emulator.run_time = 3600
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "--wait", "-o", "results.jsonl")
    code = START + "from aiocopyai.cli import main; main()"
    process = await start("-c", code, *arguments, env=environment(emulator))
    await await_event(process, lambda: any("/run/" in request.path for request in emulator.requests))
    process.send_signal(number)
    done = await finish(process)

    assert done.code == 130
    assert re.search(r"stopped after 0 runs.*; in progress: WRUN-.*; continue with --resume\n", done.err)
    assert "Traceback" not in done.err


async def killed(emulator: Emulator, *options: str, requests: int) -> None:
    """Start the rows of rows.csv, and kill the process after a number of requests."""
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "-o", "results.jsonl", *options)
    process = await start(*MAIN, *arguments, env=environment(emulator))
    until = len(emulator.requests) + requests
    await await_event(process, lambda: len(emulator.requests) >= until)
    process.kill()
    await finish(process)


@pytest.mark.slow
@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(),
        Quirks(lists_metadata=False),
        Quirks(sparse=True, lists_metadata=False),
        Quirks(late_runs=0.3),
    ],
    ids=["plain", "lists without metadata", "lists of ids", "listed late"],
)
async def test_resume_after_a_kill(emulator: Emulator, quirks: Quirks) -> None:
    """After a kill, `--resume` starts no row twice, even if lists omit fields or show runs late."""
    write_rows(12)
    emulator.quirks = quirks
    emulator.latency = 0.03
    await killed(emulator, "--wait", requests=8)
    paid = len(emulator.runs())
    done = await batch(emulator, "--wait", "--resume", "--concurrency", "3")

    assert paid > 0
    assert done.code == 0, done.err
    assert inputs_of(emulator).total() == len(inputs_of(emulator)) == 12
    assert {line["id"] for line in lines()} == {run["id"] for run in emulator.runs()}


async def test_interrupted_search(emulator: Emulator) -> None:
    """After SIGTERM during the search for the runs of a killed process, the message says how to resume."""
    write_rows(2)
    await batch(emulator, "--limit", "1")
    with closing(sqlite3.connect("results.jsonl.ledger")) as ledger:
        ledger.executescript("INSERT INTO rows VALUES (2, 'starting', NULL)")
    emulator.inject(Fault(delay=60), method="GET")
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "-o", "results.jsonl", "--resume")
    process = await start("-c", HASTY, *arguments, env=environment(emulator))
    await await_event(process, lambda: len(emulator.requests) >= 2)
    process.send_signal(signal.SIGTERM)
    done = await finish(process)

    assert done.code == 130
    assert done.err.endswith("continue with --resume\n")


async def test_batch_in_use(emulator: Emulator) -> None:
    """While a process works on a batch, another process reports that the batch is in use, and starts nothing."""
    write_rows(3)
    emulator.run_time = 3600
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "--wait", "-o", "results.jsonl")
    first = await start("-c", START + HASTY, *arguments, env=environment(emulator))
    await await_event(first, lambda: len(emulator.runs()) == 3)
    second = await batch(emulator, "--wait", "--resume")
    first.send_signal(signal.SIGINT)
    await finish(first)

    assert second.code == 1
    # The message has the progress if the first process has already created the results.
    message = (
        r"(stopped after 0 runs; .*; continue with --resume\n)?aiocopyai: .*\.ledger is in use by another process\n"
    )
    assert re.fullmatch(message, second.err)
    assert len(emulator.runs()) == 3


async def test_missing_results(emulator: Emulator) -> None:
    """If the file of results is missing, nothing is sent, and the message names every file."""
    write_rows(3)
    emulator.credits = 6
    await batch(emulator, "--wait")
    os.remove("results.jsonl")  # noqa: PTH107 (a test of what a user does)
    emulator.requests.clear()
    done = await batch(emulator, "--wait", "--resume")

    assert (done.code, emulator.requests) == (2, [])
    assert (
        "results.jsonl is missing: restore it, or delete results.jsonl.ledger and results.jsonl.ledger-journal"
        in done.err
    )


async def test_exit_code_of_a_complete_batch(emulator: Emulator) -> None:
    """If a run of a batch failed, the exit code is 1, even of a later command that has nothing to start."""
    write_rows(2)
    emulator.script_next_runs(Script(states=("FAILED",)))
    first = await batch(emulator, "--wait")
    whole = await batch(emulator, "--wait", "--resume")

    assert first.code == 1
    assert (whole.code, whole.err) == (1, "results.jsonl is already complete\n")


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 and more", bytes(8192)])
async def test_damaged_ledger(emulator: Emulator, content: bytes) -> None:
    """An empty or damaged ledger is a usage error without a traceback, and nothing is sent."""
    write_rows(3)
    await batch(emulator, "--limit", "2")
    write("results.jsonl.ledger", content)
    emulator.requests.clear()
    done = await batch(emulator, "--resume")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    message = unwrapped(done.err)
    assert "so nothing was started. Restore results.jsonl.ledger (and results.jsonl.ledger-journal" in message
    assert "pass only the rows that have no run, and another file with -o" in message
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO rows VALUES (9, 'started', 'WRUN-1')",
        "INSERT INTO rows VALUES (0, 'starting', NULL)",
        "UPDATE rows SET run_id = x'ff'",
        "UPDATE rows SET run_id = ''",
        "UPDATE rows SET state = 'unknown'",
        "UPDATE batch SET created_at = '2026-01-31T00:00:00'",
        "UPDATE batch SET created_at = '0001-01-01T00:00:00+00:00'",
        "DELETE FROM batch",
    ],
)
async def test_invalid_values_in_the_ledger(emulator: Emulator, change: str) -> None:
    """A ledger with impossible values is reported as damaged, and nothing is sent."""
    write_rows(3)
    await batch(emulator, "--limit", "2")
    with closing(sqlite3.connect("results.jsonl.ledger")) as ledger:
        ledger.executescript(change)
    emulator.requests.clear()
    done = await batch(emulator, "--resume")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert "results.jsonl.ledger is damaged: " in unwrapped(done.err)


@pytest.mark.parametrize("content", [b"notes", None])
async def test_other_file_in_place_of_the_ledger(emulator: Emulator, content: bytes | None) -> None:
    """A text file or a database that is not a ledger is a usage error, and is not changed."""
    write_rows(1)
    if content is not None:
        write("results.jsonl.ledger", content)
    else:
        with closing(sqlite3.connect("results.jsonl.ledger")) as database:
            database.executescript("CREATE TABLE notes (text)")
        content = Path("results.jsonl.ledger").read_bytes()  # noqa: ASYNC240 (a page)
    done = await batch(emulator, "--wait", "--resume")

    assert (done.code, emulator.requests) == (2, [])
    assert Path("results.jsonl.ledger").read_bytes() == content  # noqa: ASYNC240 (a page)


@pytest.mark.parametrize("content", ["", '{"row": 1, "id": "1", "status": "COMPLETE", "problem": null}\n', "{}\n"])
async def test_other_file_in_place_of_the_results(emulator: Emulator, content: str) -> None:
    """A file without a ledger that does not have the results of these rows is a usage error, and is not changed."""
    write_rows(2)
    write("results.jsonl", content)
    done = await batch(emulator, "--wait", "--resume")

    assert (done.code, emulator.requests) == (2, [])
    assert Path("results.jsonl").read_text("utf-8") == content  # noqa: ASYNC240 (a line)


async def test_dry_run(emulator: Emulator) -> None:
    """`--dry-run` prints the rows that would be started. It does not need a key, and sends and writes nothing."""
    write_rows(4)
    dry = await cli("start", "WCFG-1", "--input-file", "rows.csv", "-i", "Tone=Formal", "--limit", "2", "--dry-run")
    await batch(emulator, "--limit", "3")
    emulator.requests.clear()
    resumed = await batch(emulator, "--resume", "--dry-run")
    again = await batch(emulator, "--dry-run")

    text = 'a "b", c'
    assert (dry.code, dry.err) == (0, "2 of 4 rows would be started; nothing was sent\n")
    assert dry.rows == [{"row": n + 1, "input": {"Tone": "Formal", "n": str(n), "text": text}} for n in range(2)]
    assert (resumed.code, resumed.rows) == (0, [{"row": 4, "input": {"n": "3", "text": text}}])
    assert (again.code, emulator.requests) == (2, [])


async def test_limit(emulator: Emulator) -> None:
    """`--limit` starts the first rows with exit code 0, and `--resume` starts the others."""
    write_rows(5)
    first = await batch(emulator, "--wait", "--limit", "2")
    rest = await batch(emulator, "--wait", "--resume")
    shown = await cli("start", "--demo", "--input-file", "rows.csv", "--limit", "1")

    assert first.code == 0
    assert first.err.endswith("; 3 of 5 rows are left; continue with --resume\n")
    assert (rest.code, len(lines())) == (0, 5)
    assert sorted(str(run["input"]) for run in emulator.runs()) == sorted(
        str({"n": str(n), "text": 'a "b", c'}) for n in range(5)
    )
    assert (shown.code, len(shown.rows)) == (0, 1)


@pytest.mark.parametrize(("typed", "options", "runs"), [("n", (), 0), ("y", (), 101), ("", ("--yes",), 101)])
async def test_question_before_many_rows(emulator: Emulator, typed: str, options: tuple[str, ...], runs: int) -> None:
    """On a terminal, more than 100 rows are started only after a confirmation or with `--yes`."""
    write_rows(101)
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "-o", "results.jsonl", *options)
    code, shown = await terminal(*arguments, key=typed, env=environment(emulator))

    assert (code, len(emulator.runs())) == (0 if runs else 1, runs)
    assert (f"Start 101 runs of {emulator.workflow_id}? Each spends credits." in shown) is bool(typed)
    assert ("nothing was started" in shown) is not runs


@pytest.mark.parametrize("device", ["closed pipe", "full device", "closed"])
async def test_standard_output_that_cannot_be_written(emulator: Emulator, device: str) -> None:
    """If standard output cannot be written, nothing is sent, and the exit code is 1."""
    if device == "full device" and not Path("/dev/full").exists():  # noqa: ASYNC240 (a test for its existence)
        pytest.skip("needs /dev/full")
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY) if device == "full device" else writer
    code = "import os; os.close(1)\n" if device == "closed" else ""
    code += "import os, sys; os.execv(sys.executable, [sys.executable, '-m', 'aiocopyai', *sys.argv[1:]])"
    process = await start(
        "-c", code, "start", emulator.workflow_id, "--no-input", env=environment(emulator), stdout=full
    )
    for descriptor in {writer, full}:
        os.close(descriptor)
    done = await finish(process)

    assert (done.code, emulator.requests) == (1, [])
    assert re.fullmatch(r"aiocopyai: cannot write to standard output: .*; nothing was started\n", done.err)


async def test_run_that_cannot_be_printed(emulator: Emulator) -> None:
    """If standard output fails after a start, standard error has the run's id."""
    reader, writer = os.pipe()
    emulator.on_request = lambda _server, request: os.close(reader) if request.method == "POST" else None
    process = await start(*MAIN, "start", emulator.workflow_id, "--no-input", env=environment(emulator), stdout=writer)
    os.close(writer)
    done = await finish(process)
    [run] = emulator.runs()

    assert done.code == 1
    assert done.err.startswith(f"row 1: run {run['id']} was started, but standard output cannot be written\n")


async def test_full_disk(emulator: Emulator) -> None:
    """If the disk is full, the message names the run whose result is lost, and `--resume` finds it."""
    write_rows(30)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n" + HASTY
    emulator.script_next_runs(Script(output={"Post": "x" * 1_000}), times=None)
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "--wait", "-o", "results.jsonl")
    full = await finish(await start("-c", limited, *arguments, env=environment(emulator)))
    resumed = await batch(emulator, "--wait", "--resume")

    assert full.code == 1
    assert re.search(r"row \d+: run WRUN-\S+ was started, but its result cannot be written\n", full.err)
    assert "Traceback" not in full.err
    assert resumed.code == 0, resumed.err
    assert inputs_of(emulator).total() == len(inputs_of(emulator)) == 30
    assert sorted(int(str(line["row"])) for line in lines()) == list(range(1, 31))


async def test_ledger_that_cannot_be_opened(emulator: Emulator) -> None:
    """If the ledger cannot be opened, the message names it in one line, and nothing is sent."""
    write_rows(2)
    os.mkdir("results.jsonl.ledger")  # noqa: PTH102 (in the working folder)
    done = await batch(emulator, "--resume")

    assert (done.code, done.out, emulator.requests) == (1, "", [])
    assert re.fullmatch(r"aiocopyai: .*results\.jsonl\.ledger cannot be used \(.*\): .*\n", done.err)


@pytest.mark.parametrize("options", [("-o", "results.jsonl"), ()])
async def test_deep_outputs(emulator: Emulator, options: tuple[str, ...]) -> None:
    """An output that is nested hundreds of levels deep is written like any other output."""
    deep: JSON = "bottom"
    for _ in range(900):
        deep = [deep]
    emulator.script_next_runs(Script(output={"Post": deep}))
    done = await cli("start", emulator.workflow_id, "--no-input", "--wait", *options, emulator=emulator)

    assert done.code == 0, done.err
    assert (done.out or Path("results.jsonl").read_text("utf-8")).count("[") == 900  # noqa: ASYNC240 (a line)


async def test_changed_file(emulator: Emulator) -> None:
    """A change of the file of rows after the start has no effect."""
    write_rows(30)
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "-o", "results.jsonl", "--concurrency", "1")
    emulator.on_request = lambda _server, _request: write("rows.csv", "n,text\nother,row\nbroken\n")
    done = await cli(*arguments, emulator=emulator)

    assert done.code == 0, done.err
    assert sorted(str(run["input"]["n"]) for run in emulator.runs()) == sorted(map(str, range(30)))  # type: ignore[index,call-overload]  # raw JSON


async def test_closed_pipe(emulator: Emulator) -> None:
    """`start … | head -1` ends without a traceback. The exit code is 1, because not every row was started."""
    write_rows(20)
    reader, writer = os.pipe()

    def leave(_server: Emulator, request: Request) -> None:
        if request.method == "POST" and len(emulator.runs()) == 5:
            os.close(reader)

    emulator.on_request = leave
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "--concurrency", "1")
    process = await start(*MAIN, *arguments, env=environment(emulator), stdout=writer)
    os.close(writer)
    done = await finish(process)

    assert done.code == 1
    assert len(emulator.runs()) < 20
    assert "Traceback" not in done.err


async def test_wrong_key(emulator: Emulator) -> None:
    """A wrong key is reported once for any number of rows, and no row is printed."""
    write_rows(20)
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv")
    done = await cli(*arguments, emulator=emulator, COPYAI_API_KEY="wrong-key")

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r".*: no more runs are started: HTTP 401.*\n0 runs started; 20 of 20 rows are left\n", done.err)


@pytest.mark.slow
async def test_kills(emulator: Emulator) -> None:
    """After kills at random times, each row has one run and one line."""
    write_rows(60)
    chance = Random(4)  # noqa: S311 (a repeatable test)
    emulator.run_time = 0.3
    emulator.latency = 0.01
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "--wait", "-o", "results.jsonl", "--resume")
    emulator.quirks = Quirks(lists_metadata=False)
    kills, code = 0, None
    while code is None:
        process = await start("-c", HASTY, *arguments, env=environment(emulator))
        until = len(emulator.requests) + chance.randint(1, 40)
        while kills < KILLS and len(emulator.requests) < until and process.returncode is None:
            await asyncio.sleep(0.002)
        if kills < KILLS and process.returncode is None:
            kills += 1
            process.kill()
            await finish(process)
        else:
            code = (await finish(process, patience=LONG_PATIENCE)).code

    assert (code, kills) == (0, KILLS)
    assert inputs_of(emulator).total() == len(inputs_of(emulator)) == 60
    assert sorted(line["row"] for line in lines()) == list(range(1, 61))
    assert {line["id"] for line in lines()} == {run["id"] for run in emulator.runs()}
