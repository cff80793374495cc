"""`python -m aiocopyai.emulator`: the emulator as a program, for clients in any language."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sqlite3
import sys
from collections.abc import Sequence
from errno import EADDRINUSE
from typing import Final

from aiocopyai.emulator._emulator import DEFAULT_WORKFLOW_ID, Emulator, logger
from aiocopyai.emulator._messages import Request


_MAX_LOG_LENGTH: Final = 100
_MAX_PORT: Final = 65_535
_EXAMPLE: Final = """\
example:
  {prog} --runs 100 --workflow-id demo --run-time 2
  curl -H 'x-copy-ai-api-key: emulator-key' \\
      'http://127.0.0.1:8040/api/workflow/demo/run?size=3&page=1'
  curl -H 'x-copy-ai-api-key: emulator-key' \\
      --json '{{"startVariables": {{"Tone": "Formal"}}}}' \\
      http://127.0.0.1:8040/api/workflow/demo/run
"""


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m aiocopyai.emulator") -> int:
    """Serve an emulator with the options in command-line arguments, until Ctrl-C.

    Args:
        argv: the arguments without the program's name; by default, those of the process.
        prog: the program's name in its help.

    Returns:
        130 after Ctrl-C, or 1 if the emulator cannot be started; the reason is printed on stderr.

    Raises:
        SystemExit: the arguments ask for help, or are invalid.
    """
    options = _parser(prog).parse_args(argv)
    handler = logging.StreamHandler()
    if options.verbose:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
    try:
        asyncio.run(serve(_make_emulator(options)))
    except KeyboardInterrupt:
        return 130
    except sqlite3.Error as error:
        problem = f"{options.state}: {error}"
    except (OSError, ValueError) as error:
        problem = str(error)
        if isinstance(error, OSError) and error.errno == EADDRINUSE:
            problem = f"port {options.port} is already in use: choose another --port"
    else:
        return 0
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    sys.stderr.write(f"aiocopyai.emulator: {problem}\n")
    return 1


async def serve(emulator: Emulator) -> None:
    """Start an emulator, print its URL, key and workflows on stderr, and serve until cancelled.

    Raises:
        RuntimeError: the emulator is already started.
        OSError: the port is in use.
    """
    async with emulator:
        workflow_ids = "".join(f"  workflow id  {workflow_id}\n" for workflow_id in emulator.workflow_ids)
        sys.stderr.write(
            "The Copy.ai emulator is running; press Ctrl-C to stop it.\n"
            f"  url          {emulator.url}\n"
            f"  key          {emulator.api_key}\n"
            f"{workflow_ids}"
        )
        sys.stderr.flush()
        await asyncio.Event().wait()


def _make_emulator(options: argparse.Namespace) -> Emulator:
    first, *others = options.workflow_id or [DEFAULT_WORKFLOW_ID]
    emulator = Emulator(
        options.runs,
        workflow_id=first,
        api_key=options.key,
        seed=options.seed,
        run_time=options.run_time,
        credits=options.credits,
        state=options.state,
        port=options.port,
    )
    for workflow_id in others:
        if workflow_id not in emulator.workflow_ids:
            emulator.add_runs(options.runs, workflow_id=workflow_id)

    def trim_logs(emulator: Emulator, _request: Request) -> None:
        # The program may run for weeks, and does not use these lists.
        del emulator.requests[:-_MAX_LOG_LENGTH]
        del emulator.deliveries[:-_MAX_LOG_LENGTH]

    emulator.on_request = trim_logs
    return emulator


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Serve an emulator of the Copy.ai API with sample runs on 127.0.0.1, until Ctrl-C.",
        epilog=_EXAMPLE.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--runs", type=int, default=640, metavar="N", help="number of sample runs (default: 640)")
    add("--port", type=_port, default=8040, help="port to listen on, or 0 for any free one (default: 8040)")
    add("--key", default="emulator-key", help="API key to accept (default: emulator-key)")
    add("--workflow-id", action="append", metavar="ID", help="id of the workflow; repeat the option for several")
    add("--state", metavar="FILE", help="SQLite file that stores runs, webhooks and credits for the next start; its "
        "content replaces --runs, --seed and --credits")  # fmt: skip
    add("--run-time", type=float, default=5, metavar="SECONDS", help="duration of a started run (default: 5)")
    add("--credits", type=int, metavar="N", help="credits that started runs may spend (default: no limit)")
    add("--seed", type=int, default=0, metavar="N", help="generate other sample runs (default: 0)")
    add("--verbose", action="store_true", help="print a line on stderr for each request")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"must be between 0 and {_MAX_PORT}, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
