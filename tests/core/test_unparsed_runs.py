"""Pages of unparsed runs: the same rows as from parsed runs, and invalid pages are rejected."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import JSON, InvalidResponseError, Run
from aiocopyai._columns import COLUMNS, run_columns
from aiocopyai._json import MAX_DEPTH, dump_rows
from aiocopyai._run_pages import RunPageParser
from tests.support.strategies import BODIES, JSON_VALUES


pytest.importorskip("msgspec")

from aiocopyai._unparsed_runs import UnparsedRun, UnparsedRunPageParser


def body_of(*items: dict[str, JSON]) -> bytes:
    return json.dumps({"status": "success", "data": {"total": len(items), "data": list(items)}}).encode()


def parser_for(body: bytes) -> UnparsedRunPageParser:
    """Return a parser that has read a page with one run, which has all fields of the runs of this page."""
    parser, names = UnparsedRunPageParser(), set[str]()
    with suppress(ValueError, LookupError, TypeError):
        names.update(name for item in json.loads(body)["data"]["data"] for name in item)
    parser.parse(body_of({**dict.fromkeys(names), "id": "W"}), 1, 10)
    return parser


def rows_of(runs: Any) -> list[Any]:  # noqa: ANN401 (parsed or unparsed runs)
    """Return the rows of an export."""
    return [json.loads(line) for line in dump_rows(run_columns(runs)).splitlines()]


def is_unparsed(body: bytes) -> bool:
    """Whether the runs of a page are left unparsed. Their rows must be those of parsed runs."""
    page, expected = parser_for(body).parse(body, 1, 10, "V"), RunPageParser().parse(body, 1, 10, "V")
    assert rows_of(page.items) == rows_of(expected.items)
    assert (page.number, page.size, page.total) == (expected.number, expected.size, expected.total)
    assert [(run.id, run.created_at) for run in page.items] == [(run.id, run.created_at) for run in expected.items]
    return isinstance(page.items[0], UnparsedRun)


@given(BODIES)
def test_any_response_has_the_rows_of_parsed_runs(body: bytes) -> None:
    """Any response has the same rows, or raises the same error, as if its runs were parsed."""
    try:
        expected = RunPageParser().parse(body, 1, 10, "V")
    except InvalidResponseError as error:
        with pytest.raises(InvalidResponseError) as caught:
            parser_for(body).parse(body, 1, 10, "V")
        assert (str(caught.value), caught.value.place) == (str(error), error.place)
        return
    page = parser_for(body).parse(body, 1, 10, "V")
    assert rows_of(page.items) == rows_of(expected.items)
    assert (page.total, page.invalid_fields) == (expected.total, expected.invalid_fields)


OBJECTS = st.none() | st.dictionaries(st.text(), JSON_VALUES, max_size=3)
RUNS = st.fixed_dictionaries(
    {"id": st.text(min_size=1), "createdAt": st.just("2026-01-31T09:00:00.326Z")},
    optional={
        "workflowId": st.none() | st.text(),
        "status": st.none() | st.text(),
        "credits": st.none() | st.integers(),
        "input": OBJECTS,
        "output": OBJECTS,
        "metadata": OBJECTS,
        "error": JSON_VALUES,
        "workflowRunId": JSON_VALUES,
        "new": JSON_VALUES,
    },
)


@given(runs=st.lists(RUNS, min_size=1, max_size=5), is_ascii=st.booleans())
def test_runs_with_suitable_fields_are_left_unparsed(runs: list[dict[str, JSON]], *, is_ascii: bool) -> None:
    """Runs with any objects, errors and other fields are left unparsed, unless they have a lone surrogate."""
    text = json.dumps({"data": {"total": 1, "data": runs}}, ensure_ascii=is_ascii)
    body = text.encode(errors="surrogatepass")
    has_surrogate = "\\ud" in text or any("\ud800" <= character <= "\udfff" for character in text)
    if is_ascii or not has_surrogate:
        assert is_unparsed(body) or has_surrogate


SUITABLE: dict[str, JSON] = {"id": "1", "createdAt": "2026-01-31T09:00:00Z"}


@pytest.mark.parametrize(
    "run",
    [
        {"id": "1"},
        SUITABLE | {"createdAt": None},
        SUITABLE | {"createdAt": 5},
        SUITABLE | {"createdAt": "2026-01-31T09:00:00+01:00"},
        SUITABLE | {"credits": "2"},
        SUITABLE | {"credits": 2.0},
        SUITABLE | {"input": []},
        SUITABLE | {"metadata": "text"},
        SUITABLE | {"status": 5},
        SUITABLE | {"id": None, "workflowRunId": "1"},
        SUITABLE | {"id": "", "workflowRunId": "1"},
    ],
)
def test_other_values_are_parsed(run: dict[str, JSON]) -> None:
    """A run whose values do not fit is parsed like any other, on the same page as a suitable one."""
    assert not is_unparsed(body_of(run, SUITABLE))


@pytest.mark.parametrize("indentation", ["\n", "\r", "\r\n"])
def test_runs_with_line_breaks_are_parsed(indentation: str) -> None:
    """Runs of a page with line breaks between its values are parsed, because a row is one line."""
    body = body_of(SUITABLE | {"output": {"a": [1, {"b": "x\ny"}]}})

    assert is_unparsed(body)
    assert not is_unparsed(body.replace(b"[1, ", b"[1,%b" % indentation.encode()))


@pytest.mark.parametrize("field", ["output", "error", "new"])
def test_invalid_unicode_is_rejected(field: str) -> None:
    """A value that is not UTF-8 is not JSON, even if it is not parsed."""
    body = body_of(SUITABLE | {field: {"a": ["text"]}})

    assert is_unparsed(body)
    for broken in (b"\xff", b"\xc3", b"\xed\xa0\x80"):
        with pytest.raises(InvalidResponseError, match="not JSON"):
            parser_for(body).parse(body.replace(b"text", broken), 1, 10)


@pytest.mark.parametrize("field", ["input", "error", "new"])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_values_are_rejected(field: str, opening: bytes) -> None:
    """A run that is nested too deeply is reported with its number, as if it was parsed. Others are accepted."""
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]

    def body(depth: int) -> bytes:
        text = body_of(SUITABLE | {"error": {"a": 1}}, SUITABLE | {"id": "2", field: {"a": "deep"}})
        return text.replace(b'"deep"', opening * depth + b"0" + closing * depth)

    def check() -> None:
        # In a thread, where the stack is empty, msgspec accepts more levels than are read.
        assert is_unparsed(body(5))
        assert is_unparsed(body(MAX_DEPTH // 2))
        is_unparsed(body(MAX_DEPTH - 2))
        for depth in (MAX_DEPTH, MAX_DEPTH + 5, MAX_DEPTH + 20, 5_000):
            with pytest.raises(InvalidResponseError, match="run 2 is nested too deeply"):
                parser_for(body(5)).parse(body(depth), 1, 10)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(check).result()


def test_deep_errors_are_written_with_any_stack() -> None:
    """An error that is almost nested too deeply is written from a deep stack: large pages are parsed in a thread."""
    error = b"[" * 900 + b"]" * 900
    body = body_of(SUITABLE | {"output": {"a": 1}, "error": "deep"}).replace(b'"deep"', error)
    with ThreadPoolExecutor(1) as pool:
        runs = pool.submit(UnparsedRunPageParser().parse, body, 1, 10).result().items

    def dump_below(frames: int) -> bytes:
        return dump_below(frames - 1) if frames else dump_rows(run_columns(runs))

    assert b'"error":%b,' % error in dump_below(300)


def test_many_shallow_values_are_accepted() -> None:
    """Values with many brackets, but few levels, are left unparsed."""
    values: dict[str, JSON] = {str(number): [{}] for number in range(1_000)}

    assert is_unparsed(body_of(SUITABLE | {"output": values, "error": {"a": 1}, "new": [[]] * 100}, SUITABLE))


@pytest.mark.parametrize(
    "name", ['a"b', "a\\b", "\n", "", "x" * 10_001, "data", "field_0", "created_at", "workflow_id"]
)
def test_any_field_name(name: str) -> None:
    """A field without an attribute can have any name, even that of an attribute."""
    parser = UnparsedRunPageParser()
    for _ in range(3):
        items = parser.parse(body_of(SUITABLE | {name: [1]}, SUITABLE), 1, 10).items
        assert [row["extra"] for row in rows_of(items)] == [{name: [1]}, {}]


def test_text_is_unchanged() -> None:
    """The text of a value is copied, with numbers that Python's floats and integers cannot hold."""
    values = ["1e999", "1.10", "-0.0", "1" * 5_000, '"\\u00e9"', "[ 1,\t2 ]", '{"a":1,"a":2}']
    for value in values:
        body = body_of(SUITABLE | {"output": {"x": "value"}}).replace(b'"value"', value.encode())
        runs = parser_for(body).parse(body, 1, 10).items

        assert isinstance(runs[0], UnparsedRun)
        assert b'"output":{"x":%b},' % value.encode() in dump_rows(run_columns(cast("list[Run]", runs)))


def test_pages_that_never_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """After five pages in a row that cannot be left unparsed, it is not tried again."""
    parse_page = Mock(side_effect=ValueError)
    monkeypatch.setattr("aiocopyai._unparsed_runs._parse_page", parse_page)
    parser = UnparsedRunPageParser()
    for _ in range(8):
        assert type(parser.parse(body_of(SUITABLE), 1, 10).items[0]) is Run

    assert parse_page.call_count == 5


def test_columns_of_no_runs() -> None:
    """No runs have all columns, which are empty."""
    assert run_columns([]) == {name: [] for name in COLUMNS}
