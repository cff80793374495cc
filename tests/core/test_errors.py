"""Tests of the error classes: their tree, their attributes and their messages."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from aiocopyai import errors
from aiocopyai.errors import (
    AmbiguousStartError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    ConfigurationError,
    CopyAIError,
    CreditLimitReachedError,
    InvalidEventError,
    InvalidResponseError,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RateLimitedError,
    RequestInfo,
    RunFailedError,
    RunTimeoutError,
    ServerError,
    status_error,
)
from aiocopyai.models import Run, RunStatus


STATUS_ERRORS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, APIStatusError)]
EXAMPLES: list[CopyAIError] = [
    ConfigurationError("no key"),
    APIConnectionError("refused", RequestInfo("GET", "https://h/x", 3), False),  # noqa: FBT003 (as pickling passes it)
    APITimeoutError("no complete response within 30 s", RequestInfo("GET", "https://h/x", 2)),
    InvalidResponseError("no object", "data.data[3]", "'x'", RequestInfo("GET", "https://h/x", 2), True),  # noqa: FBT003
    PaginationError("the list does not advance"),
    AmbiguousStartError("the response was lost", "WCFG-1", "key-1"),
    RunFailedError(Run("WRUN-1", error={"why": "no credits"})),
    RunTimeoutError("WCFG-1", "WRUN-1", 60.0, RunStatus("PAUSED")),
    InvalidEventError("no object", "[1, 2]"),
    *(
        cls(418, "CODE", {"url": ["bad"]}, {"a": 1}, {"x-a": "b"}, RequestInfo("GET", "https://h/x", 2), 1.5)
        for cls in STATUS_ERRORS
    ),
]


def test_tree_is_complete() -> None:
    """Every error has the base class, is in the tree of the module's docstring, and has an example in this file."""
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]

    assert all(issubclass(cls, CopyAIError) for cls in classes)
    assert all(cls.__name__ in (errors.__doc__ or "") for cls in classes)
    assert set(classes) - {CopyAIError} == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_are_plain_data(error: CopyAIError) -> None:
    """Each error can be pickled and copied with all its attributes, including its page."""
    error.page = 7
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 (our own)
        assert type(twin) is type(error)
        assert (twin.args, twin.__dict__, str(twin)) == (error.args, error.__dict__, str(error))


def test_builtin_bases() -> None:
    """Time-outs are also `TimeoutError`s. Errors of the configuration or of an event are also `ValueError`s."""
    assert issubclass(APITimeoutError, TimeoutError)
    assert issubclass(RunTimeoutError, TimeoutError)
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(InvalidEventError, ValueError)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (302, None, "APIStatusError"),
        (400, None, "BadRequestError"),
        (400, "WORKFLOW_CREDIT_LIMIT_REACHED", "CreditLimitReachedError"),
        (401, None, "AuthenticationError"),
        (403, None, "PermissionDeniedError"),
        (404, "NOT_FOUND", "NotFoundError"),
        (408, None, "APIStatusError"),
        (422, "REQUEST_INVALID", "RequestInvalidError"),
        (429, None, "RateLimitedError"),
        (500, None, "ServerError"),
        (599, "WORKFLOW_CREDIT_LIMIT_REACHED", "ServerError"),
    ],
)
def test_status_to_class(status: int, code: str | None, expected: str) -> None:
    """Each status has its class, and `CreditLimitReachedError` is a subclass of `BadRequestError`."""
    assert status_error(status, code).__name__ == expected
    assert issubclass(CreditLimitReachedError, BadRequestError)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (CopyAIError(), False),
        (APIConnectionError("reset"), True),
        (APIConnectionError("certificate", None, False), False),  # noqa: FBT003
        (APITimeoutError("late"), True),
        (InvalidResponseError("shape"), False),
        (InvalidResponseError("no JSON", retryable=True), True),
        (APIStatusError(408), True),
        (RateLimitedError(429), True),
        (ServerError(503), True),
        (NotFoundError(404), False),
    ],
)
def test_retryable(error: CopyAIError, retryable: bool) -> None:  # noqa: FBT001
    """Only errors that may be temporary are retryable."""
    assert error.retryable is retryable


GET = RequestInfo("GET", "https://h/x")
GET_TWICE = RequestInfo("GET", "https://h/x", 2)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CopyAIError(), "CopyAIError"),
        (
            NotFoundError(404, "NOT_FOUND", request=GET),
            "HTTP 404 NOT_FOUND (GET https://h/x); check the id, and that the key belongs to the same workspace",
        ),
        (APIStatusError(409, details={"url": ["bad"]}), "HTTP 409: {'url': ['bad']}"),
        (
            APIStatusError(307, headers={"location": "https://elsewhere"}, request=GET),
            "HTTP 307 (GET https://h/x); redirect to https://elsewhere not followed: check base_url",
        ),
        (
            RateLimitedError(429, request=GET_TWICE, retry_after=1.5),
            "HTTP 429 (GET https://h/x, 2 attempts); the server asks to wait 1.5 s; lower max_rate or prefetch",
        ),
        (
            ServerError(503, request=GET, retry_after=86_400 * 365),
            "HTTP 503 (GET https://h/x); the server asks to wait 31536000 s",
        ),
        (
            PermissionDeniedError(403, retry_after=60),
            (
                "HTTP 403; the server asks to wait 60 s; "
                "the key lacks the permission; keys are created by a workspace's Owner or Admin"
            ),
        ),
        (
            InvalidResponseError("no object", "data.data[3]", "'x'", GET_TWICE),
            "data.data[3]: no object, got 'x' (GET https://h/x, 2 attempts)",
        ),
        (APIConnectionError("OSError: refused", GET), "OSError: refused (GET https://h/x)"),
        (
            RunTimeoutError("W", "WRUN-1", 2.0, RunStatus.PROCESSING),
            "run WRUN-1 is still PROCESSING after 2 s; call wait_run() to keep waiting",
        ),
        (
            RunTimeoutError("W", "WRUN-1", 2.0),
            "run WRUN-1 has no status after 2 s; call wait_run() to keep waiting",
        ),
        (RunFailedError(Run("WRUN-1", error="no site")), "run WRUN-1 failed: 'no site'"),
        (RunFailedError(Run("WRUN-1")), "run WRUN-1 failed without an error message"),
        (
            AmbiguousStartError("HTTP 503", "W", "k"),
            "a run of W may have been started: HTTP 503; search for it later: call find_run() with the key 'k'",
        ),
        (
            AmbiguousStartError("HTTP 503", "W"),
            (
                "a run of W may have been started: HTTP 503; check the newest runs before you start it again, or pass "
                "an idempotency_key to automate this"
            ),
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_messages(error: CopyAIError, text: str) -> None:
    """A message says what went wrong, where, in which request, after how many attempts, and what to do."""
    assert str(error) == text
    assert text.startswith(error.summary)


def test_the_page_comes_first() -> None:
    """The message of an error while listing begins with the page. The summary has no page, request or advice."""
    error = NotFoundError(404, "NOT_FOUND", request=GET)
    error.page = 3

    assert str(error).startswith("page 3: HTTP 404 NOT_FOUND (GET https://h/x)")
    assert error.summary == "HTTP 404 NOT_FOUND"


def test_the_request_of_an_error() -> None:
    """An error has the method, URL and attempts of its request, or None if it has no request."""
    error = APIConnectionError("reset", GET_TWICE)

    assert (error.method, error.url, error.attempts) == ("GET", "https://h/x", 2)
    assert (CopyAIError().method, CopyAIError().url, CopyAIError().attempts) == ("", "", 1)


def test_repr_is_short() -> None:
    """The `repr` is the class and the message, and is short for any data from the server or the caller."""
    long = "x" * 100_000
    error = BadRequestError(400, long, {"a": long}, long, {"x-a": long}, RequestInfo("GET", f"https://h/{long}"))
    error.page = 3

    assert repr(error).startswith('BadRequestError("page 3: HTTP 400 xxx')
    assert len(repr(error)) < 1_100
