"""Tests of starts with a key: each run is started once, even if responses are lost, or sessions or callers end."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

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
from aiocopyai._idempotency import MAX_REMEMBERED, SEARCH_DELAYS, Starter, StartRequest
from aiocopyai.emulator import Emulator, Fault, Quirks, Request
from tests.conftest import AT_ONCE
from tests.support.clock import Clock, skip_time
from tests.support.exporting import change


LOST = [
    Fault(reset="after"),
    Fault(truncate=5),
    Fault(status=500),
    Fault(status=502, body=b"<html>Bad gateway</html>"),
    Fault(status=408),
    Fault(status=200, body=b"<html>Welcome</html>"),
    Fault(status=503, headers={"Retry-After": "0"}),
]
"""Responses after which a run may have been started or not."""


def posts(emulator: Emulator) -> list[Request]:
    return [request for request in emulator.requests if request.method == "POST"]


def other_process(emulator: Emulator, retry: RetryPolicy = AT_ONCE) -> CopyAISession:
    """Return another session with the same API key and no memory of the first one."""
    return CopyAISession(emulator.api_key, base_url=emulator.url, retry=retry)


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


async def test_start_without_metadata(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """A start without metadata sends no `metadata` field, because the API might reject null."""
    await session.start_run(copyai_emulator.workflow_id, {})

    assert posts(copyai_emulator)[0].body == {"startVariables": {}}


async def test_invalid_json(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """The error for inputs that are not JSON names the place and the type of the first invalid value."""
    when = datetime(2026, 1, 31, tzinfo=UTC)
    for inputs, message in (
        ({"leads": [{"name": "Ada"}, {"since": when}]}, r"inputs['leads'][1]['since'] is of type datetime, which is"),
        ({"a": {"b": {1, 2}}}, "inputs['a']['b'] is of type set"),
        ({"a": (1, math.inf)}, "inputs['a'][1] is inf"),
        ({"a": {7: "x"}}, "inputs['a'] has the key 7 of type int"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            await session.run_workflow(copyai_emulator.workflow_id, inputs)
    with pytest.raises(ValueError, match=r"metadata\['job'\] is of type object"):
        await session.start_run(copyai_emulator.workflow_id, {}, metadata={"job": object()})
    loop: dict[str, object] = {}
    loop["again"] = loop
    with pytest.raises(ValueError, match="inputs cannot be sent as JSON: it is nested too deeply, or contains itself"):
        await session.start_run(copyai_emulator.workflow_id, loop)

    assert copyai_emulator.requests == []


async def test_any_mapping_is_an_input(session: CopyAISession, copyai_emulator: Emulator) -> None:
    """Mappings that are not dicts, and tuples, are sent as JSON objects and arrays."""
    inputs = MappingProxyType({"lead": MappingProxyType({"tags": ("a", "b")})})
    run = await session.start_run(copyai_emulator.workflow_id, inputs)

    assert run.input == {"lead": {"tags": ["a", "b"]}}
    assert posts(copyai_emulator)[0].body == {"startVariables": run.input}


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
        {"inputs": {}, "reuse_within": timedelta(days=1)},
        {"inputs": {}, "reuse_within": timedelta(0), "idempotency_key": "a"},
        {"inputs": {}, "reuse_within": 60, "idempotency_key": "a"},
    ],
)
async def test_invalid_arguments(session: CopyAISession, copyai_emulator: Emulator, arguments: Any) -> None:  # noqa: ANN401 (invalid on purpose)
    """An invalid argument raises ValueError before anything is sent."""
    with pytest.raises(ValueError, match=r"inputs|metadata|idempotency_key|workflow_id|reuse_within"):
        await session.start_run(**{"workflow_id": copyai_emulator.workflow_id, **arguments})

    assert copyai_emulator.requests == []


class TestWithoutAKey:
    """Without a key, a start is sent again only if the server cannot have accepted it."""

    @pytest.mark.parametrize("fault", LOST, ids=repr)
    async def test_lost_response(self, session: CopyAISession, copyai_emulator: Emulator, fault: Fault) -> None:
        """A lost response raises AmbiguousStartError, and the start is not sent again."""
        copyai_emulator.inject(fault, method="POST")
        with pytest.raises(AmbiguousStartError, match="may have been started") as caught:
            await session.start_run(copyai_emulator.workflow_id, {})

        assert len(posts(copyai_emulator)) == 1
        assert caught.value.__cause__ is not None
        assert caught.value.ambiguous
        assert caught.value.idempotency_key is None

    async def test_timeout(self, monkeypatch: pytest.MonkeyPatch, copyai_emulator: Emulator) -> None:
        """A start whose response takes too long is not sent again."""
        copyai_emulator.inject(Fault(delay=60), method="POST")
        copyai_emulator.on_request = lambda _emulator, _request: skip_time(monkeypatch, 30)
        async with other_process(copyai_emulator) as session:
            with pytest.raises(AmbiguousStartError):
                await session.start_run(copyai_emulator.workflow_id, {})

        assert (len(posts(copyai_emulator)), len(copyai_emulator.runs())) == (1, 1)

    async def test_429(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A start that gets a 429 was not accepted, and is sent again."""
        copyai_emulator.inject(Fault(status=429), method="POST", times=2)
        await session.start_run(copyai_emulator.workflow_id, {})

        assert (len(posts(copyai_emulator)), len(copyai_emulator.runs())) == (3, 1)

    async def test_no_connection(self) -> None:
        """If no connection can be made, every attempt is used, and the error is not ambiguous."""
        async with Emulator() as gone:
            url = gone.url
        async with CopyAISession("key", base_url=url, retry=AT_ONCE) as session:
            with pytest.raises(APIConnectionError) as caught:
                await session.start_run("WCFG-1", {})

        assert (caught.value.attempts, caught.value.ambiguous) == (5, False)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(status=400), BadRequestError),
        (Fault(status=404), NotFoundError),
        (Fault(status=422), RequestInvalidError),
        (Fault(status=400, body={"errorCode": "WORKFLOW_CREDIT_LIMIT_REACHED"}), CreditLimitReachedError),
    ],
)
async def test_rejected_start(
    session: CopyAISession, copyai_emulator: Emulator, fault: Fault, expected: type[Exception]
) -> None:
    """A rejected start raises an error after one request, and its key can be used again, even for other inputs."""
    copyai_emulator.inject(fault, method="POST")
    with pytest.raises(expected) as caught:
        await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="a")

    assert not getattr(caught.value, "ambiguous", True)
    assert len(copyai_emulator.requests) == 1
    await session.start_run(copyai_emulator.workflow_id, {"b": 1}, idempotency_key="a")
    assert len(copyai_emulator.requests) == 2


@pytest.mark.parametrize("body", [{"status": "success", "data": {}}, {"status": "success"}, [], {"status": "error"}])
@pytest.mark.parametrize("key", [None, "key-1"])
async def test_success_without_an_id(
    session: CopyAISession,
    copyai_emulator: Emulator,
    body: Any,  # noqa: ANN401 (raw JSON)
    key: str | None,
) -> None:
    """A start is not sent again if its response is a success without an id and its run is not found."""
    copyai_emulator.inject(Fault(status=200, body=body), method="POST")
    with pytest.raises(AmbiguousStartError):
        await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key=key)

    assert len(posts(copyai_emulator)) == 1


class TestLostResponse:
    """With a key, the client searches for the run of a lost response before it sends the start again."""

    @pytest.mark.parametrize("fault", LOST, ids=lambda fault: f"{fault.status}-{fault.reset}-{fault.truncate}")
    @pytest.mark.parametrize("quirks", [Quirks(), Quirks(lists_metadata=False), Quirks(sparse=True)], ids=repr)
    async def test_one_run(
        self, session: CopyAISession, copyai_emulator: Emulator, fault: Fault, quirks: Quirks
    ) -> None:
        """There is one run: if it was started, it is found, and otherwise it is started again."""
        copyai_emulator.add_runs(30)
        copyai_emulator.quirks = quirks
        copyai_emulator.inject(fault, method="POST")
        run = await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")

        assert len(copyai_emulator.runs()) == 31
        assert run.id == copyai_emulator.runs()[0]["id"]
        assert run.metadata["idempotencyKey"] == "key-1"
        assert (run.workflow_id, run.input) == (copyai_emulator.workflow_id, {"a": 1})
        assert len(posts(copyai_emulator)) == (2 if fault.skips_call else 1)

    async def test_search_fails(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """If the search fails, the start is not sent again."""
        copyai_emulator.inject(Fault(reset="after"), method="POST")
        copyai_emulator.inject(Fault(status=403), method="GET")
        with pytest.raises(AmbiguousStartError, match="could not be searched"):
            await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

        assert (len(posts(copyai_emulator)), len(copyai_emulator.runs())) == (1, 1)

    @pytest.mark.parametrize("path", [None, "/run/"], ids=["list", "run"])
    async def test_one_search_fails(
        self, monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator, path: str | None
    ) -> None:
        """A search that fails, or finds a run that cannot be read yet, is repeated."""
        monkeypatch.setattr("aiocopyai._idempotency.SEARCH_DELAYS", SEARCH_DELAYS)
        Clock(monkeypatch, "aiocopyai._idempotency")
        copyai_emulator.quirks = Quirks(lists_metadata=False)
        copyai_emulator.inject(Fault(reset="after"), method="POST")
        copyai_emulator.inject(Fault(status=404), method="GET", path=path)
        run = await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")

        assert [run.id] == [listed["id"] for listed in copyai_emulator.runs()]

    async def test_every_response_lost(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A start without a response raises an AmbiguousStartError with its key after the policy's attempts."""
        copyai_emulator.inject(Fault(status=503), method="POST", times=None)
        with pytest.raises(AmbiguousStartError, match="find_run") as caught:
            await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

        assert (len(posts(copyai_emulator)), caught.value.idempotency_key) == (5, "key-1")

    async def test_searches_continue_for_a_few_seconds(
        self, monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator
    ) -> None:
        """The client searches for a few seconds until the list shows the run, even if the policy retries faster."""
        monkeypatch.setattr("aiocopyai._idempotency.SEARCH_DELAYS", SEARCH_DELAYS)
        clock = Clock(monkeypatch, "aiocopyai._idempotency")
        copyai_emulator.quirks = Quirks(late_runs=60)
        copyai_emulator.inject(Fault(reset="after"), method="POST")
        start = clock.now

        def show(emulator: Emulator, _request: Request) -> None:
            if clock.now >= start + 3:
                emulator.quirks = Quirks()

        copyai_emulator.on_request = show
        run = await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

        assert [request.method for request in copyai_emulator.requests] == ["POST", *["GET"] * 4]
        assert clock.now == pytest.approx(start + 3)
        assert run.id == copyai_emulator.runs()[0]["id"]

    def test_default_delays(self) -> None:
        """By default, the first search is immediate, and the start is sent again after at least 6 s."""
        assert (SEARCH_DELAYS[0], SEARCH_DELAYS[-1]) == (0.0, 6.0)

    async def test_policy_timeout(self, monkeypatch: pytest.MonkeyPatch, copyai_emulator: Emulator) -> None:
        """The policy's time-out limits a start with a key, even if the number of attempts is not limited."""
        monkeypatch.setattr("aiocopyai._idempotency.SEARCH_DELAYS", SEARCH_DELAYS)
        clock = Clock(monkeypatch, "aiocopyai._idempotency")
        copyai_emulator.inject(Fault(status=503), method="POST", times=None)
        policy = RetryPolicy(attempts=None, timeout=20, wait_initial=0, wait_max=0)
        start = clock.now
        async with other_process(copyai_emulator, policy) as session:
            with pytest.raises(AmbiguousStartError):
                await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

        assert len(posts(copyai_emulator)) == 4  # after 0, 6, 12 and 18 s
        assert clock.now == pytest.approx(start + 20)

    @pytest.mark.parametrize("seconds", [9, 60])
    async def test_retry_after(self, monkeypatch: pytest.MonkeyPatch, copyai_emulator: Emulator, seconds: int) -> None:
        """A start is sent again after the time in Retry-After, and is not sent again if that is after the time-out."""
        monkeypatch.setattr("aiocopyai._idempotency.SEARCH_DELAYS", SEARCH_DELAYS)
        clock = Clock(monkeypatch, "aiocopyai._idempotency")
        copyai_emulator.inject(Fault(status=503, headers={"Retry-After": str(seconds)}), method="POST")
        start = clock.now
        async with other_process(copyai_emulator, RetryPolicy(timeout=20, wait_initial=0, wait_max=0)) as session:
            if seconds == 60:
                with pytest.raises(AmbiguousStartError):
                    await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")
            else:
                await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

        assert len(posts(copyai_emulator)) == (1 if seconds == 60 else 2)
        assert clock.now == pytest.approx(start + (6 if seconds == 60 else 9))

    async def test_closing_the_session(self, copyai_emulator: Emulator) -> None:
        """Closing the session during a start raises an AmbiguousStartError with the key."""
        copyai_emulator.inject(Fault(delay=60), method="POST")
        session = other_process(copyai_emulator)
        start = asyncio.create_task(session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1"))
        async with asyncio.timeout(30):
            while not copyai_emulator.runs():
                await asyncio.sleep(0.001)
        await session.close()
        with pytest.raises(AmbiguousStartError, match=r"may have been started.*closed") as caught:
            await start

        assert caught.value.idempotency_key == "key-1"
        assert len(posts(copyai_emulator)) == 1


class TestHiddenMetadata:
    """A run without a visible key is excluded only if its complete data differ."""

    CHANGED: ClassVar[list[tuple[dict[str, JSON], dict[str, JSON]]]] = [
        ({"n": 1, "text": "x" * 300}, {"n": "1", "text": "x" * 300}),
        ({"n": 1, "text": "x" * 300}, {"n": 1, "text": "x" * 300, "tone": "friendly"}),
        ({"n": 1, "text": "x" * 300}, {"n": 1, "text": "x" * 97 + "..."}),
    ]
    """Inputs as they are sent, and as a list shows them: as strings, with defaults, and cut."""

    @pytest.mark.parametrize(("inputs", "shown"), CHANGED)
    @pytest.mark.parametrize("is_read", [True, False], ids=["key visible by id", "key never visible"])
    async def test_changed_inputs(
        self,
        session: CopyAISession,
        copyai_emulator: Emulator,
        inputs: dict[str, JSON],
        shown: dict[str, JSON],
        *,
        is_read: bool,
    ) -> None:
        """If lists change the inputs and hide the metadata, a lost response does not cause a second run."""
        run: dict[str, JSON] = {
            "id": "WRUN-1",
            "input": shown,
            "metadata": {"idempotencyKey": "key-1"} if is_read else None,
            "createdAt": datetime.now(UTC).isoformat(),
        }
        copyai_emulator.quirks = Quirks(lists_metadata=False)
        copyai_emulator.inject(Fault(status=502), method="POST")
        copyai_emulator.replace_runs([run])
        start = session.start_run(copyai_emulator.workflow_id, inputs, idempotency_key="key-1")
        if is_read:
            assert (await start).id == "WRUN-1"
        else:
            with pytest.raises(AmbiguousStartError, match="does not show the metadata"):
                await start

        assert len(posts(copyai_emulator)) == 1

    async def test_other_new_run(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """If a run that was created at the time of the start never shows metadata, the start is unconfirmed."""
        copyai_emulator.inject(Fault(status=502), method="POST")
        copyai_emulator.add_runs(1, input={"b": 2}, metadata=None, createdAt=datetime.now(UTC).isoformat())
        with pytest.raises(AmbiguousStartError, match="does not show the metadata"):
            await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")

        assert len(posts(copyai_emulator)) == 1

    async def test_older_run_with_other_inputs(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A run that is older than the start and has other inputs is excluded, and the start is sent again."""
        half_an_hour_ago = datetime.now(UTC) - timedelta(minutes=30)
        copyai_emulator.inject(Fault(status=502), method="POST")
        copyai_emulator.add_runs(1, input={"b": 2}, metadata=None, createdAt=half_an_hour_ago.isoformat())
        await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")

        assert len(posts(copyai_emulator)) == 2

    async def test_own_runs(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """Runs that this session has started are excluded, although they do not show their keys."""
        for run in [await session.start_run(copyai_emulator.workflow_id, {"n": n}) for n in range(3)]:
            others = [other for other in copyai_emulator.runs() if other["id"] != run.id]
            hidden: dict[str, JSON] = {
                "id": run.id,
                "input": {},
                "metadata": None,
                "createdAt": datetime.now(UTC).isoformat(),
            }
            copyai_emulator.replace_runs([hidden, *others])
        copyai_emulator.inject(Fault(status=502), method="POST")
        await session.start_run(copyai_emulator.workflow_id, {"n": 3}, idempotency_key="key-1")

        assert len(posts(copyai_emulator)) == 5

    async def test_unreadable_run(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A run that is listed without metadata and cannot be read is not excluded."""
        copyai_emulator.quirks = Quirks(lists_metadata=False)
        copyai_emulator.add_runs(1, input={"b": 2}, createdAt=datetime.now(UTC).isoformat())
        copyai_emulator.inject(Fault(status=502), method="POST")
        copyai_emulator.inject(Fault(status=404), method="GET", path="/run/", times=None)
        with pytest.raises(AmbiguousStartError):
            await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")

        assert len(posts(copyai_emulator)) == 1

    async def test_later_run(
        self, monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator
    ) -> None:
        """A run that was created hours after the lost response and has other inputs is excluded."""
        copyai_emulator.inject(Fault(status=502), method="POST")
        copyai_emulator.inject(Fault(status=403), method="GET")
        with monkeypatch.context() as patch, pytest.raises(AmbiguousStartError):
            patch.setattr("aiocopyai._idempotency._now", lambda: datetime.now(UTC) - timedelta(hours=9))
            await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")
        copyai_emulator.add_runs(1, input={"b": 2}, metadata=None, createdAt=datetime.now(UTC).isoformat())
        await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")

        assert len(posts(copyai_emulator)) == 2

    async def test_many_unreadable_runs(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """If runs cannot be read, the client tries 20 of them, and excludes none."""
        copyai_emulator.quirks = Quirks(lists_metadata=False)
        copyai_emulator.add_runs(200, input={"b": 2})
        copyai_emulator.inject(Fault(status=404), method="GET", path="/run/", times=None)
        with pytest.raises(AmbiguousStartError):
            await session.find_run(copyai_emulator.workflow_id, "key-1", inputs={"a": 1})

        assert sum("/run/" in request.path for request in copyai_emulator.requests) == 20

    async def test_reads_are_bounded(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """If reading a run shows no more than the list does, only 20 runs are read."""
        copyai_emulator.add_runs(200, input={"b": 2}, metadata=None)
        found = await session.find_run(copyai_emulator.workflow_id, "key-1", inputs={"a": 1})

        assert found is None
        assert sum("/run/" in request.path for request in copyai_emulator.requests) == 20


class TestInOneSession:
    """In a session, the same workflow and key always return the same run."""

    async def test_consecutive_calls(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A second call with the same key returns the run of the first call without a request."""
        first = await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")
        second = await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")

        assert first == second
        assert len(copyai_emulator.requests) == 1

    async def test_concurrent_calls(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """Concurrent calls with the same key send one request, and return the same run."""
        copyai_emulator.latency = 0.02
        runs = await asyncio.gather(
            *(session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1") for _ in range(10))
        )

        assert {run.id for run in runs} == {copyai_emulator.runs()[0]["id"]}
        assert len(copyai_emulator.requests) == 1

    async def test_run_workflow(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """Two calls of run_workflow with the same key wait for the same run."""
        runs = await asyncio.gather(
            *(
                session.run_workflow(copyai_emulator.workflow_id, {}, idempotency_key="key-1", max_poll_interval=0.01)
                for _ in range(2)
            )
        )

        assert [run.status for run in runs] == ["COMPLETE", "COMPLETE"]
        assert len({run.id for run in runs}) == len(copyai_emulator.runs()) == 1

    async def test_other_inputs(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """The same key with other inputs raises ValueError, during the first call and after it."""
        copyai_emulator.latency = 0.02
        first = asyncio.create_task(session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1"))
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(ValueError, match="'key-1' was used for other inputs"):
                await session.start_run(copyai_emulator.workflow_id, {"a": 2}, idempotency_key="key-1")
            await first

        assert len(copyai_emulator.requests) == 1

    async def test_other_workflow(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """The same key in another workflow starts another run."""
        copyai_emulator.replace_runs([], workflow_id="WCFG-2")
        for workflow_id in (copyai_emulator.workflow_id, "WCFG-2"):
            await session.start_run(workflow_id, {}, idempotency_key="key-1")

        assert len(posts(copyai_emulator)) == 2

    async def test_error_is_shared(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """If a start is rejected, the calls that wait for it raise the same error, without another request."""
        copyai_emulator.inject(Fault(status=422, delay=0.02), method="POST")
        results = await asyncio.gather(
            *(session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1") for _ in range(3)),
            return_exceptions=True,
        )

        assert [type(result) for result in results] == [RequestInvalidError] * 3
        assert len(posts(copyai_emulator)) == 1

    async def test_first_call_cancelled(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """If the first call is cancelled, the next call searches for its run."""
        copyai_emulator.inject(Fault(delay=60), method="POST")
        first, second = (
            asyncio.create_task(session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1"))
            for _ in range(2)
        )
        async with asyncio.timeout(30):
            while not copyai_emulator.runs():
                await asyncio.sleep(0.001)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

        assert [(await second).id] == [run["id"] for run in copyai_emulator.runs()]

    async def test_cancelled_before_sending(self, copyai_emulator: Emulator) -> None:
        """A key can be used again after a call that was cancelled before it sent anything."""
        async with other_process(copyai_emulator) as session:
            task = asyncio.create_task(session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1"))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

        assert len(copyai_emulator.runs()) == 1

    async def test_after_an_ambiguous_start(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """After an AmbiguousStartError the next call searches for the run before it sends anything."""
        copyai_emulator.inject(Fault(reset="after"), method="POST")
        copyai_emulator.inject(Fault(status=403), method="GET")
        with pytest.raises(AmbiguousStartError):
            await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")
        run = await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")

        assert [run.id] == [run["id"] for run in copyai_emulator.runs()]

    async def test_second_call_hours_later(
        self, monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator
    ) -> None:
        """A second call, hours after a lost response, searches the runs since the first call."""
        first_call = datetime.now(UTC) - timedelta(hours=9)
        copyai_emulator.inject(Fault(status=502), method="POST")
        copyai_emulator.inject(Fault(status=403), method="GET")
        with monkeypatch.context() as patch, pytest.raises(AmbiguousStartError):
            patch.setattr("aiocopyai._idempotency._now", lambda: first_call)
            await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")
        copyai_emulator.replace_runs(
            [
                {"id": "WRUN-new", "metadata": None, "input": {"b": 1}, "createdAt": datetime.now(UTC).isoformat()},
                {"id": "WRUN-1", "metadata": {"idempotencyKey": "key-1"}, "createdAt": first_call.isoformat()},
            ]
        )

        assert (await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")).id == "WRUN-1"
        assert len(posts(copyai_emulator)) == 1

    async def test_memory_is_bounded(self) -> None:
        """The oldest finished keys are forgotten first, and unconfirmed keys last."""

        async def post(request: StartRequest) -> Run:
            if request.key == "lost":
                error = APIConnectionError("reset")
                error.ambiguous = True
                raise error
            return request.to_run(f"WRUN-{request.key}")

        async def get_run(_workflow_id: str, run_id: str) -> Run:
            return Run(run_id)

        async def list_runs() -> AsyncIterator[Run]:
            for run in ():
                yield run

        starter = Starter(post, lambda _workflow_id, _since: list_runs(), get_run, evolve(AT_ONCE, attempts=1))
        with pytest.raises(AmbiguousStartError):
            await starter.start(StartRequest("W", {}, {}, "lost"))
        for number in range(MAX_REMEMBERED + 50):
            await starter.start(StartRequest("W", {}, {}, str(number)))
        for number in range(50):
            await starter.start(StartRequest("W", {}, {}, f"one-off-{number}", is_one_off=True))

        assert len(starter._used_keys.records) == len(starter._used_keys.own_runs) == MAX_REMEMBERED
        assert ("W", "lost") in starter._used_keys.records
        assert ("W", "0") not in starter._used_keys.records
        assert ("W", str(MAX_REMEMBERED + 49)) in starter._used_keys.records


class TestReuseWithin:
    """With `reuse_within`, a start first searches for a run that another process has started."""

    async def test_start_run(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A run of another process is found and returned, with its workflow and inputs, and nothing is sent."""
        async with other_process(copyai_emulator) as other:
            first = await other.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")
        run = await session.start_run(
            copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1", reuse_within=timedelta(hours=1)
        )

        assert (run.id, run.workflow_id, run.input) == (first.id, copyai_emulator.workflow_id, {"a": 1})
        assert len(posts(copyai_emulator)) == 1
        assert await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1") == evolve(
            first, metadata={"idempotencyKey": "key-1"}
        )

    async def test_run_workflow(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """`run_workflow` waits for the run that is found."""
        async with other_process(copyai_emulator) as other:
            first = await other.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")
        run = await session.run_workflow(
            copyai_emulator.workflow_id,
            {},
            idempotency_key="key-1",
            reuse_within=timedelta(hours=1),
            max_poll_interval=0.01,
        )

        assert (run.id, run.status) == (first.id, "COMPLETE")
        assert len(copyai_emulator.runs()) == 1

    async def test_other_inputs(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A run with the key and other inputs raises ValueError. A run with changed inputs in the list is reused."""
        shown = {"n": "1", "text": "x" * 97 + "..."}
        copyai_emulator.add_runs(1, metadata={"idempotencyKey": "key-1"}, createdAt=f"{datetime.now(UTC)}", input=shown)
        arguments: Any = {"idempotency_key": "key-1", "reuse_within": timedelta(hours=1)}
        with pytest.raises(ValueError, match="'key-1' was used for other inputs"):
            await session.start_run(copyai_emulator.workflow_id, {"n": 2}, **arguments)
        rows = session.run_many(
            copyai_emulator.workflow_id,
            [{"n": 2}],
            idempotency_key=lambda _index, _row: "key-1",
            reuse_within=timedelta(hours=1),
        )
        assert [type(result.error) async for result in rows] == [ValueError]
        async with other_process(copyai_emulator) as other:
            await other.start_run(copyai_emulator.workflow_id, {"n": 1, "text": "x" * 300}, **arguments)

        assert posts(copyai_emulator) == []

    @pytest.mark.parametrize("method", ["start_run", "run_many"])
    async def test_restart(self, monkeypatch: pytest.MonkeyPatch, copyai_emulator: Emulator, method: str) -> None:
        """A run that is listed late is found by a process that is started right after its start."""
        monkeypatch.setattr("aiocopyai._idempotency.SEARCH_DELAYS", (0.0, 0.15))
        copyai_emulator.quirks = Quirks(late_runs=0.1)
        workflow_id, hour = copyai_emulator.workflow_id, timedelta(hours=1)
        async with other_process(copyai_emulator) as crashed:
            await crashed.start_run(workflow_id, {}, idempotency_key="key-1")
        async with other_process(copyai_emulator) as restarted:
            if method == "start_run":
                await restarted.start_run(workflow_id, {}, idempotency_key="key-1", reuse_within=hour)
            else:
                rows = restarted.run_many(
                    workflow_id, [{}], idempotency_key=lambda _index, _row: "key-1", reuse_within=hour, wait=False
                )
                assert [result.reused async for result in rows] == [True]

        assert len(posts(copyai_emulator)) == 1

    async def test_other_options(
        self, monkeypatch: pytest.MonkeyPatch, session: CopyAISession, copyai_emulator: Emulator
    ) -> None:
        """A session from `with_options` is as old as the original session, and does not wait for a second search."""
        monkeypatch.setattr("aiocopyai._idempotency.SEARCH_DELAYS", (0.0, 60.0))
        monkeypatch.setattr(session._starter._used_keys, "created_at", time.monotonic() - 60)
        async with asyncio.timeout(30):
            await session.with_options(retry=2).start_run(
                copyai_emulator.workflow_id, {}, idempotency_key="key-1", reuse_within=timedelta(hours=1)
            )

    @pytest.mark.parametrize(("minutes", "is_reused"), [(59, True), (61, False)])
    async def test_age(
        self, session: CopyAISession, copyai_emulator: Emulator, minutes: int, *, is_reused: bool
    ) -> None:
        """Only a run that was created within the time is reused."""
        created = datetime.now(UTC) - timedelta(minutes=minutes)
        copyai_emulator.add_runs(1, metadata={"idempotencyKey": "key-1"}, createdAt=created.isoformat())
        await session.start_run(
            copyai_emulator.workflow_id, {}, idempotency_key="key-1", reuse_within=timedelta(hours=1)
        )

        assert len(posts(copyai_emulator)) == (0 if is_reused else 1)

    async def test_search_fails(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """If the search fails, nothing is started, and the error is not ambiguous."""
        copyai_emulator.inject(Fault(status=422), method="GET")
        with pytest.raises(RequestInvalidError) as caught:
            await session.start_run(
                copyai_emulator.workflow_id, {}, idempotency_key="key-1", reuse_within=timedelta(hours=1)
            )

        assert not caught.value.ambiguous
        assert posts(copyai_emulator) == []


class TestFindRun:
    """Runs are found by the keys that they were started with."""

    async def test_find_run(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A run is found by its key, and None is returned for a key without a run."""
        copyai_emulator.add_runs(150)
        run = await session.start_run(copyai_emulator.workflow_id, {}, idempotency_key="key-1")
        found = await session.find_run(copyai_emulator.workflow_id, "key-1")

        assert found is not None
        assert found.id == run.id
        assert await session.find_run(copyai_emulator.workflow_id, "key-2") is None

    @pytest.mark.parametrize(
        ("quirks", "inputs"),
        [
            (Quirks(lists_metadata=False), None),
            (Quirks(lists_metadata=False), {"a": 1}),
            (Quirks(sparse=True, lists_metadata=False), {"a": 1}),
            (Quirks(sparse=True), None),
            (Quirks(sparse=True), {"a": 1}),
        ],
        ids=repr,
    )
    async def test_partial_lists(
        self, session: CopyAISession, copyai_emulator: Emulator, quirks: Quirks, inputs: dict[str, JSON] | None
    ) -> None:
        """A run is found if lists omit its key or inputs, and has its workflow and its inputs."""
        copyai_emulator.quirks = quirks
        async with other_process(copyai_emulator) as other:
            run = await other.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")
        found = await session.find_run(copyai_emulator.workflow_id, "key-1", inputs=inputs)

        assert found is not None
        assert (found.id, found.workflow_id, found.input) == (run.id, copyai_emulator.workflow_id, {"a": 1})
        assert await session.find_run(copyai_emulator.workflow_id, "key-2", inputs=inputs) is None

    async def test_unknown_listed_run(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """A listed run that is a 404 is not excluded. A run that was started in the app is excluded."""
        copyai_emulator.quirks = Quirks(sparse=True, lists_metadata=False)
        copyai_emulator.add_runs(1, input={"a": 1}, metadata={"webapp": True})
        await session.start_run(copyai_emulator.workflow_id, {"a": 1}, idempotency_key="key-1")
        copyai_emulator.inject(Fault(status=404), method="GET", path="/run/", times=1)
        with pytest.raises(AmbiguousStartError):
            await session.find_run(copyai_emulator.workflow_id, "key-1", inputs={"a": 1})

        assert await session.find_run(copyai_emulator.workflow_id, "key-2", inputs={"a": 1}) is None

    async def test_replaced_metadata_and_added_inputs(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """If a run has other metadata and added inputs, the start is unconfirmed, unless the run shows its key."""
        async with other_process(copyai_emulator) as other:
            run = await other.start_run(copyai_emulator.workflow_id, {"a": 1, "b": ""}, idempotency_key="key-1")
        listed: dict[str, JSON] = {"metadata": {"api": True}, "input": {"a": "1", "c": "default"}}
        full: dict[str, JSON] = {"metadata": {"idempotencyKey": "key-1"}}

        def respond(emulator: Emulator, request: Request) -> None:
            change(emulator, run.id, **(listed if request.page is not None else full))

        copyai_emulator.on_request = respond
        found = await session.find_run(copyai_emulator.workflow_id, "key-1", inputs={"a": 1, "b": ""})
        full = listed
        with pytest.raises(AmbiguousStartError):
            await session.find_run(copyai_emulator.workflow_id, "key-1", inputs={"a": 1, "b": ""})

        assert found is not None
        assert found.id == run.id
        assert await session.find_run(copyai_emulator.workflow_id, "key-1", inputs={"a": 11}) is None
        assert await session.find_run(copyai_emulator.workflow_id, "key-1", inputs={"b": ""}) is None

    async def test_find_runs(self, session: CopyAISession, copyai_emulator: Emulator) -> None:
        """Many keys are searched for in one listing, and are found, unconfirmed, or absent."""
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


@given(
    faults=st.lists(st.sampled_from([None, Fault(reset="after"), Fault(status=503), Fault(status=429)]), max_size=12),
    keys=st.lists(st.integers(0, 3), min_size=1, max_size=12),
)
def test_any_calls_with_any_keys(faults: list[Fault | None], keys: list[int]) -> None:
    """Any concurrent calls with any keys start one run for each key, even if responses are lost."""

    async def check() -> None:
        async with Emulator() as emulator:
            queue = list(faults)

            def fail(emulator: Emulator, request: Request) -> None:
                if request.method == "POST" and queue and (fault := queue.pop()) is not None:
                    emulator.inject(fault, method="POST")

            emulator.on_request = fail
            policy = RetryPolicy(attempts=None, timeout=20, wait_initial=0, wait_max=0)
            async with other_process(emulator, policy) as session:
                runs = await asyncio.gather(
                    *(session.start_run(emulator.workflow_id, {"n": key}, idempotency_key=f"{key}") for key in keys)
                )
            by_key = {key: {run.id for run, other in zip(runs, keys, strict=True) if other == key} for key in keys}
            assert all(len(ids) == 1 for ids in by_key.values())
            assert len(emulator.runs()) == len(set(keys))

    asyncio.run(asyncio.wait_for(check(), 30))


@pytest.mark.slow
async def test_a_thousand_starts_with_lost_responses(copyai_emulator: Emulator) -> None:
    """If 300 of 1,000 starts lose their response after the run was started, exactly 1,000 runs are created."""
    dice = random.Random(7)  # noqa: S311 (a repeatable test)

    def lose(emulator: Emulator, request: Request) -> None:
        if request.method == "POST" and dice.random() < 0.3:
            emulator.inject(dice.choice([Fault(reset="after"), Fault(truncate=7)]), method="POST")

    copyai_emulator.on_request = lose
    retry = RetryPolicy(attempts=None, wait_initial=0, wait_max=0)
    async with CopyAISession(copyai_emulator.api_key, base_url=copyai_emulator.url, retry=retry) as session:
        slots = asyncio.Semaphore(16)

        async def start(number: int) -> str:
            async with slots:
                run = await session.start_run(
                    copyai_emulator.workflow_id, {"n": number}, idempotency_key=f"row-{number}"
                )
                return run.id

        ids = await asyncio.gather(*(start(number) for number in range(1_000)))

    assert len(set(ids)) == 1_000
    assert sorted(ids) == sorted(str(run["id"]) for run in copyai_emulator.runs())
    assert len(copyai_emulator.requests) > 1_200
