"""Tests of ``aiocopyai export`` with the emulator."""

from __future__ import annotations

import asyncio
import re
import signal
from functools import cache
from pathlib import Path
from random import Random

import pytest
from attrs import define, field

from aiocopyai import JSON
from aiocopyai.emulator import Emulator, Fault, Request
from tests.support.commands import LONG_PATIENCE, MAIN, START, await_event, cli, environment, finish, start, terminal
from tests.support.exporting import FORMATS, change, ids_in, ids_of, leftovers, raw_run


EMULATOR_RUNS = 640

KILLS = 50
COUNTS = r"640 runs: \d+ COMPLETE, .*; [\d,]+ credits; in runs\.\S+\n"


@pytest.mark.parametrize("ending", FORMATS)
async def test_export(emulator: Emulator, tmp_path: Path, ending: str) -> None:
    """The file has every run, standard output is empty, and standard error has one line of counts."""
    path = tmp_path / f"runs.{ending}"
    done = await cli("export", emulator.workflow_id, "-o", path.name, emulator=emulator)

    assert (done.code, done.out) == (0, "")
    assert re.fullmatch(COUNTS, done.err)
    assert ids_in(path) == ids_of(emulator)
    assert leftovers(path) == []


async def test_demo(tmp_path: Path) -> None:
    """`--demo` exports the sample runs of an emulator."""
    done = await cli("export", "--demo", "-o", "runs.csv")

    assert done.code == 0
    assert len(ids_in(tmp_path / "runs.csv")) == 640
    assert "emulator at http://127.0.0.1:" in done.err


async def test_several_workflows_in_one_file(emulator: Emulator, tmp_path: Path) -> None:
    """The file has the runs of all workflows."""
    emulator.add_runs(30, workflow_id="WCFG-2")
    done = await cli("export", emulator.workflow_id, "WCFG-2", "-o", "runs.jsonl", emulator=emulator)

    assert done.err.startswith("670 runs: ")
    assert ids_in(tmp_path / "runs.jsonl") == ids_of(emulator) + ids_of(emulator, "WCFG-2")


async def test_since_last_adds_and_refreshes(emulator: Emulator, tmp_path: Path) -> None:
    """With `--since last`, the command first exports all runs, then new and unfinished runs, and then nothing."""
    command = ("export", emulator.workflow_id, "-o", "runs.parquet", "--resume", "--since", "last")
    first = await cli(*command, emulator=emulator)
    added = emulator.add_runs(3, status="NEW", credits=0)
    second = await cli(*command, emulator=emulator)
    for run_id in added[:2]:
        change(emulator, run_id, status="COMPLETE", credits=5)
    third = await cli(*command, emulator=emulator)
    fourth = await cli(*command, emulator=emulator)
    counts = "2 runs: 2 COMPLETE; 10 credits"

    assert re.fullmatch(COUNTS, first.err)
    assert second == (0, "", "3 runs: 3 NEW; 0 credits; added to runs.parquet\n")
    assert third == (0, "", f"{counts}; added to runs.parquet; 2 of them replaced unfinished ones\n")
    assert fourth == (0, "", "nothing new; runs.parquet is unchanged\n")
    assert sorted(ids_in(tmp_path / "runs.parquet")) == sorted(ids_of(emulator))


async def test_since_date(emulator: Emulator, tmp_path: Path) -> None:
    """A date without a zone is in the time zone of the user."""
    emulator.replace_runs(
        [{"id": "in", "createdAt": "2026-01-30T22:00:00Z"}, {"id": "out", "createdAt": "2026-01-30T21:59:59.999Z"}]
    )
    arguments = ("export", emulator.workflow_id, "-o", "runs.jsonl", "--since", "2026-01-31")
    done = await cli(*arguments, emulator=emulator, TZ="TST-2")

    assert done.code == 0
    assert ids_in(tmp_path / "runs.jsonl") == ["in"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "runs.csv"], "pass either a WORKFLOW_ID or --demo"),
        (["WCFG-1", "--demo", "-o", "runs.csv"], "pass either a WORKFLOW_ID or --demo"),
        (["WCFG-1"], "pass the file to write with -o FILE"),
        (["WCFG-1", "-o", "runs.xml"], "runs.xml must end in one of .jsonl, .jsonl.gz, .csv, .parquet"),
        (["WCFG-1", "-o", "missing/runs.csv"], "missing does not exist"),
        (
            ["WCFG-1", "-o", "there.csv"],
            "there.csv already exists: use --since last to add new runs, or --force to replace it",
        ),
        (["WCFG-1", "-o", "there.csv", "--since", "last"], "does not have the columns of an export"),
        (["WCFG-1", "-o", "runs.csv", "--since", "yesterday"], "'yesterday' is not a date"),
        (["WCFG-1", "-o", "runs.csv", "--resume", "--force"], "pass either --resume or --force"),
        (["..", "-o", "runs.csv"], "WORKFLOW_ID must be an id"),
    ],
)
async def test_usage_errors(emulator: Emulator, tmp_path: Path, arguments: list[str], message: str) -> None:
    """Wrong usage ends the command with exit code 2 and the reason, and nothing is sent or written."""
    there = tmp_path / "there.csv"
    there.write_text("precious\n")
    done = await cli("export", *arguments, emulator=emulator)

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert message in done.err
    assert "Traceback" not in done.err
    assert (there.read_text(), leftovers(there)) == ("precious\n", [])


async def test_parquet_without_pyarrow(emulator: Emulator) -> None:
    """Without pyarrow, an export to Parquet exits with code 2 and the command to install it. Other formats work."""
    code = "import sys; sys.modules['pyarrow'] = None; from aiocopyai.cli import main; main()"
    outcomes = [
        await finish(await start("-c", code, "export", emulator.workflow_id, "-o", name, env=environment(emulator)))
        for name in ("runs.parquet", "runs.csv")
    ]

    assert [done.code for done in outcomes] == [2, 0]
    assert 'pip install "aiocopyai[export]"' in outcomes[0].err


async def test_api_error_is_one_line(emulator: Emulator, tmp_path: Path) -> None:
    """A wrong key ends the command with exit code 1, is not printed, and leaves no files."""
    done = await cli("export", emulator.workflow_id, "-o", "runs.csv", emulator=emulator, COPYAI_API_KEY="wrong-key")

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*401.*\n", done.err)
    assert "wrong-key" not in done.err
    assert leftovers(tmp_path / "runs.csv") == []


async def test_interrupted_export(emulator: Emulator, tmp_path: Path) -> None:
    """After an error the message has the number of stored runs, and `--resume` completes the file."""
    emulator.inject(Fault(status=403), page=5)
    command = ("export", emulator.workflow_id, "-o", "runs.jsonl")
    failed = await cli(*command, emulator=emulator)
    again = await cli(*command, emulator=emulator)
    resumed = await cli(*command, "--resume", emulator=emulator)
    complete = await cli(*command, "--resume", emulator=emulator)

    assert failed.code == 1
    assert re.match(r"stopped after 400 runs: .*; --resume continues from there\naiocopyai: page 5: .*\n$", failed.err)
    assert again.code == 2
    assert "use --resume to continue it, or --force to discard it" in again.err
    assert resumed.code == 0
    assert re.fullmatch(COUNTS, resumed.err)
    assert complete == (0, "", "runs.jsonl is already complete; use --since last to add new runs\n")
    assert ids_in(tmp_path / "runs.jsonl") == ids_of(emulator)


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.parquet"])
async def test_full_disk_is_one_line(emulator: Emulator, tmp_path: Path, name: str) -> None:
    """If the disk is full, the exit code is 1, and the message names the file. Later, the export can be resumed."""
    body = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (90_000,) * 2)\n" + START
    code = body + "from aiocopyai.cli import main; main()"
    arguments = ("export", emulator.workflow_id, "-o", name)
    full = await finish(await start("-c", code, *arguments, env=environment(emulator)))
    resumed = await cli(*arguments, "--resume", emulator=emulator)

    assert full.code == 1
    assert re.fullmatch(rf"aiocopyai: .*{name}\.part.*\n", full.err.splitlines(keepends=True)[-1])
    assert "Traceback" not in full.err
    assert resumed.code == 0
    assert ids_in(tmp_path / name) == ids_of(emulator)


async def test_ctrl_c(emulator: Emulator, tmp_path: Path) -> None:
    """Ctrl-C ends the command at once, with exit code 130 and without a traceback; `--resume` continues."""
    emulator.inject(Fault(delay=60), page=5)
    command = ("export", emulator.workflow_id, "-o", "runs.jsonl")
    code = START + "from aiocopyai.cli import main; main()"
    process = await start("-c", code, *command, env=environment(emulator))
    await await_event(process, lambda: any(request.page == 7 for request in emulator.requests))
    process.send_signal(signal.SIGINT)
    stopped = await finish(process)
    resumed = await cli(*command, "--resume", emulator=emulator)

    assert stopped.code == 130
    assert re.fullmatch(r"stopped after \d+ runs: .*; --resume continues from there\n", stopped.err)
    assert resumed.code == 0
    assert ids_in(tmp_path / "runs.jsonl") == ids_of(emulator)


async def test_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    """A terminal shows the total, the rate and the remaining time during the export, and only the counts at the end."""
    async with Emulator(3000, latency=0.1) as emulator:
        env = environment(emulator, NO_COLOR="1", COLUMNS="100")
        code, shown = await terminal("export", emulator.workflow_id, "-o", "runs.csv", width=100, env=env)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)

    assert code == 0
    assert re.search(r"[\d,]+ of 3,000 runs +[\d,]+/s +0:00:\d\d", plain)
    assert shown.rpartition("\x1b[2K")[2].startswith("3,000 runs: ")
    assert len(ids_in(tmp_path / "runs.csv")) == 3000


@define
class ChangingWorkflow:
    """A workflow whose list changes at every request, with the runs that an export must have and may have."""

    workflow_id: str
    path: Path
    chance: Random
    numbers: list[int] = field(factory=lambda: list(range(4000, 0, -1)))
    stayed: set[int] = field(factory=set[int])
    ever: set[int] = field(factory=set[int])
    grows: bool = True
    requests: int = 0

    def start(self) -> None:
        """Record the list when an export starts."""
        self.stayed = set(self.numbers)
        self.ever = set(self.numbers)

    def change(self, emulator: Emulator) -> None:
        """Add some runs at the head, or remove some anywhere."""
        self.requests += 1
        for _ in range(self.chance.randint(0, 3)):
            if self.grows:
                self.numbers.insert(0, self.numbers[0] + 1)
                self.ever.add(self.numbers[0])
            else:
                self.stayed.discard(self.numbers.pop(self.chance.randrange(1, len(self.numbers))))
        emulator.replace_runs(map(small_run, self.numbers), workflow_id=self.workflow_id)

    def check(self) -> None:
        """Check that the file has every run that stayed in the list, and no run twice or from elsewhere."""
        found = [int(run_id.removeprefix("WRUN-")) for run_id in ids_in(self.path)]
        assert len(found) == len(set(found))
        assert self.stayed <= set(found) <= self.ever
        assert leftovers(self.path) == []


@cache
def small_run(number: int) -> JSON:
    return raw_run(number, output={"text": "x" * 200})


@define
class Kills:
    """The number of processes to kill."""

    left: int


async def export_repeatedly(kills: Kills, workflow: ChangingWorkflow, emulator: Emulator) -> None:
    """Make exports, one after the other, and kill their processes, until `kills` is 0."""
    while kills.left > 0:
        workflow.path.unlink(missing_ok=True)
        workflow.start()
        while not await completes(kills, workflow, emulator):
            workflow.grows = not workflow.grows
        await asyncio.to_thread(workflow.check)


async def completes(kills: Kills, workflow: ChangingWorkflow, emulator: Emulator) -> bool:
    """Start a process and kill it at a random time; return whether it completed the export instead."""
    arguments = ("export", workflow.workflow_id, "-o", str(workflow.path), "--resume")
    process = await start(*MAIN, *arguments, env=environment(emulator))
    if kills.left > 0:
        requests = workflow.requests + workflow.chance.randint(1, 60)
        async with asyncio.timeout(LONG_PATIENCE):
            while workflow.requests < requests and process.returncode is None:
                await asyncio.sleep(0.002)
        await asyncio.sleep(workflow.chance.random() * 0.05)
        if process.returncode is None:
            kills.left -= 1
            process.kill()
            await finish(process)
            return False
    done = await finish(process, LONG_PATIENCE)
    assert done.code == 0, done.err
    return True


@pytest.mark.slow
async def test_kills(tmp_path: Path) -> None:
    """After kills at random times, while the lists change, each export has each run once."""
    kills = Kills(KILLS)
    lists = {
        f"WCFG-{ending}": ChangingWorkflow(f"WCFG-{ending}", tmp_path / ending / f"runs.{ending}", Random(ending))  # noqa: S311
        for ending in FORMATS
    }

    def change_list(server: Emulator, request: Request) -> None:
        lists[request.path.split("/")[3]].change(server)

    async with Emulator(latency=0.005) as emulator, asyncio.TaskGroup() as tasks:
        emulator.on_request = change_list
        for workflow in lists.values():
            workflow.path.parent.mkdir()
            tasks.create_task(export_repeatedly(kills, workflow, emulator))

    assert kills.left <= 0


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
async def test_memory_use_is_bounded(tmp_path: Path, ending: str) -> None:
    """An export of 100,000 runs uses less than 100 MiB, without the mapped libraries."""
    code = (
        "import atexit, re, sys\n"
        "class NoPandas:\n"  # pyarrow loads it if it is installed
        "    def find_spec(self, name, *_):\n"
        "        if name == 'pandas': raise ImportError(name)\n"
        "sys.meta_path.insert(0, NoPandas())\n"
        "def report():\n"
        "    status = open('/proc/self/status').read()\n"
        "    peak, mapped = (int(re.search(name + r':\\s*(\\d+) kB', status)[1]) for name in ('VmHWM', 'RssFile'))\n"
        "    sys.stderr.write(f'{(peak - mapped) // 1024} MiB\\n')\n"
        "atexit.register(report)\n"
        "from aiocopyai.cli import main\n"
        "main()"
    )
    async with Emulator(100_000) as emulator:
        env = environment(emulator)
        process = await start("-c", code, "export", emulator.workflow_id, "-o", f"runs.{ending}", env=env)
        done = await finish(process, patience=LONG_PATIENCE)

    assert done.code == 0, done.err
    assert len(set(ids_in(tmp_path / f"runs.{ending}"))) == 100_000
    assert int(done.err.splitlines()[-1].removesuffix(" MiB")) < 100
