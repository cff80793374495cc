"""The files under docs/examples: each does what it says, as a process of its own, against the emulator."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from aiocopyai.emulator import Emulator, Script
from tests.commands import environment, finish, start


EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
SECRET = "a-secret-nobody-guesses"
OUTPUT = {"Fit": "good"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@pytest.fixture(name="emulator")
async def _emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as emulator:
        yield emulator


@asynccontextmanager
async def running(base: str, *arguments: str, emulator: Emulator, **env: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run a server until it is no longer needed; give its output once it answers at its address."""
    env = environment(emulator, COPYAI_WORKFLOW_ID=emulator.workflow_id, **env)
    process = await start(*arguments, env=env)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(15):
            while not await _answers(base):
                assert process.returncode is None, await finish(process)
                await asyncio.sleep(0.05)
            yield process.stdout
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        done = await finish(process)
    assert "Traceback" not in done.err, done.err


async def _answers(base: str) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(base) as response:
            return response.status > 0
    except aiohttp.ClientConnectionError:
        return False


async def test_the_bot_answers_each_message_once_its_run_is_over(emulator: Emulator) -> None:
    """A message starts one run; the webhook of its end, confirmed by the API, is the answer; forged ones are not."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    forged = {"type": "workflowRun.completed", "workflowRunId": "WRUN-none", "workflowId": emulator.workflow_id}
    emulator.plan(Script(output=OUTPUT))
    emulator.plan(Script(states=("NEW", "FAILED"), error="no such company"))
    env = {"BOT_SECRET": SECRET, "BOT_PORT": str(port)}
    async with (
        running(base, str(EXAMPLES / "aiohttp_bot.py"), emulator=emulator, **env) as out,
        aiohttp.ClientSession() as http,
    ):
        async with http.post(f"{base}/copyai/{SECRET}", json=forged) as response:
            assert response.status == 202
        said = b""
        for message in ("Northwind", "Nowhere"):
            async with http.post(f"{base}/messages", data=message) as response:
                assert response.status == 202
            while f"{message}:".encode() not in said:
                said += await out.readline()

    assert f"Northwind: {OUTPUT}\n" in said.decode()
    assert "Nowhere: failed, no such company\n" in said.decode()
    assert "none" not in said.decode()
    assert len(emulator.runs()) == 2
    assert len(emulator.webhooks) == 2


async def test_the_service_awaits_a_run_inside_a_request(emulator: Emulator) -> None:
    """Requests wait for their runs side by side; a failed run is a 422; a webhook of a true end is remembered."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    serve = ("-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_service:app", "--no-access-log")
    arguments = (*serve, "--host", "127.0.0.1", "--port", str(port))
    emulator.plan(Script(output=OUTPUT), times=3)
    emulator.plan(Script(states=("NEW", "FAILED"), error="no such company"))
    async with (
        running(f"{base}/over", *arguments, emulator=emulator, COPYAI_WEBHOOK_SECRET=SECRET),
        aiohttp.ClientSession() as http,
    ):

        async def ask() -> tuple[int, dict[str, object]]:
            async with http.post(f"{base}/fit?company=Northwind") as response:
                return response.status, await response.json()

        answers = await asyncio.gather(ask(), ask(), ask())
        failure = await ask()
        run_id = answers[0][1]["run"]
        told = {"type": "workflowRun.completed", "workflowRunId": run_id, "workflowId": emulator.workflow_id}
        async with http.post(f"{base}/copyai/{SECRET}", json=told) as response:
            assert response.status == 202
        over = list[str]()
        while not over:
            async with http.get(f"{base}/over") as response:
                over = await response.json()

    assert [(status, body["output"]) for status, body in answers] == [(200, OUTPUT)] * 3
    assert failure == (422, {"detail": "the workflow failed: no such company"})
    assert over == [run_id]
    assert len(emulator.runs()) == 4


async def test_the_pipeline_writes_what_became_of_each_row(emulator: Emulator, tmp_path: Path) -> None:
    """Each line of the source is one run and one line of the result; credits that run out end it with an error."""
    source, target = tmp_path / "companies.txt", tmp_path / "results.jsonl"
    names = [f"Customer {number}" for number in range(20)]
    source.write_text("\n\n".join(names), encoding="utf-8")
    emulator.credits = 30
    emulator.plan(Script(output=OUTPUT, credits=2), times=20)
    env = environment(emulator, COPYAI_WORKFLOW_ID=emulator.workflow_id)
    done = await finish(await start(str(EXAMPLES / "pipeline.py"), str(source), str(target), env=env))
    lines = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    complete = [line for line in lines if line["error"] is None]

    assert done.code == 1
    assert "\nstopped early: HTTP 400" in done.err
    assert len(complete) == 15 == len(emulator.runs())
    assert {line["run"] for line in complete} == {str(run["id"]) for run in emulator.runs()}
    assert all(line["inputs"]["Company"] == names[line["row"]] for line in lines)


def test_no_example_is_left_untested() -> None:
    """Each file under docs/examples has its test here."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"aiohttp_bot.py", "fastapi_service.py", "pipeline.py"}
