"""``aiocopyai webhooks``, as a process of its own, against the emulator."""

from __future__ import annotations

import asyncio
import json
import re
import signal

import aiohttp
import pytest

from aiocopyai.emulator import Emulator, Fault
from tests.support.commands import START, cli, environment, finish, start, terminal


HOOK = "https://example.com/copyai/secret"
INTERRUPTIBLE = START + "from aiocopyai.cli import main; main()"
SECRET = "a-secret-nobody-guesses"


async def test_create_list_and_delete(emulator: Emulator) -> None:
    """A webhook is registered once however often it is asked for, listed with its id, and deleted by it."""
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


async def test_the_list_as_csv_and_as_a_table(emulator: Emulator) -> None:
    """A table's lines are never broken, however narrow the terminal: ids and URLs can be copied."""
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
    ("arguments", "complaint"),
    [
        (["create"], "URL"),
        (["create", "example.com", "workflowRun.completed"], "URL must be an http(s) URL"),
        (["create", HOOK, ""], "EVENT must be"),
        (["create", HOOK, "workflowRun.completed", "--workflow", ".."], "--workflow must be"),
        (["delete"], "WEBHOOK_ID"),
        (["delete", ".."], "WEBHOOK_ID must be"),
        (["listen", "--port", "70000"], "port"),
        (["listen", "https://tunnel.example.com", "--demo"], "give either a URL or --demo"),
        (["walk"], "walk"),
    ],
)
async def test_what_makes_no_sense_is_usage(emulator: Emulator, arguments: list[str], complaint: str) -> None:
    """Exit code 2, the reason on standard error, and nothing sent."""
    done = await cli("webhooks", *arguments, emulator=emulator, COLUMNS="200")

    assert (done.code, done.out, emulator.requests) == (2, "", [])
    assert complaint in done.err
    assert "Traceback" not in done.err


async def test_a_secret_that_can_be_guessed_is_usage(emulator: Emulator) -> None:
    """The secret of one's own is checked like any argument, and not shown."""
    done = await cli("webhooks", "listen", emulator=emulator, COPYAI_WEBHOOK_SECRET="short one")

    assert (done.code, emulator.requests) == (2, [])
    assert "16 characters" in done.err
    assert "short one" not in done.err


async def test_deleting_what_is_not_there_is_one_line(emulator: Emulator) -> None:
    """Exit code 1; what was deleted before it is told."""
    await cli("webhooks", "create", HOOK, "workflowRun.completed", emulator=emulator)
    webhook_id = str(emulator.webhooks[0]["id"])
    done = await cli("webhooks", "delete", webhook_id, "none", emulator=emulator)

    assert done.code == 1
    assert re.fullmatch(rf"deleted {webhook_id}\naiocopyai: .*404.*\n", done.err)


async def listening(emulator: Emulator, *options: str, **env: str) -> tuple[asyncio.subprocess.Process, str]:
    """Start to listen; give the address that it says it listens at."""
    arguments = ("webhooks", "listen", *options, "--port", "0")
    process = await start("-c", INTERRUPTIBLE, *arguments, env=environment(emulator, **env))
    assert process.stderr is not None
    async with asyncio.timeout(15):
        line = (await process.stderr.readline()).decode()
    assert line.startswith("listening at http://127.0.0.1:"), line
    return process, line.split()[-1]


async def post(url: str, body: object) -> int:
    async with aiohttp.ClientSession() as http, http.post(url, json=body) as answer:
        return answer.status


async def test_listen_shows_what_is_true(emulator: Emulator) -> None:
    """A true event is a line with its run as the API tells it; a forged one is none."""
    [complete, failed] = emulator.add_runs(1, status="COMPLETE") + emulator.add_runs(1, status="FAILED")
    process, url = await listening(emulator, "--limit", "2", COPYAI_WEBHOOK_SECRET=SECRET)
    body = {"workflowId": emulator.workflow_id}
    forged = await post(url, {"type": "workflowRun.completed", "workflowRunId": failed, **body})
    for run_id, event in ((complete, "completed"), (failed, "failed")):
        claimed = {"type": f"workflowRun.{event}", "workflowRunId": run_id, "result": {"Fit": "lies"}, **body}
        assert await post(url, claimed) == 202
    done = await finish(process)

    assert forged == 202
    assert url.endswith(f"/copyai/{SECRET}")
    assert done.code == 0
    assert [(row["type"], row["run_id"]) for row in done.rows] == [
        ("workflowRun.completed", complete),
        ("workflowRun.failed", failed),
    ]
    assert "lies" not in done.out
    assert done.err.endswith("2 events\n")
    assert emulator.webhooks == []


async def test_listen_without_confirmation_shows_what_it_is_told(emulator: Emulator) -> None:
    """With `--no-confirm` nothing is read from the API, and any event is shown as it came."""
    process, url = await listening(emulator, "--limit", "1", "--no-confirm")
    await post(url, {"type": "workflowCreditLimit.reached", "workflowId": "WCFG-1", "left": 0})
    done = await finish(process)

    assert done.code == 0
    assert (done.rows[0]["type"], done.rows[0]["run"], done.rows[0]["extra"]) == (
        "workflowCreditLimit.reached",
        None,
        {"left": 0},
    )
    assert emulator.requests == []


async def test_listen_registers_for_as_long_as_it_listens(emulator: Emulator) -> None:
    """With a URL there are webhooks for it until Ctrl-C; those that were there before stay."""
    await cli("webhooks", "create", HOOK, "workflowRun.completed", emulator=emulator)
    before = emulator.webhooks
    process, url = await listening(emulator, "https://tunnel.example.com", "--workflow", emulator.workflow_id)
    assert process.stderr is not None
    said = (await process.stderr.readline()).decode()
    registered = emulator.webhooks[1:]
    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert said == "created webhooks for workflowRun.completed, workflowRun.failed\n"
    assert {hook["url"] for hook in registered} == {f"https://tunnel.example.com/copyai/{url.rpartition('/')[2]}"}
    assert {hook["workflowId"] for hook in registered} == {emulator.workflow_id}
    assert (done.code, done.err) == (130, "stopped\n")
    assert emulator.webhooks == before


async def test_what_could_not_be_deleted_is_named(emulator: Emulator) -> None:
    """An end at which the API doesn't answer is an end all the same, and says what is left to delete."""
    process, _ = await listening(emulator, "https://tunnel.example.com", "--event", "workflowRun.failed")
    assert process.stderr is not None
    await process.stderr.readline()
    emulator.inject(Fault(status=403), method="DELETE", times=None)
    process.send_signal(signal.SIGINT)
    done = await finish(process)
    [left] = emulator.webhooks

    assert done.code == 130
    assert f"could not delete the webhook {left['id']}: " in done.err


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
async def test_whatever_ends_it_gently_leaves_no_webhook(emulator: Emulator, end: signal.Signals) -> None:
    """Also where one of them is gone already, and the address was given with a slash."""
    process, url = await listening(emulator, f"{emulator.url}/")
    assert process.stderr is not None
    await process.stderr.readline()
    first, second = emulator.webhooks
    await cli("webhooks", "delete", str(first["id"]), emulator=emulator)
    process.send_signal(end)
    done = await finish(process)

    assert second["url"] == f"{emulator.url}/copyai/{url.rpartition('/')[2]}"
    assert (done.code, done.err) == (130, "stopped\n")
    assert emulator.webhooks == []


async def test_the_demo_listens_to_itself() -> None:
    """`listen --demo` registers with the emulator, whose runs are started and told of."""
    done = await cli("webhooks", "listen", "--demo", "--limit", "1")

    assert done.code == 0
    assert done.rows[0]["type"] == "workflowRun.completed"
    run = json.loads(json.dumps(done.rows[0]["run"]))
    assert run["status"] == "COMPLETE"


async def test_the_demo_has_webhooks() -> None:
    """`list --demo` has something to show."""
    done = await cli("webhooks", "list", "--demo")

    assert len(done.rows) == 2
