"""Tests of ``aiocopyai webhooks``: list, create, delete and listen."""

from __future__ import annotations

import asyncio
import json
import re
import signal

import aiohttp
import pytest

from aiocopyai.emulator import Emulator, Fault
from tests.support.commands import PATIENCE, START, cli, environment, finish, start, terminal


HOOK = "https://example.com/copyai/secret"
RUN_MAIN = START + "from aiocopyai.cli import main; main()"
SECRET = "a-secret-nobody-guesses"


@pytest.mark.parametrize("command", [("webhooks", "listen"), ("webhooks", "listen", "--demo"), ("mcp", "--http")])
async def test_invalid_address(emulator: Emulator, command: tuple[str, ...]) -> None:
    """The messages for a port in use and for an empty host name the option to change."""
    port = emulator.url.rpartition(":")[2].partition("/")[0]
    used = await cli(*command, "--port", port, emulator=emulator)
    empty = await cli(*command, "--host", "", emulator=emulator, COLUMNS="200")

    assert used.code == 1
    assert re.search(
        rf"^aiocopyai: cannot listen on 127\.0\.0\.1 port {port}: .*; choose another --host or --port\n\Z",
        used.err,
        re.MULTILINE,
    )
    assert empty.code == 2
    assert "--host must be an address of this machine" in empty.err


async def test_create_list_and_delete(emulator: Emulator) -> None:
    """A webhook is created once even if the command is repeated, listed with its id, and deleted with that id."""
    arguments = ("webhooks", "create", HOOK, "workflowRun.completed", "--workflow", emulator.workflow_id)
    first = await cli(*arguments, emulator=emulator)
    second = await cli(*arguments, emulator=emulator)
    other = await cli("webhooks", "create", HOOK, "workflowRun.failed", emulator=emulator)
    listed = await cli("webhooks", "list", emulator=emulator)
    ids = [str(row["id"]) for row in listed.rows]
    deleted = await cli("webhooks", "delete", *ids, emulator=emulator)

    assert {done.code for done in (first, second, other, listed, deleted)} == {0}
    assert first.rows == second.rows
    assert [(row["url"], row["event_type"], row["workflow_id"]) for row in listed.rows] == [
        (HOOK, "workflowRun.completed", emulator.workflow_id),
        (HOOK, "workflowRun.failed", None),
    ]
    assert deleted.err == "".join(f"deleted {webhook_id}\n" for webhook_id in ids)
    assert emulator.webhooks == []


async def test_list_as_csv_and_as_a_table(emulator: Emulator) -> None:
    """Each webhook is one line of a table with the complete id and URL, on a terminal of any width."""
    await cli("webhooks", "create", HOOK, "workflowRun.completed", emulator=emulator)
    [webhook] = emulator.webhooks
    csv = await cli("webhooks", "list", "--format", "csv", emulator=emulator)
    env = environment(emulator, NO_COLOR="1")
    code, shown = await terminal("webhooks", "list", width=60, env=env)
    header, line = (re.sub(r"\x1b\[\d*m", "", text) for text in shown.splitlines())

    assert csv.out.splitlines()[1] == f"{webhook['id']},{HOOK},workflowRun.completed,,,{{}}"
    assert code == 0
    assert header.split() == ["EVENT", "WORKFLOW", "ID", "URL"]
    assert line.split() == ["workflowRun.completed", "(all)", webhook["id"], HOOK]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create"], "URL"),
        (["create", "example.com", "workflowRun.completed"], "URL must be an http(s) URL"),
        (["create", HOOK, ""], "EVENT must be"),
        (["create", HOOK, "workflowRun.completed", "--workflow", ".."], "--workflow must be"),
        (["delete"], "WEBHOOK_ID"),
        (["delete", ".."], "WEBHOOK_ID must be"),
        (["listen", "--port", "70000"], "port"),
        (["listen", "https://tunnel.example.com", "--demo"], "pass either a URL or --demo"),
        (["listen", "--demo", "--host", "192.0.2.1"], "sends webhooks to loopback addresses only: omit --host"),
        (["listen", "--event", "workflowRun.failed"], "--event requires a URL"),
        (["listen", "--workflow", "WCFG-1"], "--workflow requires a URL"),
        (["register"], "register"),
    ],
)
async def test_usage_errors(emulator: Emulator, arguments: list[str], message: str) -> None:
    """Wrong usage ends the command with exit code 2 and the reason on standard error, and nothing is sent."""
    done = await cli("webhooks", *arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert message in done.err
    assert "Traceback" not in done.err


async def test_weak_secret(emulator: Emulator) -> None:
    """A secret that can be guessed is a usage error, and is not printed."""
    done = await cli("webhooks", "listen", emulator=emulator, COPYAI_WEBHOOK_SECRET="short one")

    assert (done.code, emulator.requests) == (2, [])
    assert "16 characters" in done.err
    assert "short one" not in done.err


async def test_delete_an_unknown_webhook(emulator: Emulator) -> None:
    """An unknown webhook ends the command with exit code 1. The message names the webhooks already deleted."""
    await cli("webhooks", "create", HOOK, "workflowRun.completed", emulator=emulator)
    webhook_id = str(emulator.webhooks[0]["id"])
    done = await cli("webhooks", "delete", webhook_id, "none", emulator=emulator)

    assert done.code == 1
    assert re.fullmatch(rf"deleted {webhook_id}\naiocopyai: .*404.*\n", done.err)


async def start_listening(emulator: Emulator, *options: str, **env: str) -> tuple[asyncio.subprocess.Process, str]:
    """Start the command; return its process and the URL that it listens at."""
    arguments = ("webhooks", "listen", *options, "--port", "0")
    process = await start("-c", RUN_MAIN, *arguments, env=environment(emulator, **env))
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        line = (await process.stderr.readline()).decode()
    assert line.startswith("listening at http://127.0.0.1:"), line
    return process, line.split()[-1]


async def post(url: str, body: object) -> int:
    async with aiohttp.ClientSession() as http, http.post(url, json=body) as response:
        return response.status


async def test_listen(emulator: Emulator) -> None:
    """A confirmed event is printed as a line with its run as the API returns it. A forged event is not printed."""
    [complete, failed] = emulator.add_runs(1, status="COMPLETE") + emulator.add_runs(1, status="FAILED")
    process, url = await start_listening(emulator, "--limit", "2", COPYAI_WEBHOOK_SECRET=SECRET)
    body = {"workflowId": emulator.workflow_id}
    forged = await post(url, {"type": "workflowRun.completed", "workflowRunId": failed, **body})
    for run_id, event in ((complete, "completed"), (failed, "failed")):
        claimed = {"type": f"workflowRun.{event}", "workflowRunId": run_id, "result": {"Fit": "lies"}, **body}
        assert await post(url, claimed) == 202
    done = await finish(process)

    assert forged == 202
    assert url.endswith(f"/copyai/{SECRET}")
    assert done.code == 0
    assert {(row["type"], row["run_id"]) for row in done.rows} == {  # they are confirmed concurrently
        ("workflowRun.completed", complete),
        ("workflowRun.failed", failed),
    }
    assert "lies" not in done.out
    assert done.err.endswith("2 events\n")
    assert emulator.webhooks == []


async def test_listen_without_confirmation(emulator: Emulator) -> None:
    """With `--no-confirm`, nothing is read from the API, and every event is printed as it was received."""
    process, url = await start_listening(emulator, "--limit", "1", "--no-confirm")
    await post(url, {"type": "workflowCreditLimit.reached", "workflowId": "WCFG-1", "left": 0})
    done = await finish(process)

    assert done.code == 0
    assert (done.rows[0]["type"], done.rows[0]["run"], done.rows[0]["extra"]) == (
        "workflowCreditLimit.reached",
        None,
        {"left": 0},
    )
    assert emulator.requests == []


async def test_listen_creates_and_deletes_webhooks(emulator: Emulator) -> None:
    """With a URL, webhooks for it are created, and deleted on Ctrl-C. Existing webhooks are kept."""
    await cli("webhooks", "create", HOOK, "workflowRun.completed", emulator=emulator)
    before = emulator.webhooks
    process, url = await start_listening(emulator, "https://tunnel.example.com", "--workflow", emulator.workflow_id)
    assert process.stderr is not None
    message = (await process.stderr.readline()).decode()
    registered = emulator.webhooks[1:]
    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert message == "created webhooks for workflowRun.completed, workflowRun.failed\n"
    assert {hook["url"] for hook in registered} == {f"https://tunnel.example.com/copyai/{url.rpartition('/')[2]}"}
    assert {hook["workflowId"] for hook in registered} == {emulator.workflow_id}
    assert (done.code, done.err) == (130, "stopped\n")
    assert emulator.webhooks == before


async def test_webhook_that_cannot_be_deleted(emulator: Emulator) -> None:
    """If the API does not delete a webhook, the command ends with a message that names it."""
    process, _ = await start_listening(emulator, "https://tunnel.example.com", "--event", "workflowRun.failed")
    assert process.stderr is not None
    await process.stderr.readline()
    emulator.inject(Fault(status=403), method="DELETE", times=None)
    process.send_signal(signal.SIGINT)
    done = await finish(process)
    [left] = emulator.webhooks

    assert done.code == 130
    assert f"could not delete the webhook {left['id']}: " in done.err


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
async def test_signals_delete_the_webhooks(emulator: Emulator, end: signal.Signals) -> None:
    """SIGTERM and SIGHUP delete the webhooks, even if one is already deleted or the URL ends with a slash."""
    process, url = await start_listening(emulator, f"{emulator.url}/")
    assert process.stderr is not None
    await process.stderr.readline()
    first, second = emulator.webhooks
    await cli("webhooks", "delete", str(first["id"]), emulator=emulator)
    process.send_signal(end)
    done = await finish(process)

    assert second["url"] == f"{emulator.url}/copyai/{url.rpartition('/')[2]}"
    assert (done.code, done.err) == (130, "stopped\n")
    assert emulator.webhooks == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
async def test_demo_of_listen(host: str) -> None:
    """`listen --demo` prints the events of runs that it starts in an emulator, with any loopback address."""
    done = await cli("webhooks", "listen", "--demo", "--limit", "1", "--host", host)

    assert done.code == 0
    assert done.rows[0]["type"] == "workflowRun.completed"
    run = json.loads(json.dumps(done.rows[0]["run"]))
    assert run["status"] == "COMPLETE"


async def test_demo_of_list() -> None:
    """`list --demo` prints the webhooks of an emulator."""
    done = await cli("webhooks", "list", "--demo")

    assert len(done.rows) == 2
