"""Pages of runs for an export, which needs only the JSON text of most values. This module needs msgspec.

Copying the text is faster than creating Python objects and writing them as JSON again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from typing import Any, Final, cast

from msgspec import Raw, Struct, defstruct, field
from msgspec.structs import astuple

from aiocopyai._json import MAX_DEPTH
from aiocopyai._parsing import MISFITS, read_total
from aiocopyai._run_pages import ABSENT, MAX_MISFITS, RunPageParser, data_parser, extra_fields, read_times
from aiocopyai.models import Page, Run


class UnparsedRun(Struct, gc=False, forbid_unknown_fields=True):
    """A run with the attributes of a `Run` except `extra`. Its error and the values in its objects are JSON text.

    A subclass has an attribute for each extra field, which is JSON text, too.
    """

    id: str
    workflow_id: str | None = field(default=None, name="workflowId")
    status: str | None = None
    created_at: Any = field(default=None, name="createdAt")
    credits: int | None = None
    input: dict[str, Raw] | None = None
    output: dict[str, Raw] | None = None
    metadata: dict[str, Raw] | None = None
    error: Raw = Raw(b"null")


_FIELDS: Final = UnparsedRun.__struct_fields__
_NULL: Final = Raw(b"null")


class UnparsedRunPageParser(RunPageParser):
    """Parses pages into `UnparsedRun` values if possible, and otherwise into `Run` values.

    The JSON text of an `UnparsedRun` has no line breaks, because a row of JSON lines is one line.
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
    """Return the columns of the runs of one page. Errors and the values in objects are JSON text."""
    values = list(zip(*map(astuple, runs), strict=True))
    columns: dict[str, Sequence[Any]] = dict(zip(_FIELDS, values, strict=False))
    for name in ("input", "output", "metadata"):
        columns[name] = [{} if value is None else value for value in columns[name]]
    columns["error"] = [None if text == _NULL else text for text in columns["error"]]
    names: tuple[str, ...] = type(runs[0]).__struct_encode_fields__[len(_FIELDS) :]
    columns["extra"] = extra_fields(names, values[len(_FIELDS) :], len(runs))
    return columns


def _parse_page(extra: tuple[str, ...], body: bytes, number: int, size: int, workflow_id: str | None) -> Page[Run]:
    """Parse a page; raise one of `MISFITS` or a RecursionError if it is not certain that all text is valid."""
    if not body.isascii():
        body.decode()  # msgspec does not check the UTF-8 of values that it does not parse
    data = _data_parser(extra)(body)
    runs: list[UnparsedRun] = data.data
    _check_depth(body, runs)
    for run, created_at in zip(runs, read_times([run.created_at for run in runs]), strict=True):
        run.created_at = created_at
        if not run.id:
            raise ValueError
        if not run.workflow_id:
            run.workflow_id = workflow_id
    # An export reads only the id and the time of these runs, and converts them to columns.
    return Page(number, size, read_total(data.total), cast("list[Run]", runs))


@lru_cache(maxsize=32)
def _data_parser(extra: tuple[str, ...]) -> Callable[[bytes], Any]:
    fields = [
        (f"field_{index}", Raw, field(default=cast("Raw", ABSENT), name=name)) for index, name in enumerate(extra)
    ]
    return data_parser(defstruct("UnparsedRunWithExtra", fields, bases=(UnparsedRun,), gc=False))


def _check_depth(body: bytes, runs: Iterable[UnparsedRun]) -> None:
    """Raise a RecursionError if a value may be nested too deeply."""
    if _count_brackets(body) <= MAX_DEPTH:
        return
    for run in runs:
        objects = [value.values() for value in (run.input, run.output, run.metadata) if value]
        extra = [value for value in astuple(run)[len(_FIELDS) :] if value is not ABSENT]
        for text in chain([run.error], extra, *objects):
            if len(memoryview(text)) > MAX_DEPTH and _count_brackets(bytes(text)) >= MAX_DEPTH:
                raise RecursionError


def _count_brackets(text: bytes) -> int:
    # Faster than `bytes.count`, which compares each byte, because `bytes.replace` searches with memchr().
    return 2 * len(text) - len(text.replace(b"{", b"")) - len(text.replace(b"[", b""))
