"""One request as the emulator saw it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web
from attrs import frozen

from aiocopyai.emulator._json import JSON, decode


_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")


@frozen(kw_only=True)
class Request:
    """One request that reached the emulator, authorised or not, known call or not."""

    number: int
    """Its place among all requests, from 1."""
    method: str
    """The HTTP method, in capitals."""
    path: str
    """The path as it was sent, still percent-encoded, without the query."""
    query: dict[str, str]
    """The query's parameters, decoded; of a repeated one, the last."""
    headers: dict[str, str]
    """The headers, their names in lower case."""
    page: int | None
    """The parameter `page`; None where it is missing or no integer."""
    size: int | None
    """The parameter `size`; None where it is missing or no integer."""
    body: JSON
    """The body, decoded; None where there is none or it is not JSON."""


def to_integer(text: str | None) -> int | None:
    """Read a query parameter as an integer; None where it is missing or isn't one."""
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None


async def read_body(http: web.BaseRequest) -> bytes:
    """Read a request's whole body."""
    return await http.read() if http.can_read_body else b""


def make_request(http: web.BaseRequest, body: bytes, number: int) -> Request:
    """Make the record of a request whose body has been read."""
    path, _, query_string = http.raw_path.partition("?")
    query = dict(parse_qsl(query_string, keep_blank_values=True))
    return Request(
        number=number,
        method=http.method,
        path=path,
        query=query,
        headers={name.lower(): value for name, value in http.headers.items()},
        page=to_integer(query.get("page")),
        size=to_integer(query.get("size")),
        body=decode(body),
    )
