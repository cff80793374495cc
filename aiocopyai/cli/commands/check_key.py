"""``aiocopyai check-key``: check the API key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from aiocopyai.cli._options import Settings, shared_options
from aiocopyai.cli._runner import run_in_session


if TYPE_CHECKING:
    from aiocopyai import CopyAISession


@shared_options
def check_key(settings: Settings) -> None:
    """Check whether the API accepts the key.

    The exit code is 0 if the key is accepted, and 1 if not.
    The key is read from COPYAI_API_KEY, or from a prompt on a terminal.
    The command sends one request, which lists a webhook and changes nothing.

    \b
    Examples:
      aiocopyai check-key --demo
      COPYAI_API_KEY="$(pass copyai)" aiocopyai check-key
    """  # noqa: D301 (the backspace makes click keep the line breaks)

    async def check(session: CopyAISession) -> None:
        await session.check_key()
        settings.inform("the key is accepted")

    raise typer.Exit(run_in_session(check, settings))
