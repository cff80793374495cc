"""Tests of ``aiocopyai mcp`` as a process, with the SDK's own client."""

from __future__ import annotations

import asyncio
import json
import re
import signal

import pytest
from mcp import Client

from aiocopyai.emulator import Emulator
from tests.support.commands import PATIENCE, START, cli, environment, finish, start


EMULATOR_RUNS = 3


async def test_serves_standard_input_until_it_is_interrupted(emulator: Emulator) -> None:
    """The command serves the protocol on its standard streams, and Ctrl-C stops it while its client is connected."""
    code = f"{START}from aiocopyai.cli import main; main()"
    process = await start("-c", code, "mcp", env=environment(emulator), stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    client = {"name": "test", "version": "1"}
    parameters = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": parameters}
    process.stdin.write(json.dumps(message).encode() + b"\n")
    async with asyncio.timeout(PATIENCE):
        response = json.loads(await process.stdout.readline())
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(PATIENCE):
        await process.wait()  # before its standard input is closed
    done = await finish(process)

    assert response["result"]["serverInfo"]["name"] == "aiocopyai"
    assert (done.code, done.out, done.err) == (130, "", "stopped\n")


async def test_serves_http_until_it_is_interrupted(emulator: Emulator) -> None:
    """With --http the command serves a loopback address, and Ctrl-C stops it."""
    code = f"{START}from aiocopyai.cli import main; main()"
    process = await start("-c", code, "mcp", "--http", "--port", "0", "--allow-start", env=environment(emulator))
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        address = re.search(r"http://127\.0\.0\.1:\d+/mcp", (await process.stderr.readline()).decode())
        assert address
        async with Client(address[0]) as client:
            result = await client.call_tool(
                "start_run", {"workflow_id": emulator.workflow_id, "inputs": {}, "idempotency_key": "order-17"}
            )
    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert result.structured_content is not None
    assert result.structured_content["runs_left"] == 9
    assert len(emulator.runs()) == 4
    assert (done.code, done.out, done.err) == (130, "", "stopped\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--demo", "WCFG-1"], "pass either a WORKFLOW_ID or --demo"),
        ([".."], "must be an id such as 'WCFG-"),
        (["--max-runs", "0"], "--max-runs"),
        (["--host", "127.0.0.1"], "--host requires --http"),
        (["--port", "8042"], "--port requires --http"),
        (["--http", "--host", ""], "--host must be an address"),
        (["--max-runs", "10"], "--max-runs requires --allow-start"),
        (["--max-credits", "100"], "--max-credits requires --allow-start"),
    ],
)
async def test_usage_errors(emulator: Emulator, arguments: list[str], message: str) -> None:
    """Wrong usage ends the command with exit code 2 and the reason, and nothing is sent."""
    done = await cli("mcp", *arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert message in done.err
