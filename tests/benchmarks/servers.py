"""The servers that the pages come from, each in a process of its own on a loopback port.

nginx serves files where CPU is measured. Where latency or the number of pages matters, and the server's own cost
doesn't, this file itself is the server: ``python servers.py --total 1000 --latency 0.05`` prints its port.
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
        root {folder}/pages;
        location /api/ {{ try_files /page-$arg_page.json =404; }}
    }}
}}
"""


class NginxMissingError(Exception):
    """nginx isn't installed."""


@contextmanager
def nginx(folder: Path) -> Generator[str]:
    """Serve ``<folder>/pages/page-N.json`` for ``?page=N``; give the base URL.

    Raises:
        NginxMissingError: it isn't installed.
    """
    # Debian puts it where only root's PATH leads.
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        raise NginxMissingError
    port = _free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, host=LOOPBACK, port=port))
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    with _running(command) as process:
        _wait_for(port, process)
        yield f"http://{LOOPBACK}:{port}/api"


@contextmanager
def slow_server(total: int, latency: float) -> Generator[str]:
    """Serve `total` realistic runs, each answer `latency` seconds late; give the base URL."""
    with _own_server("--total", str(total), "--latency", str(latency)) as url:
        yield url


@contextmanager
def small_server(total: int, latency: float = 0.0) -> Generator[str]:
    """Serve `total` small runs, each with an id of its own, as late as that; give the base URL."""
    with _own_server("--total", str(total), "--latency", str(latency), "--small") as url:
        yield url


@contextmanager
def _own_server(*arguments: str) -> Generator[str]:
    with _running([sys.executable, __file__, *arguments]) as process:
        if process.stdout is None:
            raise AssertionError
        yield f"http://{LOOPBACK}:{int(process.stdout.readline())}/api"


@contextmanager
def _running(command: list[str]) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 (made by us)
        try:
            yield process
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[str], patience: float = 5.0) -> None:
    deadline = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError("nginx did not start")


class _Answers(asyncio.Protocol):
    """Just enough HTTP for a client that waits for each answer before it sends on: one GET in, one page out."""

    def __init__(self, make_page: Callable[[int], bytes], latency: float) -> None:
        self._make_page = make_page
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
        asked = _REQUEST.match(self._buffer)
        body = self._make_page(int(asked[1])) if asked else b"{}"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._buffer = b""
        asyncio.get_running_loop().call_later(self._latency, self._answer, head + body)

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def _serve(make_page: Callable[[int], bytes], latency: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answers(make_page, latency), LOOPBACK, 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def _main() -> None:
    parser = argparse.ArgumentParser(description="Serve made-up pages of runs; print the port.")
    parser.add_argument("--total", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    make = pages.small_page if options.small else pages.page
    last = options.total // pages.PAGE_SIZE
    # Made ahead, so that what is late is late by the latency only.
    ready = {} if options.small else {number: make(number, options.total) for number in range(1, last + 1)}
    asyncio.run(_serve(lambda number: ready.get(number) or make(number, options.total), options.latency))


if __name__ == "__main__":
    _main()
