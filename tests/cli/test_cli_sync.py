"""Tests of ``aiocopyai sync`` with the emulator."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
from pathlib import Path
from random import Random

import pytest

from aiocopyai.emulator import Emulator, Fault
from tests.support.commands import (
    LONG_PATIENCE,
    MAIN,
    START,
    Done,
    await_event,
    cli,
    environment,
    finish,
    start,
    terminal,
)
from tests.support.exporting import change, raw_run
from tests.support.loading import query, rows_in, truth


EMULATOR_RUNS = 640

# Loads use a core for seconds: one at a time, and with a longer limit.
pytestmark = [pytest.mark.xdist_group("dlt"), pytest.mark.timeout(300)]

KILLS = 4
RUN = "from aiocopyai.cli import main; main()"
READS_ONLY = """
import sys
from aiocopyai.integrations._sync_pipeline import Destination
from aiocopyai.integrations.dlt import copyai_source
pipeline = Destination.parse("duckdb:///runs.duckdb").open_pipeline()
pipeline.sync_destination()
pipeline.extract(copyai_source(sys.argv[1:]))
"""
"""Does what the command does until it has read everything, and then ends."""


@pytest.fixture(name="folder", autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the command and dlt write to."""
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    return tmp_path


async def sync(*arguments: str, emulator: Emulator) -> Done:
    """Run the command."""
    return await cli("sync", *arguments, emulator=emulator, patience=LONG_PATIENCE)


async def test_sync(emulator: Emulator, folder: Path) -> None:
    """The first load has all runs, and later loads have new and changed runs, even after a backup is restored."""
    emulator.replace_runs([raw_run(number) for number in range(300, 0, -1)])
    first = await sync(emulator.workflow_id, emulator=emulator)
    shutil.copy(folder / "runs.duckdb", folder / "older.duckdb")
    change(emulator, "WRUN-290", status="FAILED", error={"message": "no"})
    emulator.replace_runs([raw_run(302), raw_run(301), *emulator.runs()])
    second = await sync(emulator.workflow_id, emulator=emulator)

    assert first == (0, "", "300 new runs, 0 read again; 300 in runs.duckdb\n")
    assert second == (0, "", "2 new runs, 300 read again; 302 in runs.duckdb\n")
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)

    shutil.move(folder / "older.duckdb", folder / "runs.duckdb")
    third = await sync(emulator.workflow_id, emulator=emulator)

    assert third == second
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


@pytest.mark.slow
async def test_several_workflows_and_files(emulator: Emulator, folder: Path) -> None:
    """`--to` may name any file. Each file has its own state, even after it is moved."""
    emulator.add_runs(5, workflow_id="WCFG-2")
    both = (emulator.workflow_id, "WCFG-2")
    here = await sync(*both, "--to", "duckdb:///here.duckdb", emulator=emulator)
    there = await sync(*both, "--to", f"duckdb:///{folder}/there.duckdb", emulator=emulator)
    shutil.move(folder / "here.duckdb", folder / "moved.duckdb")
    moved = await sync(*both, "--to", "duckdb:///moved.duckdb", emulator=emulator)

    assert here.err == "645 new runs, 0 read again; 645 in here.duckdb\n"
    assert there.err == f"645 new runs, 0 read again; 645 in {folder}/there.duckdb\n"
    assert re.fullmatch(r"0 new runs, \d+ read again; 645 in moved.duckdb\n", moved.err)
    assert rows_in(folder / "there.duckdb") == truth(emulator, *both)


async def test_demo_does_not_connect_to_other_machines(folder: Path) -> None:
    """`--demo` loads the sample runs of an emulator, without a connection to another machine, even by dlt."""
    hosts = set[object]()
    has_ended = False

    def note_hosts(
        event: str, arguments: tuple[object, ...]
    ) -> None:  # called until the process ends, because hooks cannot be removed
        if event == "socket.connect" and isinstance(address := arguments[1], tuple) and not has_ended:
            hosts.add(address[0])
        elif event == "socket.getaddrinfo" and not has_ended:
            hosts.add(arguments[0])

    sys.addaudithook(note_hosts)
    done = await cli("sync", "--demo", patience=LONG_PATIENCE)
    has_ended = True

    assert hosts == {"127.0.0.1"}
    assert (done.code, done.out) == (0, "")
    assert re.fullmatch(
        r"demo: 640 sample runs, from a Copy.ai emulator at http://127\S+\n640 new runs, 0 .*\n", done.err
    )
    assert query(folder / "demo.duckdb", "SELECT count(DISTINCT id) FROM copyai.runs") == [(640,)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass either a WORKFLOW_ID or --demo"),
        (["WCFG-1", "--demo"], "pass either a WORKFLOW_ID or --demo"),
        (["WCFG-1", "--to", "duckdb:///missing/runs.duckdb"], "is not a file in an existing folder"),
        (["WCFG-1", "--to", "duckdb:///"], "is not a file in an existing folder"),
        (["WCFG-1", "--to", "runs.duckdb"], "dlt has no destination 'runs.duckdb'"),
        (["WCFG-1", "--to", "nowhere"], "dlt has no destination 'nowhere'"),
        (["WCFG-1", "--to", "filesystem"], "dlt's configuration of filesystem is incomplete"),
        (["WCFG-1", ".."], "WORKFLOW_ID must be an id"),
    ],
)
async def test_usage_errors(emulator: Emulator, folder: Path, arguments: list[str], message: str) -> None:
    """Wrong usage ends the command with exit code 2 and the reason. Nothing is sent, and no database is created."""
    done = await sync(*arguments, emulator=emulator)

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert message in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in folder.iterdir() if path.suffix == ".duckdb"] == []  # noqa: ASYNC240 (a small folder)


async def test_destination_without_merge(emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A destination to which dlt can only append rows is rejected, because each load would repeat them."""
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", (folder / "bucket").as_uri())
    done = await sync(emulator.workflow_id, "--to", "filesystem", emulator=emulator)

    assert (done.code, emulator.requests) == (2, [])
    # Older versions of dlt report a missing package first.
    assert re.search("filesystem is not supported|filesystem requires more packages", done.err)


async def test_destination_in_dlts_configuration(
    emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If `--to` is a name, the address of the destination is read from dlt's configuration."""
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", f"duckdb:///{folder}/configured.duckdb")
    done = await sync(emulator.workflow_id, "--to", "duckdb", emulator=emulator)

    assert done == (0, "", "640 new runs, 0 read again; 640 in duckdb\n")
    assert rows_in(folder / "configured.duckdb") == truth(emulator, emulator.workflow_id)


async def test_missing_extra(emulator: Emulator) -> None:
    """Without dlt, the exit code is 2, and the message has the command to install it."""
    code = f"import sys; sys.modules['dlt'] = None; {RUN}"
    done = await finish(await start("-c", code, "sync", emulator.workflow_id, env=environment(emulator)))

    assert (done.code, done.out) == (2, "")
    assert 'sync requires dlt; install with: python -m pip install "aiocopyai[dlt]"' in done.err


async def test_api_error_is_one_line(emulator: Emulator) -> None:
    """A wrong key ends the command with exit code 1, and is not printed."""
    done = await cli(
        "sync", emulator.workflow_id, emulator=emulator, patience=LONG_PATIENCE, COPYAI_API_KEY="wrong-key"
    )

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*401.*\n", done.err)
    assert "wrong-key" not in done.err


async def test_no_key(emulator: Emulator) -> None:
    """Without a key, the exit code is 2."""
    done = await cli("sync", emulator.workflow_id)

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("aiocopyai: no API key")


@pytest.mark.slow
async def test_interrupted_load_is_repeated(emulator: Emulator, folder: Path) -> None:
    """After an error, nothing is loaded, and the next sync loads everything. `--debug` shows the traceback."""
    emulator.inject(Fault(status=403), page=5)
    broken = await sync(emulator.workflow_id, emulator=emulator)
    emulator.inject(Fault(status=403), page=5)
    debugged = await sync(emulator.workflow_id, "--debug", emulator=emulator)
    whole = await sync(emulator.workflow_id, emulator=emulator)

    assert broken.code == 1
    assert re.fullmatch(r"stopped after reading 400 runs\naiocopyai: page 5: .*\n", broken.err)
    assert (debugged.code, "Traceback" in debugged.err) == (1, True)
    assert emulator.api_key not in debugged.err
    assert whole == (0, "", "640 new runs, 0 read again; 640 in runs.duckdb\n")
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


async def test_database_in_use(emulator: Emulator) -> None:
    """While another program has locked the file, the exit code is 1. Afterwards, the sync works."""
    code = (
        "import duckdb, time; connection = duckdb.connect('runs.duckdb'); print('locked', flush=True); time.sleep(300)"
    )
    # In another process: DuckDB locks a file against other processes only.
    other = await start("-c", code, env=environment())
    assert other.stdout is not None
    await other.stdout.readline()
    done = await sync(emulator.workflow_id, emulator=emulator)
    other.kill()
    await finish(other)
    again = await sync(emulator.workflow_id, emulator=emulator)

    assert done.code == 1
    assert re.fullmatch(r"aiocopyai: .*lock.*\n", done.err)
    assert again.code == 0


@pytest.mark.slow
async def test_one_sync_at_a_time(emulator: Emulator, folder: Path) -> None:
    """While a sync is in progress, another sync to the same database ends at once. A killed sync leaves no lock."""
    emulator.inject(Fault(delay=300), page=5)
    process = await start(*MAIN, "sync", emulator.workflow_id, env=environment(emulator))
    await await_event(process, lambda: any(request.page == 5 for request in emulator.requests), LONG_PATIENCE)
    second = await sync(emulator.workflow_id, emulator=emulator)
    process.kill()
    await finish(process, LONG_PATIENCE)
    third = await sync(emulator.workflow_id, emulator=emulator)

    assert second == (1, "", "aiocopyai: another sync to runs.duckdb is in progress\n")
    assert third.code == 0
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


@pytest.mark.slow
async def test_pending_package_is_loaded_first(emulator: Emulator, folder: Path) -> None:
    """Runs that a killed process had extracted are loaded, although they are no longer on the server."""
    await sync(emulator.workflow_id, emulator=emulator)
    added = emulator.add_runs(3)
    env = environment(emulator, RUNTIME__DLTHUB_TELEMETRY="false")
    dead = await finish(await start("-c", READS_ONLY, emulator.workflow_id, env=env), LONG_PATIENCE)
    emulator.remove_runs(added)
    done = await sync(emulator.workflow_id, emulator=emulator)

    assert (dead.code, dead.err) == (0, "")
    assert re.fullmatch(r"3 new runs, \d+ read again; 643 in runs.duckdb\n", done.err)
    assert {key[1] for key in rows_in(folder / "runs.duckdb")} > set(added)


@pytest.mark.slow
async def test_ctrl_c(emulator: Emulator, folder: Path) -> None:
    """Ctrl-C ends the command at once with exit code 130, and the next sync loads everything."""
    emulator.inject(Fault(delay=300), page=5)
    process = await start("-c", START + RUN, "sync", emulator.workflow_id, env=environment(emulator))
    await await_event(process, lambda: any(request.page == 7 for request in emulator.requests), LONG_PATIENCE)
    process.send_signal(signal.SIGINT)
    stopped = await finish(process, LONG_PATIENCE)
    whole = await sync(emulator.workflow_id, emulator=emulator)

    assert stopped.code == 130
    assert re.fullmatch(r"stopped( after reading [\d,]+ runs?)?\n", stopped.err)
    assert whole.code == 0
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


async def test_full_disk(emulator: Emulator, folder: Path) -> None:
    """If dlt's folder cannot be written, the message names it, and a later load has every run."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000,) * 2)\n" + RUN
    full = await finish(
        await start("-c", limited, "sync", emulator.workflow_id, env=environment(emulator)), patience=LONG_PATIENCE
    )
    done = await sync(emulator.workflow_id, emulator=emulator)

    assert full.code == 1
    assert re.search(rf"\naiocopyai: \[Errno \d+\] File too large: '{folder}/dlt/.*'\n$", full.err)
    assert done.code == 0, done.err
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


@pytest.mark.slow
async def test_kills(emulator: Emulator, folder: Path) -> None:
    """After kills at random times, and complete loads between them, the table has the runs of the server."""
    chance, kills, number = Random(11), KILLS, 2000  # noqa: S311 (repeatable, not secret)
    emulator.replace_runs([raw_run(number) for number in range(2000, 1400, -1)])
    while kills:
        number += 7
        emulator.replace_runs([*[raw_run(new) for new in range(number, number - 7, -1)], *emulator.runs()])
        change(emulator, f"WRUN-{number - 50}", status="FAILED", credits=number)
        process = await start(*MAIN, "sync", emulator.workflow_id, env=environment(emulator))
        seen = len(emulator.requests)
        async with asyncio.timeout(LONG_PATIENCE):
            while process.returncode is None and len(emulator.requests) == seen:
                await asyncio.sleep(0.005)
        # Reading, merging and finishing take a few tenths of a second after the first response.
        for _ in range(chance.randint(0, 20)):
            await asyncio.sleep(0.03)
        if process.returncode is None:
            kills -= 1
            process.kill()
        await finish(process, LONG_PATIENCE)
    done = await sync(emulator.workflow_id, emulator=emulator)

    assert done.code == 0, done.err
    assert rows_in(folder / "runs.duckdb") == truth(emulator, emulator.workflow_id)


async def test_progress_on_a_terminal() -> None:
    """A terminal shows the number of runs read during the load, and only the result at the end."""
    async with Emulator(300, latency=0.1) as emulator:
        env = environment(emulator, COLUMNS="100")
        code, shown = await terminal("sync", emulator.workflow_id, width=100, patience=LONG_PATIENCE, env=env)

    assert code == 0
    assert re.search(r"\d+ runs read", shown)
    assert shown.rpartition("\x1b[2K")[2].endswith("300 new runs, 0 read again; 300 in runs.duckdb\n")
