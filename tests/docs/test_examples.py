"""Tests of the files in docs/examples, which run as processes with the emulator."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from aiocopyai.emulator import Emulator, Fault, Script
from tests.support.commands import environment, finish, start
from tests.support.pages import PAGES
from tests.support.proxying import Authority, CutProxy, tls_front
from tests.support.telegram import Telegram


EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SECRET = "a-secret-of-the-tests"
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
    """Run a server until the end of the block; yield its output when it responds."""
    env = environment(emulator, COPYAI_WORKFLOW_ID=emulator.workflow_id, **env)
    process = await start(*arguments, env=env)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(15):
            while not await _responds(base):
                assert process.returncode is None, await finish(process)
                await asyncio.sleep(0.05)
            yield process.stdout
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        done = await finish(process)
    assert "Traceback" not in done.err, done.err


async def _responds(base: str) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(base) as response:
            return response.status > 0
    except aiohttp.ClientConnectionError:
        return False


async def test_aiohttp_bot_replies_when_a_run_ends(emulator: Emulator) -> None:
    """A message starts one run. The confirmed webhook of this run causes the reply, and a forged one causes none."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    forged = {"type": "workflowRun.completed", "workflowRunId": "WRUN-none", "workflowId": emulator.workflow_id}
    emulator.script_next_runs(Script(output=OUTPUT))
    emulator.script_next_runs(Script(states=("NEW", "FAILED"), error="no such company"))
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


async def test_service_awaits_a_run_inside_a_request(emulator: Emulator) -> None:
    """Requests wait for their runs concurrently. A failed run is a 422. Webhooks and server-sent events work."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    serve = ("-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_service:app", "--no-access-log")
    arguments = (*serve, "--host", "127.0.0.1", "--port", str(port))
    emulator.script_next_runs(Script(output=OUTPUT), times=3)
    emulator.script_next_runs(Script(states=("NEW", "FAILED"), error="no such company"))
    async with (
        running(f"{base}/ended", *arguments, emulator=emulator, COPYAI_WEBHOOK_SECRET=SECRET),
        aiohttp.ClientSession() as http,
    ):

        async def ask() -> tuple[int, dict[str, object]]:
            async with http.post(f"{base}/fit?company=Northwind") as response:
                return response.status, await response.json()

        responses = await asyncio.gather(ask(), ask(), ask())
        failure = await ask()
        run_id = responses[0][1]["run"]
        delivery = {"type": "workflowRun.completed", "workflowRunId": run_id, "workflowId": emulator.workflow_id}
        async with http.post(f"{base}/copyai/{SECRET}", json=delivery) as response:
            assert response.status == 202
        async with http.get(f"{base}/runs/{run_id}/events") as response:
            stream = await response.text()
        ended = list[str]()
        while not ended:
            async with http.get(f"{base}/ended") as response:
                ended = await response.json()

    assert [(status, body["output"]) for status, body in responses] == [(200, OUTPUT)] * 3
    assert failure == (422, {"detail": "the workflow failed: no such company"})
    state = json.dumps({"status": "COMPLETE", "output": OUTPUT, "error": None})
    assert stream == f"data: {state}\n\nevent: end\ndata: end\n\n"
    assert ended == [run_id]
    assert len(emulator.runs()) == 4


async def test_pipeline_writes_a_result_for_each_row(emulator: Emulator, tmp_path: Path) -> None:
    """Each line of the source is one run and one line of the results. The program fails when the credits run out."""
    source, target = tmp_path / "companies.txt", tmp_path / "results.jsonl"
    names = [f"Customer {number}" for number in range(20)]
    source.write_text("\n\n".join(names), encoding="utf-8")
    emulator.credits = 30
    emulator.script_next_runs(Script(output=OUTPUT, credits=2), times=20)
    env = environment(emulator, COPYAI_WORKFLOW_ID=emulator.workflow_id)
    done = await finish(await start(str(EXAMPLES / "pipeline.py"), str(source), str(target), env=env))
    lines = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    complete = [line for line in lines if line["error"] is None]

    assert done.code == 1
    assert "\nstopped early: HTTP 400" in done.err
    assert len(complete) == 15 == len(emulator.runs())
    assert {line["run"] for line in complete} == {str(run["id"]) for run in emulator.runs()}
    assert all(line["inputs"]["Company"] == names[line["row"]] for line in lines)


async def test_telegram_bot_replies_to_each_message(emulator: Emulator) -> None:
    """Each message gets a reply with the output or the error of one run, even after a lost response."""
    emulator.script_next_runs(Script(output=OUTPUT), times=1)
    emulator.script_next_runs(Script(states=("FAILED",), error="no such company"))
    emulator.inject(Fault(reset="after"), method="POST")  # the response to the first start is lost
    async with Telegram() as telegram:
        env = environment(
            emulator, COPYAI_WORKFLOW_ID=emulator.workflow_id, TELEGRAM_TOKEN="1:token", TELEGRAM_API=telegram.url
        )
        process = await start(str(EXAMPLES / "aiogram_bot.py"), env=env)
        telegram.say("Northwind")
        replies = [await telegram.reply()]
        telegram.say("Nowhere")
        replies.append(await telegram.reply())
        process.send_signal(signal.SIGINT)
        done = await finish(process)

    assert replies == [("Northwind", "Fit: good"), ("Nowhere", "That did not work: no such company")]
    assert len(emulator.runs()) == 2
    assert done.code == 0, done.err


async def test_own_session_uses_a_proxy_and_a_certificate_authority(emulator: Emulator, tmp_path: Path) -> None:
    """The request reaches a server with a company's certificate through the proxy, which does not see the key."""
    authority, proxy, file = Authority(), CutProxy(random.Random(0)), tmp_path / "ca.pem"  # noqa: S311 (closes no connection)
    authority.ca.cert_pem.write_to_path(str(file))
    emulator.add_runs(3)
    async with tls_front(emulator, authority.server_context()) as url, proxy.serve() as proxy_url:
        env = environment(emulator, COPYAI_WORKFLOW_ID=emulator.workflow_id)
        env |= {"COPYAI_BASE_URL": url, "HTTPS_PROXY": proxy_url, "COMPANY_CA_FILE": str(file), "NO_PROXY": ""}
        done = await finish(await start("-W", "error", str(EXAMPLES / "own_session.py"), env=env))

    assert done.out == "3 runs\n", done.err
    assert len(proxy.heads) == len(emulator.requests) == 1
    assert emulator.api_key.encode() not in proxy.heads[0]


@pytest.mark.parametrize("captured", ["", ".*"], ids=["by default", "with all headers"])
async def test_each_attempt_is_a_span_without_the_key(emulator: Emulator, captured: str) -> None:
    """Each attempt has a span in the caller's span. No span contains the key, even with all headers."""
    emulator.add_runs(15, status="COMPLETE")
    emulator.inject(Fault(status=503, headers={"Retry-After": "0"}))
    capture = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
    env = environment(
        emulator,
        COPYAI_WORKFLOW_ID=emulator.workflow_id,
        **{f"{capture}CLIENT_REQUEST": captured, f"{capture}SANITIZE_FIELDS": "x-copy-ai-api-key"},
    )
    done = await finish(await start(str(EXAMPLES / "traced.py"), env=env))
    assert done.code == 0, done.err
    *requests, own = [json.loads(f"{{{text}") for text in ("\n" + done.out).split("\n{")[1:]]

    assert own["attributes"] == {"copyai.finished": 15}
    assert len(requests) == 3
    assert {span["parent_id"] for span in requests} == {own["context"]["span_id"]}
    assert sorted(span["status"]["status_code"] for span in requests) == ["ERROR", "UNSET", "UNSET"]
    assert emulator.api_key not in done.out
    assert ("REDACTED" in done.out) is bool(captured)


def test_every_example_is_tested() -> None:
    """Each file in docs/examples has a test in this file, and is shown on a page."""
    tested = set(re.findall(r"(\w+\.py)\b", Path(__file__).read_text("utf-8"))) | {"fastapi_service.py"}
    shown = {name for page in PAGES for name in re.findall(r"literalinclude\} examples/(\S+)", page.read_text("utf-8"))}

    assert {path.name for path in EXAMPLES.glob("*.py")} == shown <= tested
