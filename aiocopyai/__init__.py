"""The asyncio-native client for the Copy.ai Workflows API: start at `CopyAISession`."""

from aiocopyai._pager import Pager
from aiocopyai._retry import RetryPolicy
from aiocopyai._session import CopyAISession
from aiocopyai.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    CopyAIError,
    CreditLimitReachedError,
    InvalidResponseError,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RateLimitedError,
    RequestInvalidError,
    ServerError,
)
from aiocopyai.models import JSON, Drift, Page, Run, RunStatus


__all__ = [
    "JSON",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ConfigurationError",
    "CopyAIError",
    "CopyAISession",
    "CreditLimitReachedError",
    "Drift",
    "InvalidResponseError",
    "NotFoundError",
    "Page",
    "Pager",
    "PaginationError",
    "PermissionDeniedError",
    "RateLimitedError",
    "RequestInvalidError",
    "RetryPolicy",
    "Run",
    "RunStatus",
    "ServerError",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 (only for who asks)

        return version("aiocopyai")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
