"""Runs of any content, and readers of exported files that are independent of the package."""

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
    """Draw lists of runs with these strings, but without infinities, which JSON cannot represent."""
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
"""Lists of runs with valid Unicode strings."""
ANY_TEXT = any_runs(st.text(st.characters(), max_size=8))
"""Lists of runs with any strings, including lone surrogates."""


def ids_in(path: Path) -> list[str]:
    """Return the ids in an exported file."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq  # noqa: PLC0415 (most tests do not need it)

        return [str(run_id) for run_id in pq.read_table(path, columns=["id"]).column("id").to_pylist()]
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if path.suffix == ".csv":
        return [row["id"] for row in csv.DictReader(content.decode().splitlines())]
    return [json.loads(line)["id"] for line in content.splitlines()]


def raw_run(number: int, **fields: JSON) -> dict[str, JSON]:
    """Return a small run as the API sends it; a run with the next number is a minute newer."""
    created = datetime.fromtimestamp(1_750_000_000 + 60 * number, UTC).isoformat().replace("+00:00", "Z")
    return {"id": f"WRUN-{number}", "status": "COMPLETE", "createdAt": created, "credits": 1, **fields}


def leftovers(path: Path) -> list[str]:
    """Return the names of all other files in an exported file's folder."""
    return sorted(found.name for found in path.parent.iterdir() if found != path)


def mode_of(path: Path) -> int:
    """Return the permissions of a file."""
    return path.stat().st_mode & 0o777


async def interrupt(emulator: Emulator, page: int, export: Callable[[], Awaitable[object]]) -> None:
    """Make an export fail at a page, with an error that is not retried."""
    emulator.inject(Fault(status=403), page=page)
    with pytest.raises(PermissionDeniedError):
        await export()
    emulator.requests.clear()


def requested_pages(emulator: Emulator) -> list[int]:
    """Return the pages that were requested, lowest first, without requests for the total only."""
    return sorted({request.page or 0 for request in emulator.requests if request.size != 1})


def ids_of(emulator: Emulator, workflow_id: str | None = None) -> list[str]:
    """Return the ids of the runs on the server, in the order of the list."""
    return [str(run["id"]) for run in emulator.runs(workflow_id)]


def change(emulator: Emulator, run_id: str, workflow_id: str | None = None, **fields: JSON) -> None:
    """Change fields of a run on the server."""
    runs = [{**run, **fields} if run["id"] == run_id else run for run in emulator.runs(workflow_id)]
    emulator.replace_runs(runs, workflow_id=workflow_id)
