"""Requests, responses and JSON as plain values. The server is in `_emulator`, and the calls are in `_routes`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

from aiohttp import web
from attrs import field, frozen
from yarl import URL

from aiocopyai.emulator._argument_checks import bounded_repr


JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""Any JSON value, as `json.loads` returns it."""

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
# An accepted body is copied and encoded again, which takes up to two stack frames for each level.
_MAX_DEPTH: Final = 200


def encode_with_stdlib(value: JSON) -> bytes:
    """Encode a value as UTF-8 JSON with the standard library, which accepts any integer and lone surrogates."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate cannot be encoded in UTF-8; backslashreplace writes it as a JSON escape.
    return text.encode("utf-8", "backslashreplace")


_encode_fast: Final[Callable[[JSON], bytes]] = (
    import_module("msgspec.json").encode if find_spec("msgspec") else encode_with_stdlib
)


def encode_json(value: JSON) -> bytes:
    """Encode a value as UTF-8 JSON, with msgspec if it is installed."""
    try:
        return _encode_fast(value)
    except (TypeError, ValueError, RecursionError):
        # msgspec rejects lone surrogates and deep nesting, which a malformed run may contain, and subclasses of `str`.
        return encode_with_stdlib(value)


def decode_json(raw: bytes) -> JSON:
    """Decode a request's body; None if it is not JSON or is nested more than 200 levels deep."""
    try:
        value: JSON = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return None if _is_deeper_than(_MAX_DEPTH, value) else value


def _is_deeper_than(levels: int, value: JSON) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [
            child
            for item in layer
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not layer:
            return False
    return any(isinstance(item, dict | list) for item in layer)


@frozen(kw_only=True)
class Request:
    """A request that the emulator received, whether it was accepted or rejected.

    Attributes:
        number: the position among all requests, starting at 1.
        method: the HTTP method, in capitals.
        path: the path as sent, still percent-encoded, without the query.
        query: the query parameters, decoded; the last value if a name is repeated.
        headers: the headers, with names in lower case. They contain the API key, and are not part of the `repr`.
        page: the `page` parameter; None if it is missing or not an integer.
        size: the `size` parameter; None if it is missing or not an integer.
        body: the decoded body; None if it is missing, not JSON, or nested more than 200 levels deep.
    """

    number: int
    method: str
    path: str = field(repr=bounded_repr)
    query: dict[str, str] = field(repr=bounded_repr)
    headers: dict[str, str] = field(repr=False)
    page: int | None
    size: int | None
    body: Any = field(repr=bounded_repr)


def to_integer(text: str | None) -> int | None:
    """Parse a query parameter; None if it is missing or not an integer."""
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None


def make_request(web_request: web.BaseRequest, body: bytes, number: int) -> Request:
    """Build the record of a request whose body has been read."""
    path, _, query_string = web_request.raw_path.partition("?")
    query = dict(parse_qsl(query_string, keep_blank_values=True))
    return Request(
        number=number,
        method=web_request.method,
        path=path,
        query=query,
        headers={name.lower(): value for name, value in web_request.headers.items()},
        page=to_integer(query.get("page")),
        size=to_integer(query.get("size")),
        body=decode_json(body),
    )


def is_loopback_url(url: str) -> bool:
    """Return whether the host of a URL is on the loopback interface."""
    try:
        host = URL(url).host or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@frozen
class EmulatorResponse:
    """A response to send. By default, its body is JSON."""

    status: int
    body: bytes
    content_type: str = "application/json; charset=utf-8"


class HTTPError(Exception):
    """Raised to end a call with an error response."""

    def __init__(self, response: EmulatorResponse) -> None:
        super().__init__(response)
        self.response = response


def success(data: JSON) -> EmulatorResponse:
    """Wrap the result of a call in the envelope that most calls use."""
    return EmulatorResponse(200, encode_json({"status": "success", "data": data}))


def error(status: int, code: str, **details: JSON) -> HTTPError:
    """Build an error with the documented body; `details` are those of a 422."""
    body: dict[str, JSON] = {"status": "error", "errorCode": code}
    if details:
        body["details"] = details
    return HTTPError(EmulatorResponse(status, encode_json(body)))


def not_found() -> HTTPError:
    """Build the 404 for an unknown call, workflow, run or webhook."""
    return error(404, "NOT_FOUND")


def empty_400() -> HTTPError:
    """Build the 400 with the body `{}`, which the reference shows for both lists."""
    return HTTPError(EmulatorResponse(400, b"{}"))
