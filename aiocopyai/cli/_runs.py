"""``aiocopyai runs``: walk the runs of a workflow, and say at the end what there was."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime

import typer
from attrs import Factory, define, frozen

from aiocopyai import ConfigurationError, CopyAIError, CopyAISession, Pager, Run
from aiocopyai.cli._formats import Format, Sink, printable, sink


DEMO_RUNS = 640


@frozen
class Wanted:
    """What the command was asked for."""

    workflow_id: str | None
    """None for the demo."""
    limit: int | None
    since: datetime | None
    format: Format


@define
class Tally:
    """What was seen so far."""

    by_status: Counter[str] = Factory(Counter[str])
    credits: int = 0

    def add(self, run: Run) -> None:
        """Count one run."""
        self.by_status[str(run.status or "no status")] += 1
        self.credits += run.credits or 0

    def __str__(self) -> str:
        count = self.by_status.total()
        statuses = ", ".join(f"{number:,} {status}" for status, number in self.by_status.most_common())
        runs = f"{count:,} run{'' if count == 1 else 's'}"
        return f"{runs}{': ' if count else ''}{statuses}; {self.credits:,} credits"


def find_key(*, demo: bool) -> str | None:
    """Return the key that a terminal's user types; None where the session finds one, or has to complain."""
    if demo or os.environ.get("COPYAI_API_KEY") or not sys.stdin.isatty():
        return None
    answer: str = typer.prompt("Copy.ai API key", hide_input=True, err=True)
    return answer


def run(wanted: Wanted, key: str | None, *, debug: bool) -> int:
    """Walk and write; return the exit code."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    tally = Tally()
    try:
        asyncio.run(_list_runs(wanted, key, tally))
    except BrokenPipeError:
        _let_go_of_stdout()
        return 0
    except KeyboardInterrupt:
        _say(f"stopped after {tally}")
        return 130
    except (CopyAIError, OSError) as error:
        return _fail(error, tally, debug=debug)
    return 0


def _fail(error: Exception, tally: Tally, *, debug: bool) -> int:
    """Say what went wrong; return the exit code: 2 where it's the command that can't be done."""
    if debug:
        _say(*traceback.format_exception(error))
    if tally.by_status:
        _say(f"stopped after {tally}")
    _say(f"aiocopyai: {error}")
    if isinstance(error, OSError) and not isinstance(error, CopyAIError):
        _let_go_of_stdout()
    return 2 if isinstance(error, ConfigurationError) else 1


async def _list_runs(wanted: Wanted, key: str | None, tally: Tally) -> None:
    async with _session(wanted, key) as (session, workflow_id):
        try:
            pager = session.runs(workflow_id, limit=wanted.limit, since=wanted.since)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        await _write(pager, sink(wanted.format), tally)
    _say(str(tally))
    if pager.drift:
        _say(f"the list moved meanwhile: {pager.drift}")


async def _write(pager: Pager[Run], out: Sink, tally: Tally) -> None:
    async for page in pager.pages():
        for item in page.items:
            out.write(item)
            tally.add(item)
        out.flush()


@asynccontextmanager
async def _session(wanted: Wanted, key: str | None) -> AsyncGenerator[tuple[CopyAISession, str], None]:
    """Give a session and the workflow to list: the user's own, or the demo's."""
    if wanted.workflow_id is not None:
        async with CopyAISession(key) as session:
            yield session, wanted.workflow_id
        return
    from aiocopyai.emulator import Emulator  # noqa: PLC0415 (only the demo needs a server)

    # A little latency, as a real server has it, so that the pages are seen to come one by one.
    async with (
        Emulator(DEMO_RUNS, latency=0.05) as emulator,
        CopyAISession(emulator.api_key, base_url=emulator.url) as session,
    ):
        _say(f"demo: {DEMO_RUNS} made-up runs, from a Copy.ai emulator at {emulator.url}")
        yield session, emulator.workflow_id


def _say(*texts: str) -> None:
    """Write lines to standard error; what they quote of the server's can't steer the terminal."""
    for line in "".join(texts).splitlines():
        typer.echo(printable(line), err=True)


def _let_go_of_stdout() -> None:
    """Point standard output nowhere, so that Python doesn't fail once more when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
