"""Tests of ``aiocopyai report``: its tables and its page, for the emulator and for exported files."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
from pathlib import Path

import pytest

from aiocopyai import JSON
from aiocopyai.emulator import Emulator, Fault, Request
from tests.support.chromium import open_page
from tests.support.commands import START, cli, environment, finish, start, terminal
from tests.support.exporting import FORMATS, leftovers


RUNS: list[JSON] = [
    {
        "id": f"WRUN-{number}",
        "workflowId": "WCFG-1",
        "status": "FAILED" if number % 3 == 0 else "COMPLETE",
        "createdAt": f"2026-01-{31 - number:02}T23:30:00Z",
        "credits": number,
        "metadata": {"batch": number % 2, "api": True},
        "error": {"message": f"step {number} failed"} if number % 3 == 0 else None,
        "output": {"Post": f"post {number}"},
    }
    for number in range(9)
]
EMULATOR_RUNS = RUNS
COUNTS = "9 runs: 6 COMPLETE, 3 FAILED; 36 credits"


def lines_of(text: str) -> list[str]:
    """Return the lines without the gaps between their columns, and without bars."""
    return [" ".join(re.sub("[\u2500-\u259f]+", "", line).split()) for line in text.splitlines()]


async def test_page_of_the_demo(tmp_path: Path) -> None:
    """`report --demo -o report.html` writes a page that opens in a browser without an error."""
    done = await cli("report", "--demo", "-o", "report.html")
    path = tmp_path / "report.html"

    assert (done.code, done.out) == (0, "")
    assert re.search(r"^640 runs: \d+ COMPLETE, .*; [\d,]+ credits; in report\.html$", done.err, re.MULTILINE)
    assert leftovers(path) == []
    opened = await asyncio.to_thread(open_page, path)
    assert opened.console == []
    assert opened.drawn("credits-by-time") == 42
    assert opened.dom.count('class="chart js-plotly-plot"') == opened.dom.count('role="img"') == 3


async def test_tables(emulator: Emulator) -> None:
    """Without `-o`, the command prints tables by day, status and metadata, of errors and of the most expensive runs."""
    done = await cli("report", emulator.workflow_id, emulator=emulator)
    lines = lines_of(done.out)

    assert (done.code, done.err) == (0, "")
    assert lines[:3] == [
        f"workflow {emulator.workflow_id}",
        "9 runs, 3 failed; 36 credits",
        "2026-01-23 23:30 to 2026-01-31 23:30; times and days in UTC",
    ]
    for title, row in (
        ("DAY RUNS CREDITS FAILED", "2026-01-23 1 8"),
        ("STATUS RUNS CREDITS FAILED", "COMPLETE 6 27"),
        ("METADATA RUNS CREDITS FAILED", "api = true 9 36 3"),
        ("FAILED CREDITS LATEST ERROR", "3 9 2026-01-31 23:30 message: step 0 failed"),
        ("CREDITS CREATED STATUS ID", "8 2026-01-23 23:30 COMPLETE WRUN-8"),
    ):
        assert row in lines[lines.index(title) :]
    assert lines[lines.index("batch (2 values) 9 36 3") + 1] == "= 0 5 20 2"


async def test_days_are_in_the_users_time_zone(emulator: Emulator) -> None:
    """At 23:30 UTC, a run is on the next day two hours to the east; the report names the zone."""
    done = await cli("report", emulator.workflow_id, emulator=emulator, TZ="TST-2")

    assert "2026-02-01 1 0 1" in lines_of(done.out)
    assert "2026-01-23 1 8" not in lines_of(done.out)
    assert "to 2026-02-01 01:30; times and days in TST" in done.out


@pytest.mark.parametrize("ending", FORMATS)
async def test_report_of_a_file(emulator: Emulator, ending: str) -> None:
    """The report of an export in any format equals that of the workflow, and needs neither a key nor a network."""
    name = f"runs.{ending}"
    exported = await cli("export", emulator.workflow_id, "-o", name, emulator=emulator)
    assert exported.code == 0
    for options in ((), ("--since", "2026-01-28")):
        live = await cli("report", emulator.workflow_id, *options, emulator=emulator)
        done = await cli("report", name, *options)

        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[0] == name
        assert done.out.splitlines()[1:] == live.out.splitlines()[1:]


async def test_file_with_several_workflows(tmp_path: Path) -> None:
    """The workflows of a file are counted separately."""
    rows = [{"id": str(number), "workflow_id": f"WCFG-{number % 2}", "credits": number} for number in range(5)]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = await cli("report", "runs.jsonl")

    assert {"WORKFLOW RUNS CREDITS FAILED", "WCFG-0 3 6", "WCFG-1 2 4"} <= set(lines_of(done.out))
    assert "5 runs without a creation time: not counted on any day." in done.out


async def test_workflow_without_runs(emulator: Emulator, tmp_path: Path) -> None:
    """The report of a workflow without runs says that there are none."""
    emulator.replace_runs([])
    shown = await cli("report", emulator.workflow_id, emulator=emulator)
    page = await cli("report", emulator.workflow_id, "-o", "report.html", emulator=emulator)

    assert (shown.code, lines_of(shown.out)[1]) == (0, "0 runs, 0 failed; 0 credits")
    assert (page.code, page.err) == (0, "0 runs; 0 credits; in report.html\n")
    assert "<b>0</b><span>runs</span>" in (tmp_path / "report.html").read_text("utf-8")


async def test_control_characters_are_escaped(emulator: Emulator) -> None:
    """Control characters in any field are escaped."""
    evil = "\x1b[2J\x1b]0;title\x07"
    run: JSON = {
        "id": f"WRUN{evil}",
        "workflowId": f"W{evil}",
        "status": "FAILED",
        "metadata": {f"key{evil}": f"value{evil}"},
        "error": {f"message{evil}": evil},
        "credits": 1,
    }
    emulator.replace_runs([run, {"id": "2", "status": f"PAUSED{evil}"}])
    done = await cli("report", emulator.workflow_id, emulator=emulator, COLUMNS="300")

    assert "\x1b" not in done.out + done.err
    for word in ("WRUN", "W", "key", "value", "message", "PAUSED"):
        assert f"{word}\\u001b[2J" in done.out


async def test_deep_values(emulator: Emulator) -> None:
    """Metadata, outputs and errors nested hundreds of levels deep are reported like any other."""
    deep: JSON = "bottom"
    for _ in range(900):
        deep = [deep]
    emulator.replace_runs(
        [{"id": "a", "status": "FAILED", "metadata": {"k": deep}, "error": deep, "output": {"o": deep}}]
    )
    for options in ((), ("-o", "report.html")):
        done = await cli("report", emulator.workflow_id, *options, emulator=emulator)

        assert done.code == 0, done.err


async def test_progress_on_a_terminal(emulator: Emulator) -> None:
    """A terminal shows the number of runs while they are read. NO_COLOR is respected, and ASCII output has no bars."""
    env = environment(emulator, NO_COLOR="1")
    code, shown = await terminal("report", emulator.workflow_id, env=env)
    poor = await cli("report", emulator.workflow_id, emulator=emulator, PYTHONIOENCODING="ascii")

    assert code == 0
    assert "runs counted" in shown
    assert set(re.findall(r"\x1b\[[\d;]*m", shown)) <= {"\x1b[0m", "\x1b[1m", "\x1b[2m"}
    assert (poor.code, poor.out.isascii()) == (0, True)


@pytest.mark.parametrize("width", [40, 60, 79, 80, 120])
async def test_rows_fit_into_the_terminal(emulator: Emulator, width: int) -> None:
    """At any width, each row is one line with complete numbers. Text may be truncated."""
    run_id = "WRUN-6fe9e53c-945a-4aa3-a87e-d64c3cc0dcb0"
    emulator.add_runs(1, id=run_id, credits=99, createdAt="2026-01-31T23:30:00Z", status="COMPLETE", metadata=None)
    done = await cli("report", emulator.workflow_id, emulator=emulator, COLUMNS=str(width))
    lines = lines_of(done.out)

    assert max(map(len, done.out.splitlines())) <= width
    assert "2026-01-23 1 8" in lines
    assert any(line.startswith("99 2026-01") for line in lines)
    assert any(line.startswith("99 2026-01-31 23:30") for line in lines) is (width >= 60)
    assert any(line.endswith(run_id) for line in lines) is (width >= 79)
    table = done.out[done.out.index("DAY ") :].partition("\n\n")[0]
    assert len(table.splitlines()) == 2 + 9  # a title, a line and the days


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass a WORKFLOW_ID, a FILE or --demo"),
        (["WCFG-1", "--demo"], "pass a WORKFLOW_ID, a FILE or --demo"),
        ([".."], "WORKFLOW_ID must be an id"),
        (["missing.jsonl"], "missing.jsonl does not exist, or is not a file"),
        (["damaged.jsonl"], "damaged.jsonl, line 2"),
        (["damaged.jsonl", "-o", "report.html"], "damaged.jsonl, line 2"),
        (["notes.txt"], "notes.txt must end in one of"),
        (["WCFG-1", "-o", "runs.jsonl"], "FILE must end in .html, got runs.jsonl"),
        (["WCFG-1", "-o", "nowhere/report.html"], "nowhere/report.html is in a folder that does not exist"),
        (["WCFG-1", "-o", "folder.html"], "folder.html is a folder"),
        (["WCFG-1", "--since", "yesterday"], "'yesterday' is not a date"),
    ],
)
async def test_usage_errors(emulator: Emulator, tmp_path: Path, arguments: list[str], message: str) -> None:
    """Invalid arguments are exit code 2 with the reason, nothing is sent, and no file is written."""
    (tmp_path / "damaged.jsonl").write_text('{"id": "a"}\n{"id": 7}\n', "utf-8")
    (tmp_path / "notes.txt").write_text("hello", "utf-8")
    (tmp_path / "folder.html").mkdir()
    done = await cli("report", *arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert message in done.err
    assert "Traceback" not in done.err
    assert leftovers(tmp_path / "damaged.jsonl") == ["folder.html", "notes.txt"]


@pytest.mark.parametrize("missing", ["plotly", "jinja2"])
async def test_missing_extra(emulator: Emulator, missing: str) -> None:
    """Without the extra `report`, `-o` exits with code 2 and the command to install it. Tables are printed."""
    code = f"import sys; sys.modules[{missing!r}] = None; from aiocopyai.cli import main; main()"
    env = environment(emulator, COLUMNS="200")
    page = await finish(await start("-c", code, "report", emulator.workflow_id, "-o", "report.html", env=env))
    assert (page.code, page.out, emulator.requests) == (2, "", [])
    assert f'the page requires {missing}; install with: python -m pip install "aiocopyai[report]"' in page.err

    tables = await finish(await start("-c", code, "report", emulator.workflow_id, env=env))
    assert (tables.code, tables.err) == (0, "")


async def test_api_error(emulator: Emulator, tmp_path: Path) -> None:
    """If the runs cannot be read, the exit code is 1, and an existing page is kept."""
    emulator.add_runs(300)
    emulator.inject(Fault(status=403), page=3, times=None)
    path = tmp_path / "report.html"
    path.write_text("old", "utf-8")
    done = await cli("report", emulator.workflow_id, "-o", path.name, emulator=emulator)

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"stopped after 200 runs: .*\naiocopyai: page 3: .*403.*\n", done.err)
    assert path.read_text("utf-8") == "old"
    assert leftovers(path) == []


async def test_full_disk(emulator: Emulator, tmp_path: Path) -> None:
    """If the disk is full, the message names the page, and the old page is kept."""
    path = tmp_path / "report.html"
    path.write_text("old", "utf-8")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2)\n"
        "from aiocopyai.cli import main; main()"
    )
    done = await finish(
        await start("-c", code, "report", emulator.workflow_id, "-o", "report.html", env=environment(emulator))
    )

    assert done.code == 1
    assert re.fullmatch(r"stopped after .*\naiocopyai: \[Errno \d+\] File too large: 'report\.html'\n", done.err)
    assert path.read_text("utf-8") == "old"
    assert leftovers(path) == []


async def test_page_replaces_the_target_of_a_link(emulator: Emulator, tmp_path: Path) -> None:
    """If the page is a symbolic link, its target is replaced with the same permissions, and the link is kept."""
    real = tmp_path / "real.html"
    real.write_text("old", "utf-8")
    real.chmod(0o640)
    (tmp_path / "report.html").symlink_to(real)
    done = await cli("report", emulator.workflow_id, "-o", "report.html", emulator=emulator)

    assert (done.code, done.err) == (0, f"{COUNTS}; in report.html\n")
    assert (tmp_path / "report.html").is_symlink()
    assert real.read_text("utf-8").startswith("<!doctype html>")
    assert real.stat().st_mode & 0o777 == 0o640
    assert leftovers(real) == ["report.html"]


async def test_changed_list(emulator: Emulator) -> None:
    """A change of the list while it is read is reported on standard error."""
    emulator.add_runs(200)

    def start_one(server: Emulator, request: Request) -> None:
        server.add_runs(1 if request.page == 2 else 0)

    emulator.on_request = start_one
    done = await cli("report", emulator.workflow_id, emulator=emulator)

    assert "209 runs, " in done.out
    assert done.err.startswith("the list changed while it was read: ")


async def test_closed_pipe(emulator: Emulator) -> None:
    """`report … | head -1` ends without a message and with exit code 0."""
    reader, writer = os.pipe()
    os.close(reader)
    process = await start(
        *("-m", "aiocopyai", "report", emulator.workflow_id), env=environment(emulator), stdout=writer
    )
    os.close(writer)
    done = await finish(process)

    assert (done.code, done.err) == (0, "")


async def test_ctrl_c() -> None:
    """Ctrl-C while a large file is read ends the command with exit code 130."""
    with gzip.open("runs.jsonl.gz", "wt") as file:
        file.write('{"id": "1"}\n')
    code = START + (
        "import itertools, aiocopyai.export as export, aiocopyai.cli as cli\n"
        "read = export.read_export\n"
        "def read_endlessly(path):\n"
        "    print('reading', flush=True)\n"
        "    yield from itertools.cycle(read(path))\n"
        "export.read_export = read_endlessly\n"
        "cli.main()"
    )
    process = await start("-c", code, "report", "runs.jsonl.gz", env=environment())
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert (done.code, done.out) == (130, "")
    assert done.err.startswith("stopped after ")
    assert "Traceback" not in done.err
