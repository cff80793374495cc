"""`python -m aiocopyai.emulator`: the emulator on its own, for programs in any language."""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
from collections.abc import Sequence
from errno import EADDRINUSE
from typing import Final

from aiocopyai.emulator._emulator import Emulator
from aiocopyai.emulator._request import Request


_LOGGED: Final = 100
_HIGHEST_PORT: Final = 65_535
_EXAMPLE: Final = """\
example:
  {prog} --runs 100 --workflow-id demo --run-time 2
  curl -H 'x-copy-ai-api-key: emulator-key' 'http://127.0.0.1:8040/api/workflow/demo/run?size=3&page=1'
  curl -H 'x-copy-ai-api-key: emulator-key' --json '{{"startVariables": {{"Tone": "Formal"}}}}' \\
      http://127.0.0.1:8040/api/workflow/demo/run
"""


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m aiocopyai.emulator") -> int:
    """Serve an emulator until Ctrl-C, as the arguments want it.

    Args:
        argv: The arguments without the program's name; those of the process if None.
        prog: What the program is called in its help.

    Returns:
        The exit status, which is 130 after Ctrl-C, and 1 where it can't serve, with a line on stderr that says why.

    Raises:
        SystemExit: the arguments ask for help, or are wrong.
    """
    options = _parser(prog).parse_args(argv)
    try:
        asyncio.run(serve(_emulator(options)))
    except KeyboardInterrupt:
        return 130
    except sqlite3.Error as error:
        return _complain(f"{options.state}: {error}")
    except OSError as error:
        return _complain(f"port {options.port} is taken" if error.errno == EADDRINUSE else str(error))
    except ValueError as error:
        return _complain(str(error))
    return 0


async def serve(emulator: Emulator) -> None:
    """Start an emulator, say on stderr how to reach it, and serve until cancelled.

    Raises:
        RuntimeError: it has been started already.
        OSError: the port is taken.
    """
    async with emulator:
        sys.stderr.write(
            "A local Copy.ai is ready; Ctrl-C ends it.\n"
            f"  url          {emulator.url}\n"
            f"  key          {emulator.api_key}\n"
            f"  workflow id  {emulator.workflow_id}\n"
        )
        sys.stderr.flush()
        await asyncio.Event().wait()


def _emulator(options: argparse.Namespace) -> Emulator:
    more = {} if options.workflow_id is None else {"workflow_id": options.workflow_id}
    emulator = Emulator(
        options.runs,
        api_key=options.key,
        seed=options.seed,
        run_time=options.run_time,
        credits=options.credits,
        state=options.state,
        port=options.port,
        **more,
    )
    emulator.on_request = _forget_old
    return emulator


def _forget_old(emulator: Emulator, _request: Request) -> None:
    """Keep the logs short: nobody reads them here, and it may run for weeks."""
    del emulator.requests[:-_LOGGED]
    del emulator.deliveries[:-_LOGGED]


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Serve a local Copy.ai on 127.0.0.1, with made-up runs, until Ctrl-C.",
        epilog=_EXAMPLE.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--runs", type=int, default=640, metavar="N", help="how many runs to make up (640)")
    add("--port", type=_port, default=8040, help="the port to listen on; 0 for any that is free (8040)")
    add("--key", default="emulator-key", help="the key to let in (emulator-key)")
    add("--workflow-id", metavar="ID", help="the workflow that has the runs")
    add("--state", metavar="FILE", help="keep everything in this SQLite file, for the next time; it comes before "
        "--runs, --seed and --credits")  # fmt: skip
    add("--run-time", type=float, default=5, metavar="SECONDS", help="how long a started run takes (5)")
    add("--credits", type=int, metavar="N", help="what started runs may spend (no limit)")
    add("--seed", type=int, default=0, metavar="N", help="another number makes up other runs (0)")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"not between 0 and {_HIGHEST_PORT}: {port}")
    return port


def _complain(why: str) -> int:
    sys.stderr.write(f"aiocopyai.emulator: {why}\n")
    return 1
