"""The arguments and options that several commands have."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import typer

from aiocopyai.cli._formats import Format


_TIMEOUT: Final = 600.0


def read_moment(text: str) -> datetime:
    """Read an ISO date or time; one without a zone is in the user's."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone() if moment.tzinfo is None else moment
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(f"{text!r} is no ISO date, such as 2026-01-31 or 2026-01-31T09:00Z") from None


def check_workflow(workflow_id: str | None, *, demo: bool) -> None:
    """Refuse a command that names no workflow and isn't the demo, or is both."""
    if (workflow_id is None) is not demo:
        raise typer.BadParameter("give either a WORKFLOW_ID or --demo")


def read_pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    """Read what an option was given as ``KEY=VALUE``."""
    pairs = [text.partition("=") for text in texts]
    for key, sign, value in pairs:
        if not key or not sign:
            raise typer.BadParameter(f"{option} takes KEY=VALUE, such as batch=7, not {key + sign + value!r}")
    return [(key, value) for key, _, value in pairs]


def read_timeout(timeout: float | None, *, wait: bool) -> float | None:
    """Return how many seconds to wait for a run; None not to wait."""
    if timeout is not None and not wait:
        raise typer.BadParameter("--timeout goes with --wait")
    return (timeout or _TIMEOUT) if wait else None


WorkflowId = Annotated[
    str | None,
    typer.Argument(metavar="WORKFLOW_ID", help="The workflow's id, such as WCFG-6db59f06-….", show_default=False),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        parser=read_moment,
        metavar="ISO",
        help="Only runs created at or after this date or time; without a zone it is in yours.",
    ),
]
OutputFormat = Annotated[
    Format | None,
    typer.Option("--format", help="By default a table on a terminal, JSON lines elsewhere."),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        metavar="SECONDS",
        help=f"How long to wait for a run, with --wait. [{_TIMEOUT:g}]",
        show_default=False,
    ),
]
Demo = Annotated[bool, typer.Option("--demo", help="Use made-up runs of a local emulator: no key, no network.")]
Debug = Annotated[bool, typer.Option("--debug", help="Log each step, and show tracebacks.")]
