"""The asyncio-native client for the Copy.ai Workflows API: start at `CopyAISession`."""

from aiocopyai._pager import Pager
from aiocopyai._retry import RetryPolicy
from aiocopyai._run_many import RunResult, RunResults
from aiocopyai._session import CopyAISession
from aiocopyai.errors import (
    AmbiguousStartError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    CopyAIError,
    CreditLimitReachedError,
    InvalidEventError,
    InvalidResponseError,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RateLimitedError,
    RequestInfo,
    RequestInvalidError,
    RunFailedError,
    RunTimeoutError,
    ServerError,
)
from aiocopyai.models import JSON, Changes, Page, Run, RunStatus, Webhook, WebhookEventType
from aiocopyai.webhooks._event import WebhookEvent


__all__ = [
    "JSON",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AmbiguousStartError",
    "AuthenticationError",
    "BadRequestError",
    "Changes",
    "ConfigurationError",
    "CopyAIError",
    "CopyAISession",
    "CreditLimitReachedError",
    "InvalidEventError",
    "InvalidResponseError",
    "NotFoundError",
    "Page",
    "Pager",
    "PaginationError",
    "PermissionDeniedError",
    "RateLimitedError",
    "RequestInfo",
    "RequestInvalidError",
    "RetryPolicy",
    "Run",
    "RunFailedError",
    "RunResult",
    "RunResults",
    "RunStatus",
    "RunTimeoutError",
    "ServerError",
    "Webhook",
    "WebhookEvent",
    "WebhookEventType",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 (only for who asks)

        return version("aiocopyai")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
