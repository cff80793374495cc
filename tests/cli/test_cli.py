"""Tests of all commands: usage errors, error messages, shared options, logs, help and completion."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import sys
from datetime import UTC, datetime, timedelta

import pytest

from aiocopyai.emulator import Emulator, Fault, Request
from tests.support.commands import MAIN, cli, environment, finish, start
from tests.support.proxying import rejecting_proxy


EMULATOR_RUNS = 230
COMMANDS = (
    *("runs", "export", "report", "sync", "start", "get", "watch", "check-key"),
    *("webhooks list", "webhooks create", "webhooks delete", "webhooks listen"),
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs"], "pass either a WORKFLOW_ID or --demo, or set COPYAI_WORKFLOW_ID"),
        (["runs", "WCFG-1", "--demo"], "pass either a WORKFLOW_ID or --demo"),
        (["runs", "WCFG-1", "--since", "yesterday"], "'yesterday' is not a date such as"),
        (["runs", "WCFG-1", "--since", "7y"], "'7y' is not a date such as"),
        (["runs", "WCFG-1", "--since", "999999w"], "'999999w' is not a date such as"),
        (["runs", "WCFG-1", "--limit", "-1"], "--limit"),
        (["runs", "WCFG-1", "--format", "xml"], "--format"),
        (["runs", "WCFG-1", "--timeout", "0"], "--timeout"),
        (["runs", "WCFG-1", "--retries", "-1"], "--retries"),
        (["runs", "WCFG-1", "--max-rate", "0"], "--max-rate"),
        (["runs", "WCFG-1", "--prefetch", "-1"], "--prefetch"),
        (["runs", ".."], "WORKFLOW_ID must be an id such as 'WCFG-"),
        (["runs", "WRUN-1"], "WORKFLOW_ID must be an id such as 'WCFG-6db59f06-…', got a run's id: 'WRUN-1'"),
        (["runs", "WCFG-1", "--metadata", "batch"], "--metadata must be KEY=VALUE"),
        (["runs", "WCFG-1", "--metadata", "=7"], "--metadata must be KEY=VALUE"),
        (["lists"], "lists"),
    ],
)
async def test_usage_errors(emulator: Emulator, arguments: list[str], message: str) -> None:
    """Wrong usage ends the command with exit code 2 and a message that names the options, and nothing is sent."""
    done = await cli(*arguments, emulator=emulator)

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert message in done.err
    assert "Traceback" not in done.err


async def test_missing_key() -> None:
    """Without a key and a terminal for a prompt, the exit code is 2, and the message names the variable."""
    done = await cli("runs", "WCFG-1")

    assert done == (2, "", "aiocopyai: no API key: set the environment variable COPYAI_API_KEY\n")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("COPYAI_BASE_URL", "localhost", "COPYAI_BASE_URL must be an http(s) URL"),
        ("COPYAI_API_KEY", "a key\n", "the API key must be printable ASCII"),
        ("COPYAI_LOG", "verbose", "COPYAI_LOG must be debug, info, warning or not set, got 'verbose'"),
    ],
)
async def test_invalid_environment_is_a_usage_error(
    emulator: Emulator, variable: str, value: str, message: str
) -> None:
    """An invalid environment variable ends the command with one line that names it."""
    env = {"COPYAI_BASE_URL": emulator.url, "COPYAI_API_KEY": emulator.api_key, variable: value}
    done = await cli("runs", "WCFG-1", **env)

    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(rf"aiocopyai: {re.escape(message)}.*\n", done.err)
    assert emulator.requests == []


async def test_api_error_is_one_line(emulator: Emulator) -> None:
    """A wrong key ends the command with exit code 1 and one line, which does not contain the key."""
    done = await cli("runs", emulator.workflow_id, emulator=emulator, COPYAI_API_KEY="wrong-key")

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*401.*\n", done.err)
    assert "wrong-key" not in done.err


@pytest.mark.parametrize(
    ("fault", "seconds", "message"),
    [
        (
            Fault(status=429, headers={"Retry-After": "7"}),
            "30",
            r"HTTP 429 .*; the server asks to wait 7 s; try a lower --max-rate",
        ),
        (
            Fault(status=302, headers={"Location": "https://elsewhere.example"}),
            "30",
            r"HTTP 302 .*; the redirect was not followed: check COPYAI_BASE_URL",
        ),
        (Fault(delay=60), "0.1", r"no complete response within 0.1 s .*"),
    ],
)
async def test_error_messages_name_options(emulator: Emulator, fault: Fault, seconds: str, message: str) -> None:
    """The advice in an error message names options and variables, not parameters of the library."""
    emulator.inject(fault, times=None)
    done = await cli("runs", emulator.workflow_id, "--retries", "0", "--timeout", seconds, emulator=emulator)

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(rf"aiocopyai: page 1: {message}\n", done.err)


async def test_unreachable_server(emulator: Emulator) -> None:
    """An unreachable server ends the command with exit code 1 and one line with its address."""
    url, key = emulator.url, emulator.api_key
    await emulator.stop()
    done = await cli("runs", "WCFG-1", "--retries", "0", COPYAI_BASE_URL=url, COPYAI_API_KEY=key)

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"aiocopyai: .*127\.0\.0\.1.*\n", done.err)


async def test_error_after_some_pages(emulator: Emulator) -> None:
    """The runs read before an error are written and counted. The error names the page, without control characters."""
    emulator.inject(Fault(status=403, body={"errorCode": "\x1b]0;title\x07"}), page=3, times=None)
    done = await cli("runs", emulator.workflow_id, emulator=emulator)

    assert done.code == 1
    assert len(done.rows) == 200
    assert "stopped after 200 runs: " in done.err
    assert "aiocopyai: page 3: " in done.err
    assert "\x1b" not in done.err


@pytest.mark.parametrize(("options", "requests"), [([], 5), (["--retries", "1"], 2), (["--retries", "0"], 1)])
async def test_retries(emulator: Emulator, options: list[str], requests: int) -> None:
    """A failed request is sent again up to `--retries` times, 4 by default; each retry is one warning."""
    emulator.inject(Fault(status=503, headers={"Retry-After": "0"}), times=None)
    done = await cli("check-key", *options, emulator=emulator)

    assert done.code == 1
    assert len(emulator.requests) == requests
    assert len(re.findall(r"^Retrying GET /webhook in .* HTTP 503", done.err, re.MULTILINE)) == requests - 1


async def test_max_rate(emulator: Emulator) -> None:
    """With `--max-rate 4`, the third request is sent at least half a second after the command started."""
    times: list[float] = []
    emulator.on_request = lambda _server, _request: times.append(asyncio.get_running_loop().time())
    started = asyncio.get_running_loop().time()
    done = await cli("runs", emulator.workflow_id, "--max-rate", "4", emulator=emulator)

    assert done.code == 0
    assert len(times) >= 3
    assert times[2] - started >= 0.5  # not since the first request, which may be late


async def test_prefetch(emulator: Emulator) -> None:
    """With `--prefetch 0`, each page is requested once, in order, one at a time."""
    in_order: list[int | None] = []

    def note(_server: Emulator, request: Request) -> None:
        in_order.append(request.page)

    emulator.on_request = note
    done = await cli("runs", emulator.workflow_id, "--prefetch", "0", emulator=emulator)

    assert len(done.rows) == 230
    assert in_order == [1, 2, 3]


@pytest.mark.parametrize("option", ["--quiet", "-q"])
async def test_quiet(emulator: Emulator, option: str) -> None:
    """With `--quiet`, only results and errors are printed, without counts and warnings."""
    emulator.inject(Fault(status=503, headers={"Retry-After": "0"}), page=1)
    done = await cli("runs", emulator.workflow_id, option, emulator=emulator)
    failed = await cli("runs", emulator.workflow_id, option, emulator=emulator, COPYAI_API_KEY="wrong-key")

    assert (done.code, len(done.rows), done.err) == (0, 230, "")
    assert failed.code == 1
    assert failed.err.startswith("aiocopyai: ")


async def test_workflow_of_the_environment(emulator: Emulator) -> None:
    """Without a WORKFLOW_ID, commands use COPYAI_WORKFLOW_ID. An argument and `--demo` have priority."""
    [run_id] = emulator.add_runs(1)
    variable = {"COPYAI_WORKFLOW_ID": emulator.workflow_id}
    listed = await cli("runs", "--limit", "1", emulator=emulator, **variable)
    got = await cli("get", run_id, emulator=emulator, **variable)
    demo = await cli("runs", "--demo", "--limit", "1", emulator=emulator, **variable)
    other = await cli("runs", "WCFG-other", emulator=emulator, **variable)

    assert [row["id"] for row in listed.rows] == [row["id"] for row in got.rows] == [run_id]
    assert demo.code == 0
    assert "demo: " in demo.err
    assert demo.rows[0]["id"] != run_id
    assert "WCFG-other" in other.err


async def test_proxy_of_the_environment(emulator: Emulator) -> None:
    """The proxy in HTTPS_PROXY is used, except for hosts in NO_PROXY, for a loopback address and for the demo."""
    async with rejecting_proxy() as (proxy_url, heads):
        proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), proxy_url)
        remote = {"COPYAI_API_KEY": "a-key-of-16-chars", "COPYAI_BASE_URL": "https://copyai.invalid/api"}
        check = ("check-key", "--retries", "0")
        through = await cli(*check, **proxies, **remote, NO_PROXY="", no_proxy="")
        direct = await cli(*check, **proxies, **remote, NO_PROXY="copyai.invalid", no_proxy="copyai.invalid")
        local = await cli(*check, emulator=emulator, **proxies, NO_PROXY="", no_proxy="")
        demo = await cli(*check, "--demo", **proxies, NO_PROXY="", no_proxy="")

    assert 0 not in {through.code, direct.code}
    assert (local.code, demo.code) == (0, 0)
    assert [head.split()[:2] for head in heads] == [["CONNECT", "copyai.invalid:443"]]
    assert len(emulator.requests) == 1


@pytest.mark.parametrize(("options", "variables"), [(["--debug"], {}), ([], {"COPYAI_LOG": "debug"})])
async def test_debug_log(emulator: Emulator, options: list[str], variables: dict[str, str]) -> None:
    """`--debug` and COPYAI_LOG log method, path, status, milliseconds and attempt of each request, but no bodies."""
    emulator.inject(Fault(status=503, headers={"Retry-After": "0"}), page=1)
    path = f"/workflow/{emulator.workflow_id}/run"
    done = await cli("runs", emulator.workflow_id, "--prefetch", "0", *options, emulator=emulator, **variables)
    lines = re.findall(rf"DEBUG GET {path}: (\d+) after \d+ ms \(attempt (\d)\)", done.err)

    assert lines == [("503", "1"), ("200", "2"), ("200", "1"), ("200", "1")]
    assert done.err.count("WARNING Retrying") == 1
    assert emulator.api_key not in done.err
    assert str(done.rows[0]["id"]) not in done.err


async def test_debug_shows_tracebacks(emulator: Emulator) -> None:
    """With `--debug`, the traceback of an error is also printed, without the key."""
    done = await cli("runs", emulator.workflow_id, "--debug", emulator=emulator, COPYAI_API_KEY="wrong-key")

    assert done.code == 1
    assert "Traceback" in done.err
    assert "wrong-key" not in done.err


async def test_unexpected_errors_are_one_line(emulator: Emulator) -> None:
    """An unexpected exception ends the command with exit code 1 and one line. `--debug` shows its traceback."""
    code = (
        "import aiocopyai, aiocopyai.cli as cli\n"
        "aiocopyai.CopyAISession.check_key = lambda session: {}['defect']\n"
        "cli.main()"
    )
    done = await finish(await start("-c", code, "check-key", env=environment(emulator)))
    debug = await finish(await start("-c", code, "check-key", "--debug", env=environment(emulator)))

    assert done == (1, "", "aiocopyai: unexpected KeyError: 'defect'; --debug shows the traceback\n")
    assert debug.code == 1
    assert "Traceback" in debug.err


@pytest.mark.parametrize("age", ["90m", "2h", "1d", "1w", "7200s"])
async def test_since_takes_an_age(emulator: Emulator, age: str) -> None:
    """`--since 7d` selects the runs of the last seven days. The other units are s, m, h and w."""
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[age[-1]]
    limit = datetime.now(UTC) - timedelta(**{unit: int(age[:-1])})
    minute = timedelta(minutes=1)
    emulator.replace_runs(
        [
            {"id": "newer", "createdAt": (limit + minute).isoformat().replace("+00:00", "Z")},
            {"id": "older", "createdAt": (limit - minute).isoformat().replace("+00:00", "Z")},
        ]
    )
    done = await cli("runs", emulator.workflow_id, "--since", age, emulator=emulator)

    assert [row["id"] for row in done.rows] == ["newer"]


@pytest.mark.parametrize("command", COMMANDS)
async def test_help(command: str) -> None:
    """`--help` has examples on lines that can be copied, fits into 80 columns, and has complete sentences."""
    done = await cli(*command.split(), "--help", COLUMNS="80")
    text, _, rest = done.out.partition("\n  Examples:\n")
    examples, _, options = rest.partition("\n\n")

    assert done.code == 0
    assert len(re.findall(rf"^    .*aiocopyai {command} ", examples + " ", re.MULTILINE)) >= 1
    assert max(map(len, (text + options).splitlines())) <= 80
    assert "..." not in text.partition("\n\n")[2]
    assert "\\b" not in done.out
    # An option's text ends with a full stop, apart from the default and the range that follow it.
    for described in re.split(r"\n  (?=\S)", options.partition("Options:\n")[2]):
        description = re.sub(r"\s*\[[^\]]*\]\s*$", "", " ".join(described.split()))
        assert description.endswith("."), described


@pytest.mark.parametrize("group", [[], ["webhooks"]])
async def test_list_of_commands(group: list[str]) -> None:
    """The first sentence of each command fits into the list of commands."""
    done = await cli(*group, "--help", COLUMNS="80")
    lines = done.out.partition("Commands:\n")[2].splitlines()

    assert done.out.partition("\n\n")[2].startswith("  List, create" if group else "  Work with Copy.ai workflows")
    assert len(lines) >= 4
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("command", COMMANDS)
async def test_shared_options(command: str) -> None:
    """Every command has the options of the session."""
    done = await cli(*command.split(), "--help")

    for option in ("--demo", "--timeout", "--retries", "--max-rate", "--quiet", "--debug"):
        assert re.search(rf"^  (-\w, )?{option}\b", done.out, re.MULTILINE), option


async def test_completion_of_commands_and_options() -> None:
    """Shell completion returns the commands, or the options of a command."""
    asked = {"_AIOCOPYAI_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    commands = await cli(COMP_WORDS="aiocopyai r", **asked)
    options = await cli(COMP_WORDS="aiocopyai runs --for", **{**asked, "COMP_CWORD": "2"})
    in_group = await cli(COMP_WORDS="aiocopyai webhooks cr", **{**asked, "COMP_CWORD": "2"})

    assert set(commands.out.split()) == {"runs", "report"}
    assert in_group.out.split() == ["create"]
    assert options.out.split() == ["--format"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
async def test_completion_script() -> None:
    """`--show-completion` prints the script for the calling shell."""
    # Not the last command, because bash would replace itself with it, and would not be detected.
    command = f"{shlex.join([sys.executable, *MAIN])} --show-completion; true"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command), env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    done = await finish(process)

    assert done.code == 0
    assert "complete -o default -F _aiocopyai_completion aiocopyai" in done.out


async def test_version() -> None:
    """`--version` prints the version of the package."""
    done = await cli("--version")

    assert re.fullmatch(r"aiocopyai \d+\.\d+.*\n", done.out)


@pytest.mark.parametrize("missing", ["typer", "rich"])
async def test_missing_extra(missing: str) -> None:
    """Without the extra `cli`, the command prints one line that says how to install it, and exits with code 2."""
    code = f"import sys; sys.modules[{missing!r}] = None; from aiocopyai.cli import main; main()"
    done = await finish(await start("-c", code, "runs", "--demo", env=environment()))

    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert 'pip install "aiocopyai[cli]"' in done.err


async def test_missing_extra_with_closed_standard_error() -> None:
    """Without the extra `cli`, the exit code is 2, even if the message cannot be written."""
    code = "import sys; sys.modules['typer'] = None; from aiocopyai.cli import main; main()"
    close = f"import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, '-c', {code!r}])"
    done = await finish(await start("-c", close, env=environment()))

    assert done == (2, "", "")
