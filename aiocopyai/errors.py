"""All errors that aiocopyai raises, except the `ValueError` for an invalid argument.

::

    CopyAIError
    ├── ConfigurationError         no API key, or an invalid setting; a ValueError
    ├── APIConnectionError         no response, or an incomplete one
    │   └── APITimeoutError        no complete response in time; a TimeoutError
    ├── InvalidResponseError       a response that is not the documented JSON
    ├── PaginationError            a list that does not advance from page to page
    ├── AmbiguousStartError        a run may have been started
    ├── RunFailedError             the awaited run failed
    ├── RunTimeoutError            the awaited run was not finished in time; a TimeoutError
    ├── InvalidEventError          a webhook delivery that is not an event; a ValueError
    └── APIStatusError             a response with an HTTP status other than 2xx
        ├── BadRequestError        400
        │   └── CreditLimitReachedError
        ├── AuthenticationError    401
        ├── PermissionDeniedError  403
        ├── NotFoundError          404
        ├── RequestInvalidError    422
        ├── RateLimitedError       429
        └── ServerError            5xx

`aiocopyai.export` adds `ExportError`, and `aiocopyai.batch` adds `BatchError`. Both are also a `ValueError`.

Every error can be pickled and copied, and none contains the API key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from aiocopyai._text import bounded_repr, escape, short_repr, truncate
from aiocopyai.models import JSON, Run, RunStatus


_MAX_DETAILS: Final = 300
"""The maximum length of the server's details in a message, in characters."""
_MAX_MESSAGE: Final = 1_000
"""The maximum length of a message, in characters."""


@frozen
class RequestInfo:
    """The request that failed.

    Attributes:
        method: the HTTP method.
        url: the full URL.
        attempts: the number of times that the request was sent.
    """

    method: str
    url: str = field(repr=bounded_repr)
    attempts: int = 1

    def __str__(self) -> str:
        return f"{self.method} {self.url}" + (f", {self.attempts} attempts" if self.attempts > 1 else "")


class CopyAIError(Exception):
    """The base class of all errors of this package.

    Attributes:
        page: the number of the requested page, from 1, if a list was being read; otherwise None. Pass it as
            `start_page` to continue in another process.
        ambiguous: whether the server may have executed the failed request. Always False for requests that only read.
        request: the failed request; None if the error does not concern a single request.
    """

    page: int | None = None
    ambiguous: bool = False
    request: RequestInfo | None = None

    def __init__(self, *args: object) -> None:
        # OSError, a base class of TimeoutError, takes two to five arguments for an errno and file names.
        Exception.__init__(self, *args)

    @property
    def message(self) -> str:
        """The problem, the request and the advice on one line, with control characters escaped and without the page."""
        request = f" ({self.request})" if self.request else ""
        advice = self._advice()
        return escape(f"{self._describe()}{request}{advice and f'; {advice}'}", _MAX_MESSAGE)

    @property
    def summary(self) -> str:
        """The problem on one line, with control characters escaped and without the request and the advice."""
        return escape(self._describe(), _MAX_MESSAGE)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed if it is sent again."""
        return False

    @property
    def method(self) -> str:
        """The HTTP method of the request; empty if there is no `request`."""
        return self.request.method if self.request else ""

    @property
    def url(self) -> str:
        """The URL of the request; empty if there is no `request`."""
        return self.request.url if self.request else ""

    @property
    def attempts(self) -> int:
        """The number of times that the request was sent; 1 if there is no `request`."""
        return self.request.attempts if self.request else 1

    def __str__(self) -> str:
        return self.message if self.page is None else f"page {self.page}: {self.message}"

    def __repr__(self) -> str:
        # By default, it would have all arguments, which include up to 64 KiB of a body.
        return f"{type(self).__name__}({str(self)!r})"

    def _describe(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__

    def _advice(self) -> str:
        """Return what the caller can do; empty if there is no advice."""
        return ""


class ConfigurationError(CopyAIError, ValueError):
    """A session cannot be created: the API key is missing or malformed, or a setting is invalid."""


class APIConnectionError(CopyAIError):
    """No response or an incomplete one was received: no connection, a failed TLS handshake, or a broken connection."""

    def __init__(
        self,
        reason: str,
        request: RequestInfo | None = None,
        retryable: bool = True,  # noqa: FBT001, FBT002 (positional, so that the error pickles)
    ) -> None:
        super().__init__(reason, request, retryable)
        self.request = request
        self._retryable = retryable

    @property
    def retryable(self) -> bool:
        """True, unless the server's certificate is not trusted."""
        return self._retryable


class APITimeoutError(APIConnectionError, TimeoutError):
    """No complete response was received within the time-out of one attempt."""


class InvalidResponseError(CopyAIError):
    """The response is not the documented JSON.

    Attributes:
        reason: what is wrong.
        place: the path to the invalid value, such as ``data.data[3]``; empty for the response as a whole.
        excerpt: the beginning of the invalid value.
    """

    def __init__(
        self,
        reason: str,
        place: str = "",
        excerpt: str = "",
        request: RequestInfo | None = None,
        retryable: bool = False,  # noqa: FBT001, FBT002 (positional, so that the error pickles)
    ) -> None:
        super().__init__(reason, place, excerpt, request, retryable)
        self.reason = reason
        self.place = place
        self.excerpt = excerpt
        self.request = request
        self._retryable = retryable

    @property
    def retryable(self) -> bool:
        """True if the response is not JSON, such as the HTML page of a gateway or an incomplete body."""
        return self._retryable

    def _describe(self) -> str:
        place = f"{self.place}: " if self.place else ""
        got = f", got {self.excerpt}" if self.excerpt else ""
        return f"{place}{self.reason}{got}"


class PaginationError(CopyAIError):
    """A list does not advance: many consecutive pages have no new item, although `total` is larger or keeps falling."""


class AmbiguousStartError(CopyAIError):
    """The response to a start was lost: a run may have been started, and may cost credits.

    The start is not sent again automatically. ``__cause__`` is the error of the request. If the start had an
    idempotency key, `CopyAISession.find_run` searches for its run, and so does another `start_run` with the same key in
    the same session.

    Attributes:
        reason: what happened to the request.
        workflow_id: the workflow's id.
        idempotency_key: the key of the start, which is in the metadata of its run; None if it had none.
    """

    ambiguous = True

    def __init__(self, reason: str, workflow_id: str, idempotency_key: str | None = None) -> None:
        super().__init__(reason, workflow_id, idempotency_key)
        self.reason = reason
        self.workflow_id = workflow_id
        self.idempotency_key = idempotency_key

    def _describe(self) -> str:
        return f"a run of {self.workflow_id} may have been started: {self.reason}"

    def _advice(self) -> str:
        if self.idempotency_key is None:
            return "check the newest runs before you start it again, or pass an idempotency_key to automate this"
        return f"search for it later: call find_run() with the key {self.idempotency_key!r}"


class RunFailedError(CopyAIError):
    """The run ended with the status ``FAILED``.

    Attributes:
        run: the failed run.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.run = run

    @property
    def error(self) -> JSON:
        """Why the run failed, as raw JSON (its shape is not documented)."""
        return self.run.error

    def _describe(self) -> str:
        if self.error is None:
            return f"run {self.run.id} failed without an error message"
        return f"run {self.run.id} failed: {truncate(short_repr(self.error), _MAX_DETAILS)}"


class RunTimeoutError(CopyAIError, TimeoutError):
    """The run was not finished in time. It continues: call `CopyAISession.wait_run` with its ids to keep waiting.

    Attributes:
        workflow_id: the workflow's id.
        run_id: the run's id.
        seconds: the time-out in seconds.
        status: the latest status; None if no response had one.
    """

    def __init__(self, workflow_id: str, run_id: str, seconds: float, status: RunStatus | None = None) -> None:
        super().__init__(workflow_id, run_id, seconds, status)
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.seconds = seconds
        self.status = status

    def _describe(self) -> str:
        state = f"is still {self.status}" if self.status is not None else "has no status"
        return f"run {self.run_id} {state} after {self.seconds:g} s"

    def _advice(self) -> str:
        advice = "call wait_run() to keep waiting"
        if self.status is not None and self.status not in RunStatus.__members__:
            advice += ", with final_statuses if this undocumented status is final"
        return advice


class InvalidEventError(CopyAIError, ValueError):
    """The body of a webhook delivery is not an event.

    Attributes:
        reason: what is wrong.
        excerpt: the beginning of the body.
    """

    def __init__(self, reason: str, excerpt: str = "") -> None:
        super().__init__(reason, excerpt)
        self.reason = reason
        self.excerpt = excerpt

    def _describe(self) -> str:
        return f"{self.reason}, got {self.excerpt}" if self.excerpt else self.reason


class APIStatusError(CopyAIError):
    """The server responded with an HTTP status other than 2xx.

    Copy.ai's reference documents 400, 404 and 422. The other statuses have their usual meaning in HTTP.

    Attributes:
        status: the HTTP status.
        error_code: the ``errorCode`` of the body, such as ``NOT_FOUND``; None if there is none.
        details: the ``details`` of the body, for a 422 the reasons by field; None if there are none.
        body: the body as JSON, or the beginning of its text if it is not JSON.
        headers: the headers of the response, by name in lower case.
        retry_after: the seconds to wait according to ``Retry-After``; None without a valid header.
    """

    _hint = ""

    def __init__(
        self,
        status: int,
        error_code: str | None = None,
        details: JSON = None,
        body: JSON = None,
        headers: Mapping[str, str] | None = None,
        request: RequestInfo | None = None,
        retry_after: float | None = None,
    ) -> None:
        headers = dict(headers or {})
        super().__init__(status, error_code, details, body, headers, request, retry_after)
        self.status = status
        self.error_code = error_code
        self.details = details
        self.body = body
        self.headers: Mapping[str, str] = headers
        self.request = request
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:
        """True for 408, 425, 429 and 5xx."""
        return self.status in {408, 425, 429} or self.status >= 500  # noqa: PLR2004 (HTTP's own numbers)

    def _describe(self) -> str:
        code = f" {truncate(self.error_code, _MAX_DETAILS)}" if self.error_code else ""
        details = f": {truncate(short_repr(self.details), _MAX_DETAILS)}" if self.details else ""
        return f"HTTP {self.status}{code}{details}"

    def _advice(self) -> str:
        if 300 <= self.status < 400:  # noqa: PLR2004 (HTTP's own numbers)
            target = truncate(self.headers.get("location", ""), _MAX_DETAILS)
            return f"redirect{f' to {target}' if target else ''} not followed: check base_url"
        wait = "" if self.retry_after is None else f"the server asks to wait {self.retry_after:.10g} s"
        return "; ".join(filter(None, [wait, self._hint]))


class BadRequestError(APIStatusError):
    """400: the request is malformed. The body is often ``{}``."""


class CreditLimitReachedError(BadRequestError):
    """400 with ``WORKFLOW_CREDIT_LIMIT_REACHED``: the workspace is out of credits."""

    _hint = "the workspace is out of credits"


class AuthenticationError(APIStatusError):
    """401: the API key is not accepted."""

    _hint = "check the API key (COPYAI_API_KEY); keys can expire or be disabled"


class PermissionDeniedError(APIStatusError):
    """403: the API key lacks the permission, or a gateway blocks the request; in that case, `body` is its text."""

    _hint = "the key lacks the permission; keys are created by a workspace's Owner or Admin"


class NotFoundError(APIStatusError):
    """404: there is no such workflow, run or webhook, or the key has no access to it."""

    _hint = "check the id, and that the key belongs to the same workspace"


class RequestInvalidError(APIStatusError):
    """422: a field of the request is invalid; `details` has the reasons by field."""


class RateLimitedError(APIStatusError):
    """429: too many requests."""

    _hint = "lower max_rate or prefetch"


class ServerError(APIStatusError):
    """5xx: the server or a gateway failed."""


def is_gateway_page(error: Exception) -> bool:
    """Return whether an error is a 403 without JSON, which gateways send for single requests."""
    return isinstance(error, PermissionDeniedError) and isinstance(error.body, str)


def status_error(status: int, error_code: str | None) -> type[APIStatusError]:
    """Return the error class for an HTTP status and the ``errorCode`` of the body."""
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
