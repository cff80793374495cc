"""The error tree: complete, plain data, and clear to read."""

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
    AmbiguousStartError("the answer was lost", "WCFG-1", "key-1"),
    RunFailedError(Run("WRUN-1", error={"why": "no credits"})),
    RunTimeoutError("WCFG-1", "WRUN-1", 60.0, RunStatus("PAUSED")),
    InvalidEventError("no object", "[1, 2]"),
    *(
        cls(418, "CODE", {"url": ["bad"]}, {"a": 1}, {"x-a": "b"}, RequestInfo("GET", "https://h/x", 2), 1.5)
        for cls in STATUS_ERRORS
    ),
]


def test_tree_is_complete() -> None:
    """Every class of the module is under the base, is named in the module's tree, and has an example here."""
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]

    assert all(issubclass(cls, CopyAIError) for cls in classes)
    assert all(cls.__name__ in (errors.__doc__ or "") for cls in classes)
    assert set(classes) - {CopyAIError} == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_are_plain_data(error: CopyAIError) -> None:
    """Each error pickles and copies with all it knows, the page included."""
    error.page = 7
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 (our own)
        assert type(twin) is type(error)
        assert (twin.args, twin.__dict__, str(twin)) == (error.args, error.__dict__, str(error))


def test_builtin_bases() -> None:
    """A time-out is also a `TimeoutError`, and a bad configuration a `ValueError`."""
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
    """Each status has its class; a credit limit is a kind of bad request."""
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
def test_transient(error: CopyAIError, retryable: bool) -> None:  # noqa: FBT001
    """What may pass is worth a retry; what is certain is not."""
    assert error.retryable is retryable


def test_texts() -> None:
    """An error says what, where, for which request, how often tried, and what to do."""
    gone = NotFoundError(404, "NOT_FOUND", None, None, None, RequestInfo("GET", "https://h/x"))
    gone.page = 3
    invalid = InvalidResponseError("no object", "data.data[3]", "'x'", RequestInfo("GET", "https://h/x", 2))
    refused = APIStatusError(422, None, {"url": ["bad"]})

    assert str(gone) == (
        "page 3: HTTP 404 NOT_FOUND (GET https://h/x); check the id, and that the key belongs to the same workspace"
    )
    assert str(invalid) == "data.data[3]: no object, got 'x' (GET https://h/x, 2 attempts)"
    assert "{'url': ['bad']}" in str(refused)
    assert str(CopyAIError()) == "CopyAIError"
