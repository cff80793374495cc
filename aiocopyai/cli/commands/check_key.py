"""``aiocopyai check-key``: whether the API accepts the key."""

from __future__ import annotations

import typer

from aiocopyai.cli._client import find_key, open_session
from aiocopyai.cli._errors import run_async
from aiocopyai.cli._options import Settings, shared_options


@shared_options
def check_key(settings: Settings) -> None:
    """Check whether the API accepts the key.

    The exit code is 0 if it does, 1 if not.
    The key is read from COPYAI_API_KEY; without it, a terminal shows a prompt.
    The check is one request, which changes nothing and costs nothing.

    \b
    Examples:
      aiocopyai check-key --demo
      COPYAI_API_KEY="$(pass copyai)" aiocopyai check-key
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    raise typer.Exit(run_async(_check(settings, find_key(settings)), settings))


async def _check(settings: Settings, key: str | None) -> None:
    async with open_session(settings, key) as session:
        await session.check_key()
    settings.inform("the key is accepted")
