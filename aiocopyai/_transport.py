"""Requests to the API: connections, proxy, headers, redirects, time-outs and size limits.

Only this module uses aiohttp's client. It never raises exceptions of aiohttp, because some of them contain the headers
of the request, including the API key. Its own are raised outside of ``except`` blocks, so that they have no context.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterable, Callable
from contextlib import aclosing, suppress
from io import BytesIO
from typing import Final, Self, TypeVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from attrs import define, field, frozen
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aiocopyai._decompression import ACCEPT_ENCODING, SUPPORTED_ENCODINGS, decompress
from aiocopyai._parsing import read_error
from aiocopyai._rate_limit import RateLimiter
from aiocopyai._redaction import Secret, redact
from aiocopyai._request_options import AttemptInfo, RequestOptions, RetryInfo, call_hook
from aiocopyai._retry import parse_retry_after
from aiocopyai._text import escape, truncate
from aiocopyai.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    CopyAIError,
    InvalidResponseError,
    RateLimitedError,
    RequestInfo,
    status_error,
)


T = TypeVar("T")

logger = logging.getLogger("aiocopyai")

MAX_BODY: Final = 64 * 2**20
"""The maximum size of a response in bytes, after decompression."""
_MAX_ERROR_BODY: Final = 64 * 2**10
_LARGE_BODY: Final = 2**20
"""Bodies of at least this many bytes are parsed in a thread, and their values are counted first."""
_MAX_CONTAINERS: Final = 1_000_000
_MAX_VALUES: Final = 4_000_000
"""The maximum number of values in a large body. To parse 64 MiB of ``[],[],[]`` takes gigabytes of memory and many
seconds, in which no other thread can run."""
_CONNECTIONS: Final = 100
"""The number of connections of a session that this package creates: the default of aiohttp."""
_JSON_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_CREDENTIALS: Final = re.compile(r"(?<=//)[^/\s]*@")
"""The user and password in a URL, such as that of a proxy."""


@frozen
class APIRequest:
    """A request to the API.

    Attributes:
        method: the HTTP method. If a request may have been executed, only a GET or DELETE is sent again.
        path: the percent-encoded path below the base URL, with the query.
        body: the JSON to send; None for no body.
    """

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.method} {truncate(self.path_without_query, 200)}"

    @property
    def path_without_query(self) -> str:
        return f"/{self.path.partition('?')[0]}"


@define
class _Attempt:
    """One attempt of a request.

    Attributes:
        number: the number of the attempt, from 1.
        sent: when the rate limiter admitted it, by the monotonic clock.
        status: the HTTP status; None until the response is complete.
    """

    number: int
    sent: float
    status: int | None = None


@frozen
class APIResponse:
    """A response of the API. The `repr` omits the headers and the body, which may contain the API key."""

    status: int
    headers: CIMultiDictProxy[str] = field(repr=False)
    body: bytes = field(repr=False)


@define(eq=False)
class Connections:
    """The connections of a session, and of the sessions that its `with_options` returned.

    Attributes:
        http: the aiohttp session; None until the first request if this package creates it.
        is_own: whether this package creates and closes the aiohttp session.
        rate_limiter: admits the requests.
        loop: the event loop; None until the first request.
        is_closed: whether the connections are closed.
        parsing: held while a large response is parsed in a thread.
    """

    http: aiohttp.ClientSession | None
    is_own: bool
    rate_limiter: RateLimiter
    loop: asyncio.AbstractEventLoop | None = None
    is_closed: bool = False
    parsing: asyncio.Lock = field(factory=asyncio.Lock)

    @classmethod
    def create(cls, http_session: aiohttp.ClientSession | None, max_rate: float | None) -> Self:
        """Return the connections of a new session."""
        connections = _CONNECTIONS
        if http_session is not None and (connector := http_session.connector) is not None:
            # In aiohttp, a limit of 0 means no limit.
            connections = min((limit for limit in (connector.limit, connector.limit_per_host) if limit), default=0)
        return cls(http_session, http_session is None, RateLimiter(max_rate, connections))

    async def close(self) -> None:
        """Close the connections. The caller's own ``aiohttp.ClientSession`` remains open."""
        self.is_closed = True
        if self.is_own and self.http is not None:
            await self.http.close()


class Transport:
    """Sends requests with one key, in one event loop. `CopyAISession` checks the arguments."""

    def __init__(
        self, api_key: Secret, base_url: str, connections: Connections, options: RequestOptions, *, proxy: URL | None
    ) -> None:
        self._api_key = api_key
        self._base_url = base_url
        self._connections = connections
        self._options = options
        self._proxy = proxy
        self._rate_limiter = connections.rate_limiter
        self._headers = CIMultiDict(
            {
                **options.default_headers,
                "x-copy-ai-api-key": api_key,
                "Accept": "application/json",
                "Accept-Encoding": ACCEPT_ENCODING,
                "User-Agent": options.user_agent,
            }
        )
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Transport: {self._base_url}>"

    @property
    def base_url(self) -> str:
        """The base URL, without a trailing slash."""
        return self._base_url

    @property
    def slowdowns(self) -> int:
        """How often requests were slowed down after a 429."""
        return self._rate_limiter.slowdowns

    @property
    def options(self) -> RequestOptions:
        """The options for all requests."""
        return self._options

    def with_options(self, options: RequestOptions) -> Transport:
        """Return a transport with the same connections and other options."""
        return Transport(self._api_key, self._base_url, self._connections, options, proxy=self._proxy)

    async def close(self, *, with_connections: bool) -> None:
        """Send no more requests. With `with_connections`, close the connections, which other transports may share."""
        self._is_closed = True
        if with_connections:
            await self._connections.close()

    async def send(self, request: APIRequest, parse: Callable[[bytes], T]) -> T:
        """Send a request, retry it according to the policy, and parse the body of the response.

        A POST is retried only if the server did not execute it: without a connection, or after a 429.

        Raises:
            CopyAIError: the request failed. If its `ambiguous` is True, the server may have executed a POST.
            RuntimeError: the session is closed, or was used in another event loop.
        """
        self._check_usable()
        # This wait does not count towards the time-out of the retry policy.
        sent = await self._rate_limiter.acquire()

        async def attempt(number: int) -> T:
            started = sent if number == 1 else await self._rate_limiter.acquire(is_retry=True)
            attempt = _Attempt(number, started)
            try:
                return await self._attempt(request, parse, attempt)
            finally:
                self._rate_limiter.release()
                self._report(request, attempt)

        def report_retry(number: int, wait: float, error: CopyAIError) -> None:
            if self._options.on_retry is None:
                return
            status = error.status if isinstance(error, APIStatusError) else None
            retry = RetryInfo(request.method, request.path_without_query, number, status, wait, error.summary)
            call_hook(self._options.on_retry, retry)

        return await self._options.retry.call(attempt, str(request), lambda: self._rate_limiter.delay, report_retry)

    async def _attempt(self, request: APIRequest, parse: Callable[[bytes], T], attempt: _Attempt) -> T:
        """Send a request that was admitted by the rate limiter."""
        address = f"{self._base_url}/{request.path}"
        url = URL(address, encoded=True)
        info = RequestInfo(request.method, address, attempt.number)
        payload = None if request.body is None else _Payload(request.body)
        problem: CopyAIError
        try:
            response = await self._exchange(request.method, url, payload)
            if request.method == "GET" and (target := _slash_redirect(url, response)) is not None:
                response = await self._exchange("GET", target, None)
            attempt.status = response.status
            if _is_success(response.status):
                return await _parse(response.body, parse, self._connections.parsing)
            problem = self._status_error(response, info)
        except InvalidResponseError as error:
            # The reason may contain an id, and the place the names of fields.
            reason, place, shown = (redact(each, self._api_key) for each in (error.reason, error.place, error.excerpt))
            problem = InvalidResponseError(reason, place, shown, info, error.retryable)
        except aiohttp.ClientConnectorCertificateError as error:
            problem = APIConnectionError(self._describe(error), info, False)  # noqa: FBT003 (positional in errors)
        except TimeoutError as error:
            total = self._options.timeout.total
            if isinstance(error, aiohttp.ServerTimeoutError) or total is None:
                problem = APITimeoutError(f"no complete response in time: {error}", info)
            else:
                problem = APITimeoutError(f"no complete response within {total:g} s", info)
        except (aiohttp.ClientError, OSError) as error:
            problem = APIConnectionError(self._describe(error), info)
        # With any other status, the server has not executed the request.
        may_be_executed = not isinstance(problem, APIStatusError) or problem.status >= 500 or problem.status == 408  # noqa: PLR2004 (HTTP's own numbers)
        problem.ambiguous = payload is not None and payload.is_started and may_be_executed
        if isinstance(problem, RateLimitedError):
            # A pause longer than the policy's time-out would not help this request, and would delay all others.
            pause = problem.retry_after or 0.0
            self._rate_limiter.slow_down(attempt.sent, pause if self._options.retry.allows(pause) else 0.0)
        raise problem

    def _report(self, request: APIRequest, attempt: _Attempt) -> None:
        """Log an attempt and call the hook, outside of ``except`` blocks for exceptions of aiohttp."""
        seconds = time.monotonic() - attempt.sent
        outcome = "no response" if attempt.status is None else attempt.status
        logger.debug("%s: %s after %.0f ms (attempt %d)", request, outcome, seconds * 1000, attempt.number)
        if self._options.on_request is not None:
            info = AttemptInfo(request.method, request.path_without_query, attempt.number, attempt.status, seconds)
            call_hook(self._options.on_request, info)

    async def _exchange(self, method: str, url: URL, payload: _Payload | None) -> APIResponse:
        """Send a request once, and read the response, within the time-out."""
        if payload is not None:
            # Meanwhile, aiohttp detects connections that the server has closed. Otherwise, a POST could be lost on one;
            # aiohttp itself sends a GET again.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if (http := self._connections.http) is None:
            # Not created in the constructor, because it needs a running event loop.
            http = self._connections.http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        async with http.request(
            method,
            url,
            data=payload,
            headers=self._headers,
            timeout=self._options.timeout,
            proxy=self._proxy,
            # aiohttp would send the key to the host of any redirect.
            allow_redirects=False,
            # A caller's own session may enable this, and aiohttp's exception contains the key.
            raise_for_status=False,
            auto_decompress=False,
        ) as response:
            return APIResponse(response.status, response.headers, await _read_body(response))

    def _check_usable(self) -> None:
        if self._is_closed or self._connections.is_closed:
            raise RuntimeError("this CopyAISession is closed")
        loop = asyncio.get_running_loop()
        if self._connections.loop is None:
            self._connections.loop = loop
        elif self._connections.loop is not loop:
            raise RuntimeError("this CopyAISession was used in another event loop before: create one session per loop")

    def _status_error(self, response: APIResponse, info: RequestInfo) -> APIStatusError:
        code, details, body = read_error(redact(response.body, self._api_key).decode(errors="replace"))
        headers = {
            redact(name.lower(), self._api_key): redact(value, self._api_key)
            for name, value in response.headers.items()
        }
        # A gateway may add a second header.
        waits = [parse_retry_after(value) for value in response.headers.getall("Retry-After", [])]
        retry_after = max((wait for wait in waits if wait is not None), default=None)
        return status_error(response.status, code)(response.status, code, details, body, headers, info, retry_after)

    def _describe(self, error: Exception) -> str:
        """Describe an exception of aiohttp on one line, without secrets."""
        text = _CREDENTIALS.sub("***@", redact(escape(str(error), 1_000), self._api_key))
        return f"{type(error).__name__}: {truncate(text, 300)}" if text else type(error).__name__


class _Payload(aiohttp.Payload):
    """The body of a request, which records whether aiohttp has started to write it.

    aiohttp does not distinguish a time-out of the connection from one of the response, but it writes the body only
    after it has connected. Before that, the server cannot have received the request. With middleware, aiohttp may write
    the body more than once.
    """

    _value: bytes

    def __init__(self, body: bytes) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)
        self.is_started = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text, for middleware and logs."""
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body."""
        self.is_started = True
        await writer.write(self._value)


def _is_success(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004 (HTTP's own numbers)


def _slash_redirect(url: URL, response: APIResponse) -> URL | None:
    """Return the target of a redirect that only adds or removes a trailing slash; None for any other response."""
    if response.status not in {307, 308}:
        return None
    try:
        target = url.join(URL(response.headers.get("Location", ""), encoded=True))
        is_same = target.with_path("/").with_query(None) == url.with_path("/").with_query(None)
    except ValueError:
        return None
    paths = (url.raw_path, target.raw_path)
    differs_by_slash = paths[0] == f"{paths[1]}/" or paths[1] == f"{paths[0]}/"
    return target if is_same and differs_by_slash and target.raw_query_string == url.raw_query_string else None


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """Read a body. For an error status, return only the beginning, even if the rest cannot be read."""
    body = BytesIO()  # a list of small pieces would need much more memory
    if _is_success(response.status):
        if await _read_into(body, response, MAX_BODY):
            raise InvalidResponseError(f"the response is larger than {MAX_BODY // 2**20} MiB")
        return body.getvalue()
    with suppress(aiohttp.ClientError, OSError, InvalidResponseError):
        await _read_into(body, response, _MAX_ERROR_BODY)
    return body.getvalue()[:_MAX_ERROR_BODY]


async def _read_into(body: BytesIO, response: aiohttp.ClientResponse, limit: int) -> bool:
    """Append the decompressed body of a response; stop and return True if it is longer than `limit` bytes."""
    encoding = ", ".join(response.headers.getall("Content-Encoding", ())).strip().lower()
    if encoding not in SUPPORTED_ENCODINGS:
        raise InvalidResponseError("the response has a Content-Encoding that was not requested")
    pieces = response.content.iter_any()
    if not encoding:
        return await _append(body, pieces, limit)
    try:
        async with aclosing(decompress(pieces, encoding)) as decompressed:
            return await _append(body, decompressed, limit)
    except ValueError as error:
        raise InvalidResponseError(f"the response cannot be decompressed: {error}", retryable=True) from None


async def _append(body: BytesIO, pieces: AsyncIterable[bytes], limit: int) -> bool:
    async for piece in pieces:
        body.write(piece)
        if body.tell() > limit:
            return True
    return False


async def _parse(body: bytes, parse: Callable[[bytes], T], lock: asyncio.Lock) -> T:
    if len(body) < _LARGE_BODY:
        return parse(body)

    def count_and_parse() -> T:
        if _has_too_many_values(body):
            raise InvalidResponseError("the response has too many JSON values: request smaller pages")
        return parse(body)

    # One by one, because the event loop would wait for the GIL while each of several threads holds it.
    async with lock:
        return await asyncio.to_thread(count_and_parse)


def _has_too_many_values(body: bytes) -> bool:
    """Return whether JSON has too many values, without parsing it. Strings are excluded only if that is necessary."""
    if body.count(b"[") + body.count(b"{") <= _MAX_CONTAINERS and body.count(b",") <= _MAX_VALUES:
        return False
    containers = values = position = 0
    for string in _JSON_STRING.finditer(body):
        start = string.start()
        containers += body.count(b"[", position, start) + body.count(b"{", position, start)
        values += body.count(b",", position, start)
        if containers > _MAX_CONTAINERS or values > _MAX_VALUES:
            return True
        position = string.end()
    containers += body.count(b"[", position) + body.count(b"{", position)
    return containers > _MAX_CONTAINERS or values + body.count(b",", position) > _MAX_VALUES


def proxy_from_environment(base_url: str) -> URL | None:
    """Return the proxy for a URL from the environment (``HTTPS_PROXY``, ``NO_PROXY``); None if there is none."""
    url = URL(base_url)
    proxy = getproxies().get(url.scheme)
    if not proxy or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    try:
        address = URL(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        address = URL()
    if address.scheme not in {"http", "https"} or not address.host:
        # The value is omitted because it may contain a password.
        raise ConfigurationError(f"{url.scheme.upper()}_PROXY must be an http(s) URL such as 'http://proxy:3128'")
    return address
