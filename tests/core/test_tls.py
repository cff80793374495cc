"""Tests of certificates and proxies, with real TLS on the loopback interface."""

from __future__ import annotations

import asyncio
import random

import aiohttp
import pytest

from aiocopyai import APIConnectionError, CopyAISession
from aiocopyai.emulator import Emulator
from tests.conftest import AT_ONCE
from tests.support.proxying import Authority, CutProxy, Handle, listening, tls_front


KEY = "a-secret-key-0123456789"


@pytest.fixture(name="authority", scope="module")
def _authority() -> Authority:
    """A certificate authority that is not trusted by default."""
    return Authority()


@pytest.mark.parametrize(
    ("host", "days", "trusted", "reason"),
    [
        ("127.0.0.1", 1, False, "self.signed certificate in certificate chain|unable to get local issuer"),
        ("example.org", 1, True, "IP address mismatch|certificate is not valid for '127.0.0.1'"),
        ("127.0.0.1", -1, True, "certificate has expired"),
    ],
    ids=["unknown authority", "another host", "expired"],
)
async def test_an_untrusted_certificate(
    copyai_emulator: Emulator,
    authority: Authority,
    host: str,
    days: int,
    trusted: bool,  # noqa: FBT001 (a table's column)
    reason: str,
) -> None:
    """A server with an untrusted certificate does not receive the key. The error says why, after one attempt."""
    connector = aiohttp.TCPConnector(ssl=authority.client_context()) if trusted else aiohttp.TCPConnector()
    async with (
        tls_front(copyai_emulator, authority.server_context(host, days=days)) as url,
        aiohttp.ClientSession(connector=connector) as http,
        CopyAISession(
            copyai_emulator.api_key, base_url=url, http_session=http if trusted else None, retry=AT_ONCE
        ) as session,
    ):
        with pytest.raises(APIConnectionError, match=reason) as caught:
            await session.count_runs(copyai_emulator.workflow_id)

    assert (caught.value.retryable, caught.value.attempts) == (False, 1)
    assert copyai_emulator.requests == []


async def test_a_trusted_certificate(copyai_emulator: Emulator, authority: Authority) -> None:
    """An additional authority is trusted through the caller's own `aiohttp.ClientSession`."""
    copyai_emulator.add_runs(3)
    async with (
        tls_front(copyai_emulator, authority.server_context()) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.client_context())) as http,
        CopyAISession(copyai_emulator.api_key, base_url=url, http_session=http) as session,
    ):
        assert await session.count_runs(copyai_emulator.workflow_id) == 3


async def test_a_proxy_does_not_see_the_key(authority: Authority) -> None:
    """A proxy sees the host, but neither the key nor the request. The proxy's password is sent only to the proxy."""
    proxy = CutProxy(random.Random(0))  # noqa: S311 (closes no connection)
    async with (
        Emulator(3, api_key=KEY) as emulator,
        tls_front(emulator, authority.server_context()) as url,
        proxy.serve() as address,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=authority.client_context()),
            proxy=address.replace("://", "://user:password@"),
        ) as http,
        CopyAISession(KEY, base_url=url, http_session=http) as session,
    ):
        assert await session.count_runs(emulator.workflow_id) == 3
        (head,) = proxy.heads

        assert head.startswith(b"CONNECT ")
        assert b"proxy-authorization" in head.lower()
        assert KEY.encode() not in head
        assert emulator.workflow_id.encode() not in head
        assert "proxy-authorization" not in emulator.requests[0].headers


async def require_login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Act as a proxy that requires authentication."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Act as a proxy that closes the connection at once."""


@pytest.mark.parametrize("proxy", [require_login, hang_up])
async def test_an_error_of_a_proxy_does_not_show_the_password(proxy: Handle, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the error nor the log shows the user or password of a proxy."""
    async with (
        listening(proxy) as port,
        aiohttp.ClientSession(proxy=f"http://user:password@127.0.0.1:{port}") as http,
        CopyAISession(KEY, base_url="https://127.0.0.1:9/api", http_session=http, retry=AT_ONCE) as session,
    ):
        with pytest.raises(APIConnectionError) as caught:
            await session.count_runs("WCFG-1")

    assert "password" not in str(caught.value) + caplog.text
    assert KEY not in str(caught.value) + caplog.text
