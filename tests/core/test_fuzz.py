"""Fuzz tests: any bytes from a server or a sender raise only documented errors, without the key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiocopyai import CopyAIError, CopyAISession, InvalidEventError, InvalidResponseError, RetryPolicy, WebhookEvent
from aiocopyai._parsing import (
    parse_response,
    read_error,
    read_run,
    read_started_id,
    read_webhook,
    read_webhook_page,
)
from aiocopyai._redaction import redact
from aiocopyai._retry import parse_retry_after
from aiocopyai._run_pages import RunPageParser
from aiocopyai._text import excerpt
from aiocopyai.emulator import Emulator, Fault
from tests.support.strategies import BODIES, JSON_VALUES


KEY: Final = "a-secret-key-0123456789"
STATUSES: Final = (200, 201, 202, 203, 226, 300, 302, 307, 400, 401, 402, 403, 404, 408, 409, 418, 422, 429, 500, 599)
READERS: Final[dict[str, Callable[[bytes], object]]] = {
    "run page": lambda body: RunPageParser().parse(body, 1, 10),
    "run": lambda body: parse_response(body, lambda response: read_run(response, "WCFG-1")),
    "started": lambda body: parse_response(body, read_started_id),
    "webhook": lambda body: parse_response(body, read_webhook),
    "webhook page": lambda body: parse_response(body, lambda response: read_webhook_page(response, 1, 10)),
}


@pytest.mark.parametrize("reader", READERS)
@given(body=BODIES)
def test_parsers(reader: str, body: bytes) -> None:
    """Each parser returns a page or a hashable value, or raises an `InvalidResponseError` of one line."""
    try:
        value = READERS[reader](body)
    except InvalidResponseError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 300
    else:
        if not reader.endswith("page"):
            hash(value)  # does not raise


ECHOES = st.sampled_from([b"", KEY.encode(), f'{{"errorCode":"{KEY}","details":["{KEY}"]}}'.encode()])


@given(BODIES | ECHOES)
def test_error_bodies(body: bytes) -> None:
    """The parts that are read from the body of an error do not contain the key."""
    code, details, kept = read_error(redact(body, KEY).decode(errors="replace"))

    assert code is None or isinstance(code, str)
    assert KEY not in f"{code} {details} {kept}"


@given(BODIES)
def test_deliveries(body: bytes) -> None:
    """Any delivery is parsed to an event, or raises an `InvalidEventError` of one line."""
    try:
        event = WebhookEvent.parse(body)
    except InvalidEventError as error:
        assert str(error).isprintable()
    else:
        assert hash(event) == hash((event.type, event.run_id))


DATES = st.datetimes(timezones=st.just(UTC)).map(lambda time: time.strftime("%a, %d %b %Y %H:%M:%S GMT"))
INVALID_DATES = st.builds(
    lambda date, at, new: date[:at] + new + date[at + 1 :], DATES, st.integers(0, 28), st.text(max_size=2)
)


@given(st.text() | DATES | INVALID_DATES | st.integers().map(str))
def test_retry_after(value: str) -> None:
    """Any ``Retry-After`` is parsed as a time of at most a year, or as None."""
    seconds = parse_retry_after(value)

    assert seconds is None or 0 <= seconds <= 365 * 86_400


async def list_runs(session: CopyAISession) -> None:
    """List a few runs, and continue after errors."""
    runs = aiter(session.runs("W", page_size=2, limit=6, prefetch=1, since=datetime(2020, 1, 1, tzinfo=UTC)))
    for _ in range(8):
        try:
            await anext(runs)
        except StopAsyncIteration:
            return
        except CopyAIError:
            continue


CALLS: Final[dict[str, Callable[[CopyAISession], Awaitable[object]]]] = {
    "runs": list_runs,
    "count_runs": lambda session: session.count_runs("W"),
    "get_run": lambda session: session.get_run("W", "R"),
    "start_run": lambda session: session.start_run("W", {}),
    "start_run with a key": lambda session: session.start_run("W", {}, idempotency_key="k"),
    "find_run": lambda session: session.find_run("W", "k"),
    "ensure_webhook": lambda session: session.ensure_webhook("https://h/x", "workflowRun.failed"),
    "get_webhook": lambda session: session.get_webhook("1"),
    "delete_webhook": lambda session: session.delete_webhook("1"),
    "check_key": lambda session: session.check_key(),
}


@pytest.fixture(name="runner", scope="module")
def _runner() -> Iterator[asyncio.Runner]:
    """An event loop for all examples."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(name="emulator", scope="module")
def _emulator(runner: asyncio.Runner) -> Iterator[Emulator]:
    """An emulator for all examples."""
    emulator = Emulator(api_key=KEY)
    runner.run(emulator.start())
    yield emulator
    runner.run(emulator.stop())


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Type": st.sampled_from(["text/html; charset=nope", "application/json; charset=utf-16", "x"]),
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "br", "x"]),
        "Retry-After": st.sampled_from(["0", "-1", "9" * 40, "Wed, 21 Oct 2015 07:28:00 GMT", KEY]),
        "X-Echo": st.just(KEY),
    },
)
FAULTS = st.builds(
    lambda status, body, headers: Fault(status=status, body=body, headers=headers),
    st.sampled_from(STATUSES),
    BODIES | ECHOES,
    HEADERS,
)


@pytest.mark.parametrize("call", CALLS)
@settings(max_examples=settings().max_examples // 2)  # half of the profile's, as each example sends several requests
@given(faults=st.lists(FAULTS, min_size=1, max_size=3))
def test_client(call: str, faults: list[Fault], runner: asyncio.Runner, emulator: Emulator) -> None:
    """For any response, a call returns a value or raises a `CopyAIError`, and no error or log line shows the key."""

    async def call_faulty_server() -> None:
        emulator.clear_faults()
        for fault in faults[:-1]:
            emulator.inject(fault)
        emulator.inject(faults[-1], times=None)
        retry = RetryPolicy(attempts=2, wait_initial=0, wait_max=0, timeout=0.5)
        async with CopyAISession(KEY, base_url=emulator.url, retry=retry) as session:
            await CALLS[call](session)

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("aiocopyai")
    logger.addHandler(handler)
    try:
        runner.run(call_faulty_server())
    except CopyAIError as error:
        lines += [str(error), str(error.__cause__ or "")]
        assert KEY not in repr(error)
    finally:
        logger.removeHandler(handler)
        emulator.requests.clear()
    assert all(line.isprintable() and KEY not in line for line in lines)


@given(JSON_VALUES)
def test_excerpt_is_short(value: Any) -> None:  # noqa: ANN401 (any JSON)
    """The excerpt of any value is short and on one line."""
    assert len(excerpt(value)) <= 81
    assert "\n" not in excerpt(value)
