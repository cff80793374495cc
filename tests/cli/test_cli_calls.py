"""Tests of ``aiocopyai get``, ``watch``, ``check-key`` and ``emulate``."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal

import aiohttp
import pytest

from aiocopyai import JSON
from aiocopyai.emulator import Emulator, Fault, Script
from tests.support.commands import MAIN, PATIENCE, START, await_event, cli, environment, finish, start, terminal
from tests.support.exporting import change


RUN_MAIN = START + "from aiocopyai.cli import main; main()"


async def start_run(emulator: Emulator, script: Script) -> str:
    """Start a run that follows a script; return its id."""
    emulator.script_next_runs(script)
    headers = {"x-copy-ai-api-key": emulator.api_key}
    url = f"{emulator.url}/workflow/{emulator.workflow_id}/run"
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(url, json={"startVariables": {}}) as response,
    ):
        run_id: str = (await response.json())["data"]["id"]
        return run_id


async def test_get(emulator: Emulator) -> None:
    """A run is printed as one line of JSON with every field. The exit code is 0 even if the run failed."""
    [run_id] = emulator.add_runs(1, status="FAILED", error={"message": "no"})
    done = await cli("get", emulator.workflow_id, run_id, emulator=emulator)

    assert (done.code, done.err) == (0, "")
    assert (done.rows[0]["id"], done.rows[0]["error"]) == (run_id, {"message": "no"})


async def test_get_on_a_terminal(emulator: Emulator) -> None:
    """On a terminal the JSON is indented, and control characters are escaped."""
    emulator.replace_runs([{"id": "WRUN-1", "output": {"Post": "\x1b[2J\x7f 🎉"}}])
    code, shown = await terminal("get", emulator.workflow_id, "WRUN-1", env=environment(emulator))

    assert code == 0
    assert '\n  "output": {\n    "Post": "\\u001b[2J\\u007f 🎉"\n  },\n' in shown
    assert "\x1b" not in shown


async def test_get_wait(emulator: Emulator) -> None:
    """With `--wait` the run is shown once it is finished."""
    emulator.run_time = 0.3
    run_id = await start_run(emulator, Script(output={"Fit": "good"}))
    done = await cli("get", emulator.workflow_id, run_id, "--wait", emulator=emulator)

    assert (done.code, done.err) == (0, "")
    assert (done.rows[0]["status"], done.rows[0]["output"]) == ("COMPLETE", {"Fit": "good"})


@pytest.mark.parametrize(
    ("error", "reason"),
    [("no such site", "failed: 'no such site'"), (None, "failed without an error message")],
)
async def test_get_wait_for_a_run_that_fails(emulator: Emulator, error: str | None, reason: str) -> None:
    """With `--wait`, a failed run is printed, the message says why it failed, and the exit code is 1."""
    run_id = await start_run(emulator, Script(states=("FAILED",), error=error))
    done = await cli("get", emulator.workflow_id, run_id, "--wait", emulator=emulator)

    assert (done.code, done.rows[0]["status"]) == (1, "FAILED")
    assert done.err == f"aiocopyai: run {run_id} {reason}\n"


async def test_get_wait_for_a_run_that_does_not_finish(emulator: Emulator) -> None:
    """If a run is not finished in time, the exit code is 1. The message has its status and the command to continue."""
    run_id = await start_run(emulator, Script(states=("NEW",)))
    done = await cli("get", emulator.workflow_id, run_id, "--wait", "--timeout", "0.3", emulator=emulator)

    assert (done.code, done.out) == (1, "")
    # On a busy machine the first response may come later than that.
    assert re.fullmatch(
        rf"aiocopyai: run {run_id} (is still NEW|has no status) after 0\.3 s; "
        rf"`aiocopyai get {emulator.workflow_id} {run_id} --wait` continues to wait\n",
        done.err,
    )


async def test_get_wait_reports_failed_polls(emulator: Emulator) -> None:
    """A 404 is reported when the time is up, and a 429 at once. The messages name options, not parameters."""
    emulator.inject(Fault(status=429), times=2, path="WRUN-2")
    arguments = ("--wait", "--timeout", "0.3", "--retries", "0")
    unknown = await cli("get", emulator.workflow_id, "WRUN-1", *arguments, emulator=emulator)
    rejected = await cli("get", emulator.workflow_id, "WRUN-2", *arguments, emulator=emulator)

    assert (unknown.code, rejected.code) == (1, 1)
    assert re.search(
        r"WRUN-1 has no status after 0\.3 s; the last poll failed: HTTP 404 .*check the id.*; "
        r"`aiocopyai get .* --wait` continues to wait\n",
        unknown.err,
    )
    assert "try a lower --max-rate; polling again\n" in rejected.err
    assert "max_rate" not in rejected.err


async def test_get_wait_can_be_interrupted(emulator: Emulator) -> None:
    """Ctrl-C ends the wait with exit code 130, and a message says that the run continues."""
    run_id = await start_run(emulator, Script(states=("NEW",)))
    emulator.requests.clear()
    process = await start("-c", RUN_MAIN, "get", emulator.workflow_id, run_id, "--wait", env=environment(emulator))
    await await_event(process, lambda: emulator.requests)
    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert done == (130, "", f"run {run_id} continues on the server\nstopped\n")


async def test_timeout_of_get_without_wait(emulator: Emulator) -> None:
    """Without `--wait`, `--timeout` limits the time of the request."""
    [run_id] = emulator.add_runs(1)
    emulator.inject(Fault(delay=60), times=None)
    arguments = ("get", emulator.workflow_id, run_id, "--timeout", "0.2", "--retries", "0")
    done = await cli(*arguments, emulator=emulator)

    assert (done.code, done.out) == (1, "")
    assert "no complete response within 0.2 s" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get"], "pass either a WORKFLOW_ID and a RUN_ID, or --demo"),
        (["get", "WCFG-1"], "pass either a WORKFLOW_ID and a RUN_ID, or --demo"),
        (["get", "WCFG-1", "WRUN-1", "--demo"], "pass either a WORKFLOW_ID and a RUN_ID, or --demo"),
        (["get", "WCFG-1", ".."], "RUN_ID must be an id such as 'WRUN-"),
        (["get", "WRUN-1", "WCFG-1"], "got a run's id: 'WRUN-1'"),
        (["watch"], "pass either a WORKFLOW_ID or --demo"),
        (["watch", "WCFG-1", "--interval", "0"], "interval"),
        (["watch", ".."], "WORKFLOW_ID must be an id such as 'WCFG-"),
        (["emulate", "--runs", "many"], "--runs"),
    ],
)
async def test_usage_errors(emulator: Emulator, arguments: list[str], message: str) -> None:
    """Wrong usage ends the command with exit code 2 and the reason on standard error, and nothing is sent."""
    done = await cli(*arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert message in done.err
    assert "Traceback" not in done.err


async def test_get_of_an_unknown_run(emulator: Emulator) -> None:
    """An unknown run ends the command with exit code 1 and one line."""
    done = await cli("get", emulator.workflow_id, "WRUN-none", emulator=emulator)

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*404.*\n", done.err)


async def test_check_key(emulator: Emulator) -> None:
    """The exit code is 0 if the key is accepted, and 1 if it is rejected. Each check is one request."""
    accepted = await cli("check-key", emulator=emulator)
    rejected = await cli("check-key", emulator=emulator, COPYAI_API_KEY="wrong-key")

    assert accepted == (0, "", "the key is accepted\n")
    assert (rejected.code, rejected.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*401.*\n", rejected.err)
    assert "wrong-key" not in rejected.err
    assert [(request.method, request.path) for request in emulator.requests] == [("GET", "/api/webhook")] * 2


async def start_watch(emulator: Emulator, *options: str) -> asyncio.subprocess.Process:
    """Start to watch a workflow; return once the existing runs are known to the command."""
    emulator.requests.clear()
    arguments = ("watch", emulator.workflow_id, "--interval", "0.02", *options)
    process = await start("-c", RUN_MAIN, *arguments, env=environment(emulator))
    await await_event(process, lambda: len(emulator.requests) >= 3)
    return process


async def test_watch(emulator: Emulator) -> None:
    """Each new run and each change of status is printed at once. Ctrl-C prints a count and ends with exit code 130."""
    emulator.add_runs(5, status="COMPLETE")
    process = await start_watch(emulator)
    assert process.stdout is not None
    run_id = await start_run(emulator, Script(states=("NEW",)))
    runs: list[dict[str, JSON]] = []
    async with asyncio.timeout(PATIENCE):
        runs.append(json.loads(await process.stdout.readline()))
        for status in ("PROCESSING", "COMPLETE"):
            change(emulator, run_id, status=status)
            runs.append(json.loads(await process.stdout.readline()))
    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert [(run["id"], run["status"]) for run in runs] == [
        (run_id, "NEW"),
        (run_id, "PROCESSING"),
        (run_id, "COMPLETE"),
    ]
    assert done == (130, "", "stopped after 3 changes\n")


async def test_watch_of_a_status(emulator: Emulator) -> None:
    """With `--status`, only changes to this status are printed."""
    process = await start_watch(emulator, "--status", "failed", "--limit", "1")
    emulator.add_runs(2, status="COMPLETE")
    [run_id] = emulator.add_runs(1, status="FAILED")

    assert [row["id"] for row in (await finish(process)).rows] == [run_id]


async def test_watch_continues_after_an_outage(emulator: Emulator) -> None:
    """After an outage, the server is polled again. `--limit` ends the command after a number of changes."""
    process = await start_watch(emulator, "--limit", "1")
    emulator.inject(Fault(status=503), times=3)
    [run_id] = emulator.add_runs(1, status="COMPLETE", createdAt="2999-01-01T00:00:00Z")
    done = await finish(process)

    assert done.code == 0
    assert [row["id"] for row in done.rows] == [run_id]
    assert done.err.endswith("1 change\n")


async def test_watch_into_a_closed_pipe(emulator: Emulator) -> None:
    """A closed pipe ends the command at the next change, without a message."""
    reader, writer = os.pipe()
    arguments = ("watch", emulator.workflow_id, "--interval", "0.02", "--since", "2020-01-01")
    process = await start(*MAIN, *arguments, env=environment(emulator), stdout=writer)
    os.close(writer)
    emulator.add_runs(1)
    await asyncio.to_thread(os.read, reader, 10)
    os.close(reader)
    emulator.add_runs(1)
    done = await finish(process)

    assert (done.code, done.err) == (0, "")


async def test_demo_of_watch() -> None:
    """`watch --demo` prints changes without a key and without a network."""
    done = await cli("watch", "--demo", "--limit", "2")

    assert done.code == 0
    assert len(done.rows) == 2


async def test_demo_of_get_and_check_key() -> None:
    """`get --demo` prints the newest run, and `check-key --demo` accepts the emulator's key."""
    got, checked = await asyncio.gather(cli("get", "--demo", "--wait"), cli("check-key", "--demo"))

    assert got.code == checked.code == 0
    assert got.rows[0]["status"] == "COMPLETE"
    assert checked.err.endswith("the key is accepted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_emulate(number: signal.Signals) -> None:
    """The emulator prints its URL, serves requests at it, and ends without a traceback when it is stopped."""
    process = await start("-c", RUN_MAIN, "emulate", "--port", "0", "--runs", "7", env=environment())
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        lines = [(await process.stderr.readline()).decode().split() for _ in range(4)]
    (_, url), (_, key), (*_, workflow_id) = lines[1:]
    listed = await cli("runs", workflow_id, COPYAI_BASE_URL=url, COPYAI_API_KEY=key)
    process.send_signal(number)
    done = await finish(process)

    assert len(listed.rows) == 7
    assert done.code == 130
    assert "Traceback" not in done.err


async def test_help_of_emulate() -> None:
    """`emulate --help` shows the options of the emulator, and examples with the command's name."""
    done = await cli("emulate", "--help")

    assert done.code == 0
    assert "\n  aiocopyai emulate --runs 100" in done.out
    assert "--state FILE" in done.out
