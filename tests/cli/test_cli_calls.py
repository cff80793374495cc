"""``aiocopyai get``, ``watch``, ``check-key`` and ``emulate``, as processes of their own, against the emulator."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal

import aiohttp
import pytest

from aiocopyai.emulator import Emulator, Fault, Script
from tests.support.commands import MAIN, START, cli, environment, finish, start, terminal


INTERRUPTIBLE = START + "from aiocopyai.cli import main; main()"


async def started(emulator: Emulator, script: Script) -> str:
    """Start a run that goes like this; give its id."""
    emulator.script_next_runs(script)
    headers = {"x-copy-ai-api-key": emulator.api_key}
    url = f"{emulator.url}/workflow/{emulator.workflow_id}/run"
    async with aiohttp.ClientSession(headers=headers) as http, http.post(url, json={"startVariables": {}}) as answer:
        run_id: str = (await answer.json())["data"]["id"]
        return run_id


async def test_get_shows_a_run_as_it_stands(emulator: Emulator) -> None:
    """One line of JSON with every field; a run that failed is no failure of the command."""
    [run_id] = emulator.add_runs(1, status="FAILED", error={"message": "no"})
    done = await cli("get", emulator.workflow_id, run_id, emulator=emulator)

    assert (done.code, done.err) == (0, "")
    assert (done.rows[0]["id"], done.rows[0]["error"]) == (run_id, {"message": "no"})


async def test_get_on_a_terminal_is_indented(emulator: Emulator) -> None:
    """A person can read it, and what it quotes can't steer the terminal."""
    emulator.replace_runs([{"id": "WRUN-1", "output": {"Post": "\x1b[2J\x7f 🎉"}}])
    code, shown = await terminal("get", emulator.workflow_id, "WRUN-1", env=environment(emulator))

    assert code == 0
    assert '\n  "output": {\n    "Post": "\\u001b[2J\\u007f 🎉"\n  },\n' in shown
    assert "\x1b" not in shown


async def test_get_waits_for_the_end(emulator: Emulator) -> None:
    """With `--wait` the run is shown once it is over."""
    emulator.run_time = 1
    run_id = await started(emulator, Script(output={"Fit": "good"}))
    done = await cli("get", emulator.workflow_id, run_id, "--wait", emulator=emulator)

    assert done.code == 0
    assert (done.rows[0]["status"], done.rows[0]["output"]) == ("COMPLETE", {"Fit": "good"})


async def test_get_wait_tells_a_failure_by_its_exit_code(emulator: Emulator) -> None:
    """A run that failed is shown, and its error told; one that takes too long is told with its id."""
    failed = await started(emulator, Script(states=("FAILED",), error="no such site"))
    endless = await started(emulator, Script(states=("NEW",)))
    failure = await cli("get", emulator.workflow_id, failed, "--wait", emulator=emulator)
    late = await cli("get", emulator.workflow_id, endless, "--wait", "--timeout", "0.3", emulator=emulator)

    assert failure.code == late.code == 1
    assert failure.rows[0]["error"] == "no such site"
    assert re.fullmatch(r"aiocopyai: .*no such site.*\n", failure.err)
    assert late.out == ""
    assert re.fullmatch(rf"aiocopyai: .*{endless}.*\n", late.err)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["get"], "give either a WORKFLOW_ID and a RUN_ID, or --demo"),
        (["get", "WCFG-1"], "give either a WORKFLOW_ID and a RUN_ID, or --demo"),
        (["get", "WCFG-1", "WRUN-1", "--demo"], "give either a WORKFLOW_ID and a RUN_ID, or --demo"),
        (["get", "WCFG-1", ".."], "RUN_ID must be"),
        (["watch"], "give either a WORKFLOW_ID or --demo"),
        (["watch", "WCFG-1", "--interval", "0"], "interval"),
        (["watch", ".."], "WORKFLOW_ID must be"),
        (["emulate", "--runs", "many"], "--runs"),
    ],
)
async def test_what_makes_no_sense_is_usage(emulator: Emulator, arguments: list[str], complaint: str) -> None:
    """Exit code 2, the reason on standard error, and nothing sent."""
    done = await cli(*arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert complaint in done.err
    assert "Traceback" not in done.err


async def test_a_run_that_is_not_there_is_one_line(emulator: Emulator) -> None:
    """Exit code 1."""
    done = await cli("get", emulator.workflow_id, "WRUN-none", emulator=emulator)

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*404.*\n", done.err)


async def test_check_key(emulator: Emulator) -> None:
    """0 and a word for a good key, 1 and a line for another; it takes one request that changes nothing."""
    good = await cli("check-key", emulator=emulator)
    bad = await cli("check-key", emulator=emulator, COPYAI_API_KEY="wrong-key")

    assert good == (0, "", "the key is accepted\n")
    assert (bad.code, bad.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*401.*\n", bad.err)
    assert "wrong-key" not in bad.err
    assert [(request.method, request.path) for request in emulator.requests] == [("GET", "/api/webhook")] * 2


async def watching(emulator: Emulator, *options: str) -> asyncio.subprocess.Process:
    """Watch a workflow; it has learnt what was there before once this returns."""
    emulator.requests.clear()
    arguments = ("watch", emulator.workflow_id, "--interval", "0.02", *options)
    process = await start("-c", INTERRUPTIBLE, *arguments, env=environment(emulator))
    while len(emulator.requests) < 3:
        assert process.returncode is None
        await asyncio.sleep(0.005)
    return process


async def test_watch_shows_news_as_it_happens(emulator: Emulator) -> None:
    """Each new run and each change of its status is a line at once; Ctrl-C ends it with 130 and a count."""
    emulator.add_runs(5, status="COMPLETE")
    process = await watching(emulator)
    emulator.run_time = 0.4
    run_id = await started(emulator, Script(states=("NEW", "PROCESSING", "COMPLETE")))
    assert process.stdout is not None
    async with asyncio.timeout(15):
        told = [json.loads(await process.stdout.readline()) for _ in range(3)]
    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert [(run["id"], run["status"]) for run in told] == [
        (run_id, "NEW"),
        (run_id, "PROCESSING"),
        (run_id, "COMPLETE"),
    ]
    assert (done.code, done.out, done.err) == (130, "", "stopped after 3 changes\n")


async def test_watch_outlives_an_outage_and_stops_at_its_limit(emulator: Emulator) -> None:
    """A server that is down for a while is waited for."""
    process = await watching(emulator, "--limit", "1")
    emulator.inject(Fault(status=503), times=3)
    [run_id] = emulator.add_runs(1, status="COMPLETE", createdAt="2999-01-01T00:00:00Z")
    done = await finish(process)

    assert done.code == 0
    assert [row["id"] for row in done.rows] == [run_id]
    assert done.err.endswith("1 change\n")


async def test_watch_ends_when_its_reader_does(emulator: Emulator) -> None:
    """A closed pipe ends it quietly at the next news."""
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


async def test_the_demo_has_news() -> None:
    """`watch --demo` needs nothing, and something happens."""
    done = await cli("watch", "--demo", "--limit", "2")

    assert done.code == 0
    assert len(done.rows) == 2


async def test_the_demo_has_runs_to_get_and_a_key_to_check() -> None:
    """`get --demo` shows the newest run; `check-key --demo` accepts the demo's key."""
    got, checked = await asyncio.gather(cli("get", "--demo", "--wait"), cli("check-key", "--demo"))

    assert got.code == checked.code == 0
    assert got.rows[0]["status"] == "COMPLETE"
    assert checked.err.endswith("the key is accepted\n")


async def test_emulate_serves_until_ctrl_c() -> None:
    """It says how it is reached, answers there, and ends with 130."""
    process = await start("-c", INTERRUPTIBLE, "emulate", "--port", "0", "--runs", "7", env=environment())
    assert process.stderr is not None
    async with asyncio.timeout(15):
        said = [(await process.stderr.readline()).decode().split() for _ in range(4)]
    (_, url), (_, key), (*_, workflow_id) = said[1:]
    listed = await cli("runs", workflow_id, COPYAI_BASE_URL=url, COPYAI_API_KEY=key)
    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert len(listed.rows) == 7
    assert done.code == 130
    assert "Traceback" not in done.err


async def test_emulate_has_help_of_its_own() -> None:
    """`--help` names its options, and examples by the name it was called by."""
    done = await cli("emulate", "--help")

    assert done.code == 0
    assert "\n  aiocopyai emulate --runs 100" in done.out
    assert "--state FILE" in done.out
