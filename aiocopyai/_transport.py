"""One request: its URL and headers, its time-out, the bounded read of its answer, and errors from what went wrong.

The only user of aiohttp's client. None of aiohttp's exceptions gets out of here, as some of them show the request's
headers, the key among them; ours are raised outside of the `except` blocks, so that no context holds theirs.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Final, NoReturn, TypeVar

import aiohttp
from yarl import URL

from aiocopyai._decompression import ENCODINGS, UNPACKED, Unpacker
from aiocopyai._parsing import parse_json, read_error
from aiocopyai._rate_limit import Gate
from aiocopyai._retry import RetryPolicy, parse_retry_after
from aiocopyai._text import redact
from aiocopyai._validation import check_positive
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
from aiocopyai.models import JSON


T = TypeVar("T")

MAX_BODY: Final = 64 * 2**20
"""Bytes of an answer, after decompression, beyond which it is refused."""
_MAX_ERROR_BODY: Final = 64 * 2**10
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_USER: Final = re.compile(r"(?<=//)[^/\s]*@")
"""User and password in an address, as that of a proxy may have them."""


class _Secret(str):
    """A key that is sent as it is, and shown by no `repr`: not by that of a request's headers either."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        msg = "a session with its API key is neither pickled nor copied: make one where it is needed"
        raise TypeError(msg)


class Transport:
    """Sends requests to one API with one key, in one event loop."""

    def __init__(
        self,
        api_key: str,
        base_url: str,
        *,
        http: aiohttp.ClientSession | None,
        timeout: float | aiohttp.ClientTimeout,
        retry: RetryPolicy,
        max_rate: float | None,
    ) -> None:
        self._api_key = _Secret(_checked_key(api_key))
        self._base_url = _checked_base_url(base_url)
        self._timeout = _checked_timeout(timeout)
        self._retry = retry
        self._gate = Gate(_checked_rate(max_rate))
        self._http = http
        self._owns_http = http is None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Transport: {self._base_url}>"

    @property
    def base_url(self) -> str:
        """Where requests go, without a slash at its end."""
        return self._base_url

    async def close(self) -> None:
        """Close what was opened here; a caller's own ``aiohttp.ClientSession`` stays open."""
        self._closed = True
        if self._owns_http and self._http is not None:
            await self._http.close()

    async def get(self, path: str, query: Mapping[str, int], read: Callable[[JSON], T]) -> T:
        """Send a GET, again where that is worth it, and return what `read` makes of the answer's JSON.

        Raises:
            CopyAIError: as `aiocopyai.errors` tells.
            RuntimeError: the session is closed, or belongs to another event loop.
        """
        parameters = "&".join(f"{name}={value}" for name, value in query.items())
        return await self._call("GET", f"{path}?{parameters}" if parameters else path, None, read)

    async def delete(self, path: str, read: Callable[[JSON], T]) -> T:
        """Send a DELETE, again where that is worth it: doing it twice does no more than doing it once.

        Raises:
            CopyAIError: as `get`.
            RuntimeError: as `get`.
        """
        return await self._call("DELETE", path, None, read)

    async def post(self, path: str, body: bytes, read: Callable[[JSON], T]) -> T:
        """Send a POST, again only where the server can't have taken it: no connection was made, or 429.

        Raises:
            CopyAIError: as `get`. Its `ambiguous` says whether the server may have taken it.
            RuntimeError: as `get`.
        """
        return await self._call("POST", path, body, read)

    async def _call(self, method: str, path: str, body: bytes | None, read: Callable[[JSON], T]) -> T:
        self._check_usable()
        url = f"{self._base_url}/{path}"

        async def attempt(number: int) -> T:
            await self._gate.pass_through()
            return await self._send(method, url, None if body is None else Payload(body), number, read)

        try:
            return await self._retry.call(attempt, self._cool_down)
        except RateLimitedError as error:
            # No retry of this one follows, but the other requests had better wait as well.
            if error.retry_after is not None and self._retry.allows(error.retry_after):
                self._gate.hold(error.retry_after)
            raise

    def _cool_down(self, error: CopyAIError, seconds: float) -> None:
        if isinstance(error, RateLimitedError):
            self._gate.hold(seconds)

    def _check_usable(self) -> None:
        if self._closed:
            msg = "this CopyAISession is closed"
            raise RuntimeError(msg)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            msg = "this CopyAISession was used in another event loop before: make one session for each loop"
            raise RuntimeError(msg)

    async def _send(self, method: str, url: str, payload: Payload | None, number: int, read: Callable[[JSON], T]) -> T:
        """Send one attempt."""
        outcome = await self._attempt(method, url, payload, number, read)
        if isinstance(outcome, CopyAIError):
            # Raised here, where no variable holds an answer: some tools show those of each frame.
            raise outcome
        return outcome

    async def _attempt(
        self, method: str, url: str, payload: Payload | None, number: int, read: Callable[[JSON], T]
    ) -> T | CopyAIError:
        problem: CopyAIError
        try:
            status, headers, body = await self._exchange(method, url, payload)
            if 200 <= status < 300:  # noqa: PLR2004 (HTTP's own numbers)
                return self._read(body, read)
            problem = self._status_error(status, headers, body, method, url, number)
        except InvalidResponseError as error:
            problem = InvalidResponseError(
                error.reason, error.place, self._hide(error.excerpt), RequestInfo(method, url, number), error.retryable
            )
        except aiohttp.ClientConnectorCertificateError as error:
            problem = APIConnectionError(self._tell(error), RequestInfo(method, url, number), False)  # noqa: FBT003
        except TimeoutError:
            problem = APITimeoutError("no whole answer in time", RequestInfo(method, url, number))
        except (aiohttp.ClientError, OSError) as error:
            problem = APIConnectionError(self._tell(error), RequestInfo(method, url, number))
        problem.ambiguous = payload is not None and payload.is_begun and _leaves_doubt(problem)
        return problem

    async def _exchange(self, method: str, url: str, payload: Payload | None) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request and read its answer, both within the time-out of one attempt."""
        http = self._open()
        headers = {
            "x-copy-ai-api-key": self._api_key,
            "Accept": "application/json",
            "Accept-Encoding": ENCODINGS,
            "User-Agent": _user_agent(),
        }
        if payload is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        async with http.request(
            method,
            URL(url, encoded=True),
            data=None if payload is None else payload.send(),
            headers=headers,
            timeout=self._timeout,
            # aiohttp would send the key along to whatever host a redirect names.
            allow_redirects=False,
            # A caller's own session may be set to raise, and what it raises shows the key.
            raise_for_status=False,
            auto_decompress=False,
        ) as answer:
            if 200 <= answer.status < 300:  # noqa: PLR2004 (HTTP's own numbers)
                body = await _read_body(answer)
            else:
                body = await _read_error_body(answer)
            return answer.status, answer.headers, body

    def _open(self) -> aiohttp.ClientSession:
        # Made at the first request, as it needs the running loop, and a session may be constructed before that.
        if self._http is None:
            self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._http

    def _read(self, body: bytes, read: Callable[[JSON], T]) -> T:
        try:
            return read(parse_json(body))
        except InvalidResponseError as error:
            problem = error
        clean = redact(body, self._api_key)
        if clean is not body:
            try:
                # For an error that shows a piece without the key, of which this one may show half.
                read(parse_json(clean))
            except InvalidResponseError as error:
                problem = error
        raise problem

    def _status_error(
        self, status: int, headers: Mapping[str, str], body: bytes, method: str, url: str, number: int
    ) -> APIStatusError:
        code, details, shown = read_error(redact(body, self._api_key).decode(errors="replace"))
        kept = {self._hide(name.lower()): self._hide(value) for name, value in headers.items()}
        retry_after = parse_retry_after(headers.get("Retry-After"))
        return status_error(status, code)(
            status, code, details, shown, kept, RequestInfo(method, url, number), retry_after
        )

    def _hide(self, text: str) -> str:
        """Blot out the key, which a server may echo."""
        return redact(text, self._api_key)

    def _tell(self, error: Exception) -> str:
        """Say in one line what a foreign error says."""
        text = _USER.sub("***@", _CONTROLS.sub(" ", self._hide(str(error))))
        return f"{type(error).__name__}: {text:.300}" if text else type(error).__name__


class Payload:
    """A request's body that knows whether any of it was handed to a connection: before that, no server can act on it.

    aiohttp doesn't tell a time-out while it connects from one while it waits for the answer, but it asks for a body's
    pieces only once there is a connection.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.is_begun = False
        """Whether the sending was begun."""

    def __len__(self) -> int:
        return len(self._body)

    def __repr__(self) -> str:
        return f"<Payload: {len(self)} bytes{', begun' if self.is_begun else ''}>"

    async def send(self) -> AsyncIterator[bytes]:
        """Give the body's one piece."""
        self.is_begun = True
        yield self._body


def _leaves_doubt(problem: CopyAIError) -> bool:
    """Whether a server that answered so, or not at all, may have done what a POST asked for."""
    if isinstance(problem, APIStatusError):
        return problem.status >= 500 or problem.status == 408  # noqa: PLR2004 (HTTP's own numbers)
    return True


async def _read_body(answer: aiohttp.ClientResponse) -> bytes:
    """Read a body, up to `MAX_BODY`."""
    chunks: list[bytes] = []
    size = 0
    unpacker = _unpacker(answer)
    try:
        async for packed in answer.content.iter_any():
            for chunk in unpacker.unpack(packed):
                size += len(chunk)
                if size > MAX_BODY:
                    reason = f"an answer of more than {MAX_BODY // 2**20} MiB"
                    raise InvalidResponseError(reason)
                chunks.append(chunk)
    except ValueError as error:
        reason = f"an answer {error}"
        raise InvalidResponseError(reason, retryable=True) from None
    if not unpacker.is_whole:
        reason = "an answer that is packed, and not whole"
        raise InvalidResponseError(reason, retryable=True)
    return b"".join(chunks)


async def _read_error_body(answer: aiohttp.ClientResponse) -> bytes:
    """Read the beginning of an error's body; the status matters more than whether its body arrives."""
    body = b""
    try:
        unpacker = _unpacker(answer)
        async for packed in answer.content.iter_any():
            for chunk in unpacker.unpack(packed):
                body += chunk
                if len(body) >= _MAX_ERROR_BODY:
                    return body[:_MAX_ERROR_BODY]
    except (aiohttp.ClientError, OSError, ValueError, InvalidResponseError):
        pass
    return body


def _unpacker(answer: aiohttp.ClientResponse) -> Unpacker:
    encoding = ", ".join(answer.headers.getall("Content-Encoding", []))
    if encoding.strip().lower() not in UNPACKED:
        raise InvalidResponseError("an answer packed in another way than was asked for")
    return Unpacker(encoding)


@cache
def _user_agent() -> str:
    return f"aiocopyai/{version('aiocopyai')}"


def _checked_key(key: str) -> str:
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or " " in key:
        msg = "the API key has a character that no key has: a line break at its end, perhaps, or a space"
        raise ConfigurationError(msg)
    return key


def _checked_base_url(base_url: str) -> str:
    try:
        url = URL(base_url)
    except (ValueError, TypeError):
        url = URL()
    # The address itself isn't shown: one that is refused may hold a password.
    if not url.host or url.scheme not in {"http", "https"}:
        msg = "base_url must be an http(s) address such as 'https://api.copy.ai/api'"
        raise ConfigurationError(msg)
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        msg = "base_url must be a plain address, without user, password, query or fragment"
        raise ConfigurationError(msg)
    if url.scheme == "http" and not _is_loopback(url.host):
        msg = f"base_url would send the key in cleartext to {url.host}: use https"
        raise ConfigurationError(msg)
    return str(url).rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_timeout(timeout: float | aiohttp.ClientTimeout) -> aiohttp.ClientTimeout:
    if isinstance(timeout, aiohttp.ClientTimeout):
        return timeout
    check_positive("timeout", timeout, "seconds, or an aiohttp.ClientTimeout", error=ConfigurationError)
    return aiohttp.ClientTimeout(total=timeout)


def _checked_rate(max_rate: float | None) -> float | None:
    if max_rate is not None:
        check_positive("max_rate", max_rate, "requests a second, or None", error=ConfigurationError)
    return max_rate
