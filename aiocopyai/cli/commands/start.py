"""``aiocopyai start``: start a run, or one for each row of a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from attrs import define, evolve, field, frozen

import aiocopyai
from aiocopyai._display import plural, preview
from aiocopyai.cli._errors import CommandError, describe, usage_errors
from aiocopyai.cli._options import (
    Settings,
    WaitTimeout,
    WorkflowId,
    apply_timeout,
    choose_workflow,
    read_pairs,
    shared_options,
)
from aiocopyai.cli._output import OutputFormat, OutputWriter, check_stdout, echo_err, open_run_writer, print_json
from aiocopyai.cli._process import blocking_call
from aiocopyai.cli._progress import ProgressBar, Tally
from aiocopyai.cli._runner import run_async, run_in_session


if TYPE_CHECKING:
    from aiocopyai import JSON, CopyAISession, Run, RunResult, RunResults
    from aiocopyai.batch import BatchResults


_MAX_UNCONFIRMED_RUNS: Final = 100
"""On a terminal, the command asks before it starts more runs than this."""
_REPLACEMENTS: Final = {
    "another path": "another file with -o",
    ": pass idempotency_key instead": ": the command makes a key for each row",
    "delimiter=": "--delimiter",
    "resume=True": "--resume",
    "wait_run()": "`aiocopyai get --wait`",
}
"""Replacements for phrases in messages of the library."""


Inputs = Annotated[
    list[str] | None,
    typer.Option(
        *("--input", "-i"), metavar="KEY=VALUE", help="Send this input; repeat the option for more.", show_default=False
    ),
]
InputFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Start a run for each row of this file: .csv or .tsv with the inputs' names as header, or .jsonl.",
        show_default=False,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER",
        help="Split the .csv file's lines at this character; by default a comma, semicolon, tab or pipe is detected.",
        show_default=False,
    ),
]
RunMetadata = Annotated[
    list[str] | None,
    typer.Option(
        *("--metadata", "-m"),
        metavar="KEY=VALUE",
        help="Send this metadata with each run; repeat the option for more.",
        show_default=False,
    ),
]
Concurrency = Annotated[
    int,
    typer.Option(
        min=1,
        max=100,
        metavar="N",
        help="Keep at most this many runs in progress; without --wait, send at most this many starts at a time.",
    ),
]
RowLimit = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Start at most this many rows; --resume continues with the rest."),
]
ResultsPath = Annotated[
    Path | None,
    typer.Option(
        *("--output", "-o"),
        metavar="FILE.jsonl",
        help="Write the results to this file, instead of printing them.",
        show_default=False,
    ),
]


@shared_options
def start(
    settings: Settings,
    workflow_id: WorkflowId = None,
    *,
    inputs: Inputs = None,
    input_file: InputFile = None,
    delimiter: Delimiter = None,
    no_input: Annotated[bool, typer.Option("--no-input", help="Start a workflow that has no inputs.")] = False,
    metadata: RunMetadata = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until each run is finished.")] = False,
    timeout: WaitTimeout = None,
    concurrency: Concurrency = 8,
    limit: RowLimit = None,
    output: ResultsPath = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue with FILE.jsonl if it exists; no row is started twice.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the rows that would be started, and send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start more than 100 rows without asking.")] = False,
) -> None:
    """Start a run, or one for each row of a file. Each run spends credits.

    If the response to a start is lost, the command searches for its run before it sends the start again.
    When the credits are used up, no more rows are started.
    With -o, each result is written as soon as it is known. If the command is interrupted, the same command with
    --resume continues: it finds the runs that were started, and does not start them again.
    The exit code is 0 only if every run was started and, with --wait, is complete.

    \b
    Examples:
      aiocopyai start --demo -i "Company name=Northwind" --wait
      aiocopyai start WCFG-6db59f06-… -i "Input 1=…" -m batch=7
      aiocopyai start WCFG-6db59f06-… --input-file rows.csv --dry-run
      aiocopyai start WCFG-6db59f06-… --input-file rows.csv --wait -o results.jsonl
      aiocopyai start WCFG-6db59f06-… --input-file rows.csv --wait -o results.jsonl --resume
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    from aiocopyai.batch import read_rows  # noqa: PLC0415 (loads SQLite)

    workflow_id = choose_workflow(workflow_id, settings)
    has_inputs = input_file is not None or bool(inputs)
    if no_input == has_inputs:
        raise typer.BadParameter("pass inputs with -i or --input-file, or --no-input for a workflow without inputs")
    if delimiter is not None and input_file is None:
        raise typer.BadParameter("--delimiter requires --input-file")
    if resume and output is None:
        raise typer.BadParameter("--resume requires -o FILE.jsonl, the file with the results so far")
    settings, wait_timeout = apply_timeout(timeout, settings, wait=wait)
    run_metadata = _unique_pairs("--metadata", metadata or [])
    common = _unique_pairs("--input", inputs or [])
    with usage_errors(_REPLACEMENTS):
        # A tab is hard to type in a shell.
        separator = "\t" if delimiter == r"\t" else delimiter
        rows = [{**common, **row} for row in read_rows(input_file, delimiter=separator)] if input_file else [common]
    options = StartOptions(
        workflow_id=workflow_id,
        rows=rows,
        metadata=run_metadata,
        concurrency=concurrency,
        timeout=wait_timeout,
        limit=limit,
        output=output,
        resume=resume,
        confirm=not yes,
        as_table=input_file is not None,
    )
    if dry_run:
        raise typer.Exit(run_async(partial(_show_rows, options, settings), settings))
    progress = StartProgress(options)
    code = run_in_session(partial(_start, options, settings, progress), settings, progress=progress)
    raise typer.Exit(code or (0 if progress.is_successful else 1))


def _unique_pairs(option: str, texts: list[str]) -> dict[str, JSON]:
    values: dict[str, JSON] = {}
    for name, value in read_pairs(option, texts):
        if name in values:
            raise typer.BadParameter(f"{option} has two values for {name!r}")
        values[name] = value
    return values


@frozen
class StartOptions:
    """The validated options of the command."""

    workflow_id: str
    rows: Sequence[Mapping[str, JSON]]
    metadata: Mapping[str, JSON]
    concurrency: int
    timeout: float | None
    """The number of seconds to wait for each run; None means not to wait."""
    limit: int | None
    output: Path | None
    resume: bool
    confirm: bool
    as_table: bool
    """Whether a terminal shows the results as a table, not as JSON."""

    def batch(self, session: CopyAISession, output: Path) -> BatchResults:
        """Return a batch, which writes its results to a file."""
        from aiocopyai.batch import run_batch  # noqa: PLC0415 (loads SQLite)

        return run_batch(
            session,
            self.workflow_id,
            self.rows,
            output,
            resume=self.resume,
            wait=self.timeout is not None,
            timeout=self.timeout,
            concurrency=self.concurrency,
            metadata=self.metadata,
            limit=self.limit,
        )

    def runs(self, session: CopyAISession) -> RunResults:
        """Return an iterator over results that are only printed."""
        return session.run_many(
            self.workflow_id,
            self.rows[: self.limit],
            wait=self.timeout is not None,
            timeout=self.timeout,
            concurrency=self.concurrency,
            metadata=self.metadata,
        )


@define
class StartProgress:
    """The results so far, for the progress bar and for the message at the end."""

    options: StartOptions
    results: BatchResults | RunResults | None = None
    batch: BatchResults | None = None
    """`results` if they are written to a file."""
    tally: Tally = field(factory=Tally)
    _finished: int = 0
    _failed: int = 0

    def add(self, result: RunResult) -> None:
        """Count a result."""
        if result.run is not None:
            self.tally.add(result.run)
            is_failed = isinstance(result.error, aiocopyai.RunFailedError)
            self._failed += is_failed
            self._finished += result.ok or is_failed

    @property
    def finished(self) -> int:
        """The number of rows that this process or an earlier one has finished."""
        return self.batch.finished if self.batch else self._finished

    @property
    def is_successful(self) -> bool:
        """Whether every row within ``--limit`` was started and, with ``--wait``, is complete."""
        rows = self.options.rows
        postponed = self.batch.postponed if self.batch else len(rows) - len(rows[: self.options.limit])
        failed = self.batch.failed if self.batch else self._failed
        return self.finished + postponed == len(rows) and not failed

    def __bool__(self) -> bool:
        output = self.options.output  # created, with the ledger, before the first row is started
        return self.results is not None and bool(
            self.tally or self.results.in_progress or (output is not None and output.exists())
        )

    def __str__(self) -> str:
        total, output = len(self.options.rows), self.options.output
        started = self.tally.by_status.total()
        parts = [f"{plural(started, 'run')} started" if self.options.timeout is None else str(self.tally)]
        if self.results is not None and self.results.in_progress:
            parts.append(f"in progress: {', '.join(run.id for run in self.results.in_progress)}")
        remaining = total - self.finished
        if remaining:
            parts.append(f"{remaining:,} of {total:,} rows are left")
        if output is not None:
            parts.append("continue with --resume" if remaining else f"{plural(total, 'row')} in {output}")
        return "; ".join(parts)


async def _show_rows(options: StartOptions, settings: Settings) -> None:
    """Print the rows that would be started."""
    # The session sends nothing: it only checks the arguments, and reads the files of an earlier process.
    async with aiocopyai.CopyAISession("dry-run") as session:
        with usage_errors(_REPLACEMENTS):
            if options.output is None:
                options.runs(session)
                pending = list(range(len(options.rows)))[: options.limit]
            else:
                pending = options.batch(session, options.output).pending()
    for index in pending:
        print_json({"row": index + 1, "input": dict(options.rows[index])})
    settings.inform(f"{len(pending):,} of {plural(len(options.rows), 'row')} would be started; nothing was sent")


async def _start(options: StartOptions, settings: Settings, progress: StartProgress, session: CopyAISession) -> None:
    """Start the rows, and print or write their results."""
    if options.output is None:
        try:
            check_stdout()
        except OSError as error:
            reason = error.strerror or error
            raise CommandError(f"cannot write to standard output: {reason}; nothing was started") from error
    with usage_errors(_REPLACEMENTS):
        if options.output is None:
            progress.results = options.runs(session)
            pending = len(options.rows[: options.limit])
        else:
            batch = options.batch(session, options.output)
            pending = len(batch.pending())
            progress.results = progress.batch = batch  # after `pending()`, which fails if the files cannot be used
            if batch.finished == batch.total:
                settings.inform(f"{options.output} is already complete")
                return
    if options.confirm:
        _confirm(pending, options.workflow_id)
    print_result = _ResultPrinter(options)
    with usage_errors(_REPLACEMENTS), ProgressBar(settings) if options.output else nullcontext() as bar:
        async with aclosing(progress.results) as results:
            async for result in results:
                # The error that stops the batch rejects all rows in flight. They count as not sent.
                if result.run is not None or result.error is None or results.stopped_by is None:
                    print_result(result)
                progress.add(result)
                if bar is not None:
                    bar.update(progress.finished, len(options.rows))
    settings.inform(str(progress))


def _confirm(count: int, workflow_id: str) -> None:
    """Ask on a terminal before many runs are started."""
    if count <= _MAX_UNCONFIRMED_RUNS or not sys.stdin.isatty():
        return
    with blocking_call():
        is_confirmed = typer.confirm(f"Start {count:,} runs of {workflow_id}? Each spends credits.", err=True)
    if not is_confirmed:
        echo_err("nothing was started")
        raise typer.Exit(1)


class _ResultPrinter:
    """Prints errors on standard error, and results on standard output unless they are written to a file."""

    def __init__(self, options: StartOptions) -> None:
        self._is_shown = options.output is None
        self._table: OutputWriter[Run] | None = None
        if self._is_shown and options.as_table and sys.stdout.isatty():
            self._table = open_run_writer(OutputFormat.TABLE)

    def __call__(self, result: RunResult) -> None:
        from aiocopyai.batch._results_file import result_fields  # noqa: PLC0415 (loads SQLite)

        number = result.index + 1
        if result.error is not None:
            echo_err(f"row {number}: {describe(result.error)}")
        if not self._is_shown:
            return
        try:
            if self._table is None:
                print_json(result_fields(number, result.inputs, result.run, result.error))
            else:
                run = result.run or aiocopyai.Run("-", input=result.inputs)
                self._table.write(evolve(run, output={"": f"row {number}: {preview(run)}"}))
                self._table.flush()
        except OSError:
            if result.run is not None:
                echo_err(f"row {number}: run {result.run.id} was started, but standard output cannot be written")
            raise
