"""``aiocopyai report``, as a process of its own, on the emulator and on exported files."""

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


async def test_the_demo_makes_a_page_that_shows_its_charts(tmp_path: Path) -> None:
    """`report --demo -o report.html` needs nothing, and what it makes opens in a browser without a complaint."""
    done = await cli("report", "--demo", "-o", "report.html")
    path = tmp_path / "report.html"

    assert (done.code, done.out) == (0, "")
    assert re.search(r"^640 runs: \d+ COMPLETE, .*; [\d,]+ credits; in report\.html$", done.err, re.MULTILINE)
    assert leftovers(path) == []
    opened = await asyncio.to_thread(open_page, path)
    assert opened.console == []
    assert opened.drawn("credits-by-time") == 42
    assert opened.dom.count('class="chart js-plotly-plot"') == opened.dom.count('role="img"') == 7


async def test_a_terminal_gets_tables(emulator: Emulator) -> None:
    """Without -o the figures are on standard output: by day, status and metadata, errors, and the costliest runs."""
    done = await cli("report", emulator.workflow_id, emulator=emulator)
    lines = lines_of(done.out)

    assert (done.code, done.err) == (0, "")
    assert lines[:3] == [
        f"workflow {emulator.workflow_id}",
        "9 runs, 3 failed; 36 credits",
        "from 2026-01-23 23:30 to 2026-01-31 23:30; times and days are in UTC",
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


async def test_days_begin_where_the_user_is(emulator: Emulator) -> None:
    """Half past eleven in UTC is the next day two hours to the east, and the zone is named."""
    done = await cli("report", emulator.workflow_id, emulator=emulator, TZ="TST-2")

    assert "2026-02-01 1 0 1" in lines_of(done.out)
    assert "2026-01-23 1 8" not in lines_of(done.out)
    assert "to 2026-02-01 01:30; times and days are in TST" in done.out


@pytest.mark.parametrize("ending", FORMATS)
async def test_a_file_tells_the_same_as_the_workflow(emulator: Emulator, ending: str) -> None:
    """What `export` wrote is reported without key or network, in each format; `--since` holds there too."""
    name = f"runs.{ending}"
    exported = await cli("export", emulator.workflow_id, "-o", name, emulator=emulator)
    assert exported.code == 0
    for options in ((), ("--since", "2026-01-28")):
        live = await cli("report", emulator.workflow_id, *options, emulator=emulator)
        done = await cli("report", name, *options)

        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[0] == name
        assert done.out.splitlines()[1:] == live.out.splitlines()[1:]


async def test_several_workflows_of_a_file_are_told_apart(tmp_path: Path) -> None:
    """A file may hold more than one workflow's runs."""
    rows = [{"id": str(number), "workflow_id": f"WCFG-{number % 2}", "credits": number} for number in range(5)]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = await cli("report", "runs.jsonl")

    assert {"WORKFLOW RUNS CREDITS FAILED", "WCFG-0 3 6", "WCFG-1 2 4"} <= set(lines_of(done.out))
    assert "5 runs on no day: the API tells no time for them" in done.out


async def test_a_workflow_without_runs_is_no_error(emulator: Emulator, tmp_path: Path) -> None:
    """There is little to say then, and that is said."""
    emulator.replace_runs([])
    shown = await cli("report", emulator.workflow_id, emulator=emulator)
    page = await cli("report", emulator.workflow_id, "-o", "report.html", emulator=emulator)

    assert (shown.code, lines_of(shown.out)[1]) == (0, "0 runs, 0 failed; 0 credits")
    assert (page.code, page.err) == (0, "0 runs; 0 credits; in report.html\n")
    assert "<b>0</b><span>runs</span>" in (tmp_path / "report.html").read_text("utf-8")


async def test_no_text_of_the_servers_steers_the_terminal(emulator: Emulator) -> None:
    """Control characters are shown, not obeyed, wherever they stand."""
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


async def test_a_terminal_sees_how_far_it_is(emulator: Emulator) -> None:
    """On a terminal the count is shown as it grows; NO_COLOR is honoured; another encoding gets escapes for bars."""
    env = environment(emulator, NO_COLOR="1")
    code, shown = await terminal("report", emulator.workflow_id, env=env)
    poor = await cli("report", emulator.workflow_id, emulator=emulator, PYTHONIOENCODING="ascii")

    assert code == 0
    assert "runs counted" in shown
    assert set(re.findall(r"\x1b\[[\d;]*m", shown)) <= {"\x1b[0m", "\x1b[1m", "\x1b[2m"}
    assert (poor.code, poor.out.isascii()) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give either a WORKFLOW_ID or a FILE, or --demo"),
        (["WCFG-1", "--demo"], "give either a WORKFLOW_ID or a FILE, or --demo"),
        ([".."], "workflow_id"),
        (["missing.jsonl"], "there is no file missing.jsonl"),
        (["damaged.jsonl"], "damaged.jsonl, line 2"),
        (["damaged.jsonl", "-o", "report.html"], "damaged.jsonl, line 2"),
        (["notes.txt"], "notes.txt should end in one of"),
        (["WCFG-1", "-o", "runs.jsonl"], "runs.jsonl should end in .html"),
        (["WCFG-1", "-o", "nowhere/report.html"], "nowhere/report.html is no place to write a file to"),
        (["WCFG-1", "-o", "folder.html"], "folder.html is no place to write a file to"),
        (["WCFG-1", "--since", "yesterday"], "'yesterday' is no ISO date"),
    ],
)
async def test_a_command_that_makes_no_sense_is_usage(
    emulator: Emulator, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    """Exit code 2, the reason on standard error, nothing sent and nothing written."""
    (tmp_path / "damaged.jsonl").write_text('{"id": "a"}\n{"id": 7}\n', "utf-8")
    (tmp_path / "notes.txt").write_text("hello", "utf-8")
    (tmp_path / "folder.html").mkdir()
    done = await cli("report", *arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert complaint in done.err
    assert "Traceback" not in done.err
    assert leftovers(tmp_path / "damaged.jsonl") == ["folder.html", "notes.txt"]


@pytest.mark.parametrize("missing", ["plotly", "jinja2"])
async def test_without_the_extra_the_page_says_what_to_install(emulator: Emulator, missing: str) -> None:
    """Exit code 2 before anything is read; the tables do without."""
    code = f"import sys; sys.modules[{missing!r}] = None; from aiocopyai.cli import main; main()"
    env = environment(emulator, COLUMNS="200")
    page = await finish(await start("-c", code, "report", emulator.workflow_id, "-o", "report.html", env=env))
    assert (page.code, page.out, emulator.requests) == (2, "", [])
    assert f'the page needs {missing}; install by: python -m pip install "aiocopyai[report]"' in page.err

    tables = await finish(await start("-c", code, "report", emulator.workflow_id, env=env))
    assert (tables.code, tables.err) == (0, "")


async def test_an_error_leaves_the_old_page(emulator: Emulator, tmp_path: Path) -> None:
    """A walk that fails ends in exit code 1 and one line, says what was read, and writes nothing."""
    emulator.add_runs(300)
    emulator.inject(Fault(status=403), page=3, times=None)
    path = tmp_path / "report.html"
    path.write_text("old", "utf-8")
    done = await cli("report", emulator.workflow_id, "-o", path.name, emulator=emulator)

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"stopped after 200 runs: .*\naiocopyai: page 3: .*403.*\n", done.err)
    assert path.read_text("utf-8") == "old"
    assert leftovers(path) == []


async def test_a_page_is_replaced_in_its_place(emulator: Emulator, tmp_path: Path) -> None:
    """A link stays a link, and the file it leads to keeps its permissions."""
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


async def test_a_list_that_moved_is_told(emulator: Emulator) -> None:
    """What drifted is said on standard error."""
    emulator.add_runs(200)

    def start_one(server: Emulator, request: Request) -> None:
        server.add_runs(1 if request.page == 2 else 0)

    emulator.on_request = start_one
    done = await cli("report", emulator.workflow_id, emulator=emulator)

    assert "209 runs, " in done.out
    assert done.err.startswith("the list moved meanwhile: ")


async def test_a_reader_that_leaves_is_no_error(emulator: Emulator) -> None:
    """`aiocopyai report … | head -1` ends quietly and with 0."""
    reader, writer = os.pipe()
    os.close(reader)
    process = await start(
        *("-m", "aiocopyai", "report", emulator.workflow_id), env=environment(emulator), stdout=writer
    )
    os.close(writer)
    done = await finish(process)

    assert (done.code, done.err) == (0, "")


async def test_ctrl_c_ends_the_reading_of_a_file() -> None:
    """A file of any size is left at once, with 130."""
    with gzip.open("runs.jsonl.gz", "wt", compresslevel=1) as file:
        file.writelines(f'{{"id": "{number}", "output": {{"a": "{"b" * 100}"}}}}\n' for number in range(200_000))
    code = START + (
        "import itertools, aiocopyai.cli._reporting as reporting, aiocopyai.cli as cli\n"
        "read = reporting.read_export\n"
        "reporting.read_export = lambda path: itertools.chain(map(say, (next(read(path)),)), read(path))\n"
        "def say(run): print('begun', flush=True); return run\n"
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
