"""Tests of API keys and other secrets: they are sent only to the server, and are never shown."""

from __future__ import annotations

import asyncio
import base64
import copy
import gc
import inspect
import json
import logging
import pickle
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import (
    AmbiguousStartError,
    APIConnectionError,
    ConfigurationError,
    CopyAIError,
    CopyAISession,
    InvalidResponseError,
    RetryPolicy,
    WebhookEvent,
)
from aiocopyai._parsing import parse_json
from aiocopyai._redaction import Secret, redact
from aiocopyai.emulator import Emulator, Fault
from aiocopyai.webhooks import WebhookReceiver
from tests.support.proxying import rejecting_proxy
from tests.support.strategies import JSON_VALUES


KEY: Final = 'a-"secret"/key+with=all\\0123456789'
"""A key that JSON, Python and URLs each escape in another way."""
HALF: Final = KEY[:18]
TWICE: Final = RetryPolicy(attempts=2, timeout=1, wait_initial=0, wait_max=0)


def spellings(text: str = KEY) -> list[str]:
    """Return the forms in which text can be shown."""
    return [text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text).replace("/", "\\/")[1:-1]]


def everything_shown(error: BaseException) -> Iterator[str]:
    """Yield all strings of an error and its causes, with the variables of each frame outside the tests."""
    cause: BaseException | None = error
    while cause is not None:
        yield from (str(cause), repr(cause), repr(cause.args), repr(vars(cause)))
        yield "".join(traceback.format_exception(cause))
        if isinstance(cause, CopyAIError):
            yield pickle.dumps(cause).decode("latin-1")
        inner = [] if cause.__traceback__ is None else inspect.getinnerframes(cause.__traceback__)
        frames = [(info.frame, info.lineno) for info in inner if "/tests/" not in info.filename]
        yield "".join(traceback.StackSummary.extract(iter(frames), capture_locals=True).format())
        cause = cause.__cause__ or cause.__context__


def leaks(shown: Iterator[str] | list[str], secrets: list[str]) -> list[str]:
    """Return the strings that contain a secret, in upper or lower case."""
    return [text for text in shown if any(secret.lower() in text.lower() for secret in secrets)]


ECHOES: Final = [
    Fault(status=401, body={"errorCode": f"NO-{KEY}", "details": {KEY: [KEY]}, "message": KEY}, headers={"X-E": KEY}),
    Fault(status=403, body=json.dumps({"errorCode": KEY}).replace("/", "\\/").replace("+", "\\u002B").encode()),
    Fault(status=422, body=b'{"details": %b, "details": 1}' % json.dumps(KEY).encode()),
    Fault(status=422, body={"details": json.dumps({"request": json.dumps({"key": KEY})})}),
    Fault(status=500, body=KEY.encode()),
    Fault(status=500, body=b"x" * 1_990 + KEY.encode()),
    Fault(status=502, body=b"<html>" + KEY.replace('"', "&quot;").encode()),
    Fault(status=302, headers={"Location": f"https://example.com/?{KEY}"}),
    Fault(status=302, headers={"Location": f"https://example.com/?{quote(KEY, safe='')}"}),
    Fault(body=KEY.encode()),
    Fault(body=b"x" * 65 + KEY.encode()),
    Fault(body={"data": "x" * 65 + KEY}),
    Fault(body={"data": {"data": [{"id": None, "x": KEY}]}}),
    Fault(body={"data": {"data": [{"id": None, KEY: 1}]}}),
    Fault(body={"data": {"data": KEY}}),
    Fault(body=b'{"data": {"id": %b, %b: {"id": %b, "x": %b' % (*[json.dumps(KEY).encode()] * 3, b"[" * 2_000)),
    Fault(headers={"Content-Encoding": KEY}),
    Fault(reset="after"),
    Fault(truncate=3),
    Fault(delay=9),
    Fault(headers={"Bad": f"a\x00{KEY}"}, body=b"{}"),
]


@pytest.mark.parametrize("fault", ECHOES, ids=range(len(ECHOES)))
async def test_no_error_shows_the_key(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """No error and no log line shows the key, even if the server echoes it."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    is_rejected = fault.delay or fault.status in {302, 401, 403, 422}
    async with (
        Emulator(workflow_id="W", api_key=KEY) as emulator,
        CopyAISession(KEY, base_url=emulator.url, timeout=0.05 if fault.delay else 10, retry=TWICE) as session,
    ):
        emulator.inject(fault, times=None)
        with pytest.raises(CopyAIError) as caught:
            await session.count_runs("W")
        with pytest.raises(CopyAIError if is_rejected else AmbiguousStartError) as started:
            await session.start_run("W", {}, idempotency_key="x")
        shown = [*everything_shown(caught.value), *everything_shown(started.value), caplog.text]

        assert leaks(shown, [*spellings(), *spellings(HALF), quote(KEY, safe="")]) == []
        assert emulator.requests[0].headers["x-copy-ai-api-key"] == KEY
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


async def test_a_header_name_does_not_show_the_key() -> None:
    """A key that a server echoes as the name of a header, in lower case, is also redacted."""
    key = "A-Secret-Key-0123456789"
    async with (
        Emulator(api_key=key) as emulator,
        CopyAISession(key, base_url=emulator.url, retry=TWICE) as session,
    ):
        emulator.inject(Fault(status=401, headers={f"X-{key}": "1"}))
        with pytest.raises(CopyAIError) as caught:
            await session.check_key()

    assert caught.value.headers["x-***"] == "1"  # type: ignore[attr-defined]  # a status error
    assert leaks(everything_shown(caught.value), [key]) == []


@pytest.mark.parametrize("fault", [Fault(delay=9), Fault(drip=9)], ids=["headers", "body"])
async def test_no_traceback_shows_the_key(fault: Fault) -> None:
    """The variables in the frames of a cancelled request, aiohttp's own included, do not show the key."""
    async with Emulator(api_key=KEY) as emulator, CopyAISession(KEY, base_url=emulator.url) as session:
        emulator.inject(fault)
        task = asyncio.ensure_future(session.count_runs("W"))
        while not emulator.requests:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    shown = list(everything_shown(caught.value))
    assert any("in _exchange" in text for text in shown)
    assert leaks(shown, spellings()) == []


async def test_no_repr_shows_the_key() -> None:
    """No `repr` shows the key, including those of the session's parts and of aiohttp's requests."""
    traced: list[str] = []

    async def trace(*parts: Any) -> None:  # noqa: ANN401 (the arguments depend on the event)
        traced.extend(map(repr, parts))
        traced.append(repr(getattr(parts[-1], "headers", None)))
        traced.append(repr(getattr(getattr(parts[-1], "response", None), "request_info", None)))

    config = aiohttp.TraceConfig()
    config.on_request_start.append(trace)
    config.on_request_end.append(trace)
    async with (
        Emulator(api_key=KEY) as emulator,
        aiohttp.ClientSession(trace_configs=[config]) as http,
        CopyAISession(KEY, base_url=emulator.url, http_session=http) as session,
    ):
        await session.check_key()
        parts = (session, session._transport, session.runs("W"), session.watch("W"), session.run_many("W", []))
        shown = [*map(repr, parts), *map(str, parts), repr(vars(session)), repr(vars(session._transport)), *traced]

    assert any("'***'" in text for text in traced)
    assert leaks(shown, spellings()) == []


async def test_traced_headers_can_be_copied() -> None:
    """A tracing tool can copy the headers of a request, and does not show the key."""
    copies: list[Any] = []

    async def trace(_session: object, _context: object, parameters: aiohttp.TraceRequestStartParams) -> None:
        copies.extend([copy.copy(parameters.headers), copy.deepcopy(dict(parameters.headers))])

    config = aiohttp.TraceConfig()
    config.on_request_start.append(trace)
    async with (
        Emulator(api_key=KEY) as emulator,
        aiohttp.ClientSession(trace_configs=[config]) as http,
        CopyAISession(KEY, base_url=emulator.url, http_session=http) as session,
    ):
        await session.check_key()

    assert [copied["x-copy-ai-api-key"] for copied in copies] == [KEY, KEY]
    assert leaks([repr(copied) for copied in copies], spellings()) == []


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_session_is_neither_pickled_nor_copied(duplicate: Callable[[object], object]) -> None:
    """A session cannot be pickled or copied, so that the key is not stored in a file or a task graph."""
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        duplicate(CopyAISession(KEY))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret(KEY))


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        (f"{KEY}\n", {}),
        (f" {KEY}", {}),
        (f"{KEY}\r\nHost: elsewhere", {}),
        (f"{KEY}\x00", {}),
        (f"{KEY}ü", {}),
        (KEY, {"base_url": "ftp://x"}),
        (KEY, {"timeout": -1}),
        (KEY, {"max_rate": "fast"}),
        (KEY, {"retry": 0}),
    ],
)
def test_a_failed_construction_does_not_show_the_key(key: str, arguments: dict[str, Any]) -> None:
    """If a session cannot be created, neither the error nor the variables in its frames show the key."""
    with pytest.raises(ConfigurationError) as caught:
        CopyAISession(key, **arguments)

    assert leaks(everything_shown(caught.value), spellings()) == []


def test_a_half_constructed_session_has_a_repr() -> None:
    """A session whose constructor has failed has a repr, for debuggers that show the variables of a frame."""
    session = CopyAISession.__new__(CopyAISession)

    assert repr(session) == "<CopyAISession: invalid>"


async def test_an_unclosed_session_does_not_show_the_key() -> None:
    """The warning about a session that was not closed does not show the key."""
    async with Emulator(api_key=KEY) as emulator:
        session = CopyAISession(KEY, base_url=emulator.url)
        await session.check_key()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            shown: list[str] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: shown.append(repr(context)))
            del session
            gc.collect()
            # A warning refers to its object; without the warning, the object's own parts are collected too.
            shown += [str(warning.message) for warning in caught]
            caught.clear()
            gc.collect()
            shown += [str(warning.message) for warning in caught]

    assert shown
    assert leaks(shown, spellings()) == []


@pytest.mark.parametrize("call", [lambda s: s.check_key(), lambda s: s.start_run("W", {})], ids=["GET", "POST"])
async def test_the_environment_is_ignored(
    call: Callable[[CopyAISession], Awaitable[object]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By default, the proxies and logins of the environment are not used."""
    set_environment(monkeypatch, tmp_path)
    async with Emulator(workflow_id="W", api_key=KEY) as emulator, Emulator() as proxy:
        set_proxy(monkeypatch, proxy.url)
        async with CopyAISession(KEY, base_url=emulator.url) as session:
            await call(session)

    (request,) = emulator.requests
    assert proxy.requests == []
    assert not {"authorization", "proxy-authorization", "cookie"} & set(request.headers)
    assert KEY not in request.path


async def test_no_proxy_is_used_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without `trust_env`, a request to another machine is not sent to the proxy in the environment."""
    set_environment(monkeypatch, tmp_path)
    async with rejecting_proxy() as (proxy_url, heads):
        set_proxy(monkeypatch, proxy_url)
        async with CopyAISession(KEY, base_url="https://copyai.invalid/api", retry=1) as session:
            with pytest.raises(APIConnectionError):
                await session.check_key()

    assert heads == []


async def test_trust_env_uses_only_the_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With `trust_env`, the proxy in the environment is used, NO_PROXY is respected, and no login is sent."""
    set_environment(monkeypatch, tmp_path)
    async with rejecting_proxy() as (proxy_url, heads):
        set_proxy(monkeypatch, proxy_url)
        for direct in ("", "copyai.invalid"):
            monkeypatch.setenv("NO_PROXY", f"example.com,{direct}")
            async with CopyAISession(KEY, base_url="https://copyai.invalid/api", trust_env=True, retry=1) as session:
                with pytest.raises(APIConnectionError):
                    await session.check_key()

    (head,) = heads
    assert head.startswith("CONNECT copyai.invalid:443 ")
    assert "authorization" not in head.lower()
    assert leaks([head], spellings()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_no_proxy_receives_the_key_for_a_loopback_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str
) -> None:
    """Requests to this machine do not go through a proxy, which would receive the key unencrypted."""
    set_environment(monkeypatch, tmp_path)
    async with Emulator(api_key=KEY) as emulator, Emulator() as proxy:
        set_proxy(monkeypatch, proxy.url)
        url = emulator.url.replace("127.0.0.1", host)
        async with CopyAISession(KEY, base_url=url, trust_env=True) as session:
            await session.check_key()

    assert len(emulator.requests) == 1
    assert proxy.requests == []


@pytest.mark.parametrize("proxy", ["socks5://me:password@localhost:1", "http://", "http://[me:password"])
def test_an_invalid_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """An invalid proxy raises a `ConfigurationError` without the proxy's password."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY must be an http") as caught:
        CopyAISession(KEY, trust_env=True)

    assert "password" not in str(caught.value)


async def test_trust_env_with_http_session() -> None:
    """`trust_env` is rejected together with `http_session`, which has its own setting."""
    async with aiohttp.ClientSession() as http:
        with pytest.raises(ConfigurationError, match="trust_env cannot be combined with http_session"):
            CopyAISession(KEY, http_session=http, trust_env=True)


def set_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set a login for the server in a netrc file, and unset NO_PROXY."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password netrc-secret\n", "ascii")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("NO_PROXY", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


def set_proxy(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Set a proxy in the environment."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, url.removesuffix("/api"))


def test_no_webhook_secret_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """A receiver's secret, and a webhook's URL, which may contain it, are not shown."""
    receiver = WebhookReceiver(CopyAISession(KEY), lambda event: ignore(event), secret="s3cret-" * 4)  # noqa: PLW0108
    with pytest.raises(ValueError, match="url must be") as caught:
        asyncio.run(CopyAISession(KEY).create_webhook("ftp://example.com/s3cret-path", "workflowRun.failed"))

    assert leaks([repr(receiver), str(receiver), str(caught.value), caplog.text], ["s3cret", *spellings()]) == []


@pytest.mark.parametrize(
    "arguments",
    [{"secret": "s3cret-!"}, {"secret": "s3cret-" * 4, "max_body": 0}, {"secret": "s3cret-" * 4, "grace": -1}],
)
def test_a_failed_construction_does_not_show_the_webhook_secret(arguments: dict[str, Any]) -> None:
    """If a receiver cannot be created, neither the error nor the variables in its frames show the secret."""
    with pytest.raises(ValueError, match="must be") as caught:
        WebhookReceiver(CopyAISession(KEY), ignore, **arguments)

    assert leaks(everything_shown(caught.value), ["s3cret"]) == []


async def ignore(_event: WebhookEvent) -> None:
    """Do nothing."""


def test_a_secret_is_masked() -> None:
    """A secret equals its string, but its `repr` and those of its substrings are masked."""
    secret = Secret(KEY)

    assert (f"{secret}", secret.encode(), secret) == (KEY, KEY.encode(), KEY)
    assert repr({"x": secret, "y": secret[:4], "z": secret[0]}) == "{'x': '***', 'y': '***', 'z': '***'}"
    assert f"{secret!r}" == "'***'"
    assert secret[2:8] == KEY[2:8]


@given(JSON_VALUES, st.sampled_from([KEY, "k", "\\", "\\\\x", base64.b64encode(b"\xff" * 9).decode()]), st.booleans())
def test_redacted_json_does_not_contain_the_key(value: Any, key: str, ascii_only: bool) -> None:  # noqa: ANN401, FBT001 (any JSON; drawn)
    """JSON does not contain the key after redaction, neither as bytes nor parsed."""
    body = json.dumps([value, f"<{key}>"], ensure_ascii=ascii_only).encode(errors="replace")
    clean = redact(body, key)
    try:
        shown = "\n".join(strings_of(parse_json(clean)))
    except InvalidResponseError:  # Python writes infinities, and JSON has none
        shown = "" if key.startswith("\\") else clean.decode()

    assert key not in shown.replace("***", "")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), min_size=1), st.data())
def test_any_spelling_is_redacted(key: str, data: st.DataObject) -> None:
    """Any mixture of the escapes of JSON, URLs and HTML for the characters of a key is redacted."""
    escapes: list[Callable[[str], str]] = [
        str,
        str.swapcase,
        lambda c: f"\\u{ord(c):04x}",
        lambda c: f"\\\\u{ord(c):04X}",
        lambda c: f"%{ord(c):02x}",
        lambda c: f"&#{ord(c)};",
        lambda c: f"&#x{ord(c):X};",
    ]
    spelled = "".join(data.draw(st.sampled_from(escapes))(c) for c in key)

    assert redact(f" {spelled} ", key).strip(" \\") == "***"
    assert redact(f" {spelled} ".encode(), key).strip(b" \\") == b"***"


@pytest.mark.parametrize("data", ['{"a": 1}', b'{"a": 1}', KEY[:7], b"\xff\x00"])
def test_data_without_the_key_is_unchanged(data: Any) -> None:  # noqa: ANN401 (text or bytes)
    """Data without the key is the same object after redaction."""
    assert redact(data, KEY) is data


def test_a_beginning_of_a_long_key_is_redacted() -> None:
    """The beginning of a long key is redacted, as the rest may be truncated. The beginning of a short key is not."""
    key = "b9c1f7d0-3a52-4e0b-8f55-0123456789ab"

    assert redact(f"got '{key[:20]}…", key) == "got '***…"
    assert redact("emulator and emulated", "emulator-key") == "emulator and emulated"


@pytest.mark.parametrize("body", [b"\\" * 2**18, KEY[:-1].encode() * 2**12, b"\\u0061" * 2**15])
@pytest.mark.parametrize("key", [KEY, "\\" * 40, "a" * 40, "a\\" * 20])
def test_redaction_takes_linear_time(body: bytes, key: str) -> None:
    """The search for a key takes linear time for any body, unlike one that backtracks."""
    started = time.process_time()
    redact(body, key)

    assert time.process_time() - started < 5


def strings_of(value: Any) -> Iterator[str]:  # noqa: ANN401 (any JSON)
    """Yield all strings in a JSON value, names included."""
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from strings_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_of(inner)
    elif isinstance(value, str):
        yield value
