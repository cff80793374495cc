"""The servers of the pages, each in its own process on a loopback port.

nginx serves files to measure CPU time. To measure latency, rate limits or many pages, this file is the server:
``python servers.py --total 1000 --latency 0.05`` prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pages


LOOPBACK: Final = "127.0.0.1"
_REQUEST: Final = re.compile(rb"GET \S*[?&]page=(\d+)")
_NGINX: Final = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000;
    sendfile on;
    tcp_nodelay on;
    open_file_cache max=1000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port};
        root {folder};
        location ~ ^/(small|medium|large)/ {{ try_files /$1/page-$arg_page.json =404; }}
    }}
}}
"""


class NginxMissingError(Exception):
    """nginx is not installed."""


@contextmanager
def nginx(folder: Path) -> Generator[str]:
    """Serve ``<folder>/<size>/page-N.json`` for ``/<size>/…?page=N``, and yield the server's address.

    Raises:
        NginxMissingError: nginx is not installed.
    """
    # On Debian, only root's PATH has the folder of nginx.
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        raise NginxMissingError
    port = _free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, host=LOOPBACK, port=port))
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    with _running(command) as process:
        _wait_for(port, process)
        yield f"http://{LOOPBACK}:{port}"


@contextmanager
def page_server(total: int, *, latency: float = 0.0, size: pages.Size = "medium", rate: float = 0.0) -> Generator[str]:
    """Serve `total` runs, delay each response by `latency` seconds, and yield the base URL.

    With a `rate`, the server accepts that number of requests per second, and responds to others with a 429 and
    ``Retry-After: 1``.
    """
    options = ("--total", str(total), "--latency", str(latency), "--size", size, "--rate", str(rate))
    with _running([sys.executable, __file__, *options]) as process:
        if process.stdout is None:
            raise AssertionError
        yield f"http://{LOOPBACK}:{int(process.stdout.readline())}/api"


@contextmanager
def body_server(body: bytes, encoding: str = "identity") -> Generator[str]:
    """Serve the same body for every request, and yield the base URL."""
    with _running([sys.executable, __file__, "--body", encoding], stdin=subprocess.PIPE) as process:
        if process.stdout is None or process.stdin is None:
            raise AssertionError
        process.stdin.buffer.write(body)  # type: ignore[attr-defined]  # a text stream over a pipe has a buffer
        process.stdin.close()
        yield f"http://{LOOPBACK}:{int(process.stdout.readline())}/api"


@contextmanager
def _running(command: list[str], stdin: int | None = None) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 (our own)
        try:
            yield process
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[str], timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError("nginx did not start")


class _Responder(asyncio.Protocol):
    """A minimal HTTP server for clients that wait for each response before they send the next GET."""

    def __init__(self, respond: Callable[[int], bytes], latency: float) -> None:
        self._respond = respond
        self._latency = latency
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.endswith(b"\r\n\r\n"):
            return
        requested = _REQUEST.match(self._buffer)
        self._buffer = b""
        response = self._respond(int(requested[1]) if requested else 0)
        asyncio.get_running_loop().call_later(self._latency, self._send, response)

    def _send(self, response: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(response)


def _response(status: str, body: bytes, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join([*lines, "", ""]).encode() + body


def _limited(respond: Callable[[int], bytes], rate: float) -> Callable[[int], bytes]:
    """Accept `rate` requests per second, without bursts."""
    next_admitted = 0.0

    def respond_within_rate(page: int) -> bytes:
        nonlocal next_admitted
        now = time.monotonic()
        if now < next_admitted:
            return _response("429 Too Many Requests", b"{}", "Retry-After: 1")
        next_admitted = max(next_admitted, now - 1 / rate) + 1 / rate
        return respond(page)

    return respond_within_rate


async def _serve(respond: Callable[[int], bytes], latency: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Responder(respond, latency), LOOPBACK, 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def _main() -> None:
    parser = argparse.ArgumentParser(description="Serve sample pages of runs; print the port.")
    parser.add_argument("--total", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--size", choices=["small", "medium", "large"], default="medium")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--body", metavar="ENCODING", help="serve the body on standard input instead of pages")
    options = parser.parse_args()
    if options.body:
        response = _response("200 OK", sys.stdin.buffer.read(), f"Content-Encoding: {options.body}")
        asyncio.run(_serve(lambda _: response, 0.0))
        return
    last = options.total // pages.PAGE_SIZE
    # Created before the first request, so that only `latency` delays a response.
    ready = {}
    if options.size != "small":
        ready = {page: pages.make_page(page, options.total, options.size) for page in range(1, last + 1)}

    def respond(page: int) -> bytes:
        if not 1 <= page <= last:
            return _response("200 OK", b'{"status":"success","data":{"total":%d,"data":[]}}' % options.total)
        return _response("200 OK", ready.get(page) or pages.make_page(page, options.total, options.size))

    asyncio.run(_serve(_limited(respond, options.rate) if options.rate else respond, options.latency))


if __name__ == "__main__":
    _main()
