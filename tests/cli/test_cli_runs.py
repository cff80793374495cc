"""Tests of ``aiocopyai runs``: the selection of runs, and the formats."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from aiocopyai import JSON
from aiocopyai.emulator import Emulator, Request
from tests.support.commands import cli, environment, terminal


RUN_ID = "WRUN-6fe9e53c-945a-4aa3-a87e-d64c3cc0dcb0"
RUNS: list[JSON] = [
    {
        "id": RUN_ID,
        "status": "COMPLETE",
        "createdAt": "2026-01-31T09:00:00.000Z",
        "credits": 22,
        "output": {"Empty": "", "Post": "Two\nlines \x1b[31mand\x1b]0;title\x07 more " + "words " * 50},
    },
    {"id": "WRUN-2", "status": "FAILED", "error": {"reason": "no credits"}, "output": {}},
    {"id": "WRUN-\x1b[2J3", "status": "PAU\x1b[2JSED", "output": {"List": [1, 2]}},
    {"id": "WRUN-4"},
]
TAGGED: list[JSON] = [
    {"id": "1", "status": "FAILED", "metadata": {"api": True, "batch": 7}, "credits": 1},
    {"id": "2", "status": "COMPLETE", "metadata": {"api": True, "batch": "7"}, "credits": 2},
    {"id": "3", "status": "PAUSED", "metadata": {"api": "true", "batch": 8}, "credits": 4},
    {"id": "4", "status": "COMPLETE", "metadata": None, "credits": 8},
    {"id": "5", "metadata": {"batch": None, "a=b": "", "nested": {"x": [1]}}, "credits": 16},
]


async def test_demo() -> None:
    """`aiocopyai runs --demo` lists several hundred runs of an emulator, and ends with counts and credits."""
    done = await cli("runs", "--demo")

    assert done.code == 0
    assert len({row["id"] for row in done.rows}) == 640
    assert "emulator at http://127.0.0.1:" in done.err
    assert re.search(r"640 runs: \d+ COMPLETE, .* [\d,]+ credits", done.err)


async def test_pipe_gets_json_lines(emulator: Emulator) -> None:
    """Every run is written once, in the server's order, with every field. Standard output has nothing else."""
    emulator.add_runs(230)
    done = await cli("runs", emulator.workflow_id, emulator=emulator)
    spent = sum(int(str(row["credits"] or 0)) for row in done.rows)

    assert done.code == 0
    assert [row["id"] for row in done.rows] == [run["id"] for run in emulator.runs()]
    assert list(done.rows[0]) == [
        *("id", "workflow_id", "status", "created_at", "credits"),
        *("input", "output", "metadata", "error", "extra"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", str(done.rows[0]["created_at"]))
    assert done.err.startswith("230 runs: ")
    assert done.err.endswith(f"; {spent:,} credits\n")


async def test_limit(emulator: Emulator) -> None:
    """`--limit 3` lists three runs."""
    emulator.add_runs(5)
    done = await cli("runs", emulator.workflow_id, "--limit", "3", emulator=emulator)

    assert len(done.rows) == 3
    assert done.err.startswith("3 runs: ")


async def test_since_is_in_the_users_time_zone(emulator: Emulator) -> None:
    """A date without a zone is midnight in the user's time zone, such as TST-2, which is UTC+2."""
    emulator.replace_runs(
        [{"id": "in", "createdAt": "2026-01-30T22:00:00Z"}, {"id": "out", "createdAt": "2026-01-30T21:59:59.999Z"}]
    )
    done = await cli("runs", emulator.workflow_id, "--since", "2026-01-31", emulator=emulator, TZ="TST-2")

    assert [row["id"] for row in done.rows] == ["in"]


async def test_since_with_a_zone(emulator: Emulator) -> None:
    """The zone in the value of `--since` has priority over the user's time zone."""
    emulator.replace_runs([{"id": "in", "createdAt": "2026-01-31T09:00:00Z"}])
    done = await cli("runs", emulator.workflow_id, "--since", "2026-01-31T09:00Z", emulator=emulator, TZ="TST+5")

    assert len(done.rows) == 1


async def test_json_lines_are_exact_in_any_locale(emulator: Emulator) -> None:
    """Unusual characters and unknown fields are written as they were received."""
    output: JSON = {"Ωutput \x1b[2J": "naïve \u2028 \x7f 🎉"}
    emulator.replace_runs([{"id": "WRUN-1", "output": output, "toolKey": 1, "credits": "many"}])
    done = await cli("runs", emulator.workflow_id, emulator=emulator, PYTHONIOENCODING="ascii", LC_ALL="C")

    assert done.rows[0]["output"] == output
    assert done.rows[0]["extra"] == {"toolKey": 1, "credits": "many"}
    assert done.rows[0]["created_at"] is None


async def test_empty_list(emulator: Emulator) -> None:
    """The exit code for a workflow without runs is 0."""
    done = await cli("runs", emulator.workflow_id, emulator=emulator)

    assert done == (0, "", "0 runs; 0 credits\n")


async def test_changed_list(emulator: Emulator) -> None:
    """A change of the list while it is read is reported after the counts."""
    emulator.add_runs(230)

    def add_run(server: Emulator, request: Request) -> None:
        server.add_runs(1 if request.page == 2 else 0)

    emulator.on_request = add_run
    done = await cli("runs", emulator.workflow_id, "--prefetch", "0", emulator=emulator)

    assert len(done.rows) == 230
    assert "the list changed while it was read" in done.err


async def test_table_on_a_terminal(emulator: Emulator) -> None:
    """A table has columns of fixed width, times in the user's zone, and the start of the first output on one line."""
    emulator.replace_runs(RUNS)
    env = environment(emulator, NO_COLOR="1", TZ="TST-2")
    code, shown = await terminal("runs", emulator.workflow_id, env=env)
    header, first, second, third, fourth = (re.sub(r"\x1b\[\d*m", "", line) for line in shown.splitlines()[:5])

    assert code == 0
    assert header == f"{'CREATED':19} {'STATUS':10} CREDITS {'ID':41} OUTPUT"
    assert first.startswith(
        f"2026-01-31 11:00:00 {'COMPLETE':10} {22:7} {RUN_ID} Two lines \\u001b[31mand\\u001b]0;title\\u0007 more"
    )
    assert len(first) == 140
    assert first.endswith("…")
    assert second == f'{"-":19} {"FAILED":10} {"-":>7} {"WRUN-2":41} {{"reason": "no credits"}}'
    assert third.startswith(f"{'-':19} PAU\\u001b… {'-':>7} WRUN-\\u001b[2J3")
    assert third.endswith(" [1, 2]")
    assert fourth == f"{'-':19} {'-':10} {'-':>7} WRUN-4"


@pytest.mark.parametrize("chosen", ["table", "jsonl"])
async def test_control_characters_are_escaped(emulator: Emulator, chosen: str) -> None:
    """Control characters from the server are escaped in a table, in JSON and in the counts."""
    emulator.replace_runs(RUNS)
    env = environment(emulator, NO_COLOR="1")
    _, shown = await terminal("runs", emulator.workflow_id, "--format", chosen, env=env)

    assert "1 PAU\\u001b[2JSED" in shown
    assert set(re.findall(r"\x1b(?:\[\d*m)?", shown)) <= {"\x1b[1m", "\x1b[0m"}


async def test_colors(emulator: Emulator) -> None:
    """Statuses have colors on a terminal, unless `NO_COLOR` is set, and no colors in a pipe."""
    emulator.replace_runs(RUNS)
    _, shown = await terminal("runs", emulator.workflow_id, env=environment(emulator))
    _, plain = await terminal("runs", emulator.workflow_id, env=environment(emulator, NO_COLOR="1"))
    piped = await cli("runs", emulator.workflow_id, "--format", "table", emulator=emulator)

    assert "\x1b[32mCOMPLETE" in shown
    assert "\x1b[32m" not in plain
    assert "\x1b" not in piped.out
    assert piped.out.splitlines()[0].startswith("CREATED")


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
async def test_filters(emulator: Emulator, options: str, ids: str) -> None:
    """A run is listed if it has one of the given statuses and, for each given metadata key, one of the given values."""
    emulator.replace_runs(TAGGED)
    arguments = [option.replace("_", " ") for option in options.split()]
    done = await cli("runs", emulator.workflow_id, *arguments, emulator=emulator)

    assert [row["id"] for row in done.rows] == ids.split()
    assert done.err.endswith(f"; {sum(2 ** (int(number) - 1) for number in ids.split())} credits (of 5 runs read)\n")


async def test_limit_with_a_filter(emulator: Emulator) -> None:
    """With a filter, the limit counts matching runs, and no more pages are read when it is reached."""
    emulator.replace_runs([{"id": str(number), "status": ("FAILED", "NEW")[number % 2]} for number in range(2_000)])
    done = await cli("runs", emulator.workflow_id, "--status", "NEW", "--limit", "60", emulator=emulator)

    assert [row["id"] for row in done.rows] == [str(number) for number in range(1, 120, 2)]
    assert done.err == "60 runs: 60 NEW; 0 credits (of 200 runs read)\n"
    assert len(emulator.requests) < 10


async def test_limit_of_zero(emulator: Emulator) -> None:
    """`--limit 0` with a filter does not send a request."""
    done = await cli("runs", emulator.workflow_id, "--status", "NEW", "--limit", "0", emulator=emulator)

    assert (done.code, done.out, emulator.requests) == (0, "", [])


async def test_csv_has_the_values_of_json_lines(emulator: Emulator) -> None:
    """`--format csv` has the same columns, with objects as JSON text."""
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


@pytest.mark.parametrize("option", ["--max-rate", "--timeout"])
async def test_invalid_numbers(emulator: Emulator, option: str) -> None:
    """The message for an invalid number names the option, and does not suggest values that only the library accepts."""
    done = await cli("runs", emulator.workflow_id, option, "inf", emulator=emulator)

    assert done.code == 2
    assert f"{option} must be a positive number of " in done.err
    assert "None" not in done.err
    assert "aiohttp" not in done.err
