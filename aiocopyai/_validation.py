"""What a caller passes, checked before anything is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final, cast

from yarl import URL

from aiocopyai._idempotency import KEY_NAME
from aiocopyai._parsing import encode_json
from aiocopyai._retry import RetryPolicy
from aiocopyai.errors import ConfigurationError
from aiocopyai.models import JSON


MAX_PAGE_SIZE: Final = 100
"""The most runs that the vendor's reference lets a page have."""


def check_whole(name: str, value: int, minimum: int) -> None:
    """Raise a ValueError for what is no whole number from `minimum` on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        msg = f"{name} must be a whole number from {minimum} on, not {value!r}"
        raise ValueError(msg)


def check_page_size(name: str, value: int) -> None:
    """Raise a ValueError for what can't be a page's size."""
    check_whole(name, value, 1)
    if value > MAX_PAGE_SIZE:
        msg = f"{name} can be {MAX_PAGE_SIZE} at the most, not {value}"
        raise ValueError(msg)


def check_seconds(name: str, value: float) -> None:
    """Raise a ValueError for what is no positive number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        msg = f"{name} must be a positive number of seconds, not {value!r}"
        raise ValueError(msg)


def check_moment(name: str, value: datetime | None) -> None:
    """Raise a ValueError for a moment without a time zone."""
    if value is not None and (not isinstance(value, datetime) or value.utcoffset() is None):
        msg = f"{name} must be a datetime with a time zone, such as datetime(2026, 1, 1, tzinfo=UTC), not {value!r}"
        raise ValueError(msg)


def check_text(name: str, value: str) -> None:
    """Raise a ValueError for what is no text, or empty."""
    if not isinstance(value, str) or not value:
        msg = f"{name} must be a text that is not empty, not {value!r}"
        raise ValueError(msg)


def check_url(value: str) -> None:
    """Raise a ValueError for what is no address that a webhook can be posted to."""
    try:
        fits = URL(value).host is not None and URL(value).scheme in {"http", "https"}
    except (ValueError, TypeError):
        fits = False
    if not fits:
        # Not shown: such an address often holds a secret.
        msg = "url must be an http(s) address such as 'https://example.com/hook'"
        raise ValueError(msg)


def check_retry(value: object) -> None:
    """Raise a ConfigurationError for what is no policy."""
    if not isinstance(value, RetryPolicy):
        msg = f"retry must be a RetryPolicy, such as RetryPolicy(attempts=3), not {value!r:.80}"
        raise ConfigurationError(msg)


def check_rows(value: object) -> None:
    """Raise a ValueError for one row in the place of many."""
    if isinstance(value, str | bytes | Mapping):
        msg = "rows must be an iterable of mappings, one for each run; for a single run it is [inputs]"
        raise ValueError(msg)  # noqa: TRY004 (every bad argument is a ValueError here)


def as_json_object(name: str, value: object) -> dict[str, JSON]:
    """Return an object as a server will read it, or raise a ValueError where it can't be sent."""
    if not isinstance(value, Mapping):
        msg = f"{name} must be a mapping of names to JSON values, not {value!r:.80}"
        raise ValueError(msg)  # noqa: TRY004 (every bad argument is a ValueError here)
    sent: dict[str, JSON] = json.loads(encode_json(name, dict(cast("Mapping[str, JSON]", value))))
    return sent


def with_key(metadata: dict[str, JSON], key: str | None) -> dict[str, JSON]:
    """Add an idempotency key to a run's metadata, or raise a ValueError where another one stands there."""
    if key is None:
        return metadata
    check_text("idempotency_key", key)
    if metadata.get(KEY_NAME, key) != key:
        msg = f"metadata already has another {KEY_NAME!r} than the idempotency_key"
        raise ValueError(msg)
    return {**metadata, KEY_NAME: key}
