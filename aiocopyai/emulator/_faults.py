"""Injected faults: which requests they apply to, and how they change the responses."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Mapping
from math import ceil, inf
from typing import Any, Final, Literal

from aiohttp import web
from aiohttp.hdrs import CONTENT_TYPE
from attrs import define, field, frozen

from aiocopyai.emulator._argument_checks import (
    bounded_repr,
    check_choice,
    check_integer,
    check_json,
    check_seconds,
    short_repr,
)
from aiocopyai.emulator._messages import EmulatorResponse, Request, encode_json


_DRIP_PIECES: Final = 16
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE_BREAK: Final = re.compile(r"[\r\n]")


@frozen(kw_only=True)
class Fault:
    """A fault of a request, for `Emulator.inject`.

    A fault with a `status` or a `body` replaces the response, and the call is not executed. With `reset="before"`, the
    call is not executed either. Any other fault changes how the normal response is sent. All fields can be combined,
    but only `delay` can be combined with `reset`, which sends no response.

    Attributes:
        status: the HTTP status, 200 to 999; 200 if only a `body` is given.
        body: the body: JSON, or bytes that are sent unchanged; `{}` if only a `status` is given. The reference does not
            show bodies for 401, 403, 429 and 5xx.
        headers: headers to add to the response or to replace in it.
        delay: seconds to wait between executing the call and responding; `math.inf` for no response at all.
        reset: reset the TCP connection instead of responding: before the call is executed, or after.
        truncate: send a `Content-Length` for the whole body, but only this many bytes of it, and close the connection.
        drip: send the body in 16 pieces, with this many seconds before each.

    Raises:
        ValueError: a value is invalid, or a field has no effect because of `reset`.
    """

    status: int | None = None
    body: Any = field(default=None, repr=bounded_repr)
    headers: Mapping[str, str] = field(factory=dict[str, str], repr=bounded_repr)
    delay: float = 0.0
    reset: Literal["before", "after"] | None = None
    truncate: int | None = None
    drip: float = 0.0

    def __attrs_post_init__(self) -> None:
        if self.status is not None:
            check_integer("status", self.status, 200, 999)
        if not isinstance(self.body, bytes):
            check_json("body", self.body)
        _check_headers(self.headers)
        check_seconds("delay", self.delay)
        if self.truncate is not None:
            check_integer("truncate", self.truncate, 0)
        check_seconds("drip", self.drip)
        if self.reset is None:
            return
        check_choice("reset", self.reset, ("before", "after"))
        is_used = {
            "status": self.status is not None,
            "body": self.body is not None,
            "headers": bool(self.headers),
            "truncate": self.truncate is not None,
            "drip": bool(self.drip),
        }
        if unused := [name for name, is_given in is_used.items() if is_given]:
            raise ValueError(f"reset sends no response, so {', '.join(unused)} must not be given")

    @property
    def skips_call(self) -> bool:
        """Whether the call is not executed."""
        return self.status is not None or self.body is not None or self.reset == "before"


def _check_headers(headers: Mapping[str, str]) -> None:
    """Check that headers can be sent."""
    if not isinstance(headers, Mapping):
        raise ValueError(f"headers must be a mapping of names to strings, got {short_repr(headers)}")  # noqa: TRY004 (as in the client)
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"headers must have valid names, got {short_repr(name)}")
        if not isinstance(value, str) or _LINE_BREAK.search(value):
            raise ValueError(f"headers[{name!r}] must be a string on one line, got {short_repr(value)}")


@define(eq=False)
class _InjectedFault:
    """A fault for the next `remaining` matching requests; a condition of None matches any."""

    fault: Fault
    remaining: float
    method: str | None
    path: str | None
    page: int | None

    def matches(self, request: Request) -> bool:
        return (
            (self.method is None or self.method.upper() == request.method)
            and (self.path is None or self.path in request.path)
            and (self.page is None or self.page == request.page)
        )


@define
class FaultQueue:
    """The injected faults, in the order in which they were injected."""

    _injected: list[_InjectedFault] = field(factory=list[_InjectedFault])

    def add(self, fault: Fault, *, times: int | None, method: str | None, path: str | None, page: int | None) -> None:
        """Apply a fault to the next `times` matching requests, or to all of them if None."""
        self._injected.append(_InjectedFault(fault, inf if times is None else times, method, path, page))

    def take(self, request: Request) -> Fault:
        """Return the first fault that matches a request, and count its use; or a fault without effect."""
        for injected in self._injected:
            if injected.matches(request):
                injected.remaining -= 1
                if not injected.remaining:
                    self._injected.remove(injected)
                return injected.fault
        return Fault()


def replacement_response(fault: Fault) -> EmulatorResponse:
    """Return the response of a fault that skips the call."""
    body: Any = {} if fault.body is None else fault.body
    return EmulatorResponse(
        status=200 if fault.status is None else fault.status,
        body=body if isinstance(body, bytes) else encode_json(body),
    )


async def send_response(web_request: web.BaseRequest, response: EmulatorResponse, fault: Fault) -> web.StreamResponse:
    """Send a response with a fault: complete, in pieces, truncated, or not at all."""
    if fault.reset is not None:
        if web_request.transport is not None:
            # With a linger time of 0, closing the socket sends a reset, even if all data has been read.
            linger = struct.pack("ii", 1, 0)
            web_request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            web_request.transport.abort()
        return web.Response()
    headers = {CONTENT_TYPE: response.content_type}
    # A client expects no body here, and would read what aiohttp writes to a stream as the next response.
    has_body = web_request.method != "HEAD" and response.status not in {204, 304}
    if not has_body or (fault.truncate is None and not fault.drip):
        complete = web.Response(status=response.status, body=response.body, headers=headers)
        complete.headers.update(fault.headers)
        return complete
    stream = web.StreamResponse(status=response.status, headers=headers)
    stream.headers.update(fault.headers)
    stream.content_length = len(response.body)
    if fault.truncate is not None:
        stream.force_close()
    await stream.prepare(web_request)
    body = response.body[: fault.truncate]
    length = max(1, ceil(len(body) / (_DRIP_PIECES if fault.drip else 1)))
    for start in range(0, len(body), length):
        if fault.drip:
            await asyncio.sleep(fault.drip)
        await stream.write(body[start : start + length])
    return stream
