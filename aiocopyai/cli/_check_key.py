"""``aiocopyai check-key``: is the key accepted?"""

from __future__ import annotations

import typer

from aiocopyai.cli._common import find_key, open_workspace, perform
from aiocopyai.cli._formats import say
from aiocopyai.cli._options import Debug, Demo


def check_key(*, demo: Demo = False, debug: Debug = False) -> None:
    """Tell whether the API accepts the key: exit code 0 if so, 1 if not.

    The key is taken from COPYAI_API_KEY, or asked for on a terminal.
    It takes one request, which changes and costs nothing.

    \b
    Examples:
      aiocopyai check-key --demo
      COPYAI_API_KEY="$(pass copyai)" aiocopyai check-key
    """  # noqa: D301 (the backspace is click's mark for lines to keep)
    raise typer.Exit(perform(_check(find_key(demo=demo), demo=demo), debug=debug))


async def _check(key: str | None, *, demo: bool) -> None:
    async with open_workspace(key, demo=demo) as session:
        await session.check_key()
    say("the key is accepted")
