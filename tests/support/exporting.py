"""What the tests of exports share: runs of any content, and files read by others' readers than ours."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import strategies as st

from aiocopyai import JSON, PermissionDeniedError, Run, RunStatus
from aiocopyai.emulator import Emulator, Fault


FORMATS = ("jsonl", "jsonl.gz", "csv", "parquet")


def any_runs(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[Run]]:
    """Draw runs whose texts are such; their JSON has no infinity, which JSON can't have."""
    numbers = st.integers(-(10**25), 10**25) | st.floats(allow_nan=False, allow_infinity=False)
    values: st.SearchStrategy[JSON] = st.recursive(
        st.none() | st.booleans() | numbers | text,
        lambda children: st.lists(children, max_size=3) | st.dictionaries(text, children, max_size=3),
        max_leaves=6,
    )
    maps = st.dictionaries(text, values, max_size=3)
    some_text = text.filter(bool)
    run = st.builds(
        Run,
        id=some_text,
        workflow_id=st.none() | some_text,
        status=st.none() | st.sampled_from(RunStatus) | some_text.map(RunStatus),
        input=maps,
        output=maps,
        metadata=maps,
        created_at=st.none() | st.datetimes(timezones=st.just(UTC)),
        credits=st.none() | st.integers() | st.integers(2**62, 2**65),
        error=values,
        extra=maps.filter(lambda extra: type(extra.get("credits")) is not int),
    )
    return st.lists(run, max_size=5)


UNICODE = any_runs(st.text(max_size=8))
"""Runs of texts that are Unicode."""
ODDITIES = any_runs(st.text(st.characters(), max_size=8))
"""Runs of texts that may hold halves of surrogate pairs, too."""


def ids_in(path: Path) -> list[str]:
    """Read the ids of an exported file without our own reader."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq  # noqa: PLC0415 (half of the tests do without)

        return [str(run_id) for run_id in pq.read_table(path, columns=["id"]).column("id").to_pylist()]
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if path.suffix == ".csv":
        return [row["id"] for row in csv.DictReader(content.decode().splitlines())]
    return [json.loads(line)["id"] for line in content.splitlines()]


def raw_run(number: int, **fields: JSON) -> dict[str, JSON]:
    """Make a small run as the API sends it; a higher number is newer."""
    created = datetime.fromtimestamp(1_750_000_000 + 60 * number, UTC).isoformat().replace("+00:00", "Z")
    return {"id": f"WRUN-{number}", "status": "COMPLETE", "createdAt": created, "credits": 1, **fields}


def leftovers(path: Path) -> list[str]:
    """Name what stands beside an exported file."""
    return sorted(found.name for found in path.parent.iterdir() if found != path)


async def break_off(emulator: Emulator, page: int, export: Callable[[], Awaitable[object]]) -> None:
    """Let an export fail at a page, in a way that isn't tried again."""
    emulator.inject(Fault(status=403), page=page)
    with pytest.raises(PermissionDeniedError):
        await export()
    emulator.requests.clear()


def pages_asked(emulator: Emulator) -> list[int]:
    """Tell which pages were read, lowest first, apart from the look at how long the list is."""
    return sorted({request.page or 0 for request in emulator.requests if request.size != 1})


def ids_of(emulator: Emulator, workflow_id: str | None = None) -> list[str]:
    return [str(run["id"]) for run in emulator.runs(workflow_id)]
