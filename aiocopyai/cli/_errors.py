"""Exit codes and messages of errors. The messages name options and environment variables instead of parameters."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

import typer

import aiocopyai
from aiocopyai._display import printable


_OPTION_NAMES: Final = {
    "base_url": "COPYAI_BASE_URL",
    "concurrency": "--concurrency",
    "delimiter": "--delimiter",
    "event_type": "EVENT",
    "inputs": "--input",
    "interval": "--interval",
    "limit": "--limit",
    "max_rate": "--max-rate",
    "metadata": "--metadata",
    "prefetch": "--prefetch",
    "run_id": "RUN_ID",
    "secret": "COPYAI_WEBHOOK_SECRET",
    "since": "--since",
    "status": "--status",
    "statuses": "--status",
    "timeout": "--timeout",
    "url": "URL",
    "webhook_id": "WEBHOOK_ID",
    "workflow_id": "WORKFLOW_ID",
}
"""The option, argument or environment variable for each parameter of the library.

A message about a parameter begins with the name of the parameter.
"""


class CommandError(Exception):
    """A command failed for a reason other than an error of the API.

    Args:
        message: one line.
        exit_code: the exit code; 2 for wrong usage.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def exit_code(error: Exception) -> int:
    """Return the exit code for an error: 2 for wrong usage, otherwise 1."""
    if isinstance(error, CommandError):
        return error.exit_code
    return 2 if isinstance(error, aiocopyai.ConfigurationError) else 1


def listen_error(host: str, port: int, error: OSError) -> CommandError:
    """Return the error to raise if a server cannot listen on its address."""
    return CommandError(
        f"cannot listen on {host} port {port}: {error.strerror or error}; choose another --host or --port"
    )


def require_packages(user: str, names: Sequence[str], extra: str) -> None:
    """Report missing packages as wrong usage.

    Args:
        user: the command or feature that requires the packages.
        names: the packages.
        extra: the extra that installs them.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise typer.BadParameter(
            f'{user} requires {" and ".join(missing)}; install with: python -m pip install "aiocopyai[{extra}]"'
        )


@contextmanager
def usage_errors(replacements: Mapping[str, str] = MappingProxyType({}), /, **names: str) -> Generator[None]:
    """Report a `ValueError` as wrong usage of the command: exit code 2.

    Args:
        replacements: replacements for phrases in messages of the library, such as ``resume=True``.
        names: the options and arguments for parameters of the library, if they differ from those of other commands.
    """
    try:
        yield
    except aiocopyai.ConfigurationError:
        raise
    except ValueError as error:
        message = _name_option(str(error), names)
        for phrase, replacement in replacements.items():
            message = message.replace(phrase, replacement)
        raise typer.BadParameter(printable(message)) from error


def describe(error: Exception) -> str:
    """Return the message of an error for a user of the command line, with what the user can do about it."""
    if isinstance(error, aiocopyai.ConfigurationError):
        return _name_option(str(error), {})
    if isinstance(error, aiocopyai.RunTimeoutError):
        advice = f"`aiocopyai get {error.workflow_id} {error.run_id} --wait` continues to wait"
        if isinstance(error.__cause__, Exception):
            advice = f"the last poll failed: {describe(error.__cause__)}; {advice}"
    elif isinstance(error, aiocopyai.AmbiguousStartError):
        advice = f"check `aiocopyai runs {error.workflow_id} --limit 10` before you start it again"
    elif isinstance(error, aiocopyai.RateLimitedError):
        advice = "try a lower --max-rate"
        if error.retry_after is not None:
            advice = f"the server asks to wait {error.retry_after:.10g} s; {advice}"
    elif isinstance(error, aiocopyai.APIStatusError) and 300 <= error.status < 400:  # noqa: PLR2004 (redirects)
        advice = "the redirect was not followed: check COPYAI_BASE_URL"
    else:
        return str(error)
    page = "" if error.page is None else f"page {error.page}: "
    request = "" if error.request is None else f" ({error.request})"
    return f"{page}{error.summary}{request}; {advice}"


def _name_option(message: str, names: Mapping[str, str]) -> str:
    """Replace the name of a parameter at the beginning of a message with that of its option."""
    name, space, rest = message.partition(" ")
    for alternative in (", an aiohttp.ClientTimeout", ", or None"):  # values that an option cannot have
        rest = rest.replace(alternative, "")
    return ({**_OPTION_NAMES, **names}).get(name, name) + space + rest
