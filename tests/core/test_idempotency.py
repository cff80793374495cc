"""Starting runs over the emulator's socket: each asked for is started once, whatever becomes of the answer."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from aiocopyai import (
    JSON,
    AmbiguousStartError,
    APIConnectionError,
    BadRequestError,
    CopyAISession,
    CreditLimitReachedError,
    NotFoundError,
    RequestInvalidError,
    RetryPolicy,
    Run,
)
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from tests.conftest import AT_ONCE


LOST = [
    Fault(reset="after"),
    Fault(truncate=5),
    Fault(status=500),
    Fault(status=502, body=b"<html>Bad gateway</html>"),
    Fault(status=408),
    Fault(status=200, body=b"<html>Welcome</html>"),
    Fault(status=503, headers={"Retry-After": "0"}),
]
"""Answers after which a run may have been started or not."""


def posts(emulator: Emulator) -> list[Request]:
    return [request for request in emulator.requests if request.method == "POST"]


async def test_start(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A start sends the documented body once, and returns the id with what was sent."""
    run = await session.start_run(copyai_emulator.workflow_id, {"Input 1": "ü", "n": [1, None]}, metadata={"k": "v"})

    (request,) = posts(copyai_emulator)
    assert request.path == f"/api/workflow/{copyai_emulator.workflow_id}/run"
    assert request.body == {"startVariables": {"Input 1": "ü", "n": [1, None]}, "metadata": {"k": "v"}}
    assert request.headers["content-type"] == "application/json"
    assert "transfer-encoding" not in request.headers
    assert run.id == copyai_emulator.runs()[0]["id"]
    assert (run.workflow_id, run.status) == (copyai_emulator.workflow_id, None)
    assert (run.input, run.metadata) == ({"Input 1": "ü", "n": [1, None]}, {"k": "v"})


async def test_no_metadata_is_not_sent(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A start without metadata has none in its body, where null might be refused."""
    await session.start_run(copyai_emulator.workflow_id, {})

    assert posts(copyai_emulator)[0].body == {"startVariables": {}}


@pytest.mark.parametrize(
    "arguments",
    [
        {"inputs": ["a"]},
        {"inputs": {"a": float("nan")}},
        {"inputs": {"a": object()}},
        {"inputs": {1: "a"}},
        {"inputs": {"a": [{2: "b"}]}},
        {"inputs": {}, "metadata": {"a": {1, 2}}},
        {"inputs": {}, "idempotency_key": ""},
        {"inputs": {}, "idempotency_key": "a", "metadata": {"idempotencyKey": "b"}},
        {"inputs": {}, "workflow_id": ".."},
    ],
)
async def test_bad_arguments(session: CopyAISession, copyai_emulator: Emulator, arguments: Any) -> None:  # noqa: ANN401 (bad on purpose)
    """What can't be sent is a ValueError before anything is sent."""
    with pytest.raises(ValueError, match=r"inputs|metadata|idempotency_key|workflow_id"):
        await session.start_run(**{"workflow_id": copyai_emulator.workflow_id, **arguments})

    assert copyai_emulator.requests == []


@pytest.mark.parametrize("fault", LOST, ids=repr)
async def test_a_lost_answer_is_ambiguous(session: CopyAISession, copyai_emulator: Emulator, fault: Fault) -> None:
    """Without a key a lost answer is an AmbiguousStartError, and nothing is sent again."""
    copyai_emulator.inject(fault, method="POST")
    with pytest.raises(AmbiguousStartError, match="may have been started") as caught:
        await session.start_run(copyai_emulator.workflow_id, {})

    assert len(posts(copyai_emulator)) == 1
    assert caught.value.__cause__ is not None
    assert caught.value.ambiguous
    assert caught.value.idempotency_key is None


async def test_a_time_out_is_ambiguous(copyai_emulator: Emulator) -> None:
    """A start whose answer takes too long is not sent again."""
    copyai_emulator.inject(Fault(delay=5), method="POST")
    async with CopyAISession(
        copyai_emulator.api_key, base_url=copyai_emulator.url, retry=AT_ONCE, timeout=0.05
    ) as session:
        with pytest.raises(AmbiguousStartError):
            await session.start_run(copyai_emulator.workflow_id, {})

    assert (len(posts(copyai_emulator)), len(copyai_emulator.runs())) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(status=400), BadRequestError),
        (Fault(status=404), NotFoundError),
        (Fault(status=422), RequestInvalidError),
        (Fault(status=400, body={"errorCode": "WORKFLOW_CREDIT_LIMIT_REACHED"}), CreditLimitReachedError),
    ],
)
async def test_refusals(
    session: CopyAISession, copyai_emulator: Emulator, fault: Fault, expected: type[Exception]
) -> None:
    """A refusal is no doubt: it is raised as it is, and sent once."""
    copyai_emulator.inject(fault, method="POST")
    with pytest.raises(expected) as caught:
        await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="a")

    assert not getattr(caught.value, "ambiguous", True)
    assert len(copyai_emulator.requests) == 1


async def test_429_is_sent_again(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A server that says it is too busy has not taken the start, key or no key."""
    copyai_emulator.inject(Fault(status=429), method="POST", times=2)
    await session.start_run(copyai_emulator.workflow_id, {})

    assert (len(posts(copyai_emulator)), len(copyai_emulator.runs())) == (3, 1)


async def test_no_connection_is_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    """Where no connection is made, nothing was taken: each attempt is used, and the error is no doubt."""
    async with Emulator() as gone:
        url = gone.url
    async with CopyAISession("key", base_url=url, retry=AT_ONCE) as session:
        with pytest.raises(APIConnectionError) as caught:
            await session.start_run("WCFG-1", {})

    assert (caught.value.attempts, caught.value.ambiguous) == (5, False)
    assert "attempt 1 of 5" in caplog.text


@pytest.mark.parametrize("body", [{"status": "success", "data": {}}, {"status": "success"}, [], {"status": "error"}])
@pytest.mark.parametrize("key", [None, "key-1"])
async def test_a_success_without_an_id(
    session: CopyAISession,
    copyai_emulator: Emulator,
    body: Any,  # noqa: ANN401 (raw JSON)
    key: str | None,
) -> None:
    """An answer of success that names no run, which isn't found either, is never taken for a start that wasn't made."""
    copyai_emulator.inject(Fault(status=200, body=body), method="POST")
    with pytest.raises(AmbiguousStartError):
        await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key=key)

    assert len(posts(copyai_emulator)) == 1


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: f"{fault.status}-{fault.reset}-{fault.truncate}-{fault.body}")
@pytest.mark.parametrize("quirks", [Quirks(), Quirks(lists_metadata=False), Quirks(sparse=True)], ids=repr)
async def test_with_a_key_a_lost_answer_costs_no_second_run(
    session: CopyAISession, copyai_emulator: Emulator, fault: Fault, quirks: Quirks
) -> None:
    """With a key the run is found if it was started, and started again if it was not: one run either way."""
    copyai_emulator.add_runs(30)
    copyai_emulator.quirks = quirks
    copyai_emulator.inject(fault, method="POST")
    run = await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")

    assert len(copyai_emulator.runs()) == 31
    assert run.id == copyai_emulator.runs()[0]["id"]
    assert run.metadata["idempotencyKey"] == "key-1"
    assert len(posts(copyai_emulator)) == (2 if fault.skips_call else 1)


async def test_metadata_that_is_not_echoed_leaves_the_doubt(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run with the same input and without its metadata could be the one, so that nothing is sent again."""
    copyai_emulator.inject(Fault(status=502), method="POST")
    copyai_emulator.add_runs(1, input={"a": 1}, metadata=None, createdAt="2999-01-01T00:00:00Z")
    with pytest.raises(AmbiguousStartError, match="does not show the metadata"):
        await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")

    assert len(posts(copyai_emulator)) == 1


async def test_a_search_that_fails_leaves_the_doubt(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Where the runs can't be searched, nothing is sent again."""
    copyai_emulator.inject(Fault(reset="after"), method="POST")
    copyai_emulator.inject(Fault(status=403), method="GET")
    with pytest.raises(AmbiguousStartError, match="could not be searched"):
        await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

    assert (len(posts(copyai_emulator)), len(copyai_emulator.runs())) == (1, 1)


async def test_every_answer_lost(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A server that never answers is given up after the policy's attempts, and the doubt is told with the key."""
    copyai_emulator.inject(Fault(status=503), method="POST", times=None)
    with pytest.raises(AmbiguousStartError, match="find_run") as caught:
        await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

    assert (len(posts(copyai_emulator)), caught.value.idempotency_key) == (5, "key-1")


async def test_the_same_key_again_in_a_session(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """After a doubt, a second call with the same key looks for the run before it sends."""
    copyai_emulator.inject(Fault(reset="after"), method="POST")
    copyai_emulator.inject(Fault(status=403), method="GET")
    with pytest.raises(AmbiguousStartError):
        await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")
    run = await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

    assert [run.id] == [run["id"] for run in copyai_emulator.runs()]


async def test_a_cancelled_start_is_in_doubt(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A start that is cancelled ends at once, and the same key finds what was taken."""
    copyai_emulator.inject(Fault(delay=5), method="POST")
    start = asyncio.create_task(session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1"))
    while not copyai_emulator.runs():
        await asyncio.sleep(0.001)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    run = await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

    assert [run.id] == [run["id"] for run in copyai_emulator.runs()]


@pytest.mark.parametrize(
    ("quirks", "inputs"),
    [
        (Quirks(lists_metadata=False), None),
        (Quirks(lists_metadata=False), {"a": 1}),
        (Quirks(sparse=True, lists_metadata=False), {"a": 1}),
    ],
    ids=["inputs not known", "inputs known", "nothing listed"],
)
async def test_find_run_where_lists_show_no_metadata(
    session: CopyAISession, copyai_emulator: Emulator, quirks: Quirks, inputs: dict[str, JSON] | None
) -> None:
    """A run whose key the list doesn't show is read, and found; one that isn't there is not."""
    copyai_emulator.quirks = quirks
    run = await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")
    found = await session.find_run(copyai_emulator.workflow_id, "key-1", inputs=inputs)

    assert found is not None
    assert found.id == run.id
    assert await session.find_run(copyai_emulator.workflow_id, "key-2", inputs=inputs) is None


async def test_a_listed_run_that_is_not_known_yet_stays_a_suspect(
    session: CopyAISession, copyai_emulator: Emulator
) -> None:
    """A 404 for a run that is on the list clears it of nothing, and so does one that was started in the app."""
    copyai_emulator.quirks = Quirks(sparse=True, lists_metadata=False)
    copyai_emulator.add_runs(1, metadata={"webapp": True})
    await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")
    copyai_emulator.inject(Fault(status=404), method="GET", path="/run/", times=1)
    with pytest.raises(AmbiguousStartError):
        await session.find_run(copyai_emulator.workflow_id, "key-1", inputs={})

    assert await session.find_run(copyai_emulator.workflow_id, "key-2", inputs={}) is None


async def test_find_runs_walks_once(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Many keys are searched for in one walk: found, in doubt, or not there."""
    copyai_emulator.add_runs(120, metadata={"api": True}, input={"n": 0})
    started = {
        f"key-{n}": (await session.start_run(copyai_emulator.workflow_id, {"n": n}, idempotency_key=f"key-{n}")).id
        for n in range(1, 30)
    }
    copyai_emulator.requests.clear()
    wanted = {**{key: {"n": int(key[4:])} for key in started}, "key-0": {"n": 0}, "key-99": {"n": 99}}
    found = await session.find_runs(copyai_emulator.workflow_id, wanted)

    assert {key: run.id for key, run in found.items() if isinstance(run, Run)} == started
    assert isinstance(found["key-0"], AmbiguousStartError)
    assert "key-99" not in found
    assert sum("/run/" not in request.path for request in copyai_emulator.requests) == 2


async def test_find_run(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A run is found by its key from anywhere, and one that was never started is None."""
    copyai_emulator.add_runs(150)
    run = await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")
    found = await session.find_run(copyai_emulator.workflow_id, "key-1")

    assert found is not None
    assert found.id == run.id
    assert await session.find_run(copyai_emulator.workflow_id, "key-2") is None


@pytest.mark.slow
async def test_a_thousand_starts_with_lost_answers(copyai_emulator: Emulator) -> None:
    """Of 1,000 starts, 30 % lose their answer after the run was taken: exactly 1,000 runs are made."""
    dice = random.Random(7)  # noqa: S311 (a repeatable test)

    def lose(emulator: Emulator, request: Request) -> None:
        if request.method == "POST" and dice.random() < 0.3:
            emulator.inject(dice.choice([Fault(reset="after"), Fault(truncate=7)]), method="POST")

    copyai_emulator.on_request = lose
    retry = RetryPolicy(attempts=None, wait_initial=0, wait_max=0)
    async with CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url, retry=retry) as session:
        rows = asyncio.Semaphore(16)

        async def one(number: int) -> str:
            async with rows:
                run = await session.start_run(
                    copyai_emulator.workflow_id, {"n": number}, idempotency_key=f"row-{number}"
                )
                return run.id

        ids = await asyncio.gather(*(one(number) for number in range(1_000)))

    assert len(set(ids)) == 1_000
    assert sorted(ids) == sorted(str(run["id"]) for run in copyai_emulator.runs())
    assert len(copyai_emulator.requests) > 1_200
