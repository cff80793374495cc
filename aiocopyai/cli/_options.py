"""The arguments and options that several commands share, and the validation of their values."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, ParamSpec, get_type_hints

import typer
from attrs import evolve, fields, frozen

import aiocopyai
from aiocopyai.cli import _demo
from aiocopyai.cli._output import OutputFormat, echo_err


if TYPE_CHECKING:
    from aiocopyai import CopyAISession


P = ParamSpec("P")

_REQUEST_TIMEOUT: Final = 30.0
_WAIT_TIMEOUT: Final = 600.0
_RETRIES: Final = 4
_AGE: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@frozen
class Settings:
    """The options that every command has."""

    demo: Annotated[
        bool, typer.Option("--demo", help="Use sample runs of a local emulator, which needs no key and no network.")
    ] = False
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="Wait at most this long for each response.")
    ] = _REQUEST_TIMEOUT
    retries: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Retry a failed request at most this many times, within two minutes."),
    ] = _RETRIES
    max_rate: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="N", help="Send at most this many requests per second.", show_default=False),
    ] = None
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print only results and errors: no counts, no progress and no warnings."),
    ] = False
    debug: Annotated[bool, typer.Option("--debug", help="Log each request, and show the tracebacks of errors.")] = False

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown: standard error is a terminal, and ``--quiet`` is not given."""
        return sys.stderr.isatty() and not self.quiet

    def inform(self, message: str) -> None:
        """Print an informational message on standard error, unless ``--quiet`` is given."""
        if not self.quiet:
            echo_err(message)

    def make_session(self, key: str | None, *, base_url: str | None = None) -> CopyAISession:
        """Make a session with these options.

        Args:
            key: the API key; by default, the key in the environment.
            base_url: the URL of an emulator. Requests to it do not go through a proxy.
        """
        return aiocopyai.CopyAISession(
            key,
            base_url=base_url,
            timeout=self.timeout,
            retry=aiocopyai.RetryPolicy(attempts=self.retries + 1),
            max_rate=self.max_rate,
            trust_env=base_url is None,
        )


def shared_options(command: Callable[Concatenate[Settings, P], None]) -> Callable[P, None]:
    """Add the options in `Settings` to a command, which receives their values as its first argument.

    If the command has an option of the same name, `Settings` has the default value.
    """
    # Typer reads a command's parameters from its signature and its annotations.
    hints = get_type_hints(command, include_extras=True)
    own_parameters = [
        parameter.replace(annotation=hints[parameter.name]) for parameter in signature(command).parameters.values()
    ]
    shared_hints = get_type_hints(Settings, include_extras=True)
    shared_parameters = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=shared_hints[field.name])
        for field in fields(Settings)
        if field.name not in hints
    ]

    @wraps(command)
    def with_settings(*args: P.args, **options: P.kwargs) -> None:
        values: dict[str, Any] = {parameter.name: options.pop(parameter.name) for parameter in shared_parameters}
        command(Settings(**values), *args, **options)

    typed: Any = with_settings
    typed.__signature__ = Signature([*own_parameters[1:], *shared_parameters])
    typed.__annotations__ = {
        parameter.name: parameter.annotation for parameter in (*own_parameters[1:], *shared_parameters)
    }
    return with_settings


def apply_timeout(timeout: float | None, settings: Settings, *, wait: bool) -> tuple[Settings, float | None]:
    """Apply ``--timeout`` to the wait for a run, or without ``--wait`` to each request.

    Returns:
        The settings, and the number of seconds to wait for a run. None means not to wait.
    """
    if wait:
        return settings, timeout or _WAIT_TIMEOUT
    return settings if timeout is None else evolve(settings, timeout=timeout), None


def choose_workflow(workflow_id: str | None, settings: Settings) -> str:
    """Return the id of the workflow of a command; see `choose_workflows`."""
    [chosen] = choose_workflows([] if workflow_id is None else [workflow_id], settings)
    return chosen


def choose_workflows(workflow_ids: list[str] | None, settings: Settings) -> list[str]:
    """Return the ids of the workflows of a command: by default, the id in the environment, or that of the demo.

    Raises:
        typer.BadParameter: WORKFLOW_ID and --demo were both given, or neither of them and no id in the environment.
    """
    if settings.demo:
        if workflow_ids:
            raise typer.BadParameter("pass either a WORKFLOW_ID or --demo")
        return [_demo.WORKFLOW_ID]
    chosen = workflow_ids or [os.environ.get("COPYAI_WORKFLOW_ID", "")]
    if not all(chosen):
        raise typer.BadParameter("pass either a WORKFLOW_ID or --demo, or set COPYAI_WORKFLOW_ID")
    return chosen


def read_datetime(text: str) -> datetime:
    """Parse an age such as ``7d``, or a date or time in ISO format, by default in the user's time zone."""
    try:
        if age := _AGE.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        parsed = datetime.fromisoformat(text)
        return parsed.astimezone() if parsed.tzinfo is None else parsed
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{text!r} is not a date such as 2026-01-31, a time such as 2026-01-31T09:00Z or an age such as 7d or 12h"
        ) from None


def read_pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    """Parse the ``KEY=VALUE`` values of an option."""
    pairs = [text.partition("=") for text in texts]
    for key, sign, value in pairs:
        if not key or not sign:
            raise typer.BadParameter(f"{option} must be KEY=VALUE, such as batch=7, got {key + sign + value!r}")
    return [(key, value) for key, _, value in pairs]


WorkflowId = Annotated[
    str | None,
    typer.Argument(
        metavar="WORKFLOW_ID",
        help="The workflow's id, such as WCFG-6db59f06-…; by default, the value of COPYAI_WORKFLOW_ID.",
        show_default=False,
    ),
]
WorkflowIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="WORKFLOW_ID",
        help="The workflows' ids, such as WCFG-6db59f06-…; by default, the value of COPYAI_WORKFLOW_ID.",
        show_default=False,
    ),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        parser=read_datetime,
        metavar="TIME|AGE",
        help="Include only runs created since this date, time or age, such as 2026-01-31, 2026-01-31T09:00Z, 7d or "
        "12h; without an offset, a time is in your time zone.",
    ),
]
Prefetch = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=100,
        metavar="N",
        help="Request at most this many pages at a time, or 0 to request a page only when it is needed; by default 4 "
        "to 16.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    OutputFormat | None,
    typer.Option("--format", help="Print in this format; by default a table on a terminal, and JSON lines elsewhere."),
]
WebhookWorkflow = Annotated[
    str | None,
    typer.Option(
        "--workflow",
        metavar="WORKFLOW_ID",
        help="Report only events of this workflow, instead of all workflows.",
        show_default=False,
    ),
]
WaitTimeout = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        metavar="SECONDS",
        help=f"With --wait, wait at most this long for each run, by default {_WAIT_TIMEOUT:g} s; without it, for each "
        f"response, by default {_REQUEST_TIMEOUT:g} s.",
        show_default=False,
    ),
]
