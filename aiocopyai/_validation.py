"""Checks of arguments, before any request is sent.

Each check raises a `ValueError`, or the subclass passed as `error`, with the accepted values and the actual value:
``page_size must be between 1 and 100, got 101``.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from datetime import datetime, timedelta
from inspect import iscoroutinefunction
from typing import Final, cast
from urllib.parse import quote

from yarl import URL

from aiocopyai._json import encode_json
from aiocopyai._text import excerpt
from aiocopyai.errors import ConfigurationError
from aiocopyai.models import JSON


MAX_PAGE_SIZE: Final = 100
"""The largest page size that the API reference allows."""
_MIN_RATE: Final = 1e-9
"""The minimum requests per second. Smaller rates would overflow the clock."""

_CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ID_EXAMPLES: Final = {"workflow_id": "WCFG-6db59f06-…", "run_id": "WRUN-6fe9e53c-…"}
_OTHER_ID: Final = {"workflow_id": (("WRUN-",), "a run's id"), "run_id": (("WCFG-", "PKGW-"), "a workflow's id")}
"""The prefixes of ids that are easily confused with the expected id."""


def check_integer(
    name: str, value: int, minimum: int, maximum: int | None = None, *, error: type[ValueError] = ValueError
) -> None:
    """Check that a value is an integer in a range. The default `maximum` is that of a 64-bit integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise error(f"{name} must be an integer, got {excerpt(value)}")
    if maximum is None and value < minimum:
        raise error(f"{name} must be at least {minimum}, got {excerpt(value)}")
    if maximum is None and value > sys.maxsize:
        raise error(f"{name} must be at most {sys.maxsize}, got {excerpt(value)}")
    if maximum is not None and not minimum <= value <= maximum:
        raise error(f"{name} must be between {minimum} and {maximum}, got {excerpt(value)}")


def check_page_size(name: str, value: int) -> None:
    """Check that the API accepts a page size."""
    check_integer(name, value, 1, MAX_PAGE_SIZE)


def check_positive(
    name: str, value: float, unit: str = "seconds", *, zero: bool = False, error: type[ValueError] = ValueError
) -> None:
    """Check that a value is a finite number greater than 0, or with `zero`, 0 or more."""
    try:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the range of a float
        if value > 0:
            raise error(f"{name} must be at most 1.79e+308, got {excerpt(value)}") from None
        is_number = False
    if not is_number or value < 0 or (value == 0 and not zero):
        accepted = "a number" if zero else "a positive number"
        raise error(f"{name} must be {accepted} of {unit}{', 0 or more' if zero else ''}, got {excerpt(value)}")


def check_rate(name: str, value: float) -> None:
    """Check that a value is a rate in requests per second."""
    check_positive(name, value, "requests per second, or None", error=ConfigurationError)
    if value < _MIN_RATE:
        raise ConfigurationError(f"{name} must be at least {_MIN_RATE:g} requests per second, got {value:g}")


def check_datetime(name: str, value: datetime | None) -> None:
    """Check that a value is a datetime with a time zone, or None."""
    if value is None:
        return
    # NaT of pandas is an instance of datetime, and not equal to itself.
    if not isinstance(value, datetime) or value != value or value.utcoffset() is None:  # noqa: PLR0124 (see above)
        example = "datetime(2026, 1, 1, tzinfo=UTC)"
        raise ValueError(f"{name} must be a datetime with a time zone, such as {example}, got {excerpt(value)}")


def check_timedelta(name: str, value: timedelta, *, zero: bool = False) -> None:
    """Check that a value is a positive timedelta, or with `zero`, one of 0 or more."""
    if not isinstance(value, timedelta) or value < timedelta(0) or (not value and not zero):
        accepted = "a timedelta of 0 or more" if zero else "a positive timedelta"
        raise ValueError(f"{name} must be {accepted}, such as timedelta(days=1), got {excerpt(value)}")


def check_string(name: str, value: str) -> None:
    """Check that a value is a non-empty string."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a non-empty string, got {excerpt(value)}")


def check_webhook(url: str, event_type: str, workflow_id: str | None) -> None:
    """Check the arguments of a webhook. Errors omit the URL, because it often contains a secret."""
    try:
        is_valid = URL(url).host is not None and URL(url).scheme in {"http", "https"}
    except (ValueError, TypeError):
        is_valid = False
    if not is_valid:
        raise ValueError("url must be an http(s) URL such as 'https://example.com/hook'")
    check_string("event_type", event_type)
    if workflow_id is not None:
        path_segment("workflow_id", workflow_id)


def check_api_key(value: str) -> None:
    """Check that an API key can be sent in a header. Errors omit the key."""
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigurationError("the API key must be printable ASCII without spaces: check for a trailing line break")


def normalized_base_url(value: str) -> str:
    """Check a base URL, and return it without a trailing slash.

    Raises:
        ConfigurationError: the URL is invalid. The error omits it, because it may contain a password.
    """
    try:
        url = URL(value)
    except (ValueError, TypeError):
        url = URL()
    if not url.host or url.scheme not in {"http", "https"}:
        raise ConfigurationError("base_url must be an http(s) URL such as 'https://api.copy.ai/api'")
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        raise ConfigurationError("base_url must not contain a user, password, query or fragment")
    if url.scheme == "http" and not is_loopback(url.host):
        raise ConfigurationError(f"base_url would send the API key without encryption to {url.host}: use https")
    return str(url).rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host is `localhost` or a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_rows(value: object) -> None:
    """Check that rows are an iterable of mappings, and not a single mapping."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable | AsyncIterable):
        raise ValueError(  # noqa: TRY004 (every invalid argument is a ValueError)
            "rows must be an iterable of mappings, one for each run; pass a single run as [inputs]"
        )


def check_callback(name: str, value: object, *, error: type[ValueError] = ValueError) -> None:
    """Check that a value is None or a synchronous function."""
    if value is not None and (not callable(value) or iscoroutinefunction(value)):
        raise error(f"{name} must be a synchronous function, got {excerpt(value)}")


def json_object(name: str, value: object) -> dict[str, JSON]:
    """Convert a mapping to JSON and back, and return the result.

    Raises:
        ValueError: it is not a mapping, or a value in it is not JSON.
    """
    if not isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004 (every invalid argument is a ValueError)
            f"{name} must be a mapping of names to JSON values, got {excerpt(value)}"
        )
    return cast("dict[str, JSON]", json.loads(encode_json(name, cast("Mapping[str, object]", value))))


def path_segment(name: str, value: str) -> str:
    """Return an id as a percent-encoded segment of a path.

    The format of ids is not checked, except that a run's id is not accepted as a workflow's id, or the reverse.

    Raises:
        ValueError: it is not a string, is empty, ``.`` or ``..``, has control characters, or is of the wrong kind.
    """
    example = _ID_EXAMPLES.get(name, "6db59f06-…")
    if not isinstance(value, str) or not value or value in {".", ".."} or _CONTROL_CHARACTERS.search(value):
        raise ValueError(f"{name} must be an id such as {example!r}, got {excerpt(value)}")
    prefixes, kind = _OTHER_ID.get(name, ((), ""))
    if value.startswith(prefixes):
        raise ValueError(f"{name} must be an id such as {example!r}, got {kind}: {excerpt(value)}")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"{name} must not contain a lone surrogate, got {excerpt(value)}") from None
