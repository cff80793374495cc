"""Pages of runs from JSON, structured by columns: the values of one field for all runs of a page.

A function that cattrs generates structures the columns, which takes half the time of one run after another. If some
value of a page does not fit its column, its runs are read one by one, field by field, by the tolerant reader of
`_parsing`.

With msgspec, a page whose runs have the same fields as those of an earlier page is parsed into structs of these fields
instead of dictionaries. That is faster, and msgspec checks most types while it parses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from itertools import chain, repeat, starmap
from operator import attrgetter, itemgetter
from types import GenericAlias
from typing import Any, Final

from attrs import frozen

from aiocopyai._json import HAS_MSGSPEC, decode
from aiocopyai._parsing import (
    MISFITS,
    RUN_FIELDS,
    ReadValue,
    check_depth,
    data_object,
    parse_response,
    parse_with,
    read_run_item,
    read_total,
)
from aiocopyai._text import excerpt
from aiocopyai.errors import InvalidResponseError
from aiocopyai.models import JSON, Page, Run, RunStatus


class RunPageParser:
    """Parses pages of runs: faster if their runs have the same fields as those of the page before."""

    def __init__(self) -> None:
        self._extra: tuple[str, ...] | None = ()
        """The fields without an attribute of the runs of the page before; None if no struct is suitable for them."""

    def parse(self, body: bytes, number: int, size: int, workflow_id: str | None = None) -> Page[Run]:
        """Parse a response of ``GET /workflow/{id}/run`` for the page `number` of `size` runs.

        A run that does not name its workflow belongs to `workflow_id`.

        Raises:
            InvalidResponseError: it is not JSON, has no list of runs, or an item is not an object or has no id.
        """
        if HAS_MSGSPEC and self._extra is not None:
            with suppress(*MISFITS, RecursionError):
                return _struct_decoder(self._extra).parse(body, number, size, workflow_id)
        self._extra = None
        page = parse_response(body, partial(read_run_page, number=number, size=size, workflow_id=workflow_id))
        extra = dict.fromkeys(chain.from_iterable(run.extra for run in page.items))
        if not page.invalid_fields and len(extra) <= _MAX_EXTRA and sum(map(len, extra)) <= _MAX_EXTRA_NAMES:
            self._extra = tuple(extra)  # in this order, in which `Run.extra` has them
        return page


def read_run_page(response: JSON, number: int, size: int, workflow_id: str | None = None) -> Page[Run]:
    """Read a parsed response of ``GET /workflow/{id}/run``, as `RunPageParser.parse` does.

    Raises:
        InvalidResponseError: it has no list of runs, or an item is not an object or has no id.
        RecursionError: a run is nested too deeply.
    """
    data = data_object(response)
    items = data.get("data")
    if not isinstance(items, list):
        raise InvalidResponseError("expected a list of runs", "data.data", excerpt(items))
    runs, invalid = list[Run](), frozenset[str]()
    for start in range(0, len(items), _SLICE):
        part = items[start : start + _SLICE]
        try:
            runs += _read_objects(part, workflow_id)
        except MISFITS:
            check_depth(part)
            read = [read_run_item(item, f"data.data[{index}]", workflow_id) for index, item in enumerate(part, start)]
            runs += [run for run, _ in read]
            invalid = invalid.union(*(misfits for _, misfits in read))
    return Page(number, size, read_total(data.get("total")), runs, invalid)


_Column = Sequence[Any]


@frozen
class _RunColumns:
    """The attributes of all runs of a page, in the order of the runs."""

    id: _Column
    workflow_id: _Column
    status: _Column
    input: _Column
    output: _Column
    metadata: _Column
    created_at: _Column
    credits: _Column
    error: _Column


_SLICE: Final = 1_000
"""Runs that are read in one step: between two steps other threads can run, the event loop's among them."""
_MAX_EXTRA: Final = 30
"""Fields without an attribute up to which runs are parsed into structs: a struct takes memory for all of them."""
_MAX_EXTRA_NAMES: Final = 10_000
"""Characters in the names of all these fields, up to which a decoder for them is kept."""
_SETTERS: Final[dict[str, Callable[[Run, object], None]]] = {
    name: vars(Run)[name].__set__ for name in (*RUN_FIELDS, "extra")
}
"""What sets an attribute of a new run: the descriptors of its slots, as the class itself is frozen."""
_KNOWN: Final = tuple(json_name for json_name, _ in RUN_FIELDS.values())
_TYPES: Final = {
    "id": str,
    "workflowId": str | None,
    "status": RunStatus | None,
    "input": dict[str, Any] | None,
    "output": dict[str, Any] | None,
    "metadata": dict[str, Any] | None,
    "createdAt": str | None,
    "credits": int | None,
    "error": Any,
}
"""The types that msgspec checks. The columns of input, output, metadata and createdAt are converted further."""
_STATUSES: Final[dict[JSON, RunStatus | None]] = {None: None, **{status.value: status for status in RunStatus}}
_ABSENT: Final = object()
"""The value of a field without an attribute, if a run does not have the field."""


def _read_objects(items: list[Any], workflow_id: str | None) -> list[Run]:
    """Read runs whose values all fit; otherwise raise one of `MISFITS`."""
    if set(map(type, items)) != {dict}:
        raise TypeError
    names = tuple(items[0])
    columns: dict[str, _Column]
    extra: list[dict[str, JSON]]
    if len(names) > 1 and set(map(len, items)) == {len(names)}:
        # All items have the same fields, or a KeyError is raised.
        columns = dict(zip(names, zip(*map(itemgetter(*names), items), strict=True), strict=True))
        extra = _extra_fields([name for name in names if name not in _KNOWN], columns, len(items))
    else:
        columns = {name: [item.get(name) for item in items] for name in _KNOWN}
        extra = [{name: value for name, value in item.items() if name not in _KNOWN} for item in items]
    absent = (None,) * len(items)
    read = _column_reader(is_checked=False)({name: columns.get(name, absent) for name in _KNOWN}, _RunColumns)
    return _create_runs(read, extra, workflow_id)


def _extra_fields(names: Iterable[str], columns: Mapping[str, _Column], count: int) -> list[dict[str, JSON]]:
    extra: list[dict[str, JSON]] = [{} for _ in range(count)]
    for name in names:
        for fields, value in zip(extra, columns[name], strict=True):
            if value is not _ABSENT:
                fields[name] = value
    return extra


def _create_runs(columns: _RunColumns, extra: list[dict[str, JSON]], workflow_id: str | None) -> list[Run]:
    check_depth(chain(columns.input, columns.output, columns.metadata, columns.error, extra))
    runs = list(map(Run.__new__, repeat(Run, len(extra))))
    for name, setter in _SETTERS.items():
        values = extra if name == "extra" else getattr(columns, name)
        if name == "workflow_id" and workflow_id is not None and not all(values):
            values = [value or workflow_id for value in values]
        # No Python code runs for a value: the `deque` of length 0 consumes what the setter returns.
        deque(starmap(setter, zip(runs, values, strict=True)), maxlen=0)
    return runs


class _StructDecoder:
    """Parses pages with msgspec, each run into a struct with the fields of a `Run` and some others.

    Args:
        extra: the names of the other fields in the JSON.

    Raises:
        ValueError: msgspec does not accept one of the names.
    """

    def __init__(self, extra: tuple[str, ...]) -> None:
        from msgspec import defstruct  # noqa: PLC0415 (optional)
        from msgspec.json import Decoder  # noqa: PLC0415
        from msgspec.structs import astuple  # noqa: PLC0415

        names = {f"field_{index}": name for index, name in enumerate((*_KNOWN, *extra))}
        fields = [
            (field, _TYPES[name], None) if name in _TYPES else (field, Any, _ABSENT) for field, name in names.items()
        ]
        # The garbage collector need not track the structs: they are dropped once the runs are created.
        item = defstruct("Item", fields, rename=names, forbid_unknown_fields=True, gc=False)
        # Unknown fields are forbidden here, too, as msgspec does not check the UTF-8 of fields that it skips.
        data = defstruct(
            "Data", [("data", GenericAlias(list, (item,))), ("total", Any, None)], forbid_unknown_fields=True
        )
        response = defstruct("Response", [("data", data), ("status", Any, None)], forbid_unknown_fields=True)
        self._decode: Callable[[bytes], Any] = Decoder(response).decode
        self._values: Callable[[Any], tuple[Any, ...]] = astuple
        self._names = tuple(names.values())
        self._extra = extra

    def parse(self, body: bytes, number: int, size: int, workflow_id: str | None) -> Page[Run]:
        """Parse a page; raise one of `MISFITS` if its runs have other fields, or values that do not fit."""
        response = parse_with(partial(decode, decoder=self._decode), body)
        if response.status == "error":
            raise ValueError
        items, runs = response.data.data, list[Run]()
        for start in range(0, len(items), _SLICE):
            rows = list(map(self._values, items[start : start + _SLICE]))
            columns = dict(zip(self._names, zip(*rows, strict=True), strict=True))
            extra = _extra_fields(self._extra, columns, len(rows))
            runs += _create_runs(_column_reader(is_checked=True)(columns, _RunColumns), extra, workflow_id)
        return Page(number, size, read_total(response.data.total), runs)


# Shared by the sessions of a process, as each decoder takes a fraction of a millisecond to create.
_struct_decoder = lru_cache(maxsize=32)(_StructDecoder)


@cache
def _column_reader(*, is_checked: bool) -> Callable[[Mapping[str, _Column], type[_RunColumns]], _RunColumns]:
    """Return the function that structures the columns of a page, which cattrs generates once in a process.

    Args:
        is_checked: whether the values have the `_TYPES`.
    """
    # Imported with the first page: cattrs takes longer to import than the rest of this package.
    from cattrs import Converter  # noqa: PLC0415
    from cattrs.gen import make_dict_structure_fn, override  # noqa: PLC0415

    faster: dict[str, Callable[[_Column], _Column]] = {
        "id": _ids,
        "workflow_id": _same if is_checked else lambda column: _of_types(column, str, type(None)),
        "status": _same if is_checked else lambda column: list(map(_STATUSES.__getitem__, column)),
        "input": _objects,
        "output": _objects,
        "metadata": _objects,
        "created_at": _times,
        "credits": _same if is_checked else lambda column: _of_types(column, int, type(None)),
        "error": _same,
    }
    return make_dict_structure_fn(
        _RunColumns,
        Converter(detailed_validation=False),
        _cattrs_detailed_validation=False,
        **{  # type: ignore[arg-type]  # cattrs types its own options and the overrides with one signature
            name: override(rename=json_name, struct_hook=_column_hook(faster[name], convert))
            for name, (json_name, convert) in RUN_FIELDS.items()
        },
    )


def _column_hook(fast: Callable[[_Column], _Column], convert: ReadValue) -> Callable[[_Column, object], _Column]:
    """Return a hook that converts a whole column if its values are of the common types, and else value by value."""

    def structure(column: _Column, _: object) -> _Column:
        try:
            return fast(column)
        except MISFITS:
            return [convert(value) for value in column]

    return structure


def _same(column: _Column) -> _Column:
    return column


def _of_types(column: _Column, *types: type) -> _Column:
    if not set(types).issuperset(map(type, column)):
        raise TypeError
    return column


def _ids(column: _Column) -> _Column:
    if "" in column:
        raise ValueError
    return _of_types(column, str)


def _objects(column: _Column) -> _Column:
    types = set(map(type, column))
    if types == {dict}:
        return column
    if types != {dict, type(None)}:
        raise TypeError
    return [{} if value is None else value for value in column]


def _times(column: _Column) -> _Column:
    times = list(map(datetime.fromisoformat, column))
    if set(map(attrgetter("tzinfo"), times)) != {UTC}:
        raise ValueError
    return times
