"""The key and other secrets: they go to the server alone, and show nowhere on this side."""

from __future__ import annotations

import asyncio
import base64
import copy
import gc
import json
import logging
import pickle
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import (
    AmbiguousStartError,
    CopyAIError,
    CopyAISession,
    InvalidResponseError,
    RetryPolicy,
    WebhookEvent,
)
from aiocopyai._parsing import parse_json
from aiocopyai._text import Secret, redact
from aiocopyai.emulator import Emulator, Fault
from aiocopyai.webhooks import WebhookReceiver
from tests.support.strategies import JSON_VALUES


KEY: Final = 'a-"secret"/key+with=all\\0123456789'
"""A key that JSON, Python and addresses each write in another way."""
HALF: Final = KEY[:18]
TWICE: Final = RetryPolicy(attempts=2, wait_initial=0, wait_max=0)


def writings(text: str = KEY) -> list[str]:
    """Give the ways in which a text shows."""
    return [text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text).replace("/", "\\/")[1:-1]]


def everywhere(error: BaseException) -> Iterator[str]:
    """Give all that is shown of an error, and of what it came from, with the variables of each frame but a test's."""
    seen: BaseException | None = error
    while seen is not None:
        yield from (str(seen), repr(seen), repr(seen.args), repr(vars(seen)), pickle.dumps(seen).decode("latin-1"))
        yield "".join(traceback.format_exception(seen))
        steps = [step for step in traceback.walk_tb(seen.__traceback__) if "/tests/" not in step[0].f_code.co_filename]
        yield "".join(traceback.StackSummary.extract(iter(steps), capture_locals=True).format())
        seen = seen.__cause__ or seen.__context__


def leaks(shown: Iterator[str] | list[str], secrets: list[str]) -> list[str]:
    """Find what shows a secret."""
    return [text for text in shown if any(secret in text for secret in secrets)]


ECHOES: Final = [
    Fault(status=401, body={"errorCode": f"NO-{KEY}", "details": {KEY: [KEY]}, "message": KEY}, headers={"X-E": KEY}),
    Fault(status=403, body=json.dumps({"errorCode": KEY}).replace("/", "\\/").replace("+", "\\u002b").encode()),
    Fault(status=500, body=KEY.encode()),
    Fault(status=500, body=b"x" * 1_990 + KEY.encode()),
    Fault(status=302, headers={"Location": f"https://example.com/?{KEY}"}),
    Fault(body=KEY.encode()),
    Fault(body=b"x" * 65 + KEY.encode()),
    Fault(body={"data": "x" * 65 + KEY}),
    Fault(body={"data": {"data": [{"id": None, "x": KEY}]}}),
    Fault(body={"data": {"data": KEY}}),
    Fault(headers={"Content-Encoding": KEY}),
    Fault(reset="after"),
    Fault(truncate=3),
    Fault(delay=9),
    Fault(headers={"Bad": f"a\x00{KEY}"}, body=b"{}"),
]


@pytest.mark.parametrize("fault", ECHOES, ids=range(len(ECHOES)))
async def test_no_error_shows_it(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a server does, echoes included, the key is in nothing that can be seen of the error, nor in any log."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    is_refused = fault.delay or fault.status in {302, 401, 403}
    async with (
        Emulator(workflow_id="W", api_key=KEY) as emulator,
        CopyAISession(KEY, base_url=emulator.url, timeout=0.05 if fault.delay else 10, retry=TWICE) as session,
    ):
        emulator.inject(fault, times=None)
        with pytest.raises(CopyAIError) as caught:
            await session.count_runs("W")
        with pytest.raises(CopyAIError if is_refused else AmbiguousStartError) as started:
            await session.start_run("W", {}, idempotency_key="x")
        shown = [*everywhere(caught.value), *everywhere(started.value), caplog.text]

        assert leaks(shown, [*writings(), *writings(HALF)]) == []
        assert emulator.requests[0].headers["x-copy-ai-api-key"] == KEY


@pytest.mark.parametrize("fault", [Fault(delay=9), Fault(drip=9)], ids=["headers", "body"])
async def test_no_traceback_shows_it(fault: Fault) -> None:
    """The frames of a cancelled request, aiohttp's own included, don't show the key to what prints their variables."""
    async with Emulator(api_key=KEY) as emulator, CopyAISession(KEY, base_url=emulator.url) as session:
        emulator.inject(fault)
        task = asyncio.ensure_future(session.count_runs("W"))
        while not emulator.requests:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    shown = list(everywhere(caught.value))
    assert any("in _exchange" in text for text in shown)
    assert leaks(shown, writings()) == []


async def test_no_repr_shows_it() -> None:
    """Neither the session shows the key, nor what is in it, nor aiohttp's account of its requests."""
    told: list[str] = []

    async def tell(*parts: Any) -> None:  # noqa: ANN401 (whatever aiohttp tells)
        told.extend(map(repr, parts))
        told.append(repr(getattr(parts[-1], "headers", None)))
        told.append(repr(getattr(getattr(parts[-1], "response", None), "request_info", None)))

    config = aiohttp.TraceConfig()
    config.on_request_start.append(tell)
    config.on_request_end.append(tell)
    async with (
        Emulator(api_key=KEY) as emulator,
        aiohttp.ClientSession(trace_configs=[config]) as http,
        CopyAISession(KEY, base_url=emulator.url, http_session=http) as session,
    ):
        await session.check_key()
        parts = (session, session._transport, session.runs("W"), session.watch("W"), session.run_many("W", []))
        shown = [*map(repr, parts), *map(str, parts), repr(vars(session)), repr(vars(session._transport)), *told]

    assert any("'***'" in text for text in told)
    assert leaks(shown, writings()) == []


def test_nor_does_a_copy_or_a_pickle() -> None:
    """What holds the key neither pickles nor copies: there is no way out for it by accident."""
    session = CopyAISession(KEY)
    for way in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            way(session)


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY}\r\nHost: elsewhere", f"{KEY}\x00", f"{KEY}ü"])
def test_a_key_that_will_not_do_is_not_shown(key: str) -> None:
    """A key that would end a header, or begin another, is refused, and the error doesn't show it."""
    with pytest.raises(CopyAIError) as caught:
        CopyAISession(key)

    assert (
        leaks([str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))], [KEY]) == []
    )


async def test_a_session_left_open_does_not_show_it() -> None:
    """The warning of a session that nobody closed doesn't show the key."""
    async with Emulator(api_key=KEY) as emulator:
        session = CopyAISession(KEY, base_url=emulator.url)
        await session.check_key()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            told: list[str] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(repr(context)))
            del session
            gc.collect()
            # The warning holds what it is about; without it, what that holds in turn is collected as well.
            told += [str(warning.message) for warning in caught]
            caught.clear()
            gc.collect()

    assert told
    assert leaks([*(str(warning.message) for warning in caught), *told], writings()) == []


@pytest.mark.parametrize("call", [lambda s: s.check_key(), lambda s: s.start_run("W", {})], ids=["GET", "POST"])
async def test_the_environment_takes_it_nowhere(
    call: Callable[[CopyAISession], Awaitable[object]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Proxies and logins of the environment are not used: the key goes to the server, and with it no other secret."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password netrc-secret\n", "ascii")
    monkeypatch.setenv("NETRC", str(netrc))
    async with Emulator(workflow_id="W", api_key=KEY) as emulator, Emulator() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/api"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with CopyAISession(KEY, base_url=emulator.url) as session:
            await call(session)

    (request,) = emulator.requests
    assert proxy.requests == []
    assert not {"authorization", "proxy-authorization", "cookie"} & set(request.headers)
    assert KEY not in request.path


def test_no_webhooks_secret_shows(caplog: pytest.LogCaptureFixture) -> None:
    """A receiver's secret and a webhook's address, which may hold it, are not shown."""
    receiver = WebhookReceiver(CopyAISession(KEY), lambda event: _ignore(event), secret="s3cret-" * 4)  # noqa: PLW0108
    with pytest.raises(ValueError, match="url must be") as caught:
        asyncio.run(CopyAISession(KEY).create_webhook("ftp://example.com/s3cret-path", "workflowRun.failed"))

    assert leaks([repr(receiver), str(receiver), str(caught.value), caplog.text], ["s3cret", *writings()]) == []


async def _ignore(_event: WebhookEvent) -> None:
    """Do nothing."""


def test_the_secret_is_sent_as_it_is() -> None:
    """A key whose `repr` is blotted out is still the text that it is."""
    secret = Secret(KEY)

    assert (f"{secret}", secret.encode(), secret) == (KEY, KEY.encode(), KEY)
    assert repr({"x": secret}) == "{'x': '***'}"
    assert f"{secret!r}" == "'***'"


@given(JSON_VALUES, st.sampled_from([KEY, "k", '"', "\\", base64.b64encode(b"\xff" * 9).decode()]), st.booleans())
def test_a_censored_body_has_no_key(value: Any, key: str, ascii_only: bool) -> None:  # noqa: ANN401, FBT001 (any JSON; drawn)
    """A body that was censored shows the key nowhere, and one without it is the same object."""
    body = json.dumps([value, f"<{key}>"], ensure_ascii=ascii_only).encode(errors="replace")
    clean = redact(body, key)

    try:
        shown = _texts_of(parse_json(clean))
    except InvalidResponseError:  # Python writes infinities, and JSON has none
        shown = "" if key in '"\\' else clean.decode()
    assert key not in shown
    assert redact(b'{"a": 1}', KEY) == b'{"a": 1}'


def _texts_of(value: Any) -> str:  # noqa: ANN401 (any JSON)
    """Put all texts of a value behind each other."""
    if isinstance(value, dict):
        return "\n".join([*value, *map(_texts_of, value.values())])
    if isinstance(value, list):
        return "\n".join(map(_texts_of, value))
    return value if isinstance(value, str) else ""
