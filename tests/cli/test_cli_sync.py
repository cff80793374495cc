"""``aiocopyai sync``, as a process of its own, against the emulator."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from pathlib import Path
from random import Random

import duckdb
import pytest

from aiocopyai.emulator import Emulator, Fault
from tests.support.commands import MAIN, START, Done, cli, environment, finish, start, terminal
from tests.support.exporting import change, raw_run
from tests.support.loading import query, rows_in, truth


EMULATOR_RUNS = 640

pytestmark = pytest.mark.xdist_group("dlt")  # loads use a core for seconds: one at a time

PATIENCE = 60
KILLS = 4
RUN = "from aiocopyai.cli import main; main()"
LOOPBACK = """
import socket
connect = socket.socket.connect
def only_loopback(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
        sys.stderr.write(f"connects to {address}\\n")
    return connect(self, address)
socket.socket.connect = only_loopback
look_up = socket.getaddrinfo
def only_numbers(host, *args, **options):
    if host not in ("127.0.0.1", "localhost", None):
        sys.stderr.write(f"looks up {host}\\n")
    return look_up(host, *args, **options)
socket.getaddrinfo = only_numbers
"""
"""Tells of whatever would leave this machine."""
READS_ONLY = """
import sys
from aiocopyai.cli._targets import open_pipeline, read_target
from aiocopyai.integrations.dlt import copyai_source
pipeline = open_pipeline(read_target("duckdb:///runs.duckdb"))
pipeline.sync_destination()
pipeline.extract(copyai_source(sys.argv[1:]))
"""
"""Does what the command does until it has read everything, and nothing after."""


@pytest.fixture(name="folder", autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the command and dlt write to."""
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    return tmp_path


async def sync(*arguments: str, emulator: Emulator) -> Done:
    """Run the command to its end."""
    return await cli("sync", *arguments, emulator=emulator)


async def test_the_database_is_kept_up_to_date(emulator: Emulator, folder: Path) -> None:
    """All runs at first, then what is new or changed, told in a line; a backup that is put back is caught up, too."""
    emulator.replace_runs([raw_run(number) for number in range(300, 0, -1)])
    first = await sync(emulator.workflow_id, emulator=emulator)
    shutil.copy(folder / "runs.duckdb", folder / "older.duckdb")
    change(emulator, "WRUN-290", status="FAILED", error={"message": "no"})
    emulator.replace_runs([raw_run(302), raw_run(301), *emulator.runs()])
    second = await sync(emulator.workflow_id, emulator=emulator)

    assert first == (0, "", "300 runs new, 0 read again; 300 in runs.duckdb\n")
    assert second == (0, "", "2 runs new, 300 read again; 302 in runs.duckdb\n")
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)

    shutil.move(folder / "older.duckdb", folder / "runs.duckdb")
    third = await sync(emulator.workflow_id, emulator=emulator)

    assert third == second
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


@pytest.mark.slow
async def test_several_workflows_go_elsewhere(emulator: Emulator, folder: Path) -> None:
    """`--to` names the file, in this folder or anywhere, and each file has a state of its own."""
    emulator.add_runs(5, workflow_id="WCFG-2")
    both = (emulator.workflow_id, "WCFG-2")
    here = await sync(*both, "--to", "duckdb:///here.duckdb", emulator=emulator)
    there = await sync(*both, "--to", f"duckdb:///{folder}/there.duckdb", emulator=emulator)
    shutil.move(folder / "here.duckdb", folder / "moved.duckdb")
    moved = await sync(*both, "--to", "duckdb:///moved.duckdb", emulator=emulator)

    assert here.err == "645 runs new, 0 read again; 645 in here.duckdb\n"
    assert there.err == f"645 runs new, 0 read again; 645 in {folder}/there.duckdb\n"
    assert re.fullmatch(r"0 runs new, \d+ read again; 645 in moved.duckdb\n", moved.err)
    assert rows_in(folder / "there.duckdb") == truth(emulator, *both)


async def test_the_demo_needs_nothing_and_stays_at_home(folder: Path) -> None:
    """`--demo` loads some hundred runs of an emulator; neither it nor dlt talks to another machine."""
    code = f"import sys{LOOPBACK}{RUN}"
    done = await finish(await start("-c", code, "sync", "--demo", env=environment()), PATIENCE)

    assert (done.code, done.out) == (0, "")
    assert re.fullmatch(
        r"demo: 640 sample runs, from a Copy.ai emulator at http://127\S+\n640 runs new, 0 .*\n", done.err
    )
    assert query(folder / "demo.duckdb", "SELECT count(DISTINCT id) FROM copyai.runs") == [(640,)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give either a WORKFLOW_ID or --demo"),
        (["WCFG-1", "--demo"], "give either a WORKFLOW_ID or --demo"),
        (["WCFG-1", "--to", "duckdb:///missing/runs.duckdb"], "is no place for a database"),
        (["WCFG-1", "--to", "duckdb:///"], "is no place for a database"),
        (["WCFG-1", "--to", "runs.duckdb"], "dlt has no destination 'runs.duckdb'"),
        (["WCFG-1", "--to", "nowhere"], "dlt has no destination 'nowhere'"),
        (["WCFG-1", "--to", "filesystem"], "dlt's configuration says too little of filesystem"),
        (["WCFG-1", ".."], "workflow_id must be an id"),
    ],
)
async def test_what_makes_no_sense_is_usage(
    emulator: Emulator, folder: Path, arguments: list[str], complaint: str
) -> None:
    """Exit code 2, the reason on standard error, nothing sent, and no database."""
    done = await sync(*arguments, emulator=emulator)

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert complaint in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in folder.iterdir() if path.suffix == ".duckdb"] == []  # noqa: ASYNC240 (a small folder)


async def test_a_place_without_merge_is_refused(
    emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where dlt would only add rows, each load would double them."""
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", (folder / "bucket").as_uri())
    done = await sync(emulator.workflow_id, "--to", "filesystem", emulator=emulator)

    assert (done.code, emulator.requests) == (2, [])
    # An older dlt wants a package for files first.
    assert re.search("filesystem can't be kept up to date|filesystem needs more", done.err)


async def test_dlts_own_configuration_says_where(
    emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name without a URL finds the rest where dlt looks for it."""
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", f"duckdb:///{folder}/configured.duckdb")
    done = await sync(emulator.workflow_id, "--to", "duckdb", emulator=emulator)

    assert done == (0, "", "640 runs new, 0 read again; 640 in duckdb\n")
    assert rows_in(folder / "configured.duckdb") == truth(emulator, emulator.workflow_id)


async def test_without_the_extra_it_says_what_to_install(emulator: Emulator) -> None:
    """Exit code 2, and the line that installs what is missing."""
    code = f"import sys; sys.modules['dlt'] = None; {RUN}"
    done = await finish(await start("-c", code, "sync", emulator.workflow_id, env=environment(emulator)))

    assert (done.code, done.out) == (2, "")
    assert 'sync needs dlt; install by: python -m pip install "aiocopyai[dlt]"' in done.err


async def test_an_api_error_is_one_line(emulator: Emulator) -> None:
    """A wrong key ends in exit code 1, and is not shown."""
    env = environment(emulator, COPYAI_API_KEY="wrong-key")
    done = await finish(await start(*MAIN, "sync", emulator.workflow_id, env=env), PATIENCE)

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*401.*\n", done.err)
    assert "wrong-key" not in done.err


async def test_no_key_is_usage(emulator: Emulator) -> None:
    """Without a key anywhere the exit code is 2."""
    done = await finish(await start(*MAIN, "sync", emulator.workflow_id, env=environment()), PATIENCE)

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("aiocopyai: no API key")


@pytest.mark.slow
async def test_a_failing_api_is_gone_on_after(emulator: Emulator, folder: Path) -> None:
    """An error in the middle tells how far it came and loads nothing; the next call is whole. `--debug` shows more."""
    emulator.inject(Fault(status=403), page=5)
    broken = await sync(emulator.workflow_id, emulator=emulator)
    emulator.inject(Fault(status=403), page=5)
    debugged = await sync(emulator.workflow_id, "--debug", emulator=emulator)
    whole = await sync(emulator.workflow_id, emulator=emulator)

    assert broken.code == 1
    assert re.fullmatch(r"stopped after reading 400 runs\naiocopyai: page 5: .*\n", broken.err)
    assert (debugged.code, "Traceback" in debugged.err) == (1, True)
    assert emulator.api_key not in debugged.err
    assert whole == (0, "", "640 runs new, 0 read again; 640 in runs.duckdb\n")
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


async def test_a_database_in_use_is_one_line(emulator: Emulator, folder: Path) -> None:
    """While another program holds the file the exit code is 1, and afterwards all goes well."""
    with duckdb.connect(str(folder / "runs.duckdb")):
        # In another process: DuckDB locks a file against other processes only.
        done = await finish(await start(*MAIN, "sync", emulator.workflow_id, env=environment(emulator)), PATIENCE)
    again = await sync(emulator.workflow_id, emulator=emulator)

    assert done.code == 1
    assert re.fullmatch(r"aiocopyai: .*lock.*\n", done.err)
    assert again.code == 0


@pytest.mark.slow
async def test_two_at_once_don_t_meet(emulator: Emulator, folder: Path) -> None:
    """While one loads, a second one to the same place gives up at once; a killed one is in nobody's way."""
    emulator.inject(Fault(delay=30), page=5)
    process = await start(*MAIN, "sync", emulator.workflow_id, env=environment(emulator))
    while process.returncode is None and not emulator.requests:
        await asyncio.sleep(0.01)
    second = await sync(emulator.workflow_id, emulator=emulator)
    process.kill()
    await finish(process)
    third = await sync(emulator.workflow_id, emulator=emulator)

    assert second == (1, "", "aiocopyai: another sync to runs.duckdb is under way\n")
    assert third.code == 0
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


@pytest.mark.slow
async def test_what_was_ready_is_loaded_first(emulator: Emulator, folder: Path) -> None:
    """What a process had read and prepared before it died gets into the table, though the server has it no more."""
    await sync(emulator.workflow_id, emulator=emulator)
    added = emulator.add_runs(3)
    env = environment(emulator, RUNTIME__DLTHUB_TELEMETRY="false")
    dead = await finish(await start("-c", READS_ONLY, emulator.workflow_id, env=env), PATIENCE)
    emulator.remove_runs(added)
    done = await sync(emulator.workflow_id, emulator=emulator)

    assert (dead.code, dead.err) == (0, "")
    assert re.fullmatch(r"3 runs new, \d+ read again; 643 in runs.duckdb\n", done.err)
    assert {key[1] for key in rows_in(folder / "runs.duckdb")} > set(added)


@pytest.mark.slow
async def test_ctrl_c_ends_with_130(emulator: Emulator, folder: Path) -> None:
    """At once, without a traceback; the next call is whole."""
    emulator.inject(Fault(delay=30), page=5)
    process = await start("-c", START + RUN, "sync", emulator.workflow_id, env=environment(emulator))
    while process.returncode is None and not any(request.page == 7 for request in emulator.requests):
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stopped = await finish(process)
    whole = await sync(emulator.workflow_id, emulator=emulator)

    assert stopped.code == 130
    assert re.fullmatch(r"stopped after reading [\d,]+ runs?\n", stopped.err)
    assert whole.code == 0
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


@pytest.mark.slow
async def test_kills_lose_nothing_and_double_nothing(emulator: Emulator, folder: Path) -> None:
    """Killed by SIGKILL at random moments, in between whole loads, the table ends up as the server's list."""
    chance, kills, number = Random(11), KILLS, 2000  # noqa: S311 (repeatable, not secret)
    emulator.replace_runs([raw_run(number) for number in range(2000, 1400, -1)])
    while kills:
        number += 7
        emulator.replace_runs([*[raw_run(new) for new in range(number, number - 7, -1)], *emulator.runs()])
        change(emulator, f"WRUN-{number - 50}", status="FAILED", credits=number)
        process = await start(*MAIN, "sync", emulator.workflow_id, env=environment(emulator))
        seen = len(emulator.requests)
        while process.returncode is None and len(emulator.requests) == seen:
            await asyncio.sleep(0.005)
        # What comes after the first answer takes some tenths of a second: reading, merging, the end.
        for _ in range(chance.randint(0, 20)):
            await asyncio.sleep(0.03)
        if process.returncode is None:
            kills -= 1
            process.kill()
        await finish(process, PATIENCE)
    done = await sync(emulator.workflow_id, emulator=emulator)

    assert done.code == 0, done.err
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


async def test_a_terminal_sees_it_coming() -> None:
    """On a terminal the number of runs read is shown while it lasts, and nothing of it remains."""
    async with Emulator(300, latency=0.1) as emulator:
        env = environment(emulator, COLUMNS="100")
        code, shown = await terminal("sync", emulator.workflow_id, width=100, env=env)

    assert code == 0
    assert re.search(r"\d+ runs read", shown)
    assert shown.rpartition("\x1b[2K")[2].endswith("300 runs new, 0 read again; 300 in runs.duckdb\n")


async def test_help_has_examples() -> None:
    """`--help` shows lines to copy, one below the other."""
    done = await cli("sync", "--help")

    assert done.code == 0
    assert "\n    aiocopyai sync --demo\n" in done.out
