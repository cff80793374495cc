"""Pages of runs for an export, which needs only the JSON text of most values. This module needs msgspec.

Copying the text is faster than creating Python objects and writing them as JSON again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain
from typing import Any, Final, cast

from msgspec import Raw, Struct, defstruct, field
from msgspec.structs import astuple

from aiocopyai._json import MAX_DEPTH, decode
from aiocopyai._parsing import MISFITS, check_depth, parse_with, read_total
from aiocopyai._run_pages import ABSENT, MAX_MISFITS, RunPageParser, extra_fields, read_times, response_decoder
from aiocopyai.models import Page, Run


class UnparsedRun(Struct, gc=False, forbid_unknown_fields=True):
    """A run whose objects have JSON text as values, with the attributes of a `Run` but `extra`.

    A subclass has an attribute for each extra field.
    """

    id: str
    workflow_id: str | None = field(default=None, name="workflowId")
    status: str | None = None
    created_at: Any = field(default=None, name="createdAt")
    credits: int | None = None
    input: dict[str, Raw] | None = None
    output: dict[str, Raw] | None = None
    metadata: dict[str, Raw] | None = None
    error: Any = None


_FIELDS: Final = UnparsedRun.__struct_fields__


class UnparsedRunPageParser(RunPageParser):
    """Parses pages into `UnparsedRun` values if possible, and otherwise into `Run` values.

    The text has no line breaks.
    """

    def __init__(self) -> None:
        super().__init__()
        self._text_misfits = 0
        """The number of pages in a row that did not fit into `UnparsedRun` values."""

    def _parse_structs(
        self, extra: tuple[str, ...], body: bytes, number: int, size: int, workflow_id: str | None
    ) -> Page[Run]:
        if self._text_misfits < MAX_MISFITS and b"\n" not in body and b"\r" not in body:
            with suppress(*MISFITS, RecursionError):
                page = _parse_page(extra, body, number, size, workflow_id)
                self._text_misfits = 0
                return page
            self._text_misfits += 1
        return super()._parse_structs(extra, body, number, size, workflow_id)


def unparsed_columns(runs: Sequence[UnparsedRun]) -> dict[str, Sequence[Any]]:
    """Return the columns of the runs of one page. The values of objects, and errors, are JSON text."""
    values = list(zip(*map(astuple, runs), strict=True))
    columns: dict[str, Sequence[Any]] = dict(zip(_FIELDS, values, strict=False))
    for name in ("input", "output", "metadata"):
        columns[name] = [{} if value is None else value for value in columns[name]]
    names: tuple[str, ...] = type(runs[0]).__struct_encode_fields__[len(_FIELDS) :]
    columns["extra"] = extra_fields(names, values[len(_FIELDS) :], len(runs))
    return columns


def _parse_page(extra: tuple[str, ...], body: bytes, number: int, size: int, workflow_id: str | None) -> Page[Run]:
    """Parse a page; raise one of `MISFITS` or a RecursionError if it is not certain that all text is valid."""
    if not body.isascii():
        body.decode()
    response = parse_with(partial(decode, decoder=_decoder(extra)), body)
    if response.status == "error":
        raise ValueError
    runs: list[UnparsedRun] = response.data.data
    _check_depth(body, runs)
    for run, created_at in zip(runs, read_times([run.created_at for run in runs]), strict=True):
        run.created_at = created_at
        if not run.id:
            raise ValueError
        if not run.workflow_id:
            run.workflow_id = workflow_id
    # They are only yielded, compared and turned into columns.
    return Page(number, size, read_total(response.data.total), cast("list[Run]", runs))


@lru_cache(maxsize=32)
def _decoder(extra: tuple[str, ...]) -> Callable[[bytes], Any]:
    fields = [
        (f"field_{index}", Raw, field(default=cast("Raw", ABSENT), name=name)) for index, name in enumerate(extra)
    ]
    return response_decoder(defstruct("UnparsedRunWithExtra", fields, bases=(UnparsedRun,), gc=False))


def _check_depth(body: bytes, runs: Iterable[UnparsedRun]) -> None:
    """Raise a RecursionError if a value may be nested too deeply."""
    check_depth([run.error for run in runs])
    if _count_brackets(body) <= MAX_DEPTH:
        return
    for run in runs:
        objects = [value.values() for value in (run.input, run.output, run.metadata) if value]
        extra = [value for value in astuple(run)[len(_FIELDS) :] if value is not ABSENT]
        for text in chain(extra, *objects):
            if len(memoryview(text)) > MAX_DEPTH and _count_brackets(bytes(text)) >= MAX_DEPTH:
                raise RecursionError


def _count_brackets(text: bytes) -> int:
    # Faster than `bytes.count`, which looks at each byte.
    return 2 * len(text) - len(text.replace(b"{", b"")) - len(text.replace(b"[", b""))
