"""Which runs `aiocopyai runs` shows, and in which formats for programs."""

from __future__ import annotations

import csv
import io
import json

import pytest

from aiocopyai import JSON
from aiocopyai.emulator import Emulator
from tests.support.commands import cli


TAGGED: list[JSON] = [
    {"id": "1", "status": "FAILED", "metadata": {"api": True, "batch": 7}, "credits": 1},
    {"id": "2", "status": "COMPLETE", "metadata": {"api": True, "batch": "7"}, "credits": 2},
    {"id": "3", "status": "PAUSED", "metadata": {"api": "true", "batch": 8}, "credits": 4},
    {"id": "4", "status": "COMPLETE", "metadata": None, "credits": 8},
    {"id": "5", "metadata": {"batch": None, "a=b": "", "nested": {"x": [1]}}, "credits": 16},
]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ("--status FAILED", "1"),
        ("--status failed --status Paused", "1 3"),
        ("--status NEW", ""),
        ("--metadata batch=7", "1 2"),
        ("--metadata batch=7 --metadata batch=8", "1 2 3"),
        ("--metadata api=true --metadata batch=7", "1 2"),
        ("--metadata api=true --status paused", "3"),
        ("--metadata batch=null", "5"),
        ("--metadata batch=", ""),
        ('--metadata nested={"x":_[1]}', "5"),
    ],
)
async def test_a_filter_lets_through_what_it_names(emulator: Emulator, options: str, ids: str) -> None:
    """A status or value that is named again is one more that will do; different keys and options have to hold all."""
    emulator.replace_runs(TAGGED)
    arguments = [option.replace("_", " ") for option in options.split()]
    done = await cli("runs", emulator.workflow_id, *arguments, emulator=emulator)

    assert [row["id"] for row in done.rows] == ids.split()
    assert done.err.endswith(f"; {sum(2 ** (int(number) - 1) for number in ids.split())} credits (of 5 runs read)\n")


async def test_limit_counts_what_is_shown_and_stops_there(emulator: Emulator) -> None:
    """With a filter the limit is that of matching runs, and no page is read that isn't needed for them."""
    emulator.replace_runs([{"id": str(number), "status": ("FAILED", "NEW")[number % 2]} for number in range(2_000)])
    done = await cli("runs", emulator.workflow_id, "--status", "NEW", "--limit", "60", emulator=emulator)

    assert [row["id"] for row in done.rows] == [str(number) for number in range(1, 120, 2)]
    assert done.err == "60 runs: 60 NEW; 0 credits (of 200 runs read)\n"
    assert len(emulator.requests) < 10


async def test_a_limit_of_none_asks_nothing(emulator: Emulator) -> None:
    """`--limit 0` with a filter sends no request."""
    done = await cli("runs", emulator.workflow_id, "--status", "NEW", "--limit", "0", emulator=emulator)

    assert (done.code, done.out, emulator.requests) == (0, "", [])


async def test_csv_holds_what_the_lines_of_json_do(emulator: Emulator) -> None:
    """`--format csv` has the same columns, and JSON text where JSON has an object."""
    emulator.replace_runs(
        [*TAGGED, {"id": "6", "output": {"Ω\x1b": 'a,"b"\nc\ud83d'}, "error": "no, none", "credits": "many"}]
    )
    lines = await cli("runs", emulator.workflow_id, emulator=emulator)
    table = await cli("runs", emulator.workflow_id, "--format", "csv", emulator=emulator, PYTHONIOENCODING="ascii")
    rows = list(csv.DictReader(io.StringIO(table.out)))
    plain = {"id", "workflow_id", "status", "created_at"}

    assert len(rows) == 6
    assert [
        {name: None if not text else text if name in plain else json.loads(text) for name, text in row.items()}
        for row in rows
    ] == lines.rows
    assert "\x1b" not in table.out
