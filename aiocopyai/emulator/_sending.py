"""Sending an answer over the socket: whole, in drips, cut short, or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from aiohttp import web
from aiohttp.hdrs import CONTENT_TYPE

from aiocopyai.emulator._answers import Answer
from aiocopyai.emulator._faults import Fault
from aiocopyai.emulator._json import encode


_PIECES: Final = 16


def faulty_answer(fault: Fault) -> Answer:
    """Give the answer of a fault that has a status or a body."""
    status = 200 if fault.status is None else fault.status
    if isinstance(fault.body, bytes):
        return Answer(status, fault.body)
    return Answer(status, encode({} if fault.body is None else fault.body))


async def send(http: web.BaseRequest, answer: Answer, fault: Fault) -> web.StreamResponse:
    """Send an answer as a fault wants it."""
    headers = {CONTENT_TYPE: answer.content_type}
    if fault.truncate is None and not fault.drip:
        whole = web.Response(status=answer.status, body=answer.body, headers=headers)
        whole.headers.update(fault.headers)
        return whole
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.headers.update(fault.headers)
    response.content_length = len(answer.body)
    if fault.truncate is not None:
        response.force_close()
    await response.prepare(http)
    await _drip(response, answer.body[: fault.truncate], fault.drip)
    return response


async def _drip(response: web.StreamResponse, body: bytes, seconds: float) -> None:
    length = max(1, -(-len(body) // _PIECES)) if seconds else max(1, len(body))
    for start in range(0, len(body), length):
        if seconds:
            await asyncio.sleep(seconds)
        await response.write(body[start : start + length])


def drop(http: web.BaseRequest) -> web.StreamResponse:
    """Reset the connection; what is given back goes nowhere."""
    transport = http.transport
    if transport is not None:
        # Lingering for no time makes the close a reset, also where everything has been read.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()
