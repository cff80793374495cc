"""The command `aiocopyai`, as a process of its own, against the emulator."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import sys

import pytest

from aiocopyai import JSON
from aiocopyai.emulator import Emulator, Fault, Request
from tests.support.commands import MAIN, START, cli, environment, finish, start, terminal


EMULATOR_RUNS = 230


async def test_the_demo_needs_nothing_and_shows_everything() -> None:
    """`aiocopyai runs --demo` walks several hundred runs and ends with counts and credits."""
    done = await cli("runs", "--demo")

    assert done.code == 0
    assert len({row["id"] for row in done.rows}) == 640
    assert "emulator at http://127.0.0.1:" in done.err
    assert re.search(r"640 runs: \d+ COMPLETE, .* [\d,]+ credits", done.err)


async def test_a_pipe_gets_each_run_as_a_line_of_json(emulator: Emulator) -> None:
    """Every run is on standard output once, in the server's order, with every field; all else is on standard error."""
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


async def test_limit_is_exact(emulator: Emulator) -> None:
    """`--limit 3` gives three runs."""
    done = await cli("runs", emulator.workflow_id, "--limit", "3", emulator=emulator)

    assert len(done.rows) == 3
    assert done.err.startswith("3 runs: ")


async def test_since_takes_a_date_in_the_users_zone(emulator: Emulator) -> None:
    """A date without a zone is midnight where the user is: TST-2 is two hours ahead of UTC."""
    emulator.replace_runs(
        [{"id": "in", "createdAt": "2026-01-30T22:00:00Z"}, {"id": "out", "createdAt": "2026-01-30T21:59:59.999Z"}]
    )
    done = await cli("runs", emulator.workflow_id, "--since", "2026-01-31", emulator=emulator, TZ="TST-2")

    assert [row["id"] for row in done.rows] == ["in"]


async def test_since_takes_a_moment_with_a_zone(emulator: Emulator) -> None:
    """A zone that is given counts."""
    emulator.replace_runs([{"id": "in", "createdAt": "2026-01-31T09:00:00Z"}])
    done = await cli("runs", emulator.workflow_id, "--since", "2026-01-31T09:00Z", emulator=emulator, TZ="TST+5")

    assert len(done.rows) == 1


async def test_any_text_survives_as_json_whatever_the_locale(emulator: Emulator) -> None:
    """Odd characters and unknown fields reach the reader as they were sent."""
    odd: JSON = {"Ωutput \x1b[2J": "naïve \u2028 \x7f 🎉"}
    emulator.replace_runs([{"id": "WRUN-1", "output": odd, "toolKey": 1, "credits": "many"}])
    done = await cli("runs", emulator.workflow_id, emulator=emulator, PYTHONIOENCODING="ascii", LC_ALL="C")

    assert done.rows[0]["output"] == odd
    assert done.rows[0]["extra"] == {"toolKey": 1, "credits": "many"}
    assert done.rows[0]["created_at"] is None


async def test_an_empty_list_is_no_error(emulator: Emulator) -> None:
    """A workflow without runs gives no line, and says so."""
    emulator.replace_runs([])
    done = await cli("runs", emulator.workflow_id, emulator=emulator)

    assert done == (0, "", "0 runs; 0 credits\n")


async def test_a_list_that_moved_is_told(emulator: Emulator) -> None:
    """What drifted is said after the counts."""

    def start_one(server: Emulator, request: Request) -> None:
        server.add_runs(1 if request.page == 2 else 0)

    emulator.on_request = start_one
    done = await cli("runs", emulator.workflow_id, emulator=emulator)

    assert len(done.rows) == 230
    assert "the list changed while it was read" in done.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["runs"], "give either a WORKFLOW_ID or --demo"),
        (["runs", "WCFG-1", "--demo"], "give either a WORKFLOW_ID or --demo"),
        (["runs", "WCFG-1", "--since", "yesterday"], "'yesterday' is not a date"),
        (["runs", "WCFG-1", "--limit", "-1"], "--limit"),
        (["runs", "WCFG-1", "--format", "xml"], "--format"),
        (["runs", ".."], "WORKFLOW_ID must be"),
        (["runs", "WCFG-1", "--metadata", "batch"], "--metadata takes KEY=VALUE"),
        (["runs", "WCFG-1", "--metadata", "=7"], "--metadata takes KEY=VALUE"),
        (["walk"], "walk"),
    ],
)
async def test_a_command_that_makes_no_sense_is_usage(emulator: Emulator, arguments: list[str], complaint: str) -> None:
    """Exit code 2, the reason on standard error, and nothing sent."""
    done = await cli(*arguments, emulator=emulator)

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert complaint in done.err
    assert "Traceback" not in done.err


async def test_a_missing_key_is_usage() -> None:
    """Without a key, and nobody to ask, the error names the variable."""
    done = await cli("runs", "WCFG-1")

    assert (done.code, done.out) == (2, "")
    assert "COPYAI_API_KEY" in done.err


async def test_an_api_error_is_one_line(emulator: Emulator) -> None:
    """A wrong key ends in exit code 1 and one readable line, without the key."""
    done = await cli("runs", emulator.workflow_id, emulator=emulator, COPYAI_API_KEY="wrong-key")

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*401.*\n", done.err)
    assert "wrong-key" not in done.err


async def test_debug_shows_the_traceback(emulator: Emulator) -> None:
    """With `--debug` the traceback comes too, and the key still doesn't."""
    done = await cli("runs", emulator.workflow_id, "--debug", emulator=emulator, COPYAI_API_KEY="wrong-key")

    assert done.code == 1
    assert "Traceback" in done.err
    assert "wrong-key" not in done.err


async def test_unreachable_server(emulator: Emulator) -> None:
    """A refused connection is one line; `--retries 0` sends the request once."""
    url, key = emulator.url, emulator.api_key
    await emulator.stop()
    done = await cli("runs", "WCFG-1", "--retries", "0", COPYAI_BASE_URL=url, COPYAI_API_KEY=key)

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*127\.0\.0\.1.*\n", done.err)


async def test_an_error_in_the_middle_tells_what_came_before(emulator: Emulator) -> None:
    """The runs read until then are out, counted, and the error names the page; control characters are escaped."""
    emulator.inject(Fault(status=403, body={"errorCode": "\x1b]0;gotcha\x07"}), page=3, times=None)
    done = await cli("runs", emulator.workflow_id, emulator=emulator)

    assert done.code == 1
    assert len(done.rows) == 200
    assert "stopped after 200 runs: " in done.err
    assert "aiocopyai: page 3: " in done.err
    assert "\x1b" not in done.err


async def test_ctrl_c_ends_with_130(emulator: Emulator) -> None:
    """What was read is out and counted, and there is no traceback."""
    emulator.inject(Fault(delay=30), page=2, times=None)
    code = START + "from aiocopyai.cli import main; main()"
    process = await start("-c", code, "runs", emulator.workflow_id, env=environment(emulator))
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert done.code == 130
    assert done.err.startswith("stopped after 100 runs: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("chosen", ["table", "jsonl", "csv"])
async def test_a_reader_that_leaves_is_no_error(emulator: Emulator, chosen: str) -> None:
    """`aiocopyai runs … | head -1` ends at once, quietly and with 0."""
    emulator.replace_runs([{"id": str(number), "output": {"text": "x" * 2000}} for number in range(300)])
    reader, writer = os.pipe()
    arguments = ("runs", emulator.workflow_id, "--format", chosen)
    process = await start(*MAIN, *arguments, env=environment(emulator), stdout=writer)
    os.close(writer)
    # In a thread: the emulator that the process reads from runs in this one.
    await asyncio.to_thread(os.read, reader, 10)
    os.close(reader)
    done = await finish(process)

    assert (done.code, done.err) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110 (a device)
async def test_a_full_disk_is_one_line(emulator: Emulator) -> None:
    """Output that can't be written ends in exit code 1."""
    full = os.open("/dev/full", os.O_WRONLY)
    process = await start(*MAIN, "runs", emulator.workflow_id, env=environment(emulator), stdout=full)
    os.close(full)
    done = await finish(process)

    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("aiocopyai: [Errno 28]")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "command",
    [
        *("runs", "export", "report", "start", "get", "watch", "check-key"),
        *("webhooks list", "webhooks create", "webhooks delete", "webhooks listen"),
    ],
)
async def test_help_has_examples(command: str) -> None:
    """`--help` of each command shows lines to copy, one below the other."""
    done = await cli(*command.split(), "--help")
    _, _, examples = done.out.partition("\n  Examples:\n")

    assert done.code == 0
    assert len(re.findall(rf"^    .*aiocopyai {command} ", examples + " ", re.MULTILINE)) >= 1
    assert "\\b" not in done.out


async def test_a_shell_completes_commands_and_options() -> None:
    """What a shell is given to complete a word holds the commands, or a command's options."""
    asked = {"_AIOCOPYAI_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    commands = await cli(COMP_WORDS="aiocopyai r", **asked)
    options = await cli(COMP_WORDS="aiocopyai runs --for", **{**asked, "COMP_CWORD": "2"})

    assert set(commands.out.split()) == {"runs", "report"}
    assert "create" in (await cli(COMP_WORDS="aiocopyai webhooks cr", **{**asked, "COMP_CWORD": "2"})).out
    assert options.out.split() == ["--format"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
async def test_completion_can_be_switched_on() -> None:
    """`--show-completion` shows the script that the shell it is called from needs."""
    # Not the last command: bash would be replaced by it, and found nowhere.
    command = f"{shlex.join([sys.executable, *MAIN])} --show-completion; true"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command), env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    done = await finish(process)

    assert done.code == 0
    assert "complete -o default -F _aiocopyai_completion aiocopyai" in done.out


async def test_version() -> None:
    """`--version` names the package's version."""
    done = await cli("--version")

    assert re.fullmatch(r"aiocopyai \d+\.\d+.*\n", done.out)


@pytest.mark.parametrize("missing", ["typer", "rich"])
async def test_without_the_extra_the_command_says_what_to_install(missing: str) -> None:
    """One line and exit code 2, where the extra `cli` is not installed."""
    code = f"import sys; sys.modules[{missing!r}] = None; from aiocopyai.cli import main; main()"
    done = await finish(await start("-c", code, "runs", "--demo", env=environment()))

    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert 'pip install "aiocopyai[cli]"' in done.err


LONG_ID = "WRUN-6fe9e53c-945a-4aa3-a87e-d64c3cc0dcb0"
RUNS: list[JSON] = [
    {
        "id": LONG_ID,
        "status": "COMPLETE",
        "createdAt": "2026-01-31T09:00:00.000Z",
        "credits": 22,
        "output": {"Empty": "", "Post": "Two\nlines \x1b[31mand\x1b]0;title\x07 more " + "words " * 50},
    },
    {"id": "WRUN-2", "status": "FAILED", "error": {"reason": "no credits"}, "output": {}},
    {"id": "WRUN-\x1b[2J3", "status": "PAU\x1b[2JSED", "output": {"List": [1, 2]}},
    {"id": "WRUN-4"},
]


async def test_a_terminal_gets_a_table(emulator: Emulator) -> None:
    """Columns of fixed widths below a header: the time in the user's zone, the first output on one line, cut to fit."""
    emulator.replace_runs(RUNS)
    env = environment(emulator, NO_COLOR="1", TZ="TST-2")
    code, shown = await terminal("runs", emulator.workflow_id, env=env)
    header, first, second, third, fourth = (re.sub(r"\x1b\[\d*m", "", line) for line in shown.splitlines()[:5])

    assert code == 0
    assert header == f"{'CREATED':19} {'STATUS':10} CREDITS {'ID':41} OUTPUT"
    assert first.startswith(
        f"2026-01-31 11:00:00 {'COMPLETE':10} {22:7} {LONG_ID} Two lines \\u001b[31mand\\u001b]0;title\\u0007 more"
    )
    assert len(first) == 140
    assert first.endswith("…")
    assert second == f'{"-":19} {"FAILED":10} {"-":>7} {"WRUN-2":41} {{"reason": "no credits"}}'
    assert third.startswith(f"{'-':19} PAU\\u001b… {'-':>7} WRUN-\\u001b[2J3")
    assert third.endswith(" [1, 2]")
    assert fourth == f"{'-':19} {'-':10} {'-':>7} WRUN-4"


async def test_a_narrow_terminal_gets_no_broken_lines(emulator: Emulator) -> None:
    """Eighty columns hold all but the output."""
    env = environment(emulator, NO_COLOR="1")
    _, shown = await terminal("runs", emulator.workflow_id, "--limit", "5", width=80, env=env)
    header, *rows = [re.sub(r"\x1b\[\d*m", "", line) for line in shown.splitlines()[:6]]

    assert header.endswith(" ID")
    assert [row[39:] for row in rows] == [run["id"] for run in emulator.runs()[:5]]


async def test_no_text_of_the_servers_steers_the_terminal(emulator: Emulator) -> None:
    """What comes from the server is shown, not obeyed: in the table, in JSON and in the counts."""
    emulator.replace_runs(RUNS)
    for chosen in ("table", "jsonl"):
        env = environment(emulator, NO_COLOR="1")
        _, shown = await terminal("runs", emulator.workflow_id, "--format", chosen, env=env)

        assert "1 PAU\\u001b[2JSED" in shown
        assert set(re.findall(r"\x1b(?:\[\d*m)?", shown)) <= {"\x1b[1m", "\x1b[0m"}


async def test_statuses_are_coloured_unless_no_color_is_set(emulator: Emulator) -> None:
    """Green for complete on a terminal; `NO_COLOR` is honoured, and a pipe gets none."""
    emulator.replace_runs(RUNS)
    _, shown = await terminal("runs", emulator.workflow_id, env=environment(emulator))
    _, plain = await terminal("runs", emulator.workflow_id, env=environment(emulator, NO_COLOR="1"))
    piped = await cli("runs", emulator.workflow_id, "--format", "table", emulator=emulator)

    assert "\x1b[32mCOMPLETE" in shown
    assert "\x1b[32m" not in plain
    assert "\x1b" not in piped.out
    assert piped.out.splitlines()[0].startswith("CREATED")


async def test_a_table_in_a_poor_locale_is_escaped_not_an_error(emulator: Emulator) -> None:
    """An output that the terminal's encoding can't show doesn't end the walk."""
    emulator.replace_runs([{"id": "WRUN-1", "output": {"Post": "naïve 🎉"}}])
    done = await cli("runs", emulator.workflow_id, "--format", "table", emulator=emulator, PYTHONIOENCODING="ascii")

    assert done.code == 0
    assert "na\\xefve" in done.out


async def test_a_terminal_is_asked_for_the_key(emulator: Emulator) -> None:
    """Without COPYAI_API_KEY the key is asked for, and not shown as it is typed."""
    env = environment(COPYAI_BASE_URL=emulator.url)
    code, shown = await terminal("runs", emulator.workflow_id, "--limit", "1", key=emulator.api_key, env=env)

    assert code == 0
    assert "Copy.ai API key:" in shown
    assert emulator.requests[0].headers["x-copy-ai-api-key"] == emulator.api_key
