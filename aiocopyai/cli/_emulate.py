"""``aiocopyai emulate``: the local Copy.ai on its own."""

from __future__ import annotations

import typer


def emulate(context: typer.Context) -> None:
    """Serve a local Copy.ai on 127.0.0.1, with made-up runs, until Ctrl-C; `emulate --help` has its options."""
    # Its options are its own: `python -m aiocopyai.emulator` is the same without the extra that this command takes.
    from aiocopyai.emulator import main  # noqa: PLC0415 (no other command needs a server)

    raise typer.Exit(main(context.args, prog="aiocopyai emulate"))
