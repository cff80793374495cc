"""The arguments and options that several commands have, and the checks of their values."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Concatenate, Final, ParamSpec, get_type_hints

import typer
from attrs import fields, frozen

from aiocopyai.cli._output import OutputFormat, echo_err


P = ParamSpec("P")

_WAIT_TIMEOUT: Final = 600.0


@frozen
class Settings:
    """The options that every command has."""

    demo: Annotated[bool, typer.Option("--demo", help="Use sample runs of a local emulator: no key, no network.")] = (
        False
    )
    debug: Annotated[bool, typer.Option("--debug", help="Log each step, and show tracebacks.")] = False

    def inform(self, message: str) -> None:
        """Print a message on standard error that is neither a result nor an error."""
        echo_err(message)


def shared_options(command: Callable[Concatenate[Settings, P], None]) -> Callable[P, None]:
    """Add the options in `Settings` to a command, which gets their values as its first argument."""
    shared = fields(Settings)

    @wraps(command)
    def with_settings(*args: P.args, **options: P.kwargs) -> None:
        values: dict[str, Any] = {field.name: options.pop(field.name) for field in shared}
        command(Settings(**values), *args, **options)

    # Typer reads a command's parameters from its signature and its annotations.
    hints = get_type_hints(command, include_extras=True)
    own = list(signature(command).parameters.values())[1:]
    settings_hints = get_type_hints(Settings, include_extras=True)
    parameters = [
        *(parameter.replace(annotation=hints[parameter.name]) for parameter in own),
        *(
            Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=settings_hints[field.name])
            for field in shared
        ),
    ]
    typed: Any = with_settings
    typed.__signature__ = Signature(parameters)
    typed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_settings


def read_datetime(text: str) -> datetime:
    """Read an ISO date or time; one without a zone is in the user's zone."""
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.astimezone() if parsed.tzinfo is None else parsed
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(f"{text!r} is not an ISO date such as 2026-01-31 or 2026-01-31T09:00Z") from None


def read_pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    """Read the ``KEY=VALUE`` pairs that an option was given."""
    pairs = [text.partition("=") for text in texts]
    for key, sign, value in pairs:
        if not key or not sign:
            raise typer.BadParameter(f"{option} takes KEY=VALUE, such as batch=7, got {key + sign + value!r}")
    return [(key, value) for key, _, value in pairs]


def read_timeout(timeout: float | None, *, wait: bool) -> float | None:
    """Return how many seconds to wait for a run; None not to wait."""
    if timeout is not None and not wait:
        raise typer.BadParameter("--timeout requires --wait")
    return (timeout or _WAIT_TIMEOUT) if wait else None


WorkflowId = Annotated[
    str | None,
    typer.Argument(metavar="WORKFLOW_ID", help="The workflow's id, such as WCFG-6db59f06-….", show_default=False),
]
WorkflowIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="WORKFLOW_ID…", help="The workflows' ids, such as WCFG-6db59f06-….", show_default=False),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        parser=read_datetime,
        metavar="ISO",
        help="Only runs created at or after this date or time, which is in your zone unless it names one.",
    ),
]
FormatOption = Annotated[
    OutputFormat | None,
    typer.Option("--format", help="The output format: by default a table on a terminal, else JSON lines."),
]
WaitTimeout = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        metavar="SECONDS",
        help=f"How long to wait for a run, with --wait. [{_WAIT_TIMEOUT:g}]",
        show_default=False,
    ),
]
