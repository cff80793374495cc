"""Tests of the Model Context Protocol server, with the SDK's own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client

from aiocopyai import CopyAISession, RetryPolicy
from aiocopyai.emulator import Emulator, Fault, Script
from aiocopyai.integrations.mcp import make_server
from tests.support.arguments import INVALID_INTEGERS, problem_of


pytestmark = pytest.mark.xdist_group("mcp")  # imports the SDK, which is slow, only once

READ_TOOLS = {"list_runs", "get_run", "read_output", "find_run", "wait_run", "report"}


@pytest.fixture(name="emulator")
async def _emulator() -> AsyncIterator[Emulator]:
    async with Emulator(12, run_time=0) as emulator:
        yield emulator


@asynccontextmanager
async def connected(emulator: Emulator, *workflow_ids: str, **options: bool | int) -> AsyncIterator[Client]:
    """Yield a client of a server that reads from the emulator."""
    retry = RetryPolicy(attempts=1)
    async with (
        asyncio.timeout(20),
        CopyAISession(emulator.api_key, base_url=emulator.url, retry=retry) as session,
        Client(make_server(session, workflow_ids or [emulator.workflow_id], **options)) as client,
    ):
        yield client


async def call(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """Call a tool that succeeds, and return its result."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def call_error(client: Client, tool: str, **arguments: object) -> str:
    """Call a tool that fails, and return its error message."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content)


async def test_tools_that_read_runs(emulator: Emulator) -> None:
    """The tools list, filter, read and wait for runs, and a failed run is not an error."""
    newest = emulator.runs()[0]["id"]
    failed = emulator.add_runs(1, status="FAILED")[0]
    async with connected(emulator) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        listed = await call(client, "list_runs", limit=2, days=3650)
        failures = await call(client, "list_runs", status="failed", days=3650)
        run = await call(client, "get_run", run_id=newest)
        awaited = await call(client, "wait_run", run_id=failed)

    assert tools == READ_TOOLS
    assert [shown["id"] for shown in listed["runs"]] == [failed, newest]
    assert listed["may_have_more"] is True
    assert failed in {shown["id"] for shown in failures["runs"]}
    assert {shown["status"] for shown in failures["runs"]} == {"FAILED"}
    assert run["id"] == newest
    assert awaited["status"] == "FAILED"


async def test_report_counts_the_runs(emulator: Emulator) -> None:
    """The report has the totals of all runs, and says whether it stopped after `max_runs`."""
    async with connected(emulator) as client:
        report = await call(client, "report", days=3650)
        stopped = await call(client, "report", days=3650, max_runs=5)

    assert report["runs"] == 12 == sum(totals["runs"] for totals in report["by_status"].values())
    assert report["credits"] == sum(int(str(run.get("credits") or 0)) for run in emulator.runs())
    assert (report["stopped_after_max_runs"], stopped["stopped_after_max_runs"]) == (False, True)


async def test_results_are_bounded(emulator: Emulator) -> None:
    """Long texts and many fields are truncated, and an output can be read in parts."""
    text = "x" * 25_000
    emulator.replace_runs(
        [{"id": "WRUN-1", "status": "COMPLETE", "output": {"long": text, **{f"o{n}": text for n in range(50)}}}]
    )
    async with connected(emulator) as client:
        shown = await call(client, "get_run", run_id="WRUN-1")
        parts = [await call(client, "read_output", run_id="WRUN-1", name="long", offset=n) for n in (0, 10_000, 20_000)]
        message = await call_error(client, "read_output", run_id="WRUN-1", name="other")

    assert shown["output"]["long"] == f"{text[:10_000]}… (15,000 more characters)"
    assert shown["output"]["…"].endswith("more fields")
    assert len(str(shown)) < 35_000
    assert "".join(part["text"] for part in parts) == text
    assert parts[-1]["next_offset"] == parts[-1]["characters"] == 25_000
    assert len(message) < 1_500


async def test_error_messages(emulator: Emulator) -> None:
    """The error of a tool has the message of the client's exception, but not the API key."""
    async with connected(emulator) as client:
        messages = [
            await call_error(client, "get_run", run_id="WRUN-none"),
            await call_error(client, "get_run", run_id="a/../b", workflow_id="WCFG-other"),
            await call_error(client, "list_runs", limit=101),
        ]
        emulator.inject(Fault(status=500))
        messages.append(await call_error(client, "report"))
        emulator.run_time = 60
        async with CopyAISession(emulator.api_key, base_url=emulator.url) as session:
            run = await session.start_run(emulator.workflow_id, {"Company": "Northwind"})
        messages.append(await call_error(client, "wait_run", run_id=run.id, timeout=0.01))
    async with connected(emulator, "WCFG-a", "WCFG-b") as client:
        messages.append(await call_error(client, "list_runs"))

    expected = (
        "HTTP 404",
        "workflow_id must be one of",
        "less than or equal to 100",
        "HTTP 500",
        "after 0.01 s",
        "must be one of WCFG-a, WCFG-b",
    )
    assert all(part in message for part, message in zip(expected, messages, strict=True)), messages
    assert emulator.api_key not in str(messages)


async def test_an_idempotency_key_starts_one_run(emulator: Emulator) -> None:
    """A repeated start returns the same run, even from another server, and counts once against the budget."""
    async with connected(emulator, allow_start=True) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        first, again = [
            await call(client, "start_run", inputs={"Company": "Northwind"}, idempotency_key="order-17")
            for _ in range(2)
        ]
        found = await call(client, "find_run", idempotency_key="order-17")
        absent = await call(client, "find_run", idempotency_key="order-18")
    async with connected(emulator, allow_start=True) as client:
        reused = await call(client, "start_run", inputs={"Company": "Northwind"}, idempotency_key="order-17")

    assert tools == READ_TOOLS | {"start_run"}
    assert len(emulator.runs()) == 13
    assert first["run_id"] == again["run_id"] == reused["run_id"] == found["run"]["id"]
    assert absent["run"] is None
    assert [start["existed_already"] for start in (first, again, reused)] == [False, True, True]
    assert [start["runs_left"] for start in (first, again, reused)] == [9, 9, 10]


async def test_runs_beyond_the_budget_are_not_started(emulator: Emulator) -> None:
    """Concurrent starts share the budget of runs, and a start that the API rejects does not count."""
    async with connected(emulator, allow_start=True, max_runs=2) as client:
        emulator.inject(Fault(status=400))
        await call_error(client, "start_run", inputs={}, idempotency_key="k0")
        results = await asyncio.gather(
            *(client.call_tool("start_run", {"inputs": {}, "idempotency_key": f"k{n}"}) for n in range(5))
        )

    assert sum(not result.is_error for result in results) == 2
    assert "budget of 2 runs is used up" in str([result.content for result in results])
    assert len(emulator.runs()) == 14


async def test_no_run_is_started_after_the_budget_of_credits_is_used(emulator: Emulator) -> None:
    """No run is started after the started runs have used all credits of the budget."""
    emulator.script_next_runs(Script(output={}, credits=60), times=None)
    async with connected(emulator, allow_start=True, max_credits=100) as client:
        for number in range(2):
            await call(client, "start_run", inputs={}, idempotency_key=f"k{number}")
        message = await call_error(client, "start_run", inputs={}, idempotency_key="k2")

    assert "120 were spent" in message
    assert len(emulator.runs()) == 14


@pytest.mark.parametrize("name", ["max_runs", "max_credits"])
async def test_invalid_budgets(name: str) -> None:
    """A budget that is not an integer >= 1 raises ValueError."""
    async with CopyAISession("emulator-key") as session:
        for value in (0, *INVALID_INTEGERS.values()):
            with pytest.raises(ValueError, match=rf"^{name} must ") as caught:
                make_server(session, allow_start=True, **{name: value})

            assert problem_of(caught.value) == ""
