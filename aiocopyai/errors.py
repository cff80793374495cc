"""Everything that aiocopyai raises, apart from `ValueError` for a bad argument.

::

    CopyAIError
    ├── ConfigurationError         (also a ValueError) no key, a key or an address that can't be used
    ├── APIConnectionError         no answer, or one that broke off
    │   └── APITimeoutError        (also a TimeoutError) no answer in time
    ├── InvalidResponseError       an answer that is not the documented JSON
    ├── PaginationError            the list does not advance
    ├── AmbiguousStartError        a run may or may not have been started
    ├── RunFailedError             a run that was waited for has failed
    ├── RunTimeoutError            (also a TimeoutError) a run is not over in time
    ├── InvalidEventError          (also a ValueError) a webhook's body that is no event
    └── APIStatusError             an answer with an HTTP status that is no success
        ├── BadRequestError        400
        │   └── CreditLimitReachedError
        ├── AuthenticationError    401
        ├── PermissionDeniedError  403
        ├── NotFoundError          404
        ├── RequestInvalidError    422
        ├── RateLimitedError       429
        └── ServerError            5xx

Every error is plain data: it pickles, copies, and never holds the API key.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Final

from aiocopyai.models import JSON, Run, RunStatus


class CopyAIError(Exception):
    """The base of all errors of this package."""

    page: int | None = None
    """In a walk: the page that was being read. `start_page` takes it, to go on in another process."""
    ambiguous: bool = False
    """Whether the server may have done what was asked, though its answer was lost. Only for what changes something."""

    def __init__(self, *args: object) -> None:
        # OSError, which TimeoutError is, reads two to five arguments as errno and file names; this keeps them as given.
        Exception.__init__(self, *args)

    @property
    def message(self) -> str:
        """What went wrong, without the page: one line, in which a server's own words steer no log and no terminal."""
        return printable(str(self.args[0])) if self.args else type(self).__name__

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, so that retrying is worth it."""
        return False

    def __str__(self) -> str:
        return self.message if self.page is None else f"page {self.page}: {self.message}"


class ConfigurationError(CopyAIError, ValueError):
    """A session can't be made of this: no key, a malformed key, an address that would send the key in cleartext."""


class APIConnectionError(CopyAIError):
    """No answer came, or it broke off: no route, refused, reset, a failed TLS handshake, a truncated body."""

    def __init__(
        self,
        message: str,
        method: str = "",
        url: str = "",
        attempts: int = 1,
        retryable: bool = True,  # noqa: FBT001, FBT002 (positional, so that the error pickles)
    ) -> None:
        super().__init__(message, method, url, attempts, retryable)
        self.method = method
        """The request's HTTP method; empty where it is not known."""
        self.url = url
        """Its address."""
        self.attempts = attempts
        """How often it was sent."""
        self._transient = retryable

    @property
    def message(self) -> str:
        """What went wrong, for which request, and how often it was tried."""
        return printable(f"{self.args[0]} ({_request(self.method, self.url, self.attempts)})")

    @property
    def retryable(self) -> bool:
        """True, unless the server's certificate can't be trusted."""
        return self._transient


class APITimeoutError(APIConnectionError, TimeoutError):
    """No whole answer came within the time-out of one attempt."""


class InvalidResponseError(CopyAIError):
    """An answer that is not the documented JSON."""

    def __init__(
        self,
        reason: str,
        place: str = "",
        excerpt: str = "",
        method: str = "",
        url: str = "",
        attempts: int = 1,
        retryable: bool = False,  # noqa: FBT001, FBT002 (positional, so that the error pickles)
    ) -> None:
        super().__init__(reason, place, excerpt, method, url, attempts, retryable)
        self.reason = reason
        """What is wrong."""
        self.place = place
        """Where in the answer, such as ``data.data[3]``; empty for the answer as a whole."""
        self.excerpt = excerpt
        """A short piece of what came instead."""
        self.method = method
        """The request's HTTP method; empty where it is not known."""
        self.url = url
        """Its address."""
        self.attempts = attempts
        """How often it was sent."""
        self._transient = retryable

    @property
    def message(self) -> str:
        """What is wrong, where, what came instead, and for which request."""
        place = f"{self.place}: " if self.place else ""
        got = f", got {self.excerpt}" if self.excerpt else ""
        return printable(f"{place}{self.reason}{got} ({_request(self.method, self.url, self.attempts)})")

    @property
    def retryable(self) -> bool:
        """True for an answer that is no JSON at all (a gateway's page, half a body)."""
        return self._transient


class PaginationError(CopyAIError):
    """The list does not advance: page after page brings nothing new, or it shrinks faster than it can be read."""


class AmbiguousStartError(CopyAIError):
    """The answer to a start was lost, so that a run may be under way, and may cost credits, or not.

    Nothing is sent again by itself. Its ``__cause__`` is what befell the request. With an idempotency key,
    `CopyAISession.find_run` finds the run if there is one, now or later, and so does a second `start_run` with that
    key in the same session.
    """

    def __init__(self, reason: str, workflow_id: str, idempotency_key: str | None = None) -> None:
        super().__init__(reason, workflow_id, idempotency_key)
        self.reason = reason
        """What befell the request."""
        self.workflow_id = workflow_id
        """Whose run it was to be."""
        self.idempotency_key = idempotency_key
        """The key that the run carries in its metadata, if it was started; None where none was given."""
        self.ambiguous = True

    @property
    def message(self) -> str:
        """What happened, for which workflow, and what to do."""
        if self.idempotency_key is None:
            advice = "look at the newest runs before starting again; with an idempotency_key that is done for you"
        else:
            advice = f"look for it later by find_run with the key {self.idempotency_key!r}"
        return printable(f"a run of {self.workflow_id} may have been started: {self.reason}; {advice}")


class RunFailedError(CopyAIError):
    """A run that was waited for ended as ``FAILED``."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.run = run
        """The run as it ended."""

    @property
    def error(self) -> JSON:
        """Why it failed, as raw JSON (its shape is not documented)."""
        return self.run.error

    @property
    def message(self) -> str:
        """Which run failed, and why as far as the server says."""
        why = f": {shown(self.error):.300}" if self.error is not None else ", and the server doesn't say why"
        return printable(f"run {self.run.id} failed{why}")


class RunTimeoutError(CopyAIError, TimeoutError):
    """A run that was waited for is not over. It goes on: `wait_run` with the same ids waits further."""

    def __init__(self, workflow_id: str, run_id: str, seconds: float, status: RunStatus | None = None) -> None:
        super().__init__(workflow_id, run_id, seconds, status)
        self.workflow_id = workflow_id
        """The workflow's id, for `wait_run`."""
        self.run_id = run_id
        """The run's id, for `wait_run`."""
        self.seconds = seconds
        """How long it was waited for."""
        self.status = status
        """Where the run stood when last seen; None if it never was."""

    @property
    def message(self) -> str:
        """Which run, for how long, and how to go on."""
        seen = f"it was {self.status}" if self.status is not None else "its status was never seen"
        return printable(
            f"run {self.run_id} of {self.workflow_id} was not over after {self.seconds:g} s ({seen}); "
            f"{'it goes on, and ' if self.status is not None else ''}wait_run waits further"
        )


class InvalidEventError(CopyAIError, ValueError):
    """A webhook's body that is no event."""

    def __init__(self, reason: str, excerpt: str = "") -> None:
        super().__init__(reason, excerpt)
        self.reason = reason
        """What is wrong."""
        self.excerpt = excerpt
        """A short piece of what came instead."""

    @property
    def message(self) -> str:
        """What is wrong, and what came instead."""
        return printable(f"{self.reason}, got {self.excerpt}" if self.excerpt else self.reason)


class APIStatusError(CopyAIError):
    """The server answered with a status that is no success."""

    _hint = ""

    def __init__(
        self,
        status: int,
        error_code: str | None = None,
        details: JSON = None,
        body: JSON = None,
        headers: Mapping[str, str] | None = None,
        method: str = "",
        url: str = "",
        attempts: int = 1,
        retry_after: float | None = None,
    ) -> None:
        headers = dict(headers or {})
        super().__init__(status, error_code, details, body, headers, method, url, attempts, retry_after)
        self.status = status
        """The HTTP status."""
        self.error_code = error_code
        """The vendor's ``errorCode``, where the body has one."""
        self.details = details
        """The vendor's ``details``, where the body has them: for a 422 the reasons by field."""
        self.body = body
        """The body: JSON, or the beginning of its text where it is none."""
        self.headers: Mapping[str, str] = headers
        """The answer's headers, under lower-case names."""
        self.method = method
        """The request's HTTP method; empty where it is not known."""
        self.url = url
        """Its address."""
        self.attempts = attempts
        """How often it was sent."""
        self.retry_after = retry_after
        """Seconds that the server asks to wait, where it does."""

    @property
    def message(self) -> str:
        """The status, the vendor's code, the request, and what to do about it where that is known."""
        code = f" {self.error_code}" if self.error_code else ""
        details = f": {shown(self.details):.300}" if self.details else ""
        hint = f"; {self._hint}" if self._hint else ""
        return printable(f"HTTP {self.status}{code}{details} ({_request(self.method, self.url, self.attempts)}){hint}")

    @property
    def retryable(self) -> bool:
        """True for 408, 429 and 5xx."""
        return self.status in {408, 429} or self.status >= 500  # noqa: PLR2004 (HTTP's own numbers)


class BadRequestError(APIStatusError):
    """400: the server can't make sense of the request. Its body is often ``{}``."""


class CreditLimitReachedError(BadRequestError):
    """400 with ``WORKFLOW_CREDIT_LIMIT_REACHED``: the workspace is out of credits."""

    _hint = "the workspace is out of credits"


class AuthenticationError(APIStatusError):
    """401: the key is not accepted."""

    _hint = "check the API key (COPYAI_API_KEY); keys can expire or be disabled"


class PermissionDeniedError(APIStatusError):
    """403: the key is known but may not do this."""

    _hint = "the key may not do this; keys are made by a workspace's Owner or Admin"


class NotFoundError(APIStatusError):
    """404: no such workflow, run or webhook for this key."""

    _hint = "check the id, and that the key belongs to its workspace"


class RequestInvalidError(APIStatusError):
    """422: the request's fields don't fit; `details` says which and why."""


class RateLimitedError(APIStatusError):
    """429: too many requests; `retry_after` says how many seconds to wait, where the server does."""

    _hint = "lower max_rate or prefetch"


class ServerError(APIStatusError):
    """5xx: the server, or a gateway before it, failed."""


def status_error(status: int, error_code: str | None) -> type[APIStatusError]:
    """Return the class for an HTTP status and the vendor's code."""
    if status >= 500:  # noqa: PLR2004 (HTTP's own number)
        return ServerError
    if error_code == "WORKFLOW_CREDIT_LIMIT_REACHED":
        return CreditLimitReachedError
    return _BY_STATUS.get(status, APIStatusError)


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: RequestInvalidError,
    429: RateLimitedError,
}


def printable(text: str) -> str:
    """Escape what steers a log or a terminal: line breaks, escape sequences, whatever else does not print."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: JSON) -> str:
    """Show a value as Python writes it, of large and deep ones only the beginning."""
    return _BRIEF.repr(value)


_BRIEF: Final = reprlib.Repr()
_BRIEF.maxlevel = 5
_BRIEF.maxdict = _BRIEF.maxlist = 10
_BRIEF.maxstring = _BRIEF.maxother = 300


def _request(method: str, url: str, attempts: int) -> str:
    """Say which request it was, and how often it was tried if more than once."""
    tries = f", {attempts} attempts" if attempts > 1 else ""
    return f"{method} {url}{tries}".strip()
