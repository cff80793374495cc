"""Tests of `python -m aiocopyai.emulator`."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from aiocopyai.emulator import Emulator, main, serve
from aiocopyai.emulator import __main__ as program
from tests.support.commands import START, finish
from tests.support.raw_api import PATIENCE, raw_api, wait_until


PROGRAM = [sys.executable, "-c", f"{START}import runpy; runpy.run_module('aiocopyai.emulator', run_name='__main__')"]


@asynccontextmanager
async def serving(*arguments: str, lines: int = 4) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run the program on a free port; yield the process, and the text that it prints at the start."""
    process = await asyncio.create_subprocess_exec(*PROGRAM, "--port", "0", *arguments, stdout=DEVNULL, stderr=PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            printed = "".join([(await process.stderr.readline()).decode() for _ in range(lines)])
        yield process, printed
    finally:
        if process.returncode is None:
            process.kill()
        await finish(process)


async def test_serve_until_interrupted(tmp_path: Path) -> None:
    """The program prints its URL, key and workflow, responds to requests, and ends without a message on SIGINT."""
    arguments = ["--runs", "7", "--key", "k", "--workflow-id", "w", "--run-time", "0", "--credits", "5"]
    async with serving(*arguments, "--state", str(tmp_path / "s.db")) as (process, printed):
        found = re.search(r"url +(http://127\.0\.0\.1:\d+/api)\n +key +k\n +workflow id +w\n", printed)
        assert found is not None
        async with aiohttp.ClientSession(found[1] + "/", headers={"x-copy-ai-api-key": "k"}) as http:
            async with http.post("workflow/w/run", json={"startVariables": {}}) as response:
                assert response.status == 200
            async with http.get("workflow/w/run") as response:
                assert (await response.json())["data"]["total"] == 8
        process.send_signal(signal.SIGINT)
        done = await finish(process)
        assert (done.code, done.err) == (130, "")
    assert Emulator(workflow_id="w", state=tmp_path / "s.db").credits == 2


async def test_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    """If the port is in use, the program prints one line and exits with 1."""
    async with Emulator() as emulator:
        port = URL(emulator.url).port
        assert await asyncio.to_thread(main, ["--port", str(port)]) == 1
    assert capsys.readouterr().err == f"aiocopyai.emulator: port {port} is already in use: choose another --port\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--runs", "-1"], "runs must be between 0 and"),
        (["--run-time", "-1"], "run_time must be a number of seconds, 0 or more"),
        (["--state", "/dev/null/x"], "/dev/null/x: unable to open"),
    ],
)
def test_invalid_values(capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    """For values that the emulator rejects, the program prints the reason on one line and exits with 1."""
    assert main(["--port", "0", *arguments]) == 1
    printed = capsys.readouterr().err
    assert reason in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--port", "65536"], "argument --port: must be between 0 and 65535, got 65536"),
        (["--port", "x"], "argument --port: must be between 0 and 65535, got x"),
        (["--runs", "many"], "argument --runs: "),
        (["more"], "more"),
    ],
)
def test_invalid_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    """An invalid argument is a usage error with exit status 2."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert re.search(f"error: .*{reason}", capsys.readouterr().err)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The help lists every option and shows an example."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    for option in ("runs", "port", "key", "workflow-id", "state", "run-time", "credits", "seed", "verbose"):
        assert f"--{option}" in printed
    assert "example:\n  python -m aiocopyai.emulator " in printed


async def test_cancel_serve(capsys: pytest.CaptureFixture[str]) -> None:
    """`serve()` serves an emulator until its task is cancelled, and then stops it."""
    emulator = Emulator()
    task = asyncio.create_task(serve(emulator))
    await wait_until(lambda: "workflow id" in capsys.readouterr().err)
    assert emulator.url
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert repr(emulator) == "<Emulator stopped>"


async def test_several_workflows(tmp_path: Path) -> None:
    """Each of several workflows has its own runs, and those in a state file keep theirs."""
    arguments = ["--runs", "3", "--workflow-id", "a", "--workflow-id", "b", "--state", str(tmp_path / "s.db")]
    async with serving(*arguments, lines=5) as (_, printed):
        assert re.findall("workflow id  (.+)", printed) == ["a", "b"]
        found = re.search("url +(.+)", printed)
        assert found is not None
        async with aiohttp.ClientSession(found[1] + "/", headers={"x-copy-ai-api-key": "emulator-key"}) as http:
            for workflow_id in "ab":
                async with http.get(f"workflow/{workflow_id}/run") as response:
                    assert (await response.json())["data"]["total"] == 3
    again = program._make_emulator(program._parser("emulate").parse_args([*arguments, "--workflow-id", "c"]))
    assert [len(again.runs(each)) for each in again.workflow_ids] == [3, 3, 3]


async def test_verbose() -> None:
    """With `--verbose`, the program prints a line for each request, with its status but without the key."""
    async with serving("--verbose", "--key", "confidential") as (process, printed):
        assert process.stderr is not None
        found = re.search("url +(.+)", printed)
        assert found is not None
        async with aiohttp.ClientSession() as http:
            await http.get(found[1] + "/workflow/a/run?page=2", headers={"x-copy-ai-api-key": "confidential"})
            await http.post(found[1] + "/webhook")
        async with asyncio.timeout(PATIENCE):
            lines = [(await process.stderr.readline()).decode() for _ in range(2)]
    assert lines == ["GET /api/workflow/a/run?page=2: HTTP 404\n", "POST /api/webhook: HTTP 401\n"]


async def test_logs_are_trimmed() -> None:
    """The program keeps only the latest requests and deliveries, and continues to count."""
    emulator = program._make_emulator(program._parser("emulate").parse_args(["--port", "0", "--runs", "0"]))
    async with emulator, raw_api(emulator) as api:
        await api.create_webhook("http://elsewhere.example.com/", "workflowRun.started")
        for _ in range(150):
            await api.start_run()
        assert (len(emulator.requests), emulator.requests[-1].number) == (100, 151)
        assert len(emulator.deliveries) < 150
