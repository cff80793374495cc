"""The emulator, the export and the Arrow tables as a type checker sees them; see ``api.py``."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
# pyarrow has no types of its own, so that what comes from it is unknown.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_type

from aiocopyai import CopyAISession, Run
from aiocopyai.emulator import Delivery, Emulator, Fault, Quirks, Request, Script, main, serve
from aiocopyai.export import Exported, ExportError, Progress, export_runs, read_export
from aiocopyai.integrations.arrow import FLAT_SCHEMA, SCHEMA, flat_batch, read_batch, record_batch


async def runs_an_emulator() -> None:
    """An emulator, what it is made of, and what it tells."""
    emulator = Emulator(250, workflow_id="W", api_key="k", seed=1, quirks=Quirks(), latency=0.1, run_time=0, credits=9)
    async with emulator as entered:
        assert_type(entered, Emulator)
        assert_type(emulator.url, str)
        assert_type(emulator.api_key, str)
        assert_type(emulator.workflow_id, str)
        assert_type(emulator.requests, list[Request])
        assert_type(emulator.deliveries, list[Delivery])
        assert_type(emulator.on_request, Callable[[Emulator, Request], None] | None)
        assert_type(emulator.add_runs(3, at="tail", status="FAILED"), list[str])
        runs: Sequence[Mapping[str, object]] = emulator.runs()
        webhooks: Sequence[Mapping[str, object]] = emulator.webhooks
        assert_type(len(runs) + len(webhooks), int)
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
        emulator.quirks = Quirks(total=lambda count: count + 1, past_end=404, oversize="reject")
    await serve(emulator)
    assert_type(main(["--port", "0"]), int)


def reads_what_came(request: Request, delivery: Delivery) -> None:
    """What a request and a delivery hold."""
    assert_type(request.number, int)
    assert_type(request.method, str)
    assert_type(request.path, str)
    assert_type(request.query, dict[str, str])
    assert_type(request.headers, dict[str, str])
    assert_type(request.page, int | None)
    assert_type(request.size, int | None)
    assert_type(delivery.url, str)
    assert_type(delivery.event_type, str)
    body: Mapping[str, object] = delivery.body
    assert_type(len(body), int)
    assert_type(delivery.status, int | None)


async def exports(session: CopyAISession, path: Path, tell: Callable[[Progress], None]) -> None:
    """Runs to a file and back."""
    try:
        done = await export_runs(session, ["W"], path, resume=True, on_progress=tell)
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


def follows(progress: Progress) -> None:
    """What an export tells of itself."""
    assert_type(progress.runs, int)
    assert_type(progress.total, int | None)
    assert_type(progress.by_status, Mapping[str, int])
    assert_type(progress.credits, int)


def makes_tables(runs: list[Run]) -> None:
    """Runs to Arrow and back."""
    batch = record_batch(runs)
    assert_type(read_batch(batch), list[Run])
    record_batch(run for run in runs)
    flat_batch(run for run in runs)
    str(SCHEMA)
    str(FLAT_SCHEMA)


async def must_not_pass(session: CopyAISession, emulator: Emulator) -> None:
    """Wrong calls, each refused by both checkers."""
    Fault(500)  # type: ignore[call-arg]  # which of them is it?
    Fault(reset="during")  # type: ignore[arg-type]  # before or after the work
    Quirks(total="float")  # type: ignore[arg-type]  # none of those
    emulator.add_runs(1, at="middle")  # type: ignore[arg-type]  # head or tail
    emulator.api_key = "other"  # type: ignore[misc]  # set at its making
    emulator.inject(500)  # type: ignore[arg-type]  # a Fault
    await export_runs(session, ["W"], "runs.csv", since="yesterday")  # type: ignore[arg-type]  # "last", or a moment
    await export_runs(session, ["W"])  # type: ignore[call-arg]  # to which file?
    record_batch(5)  # type: ignore[arg-type]  # runs
