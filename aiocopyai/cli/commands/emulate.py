"""``aiocopyai emulate``: serve the emulator."""

from __future__ import annotations

import typer


def emulate(context: typer.Context) -> None:
    """Serve a Copy.ai emulator with sample runs on 127.0.0.1."""
    # The emulator parses its own options, because `python -m aiocopyai.emulator` must work without typer.
    from aiocopyai.emulator import main  # noqa: PLC0415 (loads a server)

    raise typer.Exit(main(context.args, prog="aiocopyai emulate"))
