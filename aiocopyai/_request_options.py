"""`RequestOptions`: the time-out, retries, headers and hooks of requests. `_transport` applies them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Final, TypeVar

import aiohttp
from attrs import Attribute, field, frozen

from aiocopyai._redaction import Secret
from aiocopyai._retry import RetryPolicy
from aiocopyai._text import bounded_repr, excerpt
from aiocopyai._validation import check_callback, check_integer, check_positive
from aiocopyai.errors import ConfigurationError


T = TypeVar("T")

logger = logging.getLogger("aiocopyai")

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_RESERVED: Final = {
    "accept": "the client sets it",
    "accept-encoding": "the client sets it",
    "authorization": "pass the API key as api_key",
    "connection": "the client sets it",
    "content-encoding": "the client sets it",
    "content-length": "the client sets it",
    "content-type": "the client sets it",
    "host": "the client sets it",
    "transfer-encoding": "the client sets it",
    "user-agent": "pass it as user_agent",
    "x-copy-ai-api-key": "pass the API key as api_key",
}


@frozen
class AttemptInfo:
    """A completed attempt of a request; the argument of `on_request`.

    Attributes:
        method: the HTTP method.
        path: the path below the base URL, percent-encoded and without the query, such as ``/workflow/WCFG-1/run``.
        attempt: the number of the attempt, from 1.
        status: the HTTP status; None if no complete response was received.
        seconds: the duration of the attempt.
    """

    method: str
    path: str = field(repr=bounded_repr)
    attempt: int
    status: int | None
    seconds: float


@frozen
class RetryInfo:
    """A request that will be sent again after a wait; the argument of `on_retry`.

    Attributes:
        method: the HTTP method.
        path: as in `AttemptInfo`.
        attempt: the number of the failed attempt, from 1.
        status: the HTTP status of its response; None if no complete response was received.
        wait: seconds until the next attempt.
        reason: why the attempt failed, on one line.
    """

    method: str
    path: str = field(repr=bounded_repr)
    attempt: int
    status: int | None
    wait: float
    reason: str = field(repr=bounded_repr)


def _timeout(value: float | aiohttp.ClientTimeout | None) -> aiohttp.ClientTimeout:
    if isinstance(value, aiohttp.ClientTimeout):
        for name in ("total", "connect", "sock_connect", "sock_read", "ceil_threshold"):
            if (seconds := getattr(value, name)) is not None:
                check_positive(f"timeout.{name}", seconds, zero=True, error=ConfigurationError)
        return value
    if value is None:
        return aiohttp.ClientTimeout()
    check_positive("timeout", value, "seconds, an aiohttp.ClientTimeout, or None", error=ConfigurationError)
    return aiohttp.ClientTimeout(total=float(value))


def _retry(value: RetryPolicy | int) -> RetryPolicy:
    if isinstance(value, RetryPolicy):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        check_integer("retry", value, 1, error=ConfigurationError)
        return RetryPolicy(attempts=value)
    raise ConfigurationError(
        f"retry must be a number of attempts, or a RetryPolicy such as RetryPolicy(attempts=3), got {excerpt(value)}"
    )


def _headers(value: Mapping[str, str] | None) -> Mapping[str, str]:
    """Check headers, and return them with masked values, because they may be secrets."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError("default_headers must be a mapping of names to strings")
    headers: dict[str, str] = {}
    for name, text in value.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"default_headers must have valid names, got {excerpt(name)}")
        if reason := _RESERVED.get(name.lower()):
            raise ConfigurationError(f"default_headers must not have {name!r}: {reason}")
        headers[name] = Secret(_header_value(f"default_headers[{name!r}]", text))
    return headers


def _user_agent(value: str | None) -> str:
    return f"aiocopyai/{version('aiocopyai')}" if value is None else _header_value("user_agent", value)


def _header_value(name: str, value: str) -> str:
    if not isinstance(value, str) or not value.strip() or not _HEADER_VALUE.fullmatch(value):
        raise ConfigurationError(f"{name} must be a string of printable ASCII on one line")
    return value


def _check_hook(_instance: object, attribute: Attribute[Any], value: object) -> None:
    check_callback(attribute.name, value, error=ConfigurationError)


@frozen(repr=False)  # it would fail for an instance whose constructor raised, as shown by debuggers
class RequestOptions:
    """The options of requests. They are the arguments of `CopyAISession` with the same names, and are checked here."""

    timeout: aiohttp.ClientTimeout = field(converter=_timeout)
    retry: RetryPolicy = field(converter=_retry)
    default_headers: Mapping[str, str] = field(converter=_headers)
    user_agent: str = field(converter=_user_agent)
    on_request: Callable[[AttemptInfo], object] | None = field(validator=_check_hook)
    on_retry: Callable[[RetryInfo], object] | None = field(validator=_check_hook)


def call_hook(hook: Callable[[T], object], value: T) -> None:
    """Call a hook. If it raises an exception, log it; the request is not affected."""
    try:
        hook(value)
    except Exception as error:  # a hook must not affect the request
        error.__suppress_context__ = True  # the context may be an unrelated error of the request
        logger.exception("a hook failed on %r", value)
