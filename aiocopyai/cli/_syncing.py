"""What ``aiocopyai sync`` does: a load by dlt, and a count of what it changed where it went."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import NoReturn, TypeAlias, TypeVar

import dlt
from attrs import define, frozen
from dlt.extract import DltSource
from rich.console import Console
from rich.status import Status

from aiocopyai import CopyAIError, CopyAISession
from aiocopyai._display import plural
from aiocopyai.cli._demo import announce, make_emulator
from aiocopyai.cli._errors import CommandError, run_sync, usage_errors
from aiocopyai.cli._options import Settings
from aiocopyai.cli._output import echo_err
from aiocopyai.cli._targets import alone, count_rows, open_pipeline, read_target
from aiocopyai.integrations._loop_thread import LoopThread
from aiocopyai.integrations.dlt import copyai_source


Batch = TypeVar("Batch")
Opens: TypeAlias = "Callable[[], CopyAISession]"


@frozen
class Wanted:
    """What the command was asked for."""

    settings: Settings
    workflow_ids: Sequence[str]
    to: str


@define
class Read:
    """How many runs were read so far, shown on a terminal as they come."""

    status: Status | None
    runs: int = 0

    def add(self, batch: Batch) -> Batch:
        """Count the runs of a batch on its way."""
        self.runs += getattr(batch, "num_rows", 0)
        if self.status is not None:
            self.status.update(f"{plural(self.runs, 'run')} read")
        return batch

    def __bool__(self) -> bool:
        return self.runs > 0

    def __str__(self) -> str:
        return f"reading {plural(self.runs, 'run')}"


def run(wanted: Wanted, key: str | None, settings: Settings) -> int:
    """Load; return the exit code."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    # What matters of it comes as an error, too.
    os.environ.setdefault("RUNTIME__LOG_LEVEL", "INFO" if settings.debug else "CRITICAL")
    read = Read(Status("", console=Console(stderr=True)) if sys.stderr.isatty() else None)
    return run_sync(partial(_sync, wanted, key, read), settings, so_far=read)


def _sync(wanted: Wanted, key: str | None, read: Read) -> None:
    target = read_target(wanted.to)
    with alone(target):
        pipeline = open_pipeline(target)
        with _opening(wanted.settings, key) as opens:
            _check(opens(), wanted.workflow_ids)
            source = copyai_source(wanted.workflow_ids, session=opens)
            source.resources["runs"].add_map(read.add)
            try:
                with read.status or nullcontext():
                    outcome = _load(pipeline, source, read)
            except Exception as error:  # noqa: BLE001 (each destination has errors of its own)
                _raise_cause(error)
    echo_err(f"{outcome} in {target.label}")


def _load(pipeline: dlt.Pipeline, source: DltSource, read: Read) -> str:
    """Load what is new or may have changed; return what that came to."""
    first = count_rows(pipeline)
    if pipeline.has_pending_data:
        pipeline.run()
    # From here on dlt's state is what the database says, even if that is an older one than it was.
    pipeline.drop()
    before = count_rows(pipeline)
    pipeline.run(source)
    now = count_rows(pipeline)
    return f"{plural(now - first, 'run')} new, {max(0, read.runs - now + before):,} read again; {now:,}"


def _check(session: CopyAISession, workflow_ids: Iterable[str]) -> None:
    """See whether each id can be one, before anything is sent."""
    for workflow_id in workflow_ids:
        with usage_errors():
            session.runs(workflow_id)


def _raise_cause(error: BaseException) -> NoReturn:
    """Raise what dlt's error came from, of which it says more than a line; an interrupt may hide behind another."""
    deepest = error
    while not isinstance(deepest, KeyboardInterrupt | CopyAIError | OSError):
        below = deepest.__cause__ or deepest.__context__
        if below is None:
            raise CommandError(str(deepest).strip().partition("\n")[0]) from error
        deepest = below
    raise deepest


@contextmanager
def _opening(settings: Settings, key: str | None) -> Generator[Opens]:
    """Yield a function that opens a session, with the user's workspace or with the demo's."""
    if not settings.demo:
        yield partial(settings.make_session, key)
        return
    # On a loop of its own: this thread is dlt's.
    with LoopThread() as loop:
        emulator = make_emulator()
        loop.call(emulator.start())
        try:
            announce(emulator, settings)
            yield partial(settings.make_session, emulator.api_key, base_url=emulator.url)
        finally:
            loop.call(emulator.stop())
