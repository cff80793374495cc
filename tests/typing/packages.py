"""The types of the emulator, the exports, the Arrow tables and the server for agents; see ``api.py``."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
# pyarrow is not typed, so the types of its values are unknown.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_type

from mcp.server.mcpserver import MCPServer

from aiocopyai import CopyAISession, Run
from aiocopyai.emulator import Delivery, Emulator, Fault, Quirks, Request, Script, main, serve
from aiocopyai.export import Exported, ExportError, Progress, export_runs, read_export
from aiocopyai.integrations.arrow import FLAT_SCHEMA, SCHEMA, flat_batch, read_batch, record_batch, runs_table
from aiocopyai.integrations.mcp import make_server


async def runs_an_emulator() -> None:
    """The emulator with its options, and its records."""
    emulator = Emulator(250, workflow_id="W", api_key="k", seed=1, quirks=Quirks(), latency=0.1, run_time=0, credits=9)
    async with emulator as entered:
        assert_type(entered, Emulator)
        assert_type(emulator.url, str)
        assert_type(emulator.api_key, str)
        assert_type(emulator.workflow_id, str)
        assert_type(emulator.requests, list[Request])
        assert_type(emulator.deliveries, list[Delivery])
        assert_type(emulator.workflow_ids, list[str])
        assert_type(emulator.on_request, Callable[[Emulator, Request], None] | None)
        assert_type(emulator.add_runs(3, at="tail", status="FAILED"), list[str])
        assert_type(emulator.runs(), list[dict[str, Any]])
        assert_type(emulator.webhooks, list[dict[str, Any]])
        title: str = emulator.runs()[0]["output"]["Post"]["title"]
        tags = title.split()
        emulator.add_runs(3, input={"tags": tags}, metadata={"words": {title: tags}})
        emulator.script_next_runs(Script(output={"Tags": tags}))
        assert_type(emulator.credits, int | None)
        assert_type(emulator.run_time, float)
        assert_type(await emulator.deliver("workflowRun.failed", run_id="R"), list[Delivery])
        emulator.replace_runs([{"id": "R"}, None, 3])
        emulator.remove_runs(["R"])
        emulator.script_next_runs(
            Script(states=("NEW", "FAILED"), output={"a": [1]}, error={"why": None}, credits=0), times=None
        )
        emulator.inject(Fault(status=429, headers={"Retry-After": "1"}), times=2, method="GET", path="run", page=1)
        emulator.inject(Fault(reset="after", delay=0.1))
        emulator.clear_faults()
        emulator.quirks = Quirks(total=lambda count: count + 1, past_end=404, oversize="reject", retention=9)
    with emulator as entered_in_a_thread:
        assert_type(entered_in_a_thread, Emulator)
    await serve(emulator)
    assert_type(main(["--port", "0"]), int)


def reads_records(request: Request, delivery: Delivery) -> None:
    """The fields of requests and deliveries."""
    assert_type(request.number, int)
    assert_type(request.method, str)
    assert_type(request.path, str)
    assert_type(request.query, dict[str, str])
    assert_type(request.headers, dict[str, str])
    assert_type(request.page, int | None)
    assert_type(request.size, int | None)
    assert_type(delivery.url, str)
    assert_type(delivery.event_type, str)
    assert_type(delivery.body, dict[str, Any])
    company: str = request.body["startVariables"]["company"]
    assert_type(company, str)
    assert_type(delivery.status, int | None)


async def exports(session: CopyAISession, path: Path, report: Callable[[Progress], None]) -> None:
    """Exports, and reading them back."""
    try:
        done = await export_runs(session, ["W"], path, resume=True, on_progress=report)
    except ExportError as error:
        assert_type(str(error), str)
        return
    assert_type(done, Exported)
    assert_type(done.path, Path)
    assert_type(done.runs, int)
    assert_type(done.by_status, Mapping[str, int])
    assert_type(done.credits, int)
    assert_type(done.is_written, bool)
    assert_type(done.is_addition, bool)
    await export_runs(session, ("W",), "runs.csv", since="last")
    await export_runs(session, ["W"], path, since=datetime(2026, 1, 1, tzinfo=UTC), force=True)
    assert_type(read_export("runs.csv"), Iterator[Run])


def follows_progress(progress: Progress) -> None:
    """The progress of an export."""
    assert_type(progress.runs, int)
    assert_type(progress.total, int | None)
    assert_type(progress.by_status, Mapping[str, int])
    assert_type(progress.credits, int)


def makes_tables(runs: list[Run]) -> None:
    """Arrow tables, and reading them back."""
    batch = record_batch(runs)
    assert_type(read_batch(batch), list[Run])
    record_batch(run for run in runs)
    flat_batch(run for run in runs)
    str(SCHEMA)
    str(FLAT_SCHEMA)


def serves_agents(session: CopyAISession) -> None:
    """A server for agents, with its options."""
    server: MCPServer = make_server(session)
    str(server)
    make_server(session, ("W",), allow_start=True, max_runs=3, max_credits=5)


async def makes_wrong_calls(session: CopyAISession, emulator: Emulator) -> None:
    """Wrong calls: each is an error for both type checkers."""
    Fault(500)  # type: ignore[call-arg]  # fields are named
    Fault(reset="during")  # type: ignore[arg-type]  # before or after the request is executed
    Quirks(total="float")  # type: ignore[arg-type]  # not an option
    emulator.add_runs(1, at="middle")  # type: ignore[arg-type]  # head or tail
    emulator.api_key = "other"  # type: ignore[misc]  # read-only
    emulator.inject(500)  # type: ignore[arg-type]  # not a Fault
    await export_runs(session, ["W"], "runs.csv", since="yesterday")  # type: ignore[arg-type]  # "last" or a datetime
    await export_runs(session, ["W"])  # type: ignore[call-arg]  # the path is missing
    await runs_table(session)  # type: ignore[call-arg]  # the workflow is missing
    make_server(session, 5)  # type: ignore[arg-type]  # not ids
    record_batch(5)  # type: ignore[arg-type]  # not runs
