"""`python -m aiocopyai.emulator`: what its user sees."""

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

from aiocopyai.emulator import Emulator, _cli, main, serve
from tests.support.bare import asking
from tests.support.commands import START, finish


PROGRAM = [sys.executable, "-c", f"{START}import runpy; runpy.run_module('aiocopyai.emulator', run_name='__main__')"]


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run the program on a free port; give it with what it says at its start."""
    process = await asyncio.create_subprocess_exec(*PROGRAM, "--port", "0", *arguments, stdout=DEVNULL, stderr=PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            said = "".join([(await process.stderr.readline()).decode() for _ in range(4)])
        yield process, said
    finally:
        if process.returncode is None:
            process.kill()
        await finish(process)


async def test_serves_until_interrupted(tmp_path: Path) -> None:
    """It says where it is and what it wants to be sent, answers, and ends quietly when interrupted."""
    arguments = ["--runs", "7", "--key", "k", "--workflow-id", "w", "--run-time", "0", "--credits", "5"]
    async with serving(*arguments, "--state", str(tmp_path / "s.db")) as (process, said):
        found = re.search(r"url +(http://127\.0\.0\.1:\d+/api)\n +key +k\n +workflow id +w\n", said)
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


async def test_port_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that is taken is one clear line and an exit status of 1."""
    async with Emulator() as emulator:
        port = URL(emulator.url).port
        assert await asyncio.to_thread(main, ["--port", str(port)]) == 1
    assert capsys.readouterr().err == f"aiocopyai.emulator: port {port} is already in use\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--runs", "-1"], "must not be negative"),
        (["--run-time", "-1"], "must not be negative"),
        (["--state", "/dev/null/x"], "/dev/null/x: unable to open"),
    ],
)
def test_what_cannot_be_served(capsys: pytest.CaptureFixture[str], arguments: list[str], why: str) -> None:
    """What can't be served is one line that says why, and an exit status of 1."""
    assert main(["--port", "0", *arguments]) == 1
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--port", "65536"], ["--port", "x"], ["--runs", "many"], ["more"]])
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """A wrong argument is a usage error, with an exit status of 2."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "error: " in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names every option and shows an example."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    for option in ("runs", "port", "key", "workflow-id", "state", "run-time", "credits", "seed"):
        assert f"--{option}" in said
    assert "example:\n  python -m aiocopyai.emulator " in said


async def test_serve_ends_when_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    """An emulator of one's own is served until the task is cancelled, and stopped then."""
    emulator = Emulator()
    serving_it = asyncio.create_task(serve(emulator))
    while "workflow id" not in capsys.readouterr().err:
        await asyncio.sleep(0.001)
    assert emulator.url
    serving_it.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving_it
    assert repr(emulator) == "<Emulator stopped>"


async def test_logs_stay_short() -> None:
    """A server that runs for weeks forgets old requests and deliveries, and goes on counting."""
    emulator = _cli._make_emulator(_cli._parser("emulate").parse_args(["--port", "0", "--runs", "0"]))
    async with emulator, asking(emulator) as bare:
        await bare.register("http://elsewhere.example.com/", "workflowRun.started")
        for _ in range(150):
            await bare.start()
        assert (len(emulator.requests), emulator.requests[-1].number) == (100, 151)
        assert len(emulator.deliveries) < 150
