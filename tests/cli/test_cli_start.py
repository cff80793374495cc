"""``aiocopyai start``, as a process of its own, against the emulator: what it starts, and never starts twice."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from aiocopyai.emulator import Emulator, Fault, Quirks, Script
from tests.support.commands import MAIN, START, Done, cli, environment, finish, start, terminal


KILLS = 12
HASTY = "import aiocopyai.cli._starting as starting; starting.LOOK_AGAIN = 0.4\nfrom aiocopyai.cli import main; main()"
"""The command, which waits less for runs that are listed late."""


def write(name: str, content: str | bytes) -> None:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def folder() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def write_rows(count: int) -> None:
    write("rows.csv", "n,text\n" + "".join(f'{n},"a ""b"", c"\n' for n in range(count)))


def lines(name: str = "results.jsonl") -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(name).read_text("utf-8").split("\n")[:-1]]


def inputs_of(emulator: Emulator) -> Counter[str]:
    """Count the runs by what they were started with."""
    return Counter(json.dumps(run["input"], sort_keys=True) for run in emulator.runs())


async def batch(emulator: Emulator, *options: str) -> Done:
    """Start the rows of rows.csv, with the results in a file."""
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "-o", "results.jsonl", *options)
    return await finish(await start("-c", HASTY, *arguments, env=environment(emulator)))


async def test_one_run_is_started_and_shown(emulator: Emulator) -> None:
    """Inputs and metadata are sent as they were given; what comes back is one line of JSON, at once."""
    emulator.run_time = 60
    arguments = ("-i", "Input 1=a=b", "-i", "Ω=", "-m", "batch=7")
    done = await cli("start", emulator.workflow_id, *arguments, emulator=emulator)
    [run] = emulator.runs()
    [shown] = done.rows

    assert (done.code, done.err) == (0, "1 run started\n")
    assert run["input"] == {"Input 1": "a=b", "Ω": ""}
    assert isinstance(run["metadata"], dict)
    assert run["metadata"]["batch"] == "7"
    assert (shown["id"], shown["row"], shown["problem"], shown["unconfirmed"]) == (run["id"], 1, None, False)


async def test_wait_shows_the_run_as_it_ended(emulator: Emulator) -> None:
    """With `--wait` the line has the output."""
    emulator.script_next_runs(Script(output={"Fit": "good"}, credits=5))
    done = await cli("start", emulator.workflow_id, "--no-input", "--wait", emulator=emulator)

    assert (done.code, done.err) == (0, "1 run: 1 COMPLETE; 5 credits\n")
    assert done.rows[0]["output"] == {"Fit": "good"}


async def test_a_terminal_sees_the_whole_run(emulator: Emulator) -> None:
    """The one run is indented JSON, nothing cut off."""
    emulator.script_next_runs(Script(output={"Fit": "good " * 100}))
    code, shown = await terminal(
        "start", emulator.workflow_id, "--no-input", "--wait", width=80, env=environment(emulator)
    )

    assert code == 0
    assert '\n  "output": {\n    "Fit": "' + "good " * 100 in shown


async def test_a_run_that_fails_is_exit_code_1(emulator: Emulator) -> None:
    """Its line comes all the same, and standard error says why."""
    emulator.script_next_runs(Script(states=("NEW", "FAILED"), error={"message": "no such site"}))
    done = await cli("start", emulator.workflow_id, "--no-input", "--wait", emulator=emulator)

    assert done.code == 1
    assert done.rows[0]["status"] == "FAILED"
    assert re.match(r"row 1: .*no such site.*\n1 run: 1 FAILED; ", done.err)
    assert "Traceback" not in done.err


async def test_each_row_of_a_file_is_one_run(emulator: Emulator) -> None:
    """CSV with any text in it, and inputs that all have; results as they come, none twice, with their row's number."""
    write_rows(25)
    arguments = ("--input-file", "rows.csv", "-i", "Tone=Formal", "--wait", "--concurrency", "4")
    done = await cli("start", emulator.workflow_id, *arguments, emulator=emulator)
    wanted = [{"Tone": "Formal", "n": str(n), "text": 'a "b", c'} for n in range(25)]

    assert done.code == 0
    assert inputs_of(emulator) == Counter(json.dumps(inputs) for inputs in wanted)
    assert {row["row"]: row["input"] for row in done.rows} == dict(enumerate(wanted, start=1))
    assert {row["status"] for row in done.rows} == {"COMPLETE"}


async def test_lines_of_json_are_rows_too(emulator: Emulator) -> None:
    """Their values may be any JSON."""
    rows = [{"a": [1, None, {"b": "ü"}]}, {"a": 1.5}]
    write("rows.jsonl", "\n\n".join(map(json.dumps, rows)))
    done = await cli("start", emulator.workflow_id, "--input-file", "rows.jsonl", emulator=emulator)

    assert done.code == 0
    assert inputs_of(emulator) == Counter(json.dumps(row, sort_keys=True) for row in rows)


async def test_a_table_on_a_terminal(emulator: Emulator) -> None:
    """The runs of a file's rows are shown as the other commands show runs."""
    write_rows(3)
    env = environment(emulator, NO_COLOR="1")
    code, shown = await terminal("start", emulator.workflow_id, "--input-file", "rows.csv", "--wait", env=env)

    assert code == 0
    assert shown.count("COMPLETE   ") == 3
    assert shown.startswith("CREATED ")


async def test_results_go_to_a_file(emulator: Emulator) -> None:
    """One line for each row, nothing on standard output, nothing beside the file; asked again, it is whole."""
    write_rows(9)
    done = await batch(emulator, "--wait")
    again = await batch(emulator, "--wait")
    resumed = await batch(emulator, "--wait", "--resume")

    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("; 9 rows in results.jsonl\n")
    assert sorted(line["row"] for line in lines()) == list(range(1, 10))
    assert folder() == ["results.jsonl", "rows.csv"]
    assert again.code == 2
    assert "is there already" in again.err
    assert resumed == (0, "", "results.jsonl is whole already\n")
    assert len(emulator.runs()) == 9


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("rows.csv", "a,b\n1,2\n3\n", "rows.csv, line 3: 1 cells for 2 columns"),
        ("rows.csv", "a,a\n1,2\n", "every column needs a name of its own"),
        ("rows.csv", "a,\n1,2\n", "every column needs a name of its own"),
        ("rows.csv", 'a\n"1\n', "rows.csv, line 2"),
        ("rows.csv", "a\n", "rows.csv has no rows"),
        ("rows.csv", b"a\n\xff\n", "not in UTF-8"),
        ("rows.jsonl", '{"a": 1}\n[1]\n', "rows.jsonl, line 2: not an object"),
        ("rows.jsonl", '{"a": 1}\n{"a": NaN}\n', "rows.jsonl, line 2"),
        ("rows.jsonl", '{"a": 1e999}\n', "rows.jsonl, line 1"),
        ("rows.jsonl", '{"a"', "rows.jsonl, line 1"),
        ("rows.xlsx", "a", "should end in .csv or .jsonl"),
    ],
)
async def test_a_file_with_a_mistake_starts_nothing(
    emulator: Emulator, name: str, content: str | bytes, complaint: str
) -> None:
    """All rows are read before the first is sent; the complaint names the line; exit code 2, and nothing written."""
    write(name, content)
    arguments = ("--input-file", name, "-o", "results.jsonl")
    done = await cli("start", emulator.workflow_id, *arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert complaint in done.err
    assert folder() == [name]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give either a WORKFLOW_ID or --demo"),
        (["WCFG-1", "--demo"], "give either a WORKFLOW_ID or --demo"),
        (["WCFG-1"], "or --no-input for a workflow that has none"),
        (["WCFG-1", "-i", "a=b", "--no-input"], "or --no-input for a workflow that has none"),
        (["WCFG-1", "-i", "Input"], "--input takes KEY=VALUE"),
        (["WCFG-1", "-i", "a=b", "--metadata", "=7"], "--metadata takes KEY=VALUE"),
        (["WCFG-1", "-i", "a=b", "--metadata", "idempotencyKey=7"], "idempotencyKey"),
        (["WCFG-1", "--input-file", "missing.csv"], "there is no file missing.csv"),
        (["WCFG-1", "-i", "a=b", "--resume"], "name it by -o"),
        (["WCFG-1", "-i", "a=b", "--timeout", "3"], "--timeout goes with --wait"),
        (["WCFG-1", "-i", "a=b", "-o", "results.csv"], "should end in .jsonl"),
        (["WCFG-1", "-i", "a=b", "-o", "nowhere/results.jsonl"], "no place to write a file to"),
        (["WCFG-1", "-i", "a=b", "--concurrency", "0"], "concurrency"),
        (["..", "-i", "a=b", "-o", "results.jsonl"], "workflow_id"),
    ],
)
async def test_what_makes_no_sense_is_usage(emulator: Emulator, arguments: list[str], complaint: str) -> None:
    """Exit code 2, the reason on standard error, nothing sent, and nothing written."""
    done = await cli("start", *arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert complaint in done.err
    assert "Traceback" not in done.err
    assert folder() == []


async def test_a_lost_answer_costs_no_second_run(emulator: Emulator) -> None:
    """Starts whose answers are lost are found again: as many runs as rows."""
    write_rows(6)
    emulator.inject(Fault(reset="after"), method="POST", times=3)
    done = await batch(emulator, "--wait")

    assert done.code == 0
    assert inputs_of(emulator).total() == len(inputs_of(emulator)) == 6


async def test_credits_that_run_out_stop_it_and_it_can_go_on(emulator: Emulator) -> None:
    """No more is started, the rest is told; with more credits `--resume` starts what is left, and that only."""
    write_rows(20)
    emulator.credits = 30
    broke = await batch(emulator, "--wait")
    emulator.credits = None
    resumed = await batch(emulator, "--wait", "--resume")

    assert broke.code == 1
    assert "no more runs are started: " in broke.err
    assert broke.err.endswith("--resume goes on from there\n")
    assert resumed.code == 0
    assert sorted(line["row"] for line in lines()) == list(range(1, 21))
    assert {line["problem"] for line in lines()} == {None}
    assert inputs_of(emulator).total() == len(inputs_of(emulator)) == 20
    assert "results.jsonl.begun" not in folder()


async def test_doubt_stays_doubt_until_the_run_is_seen(emulator: Emulator) -> None:
    """A start that may have been taken is not sent again; a later `--resume` finds its run."""
    write_rows(1)
    emulator.inject(Fault(reset="after"), method="POST")
    emulator.inject(Fault(status=403), method="GET")
    doubtful = await batch(emulator)
    [line] = lines()
    resumed = await batch(emulator, "--resume")

    assert doubtful.code == 1
    assert (line["id"], line["unconfirmed"]) == (None, True)
    assert resumed.code == 0
    assert [line["id"] for line in lines()] == [run["id"] for run in emulator.runs()]


async def test_a_run_that_takes_too_long_can_be_waited_for_further(emulator: Emulator) -> None:
    """Its line has the id; `--resume --wait` waits on, and starts nothing."""
    write_rows(2)
    emulator.run_time = 2
    late = await batch(emulator, "--wait", "--timeout", "0.5")
    early = lines()
    resumed = await batch(emulator, "--wait", "--resume")

    assert late.code == 1
    assert {line["id"] for line in early} == {run["id"] for run in emulator.runs()}
    assert resumed.code == 0
    assert [(line["status"], line["problem"]) for line in lines()] == [("COMPLETE", None)] * 2
    assert len(emulator.runs()) == 2


async def test_other_rows_are_another_batch(emulator: Emulator) -> None:
    """`--resume` with a file that was changed is usage, and nothing is sent."""
    write_rows(2)
    emulator.credits = 0
    await batch(emulator)
    write_rows(3)
    emulator.requests.clear()
    done = await batch(emulator, "--resume")

    assert (done.code, emulator.requests) == (2, [])
    assert "was begun for other rows" in done.err


async def test_ctrl_c_says_what_is_under_way(emulator: Emulator) -> None:
    """130, at once, with the ids of the runs that go on without it."""
    write_rows(3)
    emulator.run_time = 60
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "--wait", "-o", "results.jsonl")
    code = START + "from aiocopyai.cli import main; main()"
    process = await start("-c", code, *arguments, env=environment(emulator))
    while process.returncode is None and not any("/run/" in request.path for request in emulator.requests):
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert done.code == 130
    assert re.search(r"stopped after 0 runs.*; under way: WRUN-.*; --resume goes on from there\n", done.err)
    assert "Traceback" not in done.err


async def killed(emulator: Emulator, *options: str, requests: int) -> None:
    """Start the rows of rows.csv, and kill the process after so many requests."""
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "-o", "results.jsonl", *options)
    process = await start(*MAIN, *arguments, env=environment(emulator))
    until = len(emulator.requests) + requests
    while len(emulator.requests) < until:
        assert process.returncode is None
        await asyncio.sleep(0.001)
    process.kill()
    await finish(process)


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
async def test_what_a_dead_process_started_is_found(emulator: Emulator, quirks: Quirks) -> None:
    """Whatever lists leave out, and however late a run is listed: a batch that goes on starts no row twice."""
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


async def test_two_at_once_don_t_meet(emulator: Emulator) -> None:
    """While one process is at a batch, another one is refused, and starts nothing."""
    write_rows(3)
    emulator.run_time = 60
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "--wait", "-o", "results.jsonl")
    first = await start("-c", START + HASTY, *arguments, env=environment(emulator))
    while len(emulator.runs()) < 3:
        assert first.returncode is None
        await asyncio.sleep(0.01)
    second = await batch(emulator, "--wait", "--resume")
    first.send_signal(signal.SIGINT)
    await finish(first)

    assert (second.code, second.err) == (1, "aiocopyai: another start to results.jsonl is under way\n")
    assert len(emulator.runs()) == 3


async def test_results_that_are_gone_are_not_paid_for_again(emulator: Emulator) -> None:
    """Where the results of a batch that was begun are missing, nothing is sent."""
    write_rows(3)
    emulator.credits = 6
    await batch(emulator, "--wait")
    os.remove("results.jsonl")  # noqa: PTH107 (a test of what a user does)
    emulator.requests.clear()
    done = await batch(emulator, "--wait", "--resume")

    assert (done.code, emulator.requests) == (2, [])
    assert "results.jsonl is gone" in done.err


async def test_a_line_that_is_half_done_is_done_again(emulator: Emulator) -> None:
    """A line that breaks off, be it inside a letter, is cut off."""
    write_rows(3)
    emulator.credits = 6
    emulator.script_next_runs(Script(output={"Post": "naïve 🎉"}, credits=3), times=3)
    await batch(emulator, "--wait")
    emulator.credits = None
    with open("results.jsonl", "ab") as file:  # noqa: ASYNC230, PTH123 (a few bytes)
        file.write('{"row": 3, "output": "ï'.encode()[:-1])
    done = await batch(emulator, "--wait", "--resume")

    assert done.code == 0, done.err
    assert sorted(line["row"] for line in lines()) == [1, 2, 3]


async def test_the_exit_code_is_that_of_the_whole_batch(emulator: Emulator) -> None:
    """A run that failed makes it 1, also for the process that finds everything done, or finishes the rest."""
    write_rows(2)
    emulator.script_next_runs(Script(states=("FAILED",)))
    first = await batch(emulator, "--wait")
    whole = await batch(emulator, "--wait", "--resume")

    assert first.code == 1
    assert (whole.code, whole.err) == (1, "results.jsonl is whole already\n")


@pytest.mark.parametrize("content", ["", '{"row": 1, "id": "1", "status": "COMPLETE", "problem": null}\n', "{}\n"])
async def test_another_file_is_no_whole_batch(emulator: Emulator, content: str) -> None:
    """A file without a ledger that doesn't hold these rows is not taken for their results, and is left alone."""
    write_rows(2)
    write("results.jsonl", content)
    done = await batch(emulator, "--wait", "--resume")

    assert (done.code, emulator.requests) == (2, [])


async def test_rows_are_those_that_were_read_first(emulator: Emulator) -> None:
    """A file that is changed while its rows are started changes nothing."""
    write_rows(30)
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "-o", "results.jsonl", "--concurrency", "1")
    emulator.latency = 0.01
    process = await start(*MAIN, *arguments, env=environment(emulator))
    while not emulator.runs():
        assert process.returncode is None
        await asyncio.sleep(0.001)
    write("rows.csv", "n,text\nother,row\nbroken\n")
    done = await finish(process)

    assert done.code == 0, done.err
    assert sorted(str(run["input"]["n"]) for run in emulator.runs()) == sorted(map(str, range(30)))  # type: ignore[index,call-overload]  # raw JSON


async def test_a_reader_that_leaves_is_told_by_the_exit_code(emulator: Emulator) -> None:
    """`start … | head -1` ends quietly, but not with 0: not every row was started."""
    write_rows(60)
    emulator.latency = 0.01
    reader, writer = os.pipe()
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "--concurrency", "1")
    process = await start(*MAIN, *arguments, env=environment(emulator), stdout=writer)
    os.close(writer)
    await asyncio.to_thread(os.read, reader, 10)
    os.close(reader)
    done = await finish(process)

    assert done.code == 1
    assert "Traceback" not in done.err


async def test_a_wrong_key_is_one_line(emulator: Emulator) -> None:
    """However many starts it refuses, it is told once, and no row is shown that was never sent."""
    write_rows(20)
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv")
    done = await cli(*arguments, emulator=emulator, COPYAI_API_KEY="wrong-key")

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r".*: no more runs are started: HTTP 401.*\n0 runs started; 20 of 20 rows are left\n", done.err)


@pytest.mark.slow
async def test_kills_start_nothing_twice(emulator: Emulator) -> None:
    """Killed by SIGKILL at random moments, a batch ends with one run and one line for each row."""
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
            code = (await finish(process, patience=60)).code

    assert (code, kills) == (0, KILLS)
    assert inputs_of(emulator).total() == len(inputs_of(emulator)) == 60
    assert sorted(line["row"] for line in lines()) == list(range(1, 61))
    assert {line["id"] for line in lines()} == {run["id"] for run in emulator.runs()}
