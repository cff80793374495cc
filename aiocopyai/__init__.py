"""An asyncio client for the Copy.ai Workflows API. Start with `CopyAISession`.

Public names are loaded on first use: pytest imports this package in every run, through the plugin in
`aiocopyai.emulator`, and that import must not load aiohttp.
"""

from __future__ import annotations

from importlib import import_module


TYPE_CHECKING = False  # as in typing, whose import would take most of the time before the command handles Ctrl-C
if TYPE_CHECKING:
    from typing import Final

    from aiocopyai._pager import Pager
    from aiocopyai._request_options import AttemptInfo, RetryInfo
    from aiocopyai._retry import RetryPolicy
    from aiocopyai._run_many import RunResult, RunResults
    from aiocopyai._session import CopyAISession
    from aiocopyai._watch import RunWatch, Watch
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
    from aiocopyai.models import JSON, Changes, Page, Run, RunEvent, RunStatus, Webhook, WebhookEventType
    from aiocopyai.webhooks._event import WebhookEvent

__all__ = [
    "JSON",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AmbiguousStartError",
    "AttemptInfo",
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
    "RetryInfo",
    "RetryPolicy",
    "Run",
    "RunEvent",
    "RunFailedError",
    "RunResult",
    "RunResults",
    "RunStatus",
    "RunTimeoutError",
    "RunWatch",
    "ServerError",
    "Watch",
    "Webhook",
    "WebhookEvent",
    "WebhookEventType",
]

_MODULES: Final = {
    "JSON": "models",
    "APIConnectionError": "errors",
    "APIStatusError": "errors",
    "APITimeoutError": "errors",
    "AmbiguousStartError": "errors",
    "AttemptInfo": "_request_options",
    "AuthenticationError": "errors",
    "BadRequestError": "errors",
    "Changes": "models",
    "ConfigurationError": "errors",
    "CopyAIError": "errors",
    "CopyAISession": "_session",
    "CreditLimitReachedError": "errors",
    "InvalidEventError": "errors",
    "InvalidResponseError": "errors",
    "NotFoundError": "errors",
    "Page": "models",
    "Pager": "_pager",
    "PaginationError": "errors",
    "PermissionDeniedError": "errors",
    "RateLimitedError": "errors",
    "RequestInfo": "errors",
    "RequestInvalidError": "errors",
    "RetryInfo": "_request_options",
    "RetryPolicy": "_retry",
    "Run": "models",
    "RunEvent": "models",
    "RunFailedError": "errors",
    "RunResult": "_run_many",
    "RunResults": "_run_many",
    "RunStatus": "models",
    "RunTimeoutError": "errors",
    "RunWatch": "_watch",
    "ServerError": "errors",
    "Watch": "_watch",
    "Webhook": "models",
    "WebhookEvent": "webhooks._event",
    "WebhookEventType": "models",
}
_SUBMODULES: Final = frozenset({"errors", "models", "webhooks"})


def __dir__() -> list[str]:
    return [*__all__, *_SUBMODULES, "__version__"]


if TYPE_CHECKING:
    __version__: str
else:  # hidden from type checkers, which would otherwise accept any name

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        elif name in _SUBMODULES:
            value = import_module(f"{__name__}.{name}")
        elif name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 (costs more than the rest of this module)

            value = version("aiocopyai")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value  # the next access does not come here
        return value
