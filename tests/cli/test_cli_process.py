"""Tests of the command as a process: signals, standard streams, terminals, and the prompt for the key."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import termios
from pathlib import Path

import pytest

from aiocopyai import JSON
from aiocopyai.emulator import Emulator, Fault
from tests.support.commands import MAIN, START, cli, environment, finish, read_until, start, terminal


EMULATOR_RUNS = 230
RUN_MAIN = START + "from aiocopyai.cli import main; main()"
INTERRUPT_IMPORT = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            {statement}

sys.meta_path.insert(0, Interrupt())
from aiocopyai.cli import main
main()
"""

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@pytest.mark.parametrize(
    "module", ["aiocopyai.cli._process", "typer", "aiocopyai.cli.commands.runs", "aiohttp", "aiocopyai._session"]
)
@pytest.mark.parametrize("statement", ["raise KeyboardInterrupt", "raise RuntimeError from KeyboardInterrupt()"])
async def test_interrupt_during_imports(emulator: Emulator, module: str, statement: str) -> None:
    """Ctrl-C during the imports ends the command with exit code 130, without a traceback."""
    code = INTERRUPT_IMPORT.format(module=module, statement=statement)
    done = await finish(await start("-c", code, "runs", emulator.workflow_id, env=environment(emulator)))

    assert done.code == 130
    assert done.err in {"", "stopped\n"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signals_stop_a_command(emulator: Emulator, number: signal.Signals) -> None:
    """A signal ends the command with exit code 130. The runs read before it are written and counted."""
    emulator.inject(Fault(delay=60), page=2, times=None)
    process = await start("-c", RUN_MAIN, "runs", emulator.workflow_id, env=environment(emulator))
    assert process.stdout is not None
    for _ in range(100):  # the last one is written after all are counted
        await process.stdout.readline()
    process.send_signal(number)
    done = await finish(process)

    assert done.code == 130
    assert done.err.startswith("stopped after 100 runs: ")
    assert "Traceback" not in done.err


async def test_signals_stop_a_command_that_ignores_ctrl_c(emulator: Emulator) -> None:
    """SIGTERM stops a command that ignores SIGINT, such as one in the background of a shell script."""
    emulator.inject(Fault(delay=60), page=2, times=None)
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nfrom aiocopyai.cli import main; main()"
    process = await start("-c", code, "runs", emulator.workflow_id, env=environment(emulator))
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    done = await finish(process)

    assert done.code == 130
    assert done.err.startswith("stopped")
    assert "Traceback" not in done.err


async def test_nohup_ignores_sighup(emulator: Emulator) -> None:
    """A command that is started with SIGHUP ignored continues to ignore it."""
    emulator.inject(Fault(delay=0.3), page=2)
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom aiocopyai.cli import main; main()"
    process = await start("-c", code, "runs", emulator.workflow_id, env=environment(emulator))
    assert process.stdout is not None
    first = await process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    done = await finish(process)

    assert done.code == 0
    assert len(first.splitlines() + done.rows) == 230


async def test_sigterm_restores_the_terminal(emulator: Emulator, tmp_path: Path) -> None:
    """After SIGTERM during an export, the cursor is visible again, and the message says how to resume."""
    emulator.inject(Fault(delay=60), page=2, times=None)
    ours, theirs = pty.openpty()
    arguments = ("export", emulator.workflow_id, "-o", str(tmp_path / "runs.jsonl"))
    process = await start("-c", RUN_MAIN, *arguments, env=environment(emulator), stderr=theirs)
    os.close(theirs)
    shown = await asyncio.to_thread(read_until, ours, b"100 of 230 runs")
    process.send_signal(signal.SIGTERM)
    shown += await asyncio.to_thread(read_until, ours, b"")
    done = await finish(process)
    os.close(ours)

    assert done.code == 130
    assert shown.rindex(b"\x1b[?25l") < shown.rindex(b"\x1b[?25h")
    assert b"stopped after 100 runs: " in shown
    assert b"--resume" in shown
    assert b"Traceback" not in shown


@pytest.mark.parametrize("chosen", ["table", "jsonl", "csv"])
async def test_closed_pipe_is_not_an_error(emulator: Emulator, chosen: str) -> None:
    """`aiocopyai runs … | head -1` ends at once, without a message and with exit code 0."""
    emulator.replace_runs([{"id": str(number), "output": {"text": "x" * 2000}} for number in range(300)])
    reader, writer = os.pipe()
    arguments = ("runs", emulator.workflow_id, "--format", chosen)
    process = await start(*MAIN, *arguments, env=environment(emulator), stdout=writer)
    os.close(writer)
    # In a thread, as the emulator runs in the event loop of this one.
    await asyncio.to_thread(os.read, reader, 10)
    os.close(reader)
    done = await finish(process)

    assert (done.code, done.err) == (0, "")


@needs_dev_full
@pytest.mark.parametrize("arguments", [["runs"], ["runs", "--format", "table"], ["--help"], ["--version"]])
async def test_full_disk_is_one_line(emulator: Emulator, arguments: list[str]) -> None:
    """If standard output cannot be written, the exit code is 1, and standard error has one line."""
    full = os.open("/dev/full", os.O_WRONLY)
    named = [emulator.workflow_id] if arguments[0] == "runs" else []
    process = await start(*MAIN, *arguments, *named, env=environment(emulator), stdout=full)
    os.close(full)
    done = await finish(process)

    assert done.code == 1
    message = r"aiocopyai: cannot write to standard output: No space left on device\n"
    assert re.fullmatch(rf"(stopped after .*\n)?{message}", done.err)


@pytest.mark.parametrize(
    ("closed", "code", "message"),
    [(0, 0, "230 runs: "), (1, 1, "aiocopyai: cannot write to standard output: Bad file descriptor"), (2, 0, None)],
)
async def test_closed_stream(emulator: Emulator, closed: int, code: int, message: str | None) -> None:
    """Only a closed standard output is an error. No file or connection takes the file number of a closed stream."""
    close = f"import os, sys; os.close({closed}); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    process = await start("-c", close, *MAIN, "runs", emulator.workflow_id, env=environment(emulator))
    done = await finish(process)

    assert done.code == code
    assert len(done.rows) == (0 if closed == 1 else 230)
    assert "Traceback" not in done.err
    assert (message in done.err) if message else not done.err


@needs_dev_full
@pytest.mark.parametrize("arguments", [["runs"], ["runs", "--unknown"], ["unknown"]])
async def test_wrong_usage_that_cannot_be_printed(arguments: list[str]) -> None:
    """The exit code of wrong usage is 2 even if standard error is a closed pipe."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = await start(*MAIN, *arguments, env=environment(), stderr=write_end)
    os.close(write_end)

    assert (await finish(process)).code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "WCFG-1", "-o", "\x1b[31m\u202e"],
        ["report", "\x1b[31m\u202e.csv"],
        ["start", "WCFG-1", "--input-file", "\x1b[31m\u202e.csv"],
    ],
)
async def test_control_characters_of_a_file_name_are_escaped(arguments: list[str]) -> None:
    """Control characters in a file name are escaped in messages."""
    done = await cli(*arguments, COPYAI_API_KEY="key")

    assert done.code == 2
    assert "\\u001b[31m\\u202e" in done.err
    assert "\x1b[31m" not in done.err


async def test_full_standard_error(emulator: Emulator) -> None:
    """If standard error cannot be written, the messages are lost, and the results are complete."""
    full = os.open("/dev/full", os.O_WRONLY)
    process = await start(*MAIN, "runs", emulator.workflow_id, env=environment(emulator), stderr=full)
    os.close(full)
    done = await finish(process)

    assert (done.code, len(done.rows)) == (0, 230)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("arguments", [["runs", "--help"], ["runs", "WCFG-…", "--since", "…"], ["--vorgängig 🎉"]])
async def test_help_and_errors_in_another_encoding(encoding: str, arguments: list[str]) -> None:
    """Help and messages are printed even if the encoding does not have some of their characters."""
    done = await cli(*arguments, PYTHONIOENCODING=encoding)

    assert done.code == (0 if "--help" in arguments else 2)
    assert done.out or done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "na\\u00efve \\ud83c\\udf89"), ("utf-8", "naïve 🎉")])
async def test_json_on_a_terminal_in_another_encoding(emulator: Emulator, encoding: str, shown: str) -> None:
    """`get` on a terminal escapes characters that are not in the encoding, so that the output is valid JSON."""
    emulator.replace_runs([{"id": "WRUN-1", "output": {"Post": "naïve 🎉"}}])
    env = environment(emulator, PYTHONIOENCODING=encoding)
    code, out = await terminal("get", emulator.workflow_id, "WRUN-1", env=env)

    assert code == 0
    assert f'"Post": "{shown}"' in out


async def test_table_in_another_encoding(emulator: Emulator) -> None:
    """A table shows escapes for characters that are not in the encoding."""
    emulator.replace_runs([{"id": "WRUN-1", "output": {"Post": "naïve 🎉"}}])
    arguments = ("runs", emulator.workflow_id, "--format", "table")
    done = await cli(*arguments, emulator=emulator, PYTHONIOENCODING="ascii")

    assert done.code == 0
    assert "na\\xefve" in done.out


@pytest.mark.parametrize("command", ["runs", "get"])
async def test_deep_nesting_on_a_terminal(emulator: Emulator, command: str) -> None:
    """A deeply nested output is printed on a terminal like any other."""
    value: JSON = "deepest"
    for _ in range(900):
        value = [value]
    emulator.replace_runs([{"id": "WRUN-1", "output": {"Post": value}}])
    arguments = ("runs", emulator.workflow_id, "--format", "jsonl")
    if command == "get":
        arguments = ("get", emulator.workflow_id, "WRUN-1")
    code, shown = await terminal(*arguments, env=environment(emulator))

    assert code == 0
    assert "deepest" in shown


@pytest.mark.parametrize("width", [20, 40, 60, 80, 81, 100])
async def test_rows_fit_into_the_terminal(emulator: Emulator, width: int) -> None:
    """Each run is one row that is not wider than the terminal. The id is complete if it fits."""
    run_id = "WRUN-6fe9e53c-945a-4aa3-a87e-d64c3cc0dcb0"
    runs: list[JSON] = [
        {
            "id": run_id,
            "status": "COMPLETE",
            "createdAt": "2026-01-31T09:00:00Z",
            "credits": 22,
            "output": {"a": "日本" * 99},
        }
    ]
    emulator.replace_runs(runs)
    env = environment(emulator, NO_COLOR="1")
    code, shown = await terminal("runs", emulator.workflow_id, "--quiet", width=width, env=env)
    header, row = (re.sub(r"\x1b\[\d*m", "", line) for line in shown.splitlines())

    assert code == 0
    assert len(header) <= width
    assert len(row) + len(re.findall("[日本]", row)) <= width
    assert (run_id if width >= 60 else run_id[: max(1, width - 15)]) in row
    assert ("2026-01-31 09:00:00" in row) is (width >= 80)


@pytest.mark.parametrize("credits_spent", [1234567, 123456789012])
async def test_numbers_are_not_cut(emulator: Emulator, credits_spent: int) -> None:
    """Credits are complete in a narrow table, and the id is shortened instead."""
    emulator.replace_runs([{"id": f"WRUN-{'9' * 36}", "status": "COMPLETE", "credits": credits_spent}])
    _, shown = await terminal(
        "runs", emulator.workflow_id, "--quiet", width=80, env=environment(emulator, NO_COLOR="1")
    )
    row = shown.splitlines()[1]

    assert f" {credits_spent} WRUN-999" in row
    assert len(row) <= 80


async def test_terminal_prompts_for_the_key(emulator: Emulator) -> None:
    """Without COPYAI_API_KEY, the command prompts for the key on a terminal, after it has turned off the echo."""
    ours, theirs = pty.openpty()
    env = environment(COPYAI_BASE_URL=emulator.url)
    arguments = ("runs", emulator.workflow_id, "--limit", "1")
    process = await start("-c", RUN_MAIN, *arguments, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    shown = await asyncio.to_thread(read_until, ours, b"Copy.ai API key: ")
    has_echo = termios.tcgetattr(theirs)[3] & termios.ECHO
    os.close(theirs)
    os.write(ours, f"{emulator.api_key}\n".encode())
    shown += await asyncio.to_thread(read_until, ours, b"")
    done = await finish(process)
    os.close(ours)

    assert done.code == 0
    assert not has_echo
    assert emulator.api_key.encode() not in shown
    assert emulator.requests[0].headers["x-copy-ai-api-key"] == emulator.api_key


async def test_key_in_another_encoding(emulator: Emulator) -> None:
    """A key that is not UTF-8 is a usage error without a traceback."""
    ours, theirs = pty.openpty()
    env = environment(COPYAI_BASE_URL=emulator.url)
    process = await start(*MAIN, "runs", "WCFG-1", env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    await asyncio.to_thread(read_until, ours, b"Copy.ai API key: ")
    os.write(ours, b"\xff\xfe\n")
    done = await finish(process)
    os.close(theirs)
    shown = await asyncio.to_thread(read_until, ours, b"")
    os.close(ours)

    assert done.code == 2
    assert b"the API key must be printable ASCII" in shown
    assert b"Traceback" not in shown


@pytest.mark.parametrize("reply", [b"\x03", b"\x04", signal.SIGTERM])
async def test_question_can_be_interrupted(emulator: Emulator, reply: bytes | signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, Ctrl-D and SIGTERM end the question before many runs with exit code 130, and nothing is started."""
    (tmp_path / "rows.csv").write_text("n\n" + "1\n" * 101)
    ours, theirs = pty.openpty()
    code = START + "import os, sys, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + RUN_MAIN
    arguments = ("start", emulator.workflow_id, "--input-file", "rows.csv", "-o", "results.jsonl")
    env = environment(emulator)
    process = await start("-c", code, *arguments, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    await asyncio.to_thread(read_until, ours, b"[y/N]: ")
    shown = asyncio.create_task(asyncio.to_thread(read_until, ours, b"stopped"))
    while not shown.done():  # Python's input() ignores a signal right before it reads
        if isinstance(reply, bytes):
            os.write(ours, reply)
        else:
            process.send_signal(reply)
        await asyncio.wait([shown], timeout=5)
    done = await finish(process)
    os.close(theirs)
    os.close(ours)

    assert done.code == 130
    assert emulator.requests == []
    assert not (tmp_path / "results.jsonl").exists()


@pytest.mark.parametrize("reply", [b"\x03", b"\x04", signal.SIGTERM])
async def test_prompt_for_the_key_can_be_interrupted(emulator: Emulator, reply: bytes | signal.Signals) -> None:
    """Ctrl-C, Ctrl-D and SIGTERM end the prompt with exit code 130, turn on the echo, and send nothing."""
    ours, theirs = pty.openpty()
    code = START + "import os, sys, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + RUN_MAIN
    env = environment(COPYAI_BASE_URL=emulator.url)
    process = await start("-c", code, "runs", "WCFG-1", env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    await asyncio.to_thread(read_until, ours, b"Copy.ai API key: ")
    if isinstance(reply, bytes):
        os.write(ours, reply)
    else:
        process.send_signal(reply)
    done = await finish(process)
    has_echo = termios.tcgetattr(theirs)[3] & termios.ECHO
    os.close(theirs)
    shown = await asyncio.to_thread(read_until, ours, b"")
    os.close(ours)

    assert done.code == 130
    assert has_echo
    assert b"Traceback" not in shown
    assert emulator.requests == []
