"""Tests of parsing: the vendor's examples, unexpected values, and fields that are kept."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import asdict, fields
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import JSON, InvalidResponseError, Page, Run, RunStatus, _json, _parsing, _run_pages
from aiocopyai._json import dump_json, find_nested_object, loads
from aiocopyai._parsing import (
    parse_json,
    parse_response,
    read_error,
    read_run,
    read_started_id,
    read_webhook,
    read_webhook_page,
)
from aiocopyai._run_pages import RunPageParser, _StructDecoder, read_run_page
from aiocopyai._text import excerpt
from tests.support.strategies import JSON_VALUES


SAMPLES = Path(__file__).parent / "samples"
WIRE_NAMES = {
    "id": "id",
    "workflow_id": "workflowId",
    "status": "status",
    "input": "input",
    "output": "output",
    "metadata": "metadata",
    "created_at": "createdAt",
    "credits": "credits",
    "error": "error",
}
ITEMS = st.dictionaries(
    st.sampled_from([*WIRE_NAMES.values(), "workflowRunId", "toolKey", "<extra>", "extra"]) | st.text(), JSON_VALUES
)


def read_page(response: JSON, workflow_id: str | None = None) -> Page[Run]:
    """Read a page of runs, and check that it is the same for a parser that has read runs with the same fields."""
    body = json.dumps(response).encode()
    try:
        page = read_run_page(copy.deepcopy(response), 1, 10, workflow_id)
    except InvalidResponseError as error:
        with pytest.raises(InvalidResponseError) as caught:
            parser_for(response).parse(body, 1, 10, workflow_id)
        assert (caught.value.place, caught.value.excerpt) == (error.place, error.excerpt)
        raise
    parser = parser_for(response)
    for _ in range(2):
        again = parser.parse(body, 1, 10, workflow_id)
        assert again == page
        assert repr(again) == repr(page)
    return page


def parser_for(response: JSON) -> RunPageParser:
    """Return a parser that has read a page with one run, which has all fields of the runs of this page."""
    data = response.get("data") if isinstance(response, dict) else None
    items = data.get("data") if isinstance(data, dict) else None
    names = {name for item in items if isinstance(item, dict) for name in item} if isinstance(items, list) else set()
    run: JSON = {**dict.fromkeys(names), "id": "W"}
    parser = RunPageParser()
    page = parser.parse(json.dumps({"data": {"data": [run]}}).encode(), 1, 10)
    assert not page.invalid_fields
    return parser


def page_of(*items: JSON, total: JSON = 1) -> Page[Run]:
    return read_page({"status": "success", "data": {"total": total, "data": list(items)}})


def page_from(body: str) -> Page[Run]:
    """Parse a page whose only item is this JSON."""
    response = f'{{"status": "success", "data": {{"total": 1, "data": [{body}]}}}}'
    parser = RunPageParser()
    page = parser.parse(response.encode(), 1, 10)
    assert parser.parse(response.encode(), 1, 10) == page
    return page


def run_from(body: str) -> Run:
    """Parse a single run from this JSON."""
    return parse_response(f'{{"data": {body}}}'.encode(), lambda value: read_run(value, "V"))


def sample(name: str) -> Page[Run]:
    return read_page(json.loads((SAMPLES / name).read_bytes()))


def test_example_with_strings() -> None:
    """The vendor's example with strings for total and credits, and without status, input and output, is read."""
    page = sample("runs_strings.json")

    assert (page.total, page.invalid_fields) == (3, frozenset())
    assert page.items[0] == Run(
        id="WRUN-6fe9e53c-945a-4aa3-a87e-d64c3cc0dcb0",
        workflow_id="PKGW-d0f4f3eb-16b9-4973-8e1e-939af867ce56",
        metadata={"k": "v"},
        created_at=datetime(2023, 9, 27, 18, 24, 47, tzinfo=UTC),
        credits=22,
        extra={"workflowRunId": "WRUN-6fe9e53c-945a-4aa3-a87e-d64c3cc0dcb0"},
    )
    assert page.items[1].created_at == datetime(2023, 9, 27, 18, 24, 46, 998000, tzinfo=UTC)
    assert page.items[1].credits == 0


def test_example_with_integers() -> None:
    """The vendor's example with integers and null metadata is read."""
    page = sample("runs_integers.json")

    assert (page.total, page.items[0].credits, page.items[0].status) == (2, 2, RunStatus.COMPLETE)
    assert [dict(run.metadata) for run in page.items] == [{"api": True}, {}]
    assert page.items[0].input == {"Input 1": "…"}


@given(ITEMS, st.text(min_size=1))
def test_no_field_is_lost(item: dict[str, JSON], run_id: str) -> None:
    """Each field of an item with an id is an attribute, or is unchanged in `extra`."""
    item["id"] = run_id
    page = page_of(item)
    run = page.items[0]
    read = {wire_name: getattr(run, name) for name, wire_name in WIRE_NAMES.items()}

    assert run.id == run_id
    for name, value in item.items():
        if name not in read or name in page.invalid_fields:
            assert run.extra[name] == value
        elif name in {"credits", "createdAt"}:
            assert (read[name] is None) == (value is None)
        else:
            assert read[name] == (value if value is not None or name not in {"input", "output", "metadata"} else {})
    assert set(run.extra) <= set(item)


@given(st.lists(ITEMS, max_size=4), st.data())
def test_page_is_parsed_like_single_items(items: list[dict[str, JSON]], data: st.DataObject) -> None:
    """The runs of a page are the same as those of pages with one item each, with any fields."""
    for index, item in enumerate(items):
        item["id"] = data.draw(st.sampled_from([f"W{index}", "W"]))
    page = page_of(*items)

    assert list(page.items) == [page_of(item).items[0] for item in items]
    assert page.invalid_fields == frozenset().union(*(page_of(item).invalid_fields for item in items))
    assert list(page.items) == [read_run({"data": copy.deepcopy(item)}, "") for item in items] or any(
        run.workflow_id is None for run in page.items
    )


@given(JSON_VALUES)
def test_only_documented_errors(response: JSON) -> None:
    """A response of any structure is a page or an `InvalidResponseError`."""
    candidates: list[JSON] = [
        response,
        {"data": response},
        {"data": {"data": response}},
        {"data": {"data": [response]}},
    ]
    for candidate in candidates:
        try:
            page = read_page(candidate)
        except InvalidResponseError as error:
            assert str(error)
        else:
            assert page.number == 1


@given(st.binary())
def test_any_bytes(body: bytes) -> None:
    """Any bytes are parsed, or raise a retryable `InvalidResponseError` of one line."""
    try:
        parse_json(body)
    except InvalidResponseError as error:
        assert error.retryable
        assert "\n" not in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": NaN}', b'{"status":"succ', b"\xff", b'["\\ud800'])
def test_not_json(body: bytes) -> None:
    """A body that is not JSON raises a retryable error."""
    with pytest.raises(InvalidResponseError, match="the response is not JSON") as caught:
        parse_json(body)

    assert caught.value.retryable


def test_nested_too_deeply() -> None:
    """A body that is nested too deeply raises an error that is not retryable."""
    with pytest.raises(InvalidResponseError, match="nested too deeply") as caught:
        parse_json(b"[" * 100_000 + b"]" * 100_000)

    assert not caught.value.retryable


@pytest.mark.parametrize("depth", [960, 1_000, 1_015, 5_000])
@pytest.mark.parametrize("field", ["output", "error", "extra"])
def test_nested_too_deeply_names_the_run(field: str, depth: int) -> None:
    """The error for deep nesting names the run and its place, even if the parser accepts the body."""
    deep = f'{{"a": {"[" * depth + "]" * depth}}}'
    first = '{"id": "W1", "output": {"id": "x", "a": ["]", "\\"["]}}'
    items = f'{first}, {{"id": "W2", "{field}": {deep}}}, {{"id": "W3"}}'
    with pytest.raises(InvalidResponseError, match=r"^data\.data\[1\]: run W2 is nested too deeply$"):
        page_from(items)
    with pytest.raises(InvalidResponseError, match=r"^data: run W2 is nested too deeply$"):
        run_from(f'{{"id": "W2", "{field}": {deep}}}')


@pytest.mark.parametrize("number", [1e300, 10**30])
@pytest.mark.parametrize("first", [0, 1_500])
def test_nested_too_deeply_after_a_large_number(first: int, number: float) -> None:
    """A value that is nested too deeply raises an error, even after a large number."""
    deep = "[" * 960 + "]" * 960
    runs = [f'{{"id": "W{index}", "output": {{}}, "big": 1}}' for index in range(first + 1)]
    runs[0] = f'{{"id": "W0", "output": {{}}, "big": {number}}}'
    runs[first] = f'{{"id": "W{first}", "output": {{"a": {deep}}}, "big": {number}}}'
    with pytest.raises(InvalidResponseError, match=rf"^data\.data\[{first}\]: run W{first} is nested too deeply$"):
        page_from(", ".join(runs))
    with pytest.raises(InvalidResponseError, match=rf"^data: run W{first} is nested too deeply$"):
        run_from(runs[first])


@pytest.mark.parametrize("depth", [100, 500, 900])
def test_deep_values_are_kept(depth: int) -> None:
    """A value of several hundred levels is read, and can be written as JSON."""
    deep = "[" * depth + "]" * depth
    run = page_from(f'{{"id": "W", "output": {{"a": {deep}}}}}').items[0]

    assert dump_json(run.output) == f'{{"a":{deep}}}'.encode()


@pytest.mark.parametrize("body", ["{}", '{"a": [1, {"id": 2}], "b": "]"}', "[1, 2", '"x"', "]]", ""])
def test_find_nested_object_in_shallow_json(body: str) -> None:
    """No object is found if nothing is nested deeply enough, even if the body is not JSON."""
    assert find_nested_object(body.encode(), 3) is None


def test_both_parsers_read_the_same() -> None:
    """Msgspec and the standard library's parser return the same values."""
    body = (SAMPLES / "runs_strings.json").read_bytes()

    assert loads(body) == json.loads(body)
    assert loads(b"\xef\xbb\xbf{}") == {}
    assert loads(b'"\\ud83d"') == "\ud83d"


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, -(2**64), 10**30, 10**400, 10**4299])
def test_large_integers_are_exact(number: int) -> None:
    """An integer of any size is exact, at any depth."""
    item = f'{{"id": "W", "output": {{"a": [{{"b": {number}}}]}}, "error": {number}, "extra": {number}}}'
    run = page_from(item).items[0]

    assert run.output == {"a": [{"b": number}]}
    assert (run.error, run.extra) == (number, {"extra": number})
    body = f'{{"data": {item}}}'.encode()
    assert read_run(parse_json(body), "V").output == run.output


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400])
def test_large_integers_of_webhooks_and_ids_are_exact(number: int) -> None:
    """An integer of any size is exact in an unknown field of a webhook, and as the id of a started run."""
    item = f'{{"id": "W", "extra": {{"a": [{number}]}}}}'
    page = read_webhook_page(parse_json(f'{{"total": 1, "data": [{item}]}}'.encode()), 1, 10)
    webhook = read_webhook(parse_json(f'{{"data": {item}}}'.encode()))
    started = read_started_id(parse_json(f'{{"data": {{"id": {number}}}}}'.encode()))

    assert list(page.items) == [webhook]
    assert webhook.extra == {"extra": {"a": [number]}}
    assert started == str(number)


@pytest.mark.parametrize("digits", [4301, 5000, 100_000])
def test_integers_of_too_many_digits_are_text(digits: int) -> None:
    """An integer with more digits than Python converts is read as a string of its digits."""
    text = "9" * digits
    page = page_from(f'{{"id": "W", "output": {{"a": {text}}}, "credits": {text}}}')

    assert page.items[0].output == {"a": text}
    assert (page.items[0].credits, page.items[0].extra) == (None, {"credits": text})
    assert page.invalid_fields == {"credits"}


@pytest.mark.parametrize("number", ["1.5", "1e3", "9.2e18", "1e300"])
def test_floats_stay_floats(number: str) -> None:
    """A number with a fraction or an exponent is a float."""
    assert page_from(f'{{"id": "W", "output": {{"a": {number}}}}}').items[0].output == {"a": float(number)}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2, 2), ("2", 2), (2.0, 2), ("2.0", 2), ("22.0000", 22), ("-1", -1), ("0", 0), (10**30, 10**30)],
)
def test_credits(value: JSON, expected: int) -> None:
    """Credits are read as an integer, even if they are a string or have decimals that are zero."""
    page = page_of({"id": "W", "credits": value})

    assert (page.items[0].credits, page.invalid_fields) == (expected, frozenset())
    assert type(page.items[0].credits) is int


@pytest.mark.parametrize("text", ["2026-01-31T09:00:00.5Z", "2026-01-31t09:00:00.5z", "2026-01-31T10:00:00.500+01:00"])
def test_dates(text: str) -> None:
    """Dates in any time zone, with letters of either case, are read as datetimes in UTC."""
    time = page_of({"id": "W", "createdAt": text}).items[0].created_at

    assert time == datetime(2026, 1, 31, 9, 0, 0, 500_000, tzinfo=UTC)
    assert time is not None
    assert time.tzinfo is UTC


def test_a_missing_workflow_is_the_requested_one() -> None:
    """A run without a workflow id has the id of the workflow whose list it is in."""
    response: JSON = {
        "data": {"total": 2, "data": [{"id": "1", "workflowId": "other"}, {"id": "2"}, {"id": "3", "workflowId": 4}]}
    }
    page = read_page(response, "mine")

    assert [run.workflow_id for run in page.items] == ["other", "mine", "mine"]

    items: list[JSON] = [{"id": "1", "workflowId": "other"}, {"id": "2", "workflowId": ""}]
    page = read_page({"data": {"data": items}}, "mine")

    assert [run.workflow_id for run in page.items] == ["other", "mine"]


def test_webhooks_of_the_reference() -> None:
    """The vendor's example of webhooks, in which one has an empty id, is read."""
    items: list[JSON] = [
        {"id": "", "url": "https://a", "eventType": "workflowRun.started", "workflowId": ""},
        {"id": "", "url": "https://b", "eventType": "workflowRun.failed", "workflowId": None},
    ]
    page = read_webhook_page({"total": "2", "data": items}, 1, 10)

    assert (page.total, [webhook.url for webhook in page.items]) == (2, ["https://a", "https://b"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("credits", "many"),
        ("credits", True),
        ("credits", 2.5),
        ("credits", "9" * 5000),
        ("credits", "2.5"),
        ("credits", "\uff12"),
        ("createdAt", "yesterday"),
        ("createdAt", "2023-09-27T18:24:47"),
        ("createdAt", "0001-01-01T00:00:00+14:00"),
        ("createdAt", 1695839087),
        ("status", 3),
        ("status", ["COMPLETE"]),
        ("output", "text"),
        ("output", [1, 2]),
        ("input", 0),
        ("metadata", "k=v"),
        ("workflowId", 17),
    ],
)
def test_invalid_field(field: str, value: JSON) -> None:
    """A run with an invalid value in a field is kept, with the value in `extra`, and the page names the field."""
    page = page_of({"id": "W", field: value, "toolKey": "t"}, {"id": "V"})

    assert page.invalid_fields == {field}
    assert page.items[0].extra == {field: value, "toolKey": "t"}
    assert [run.id for run in page.items] == ["W", "V"]


@pytest.mark.parametrize("total", [None, "many", -1, "-1", 2.5, True, [3], {}, "", 2**63, 10**400, "1" * 400])
def test_unknown_total(total: JSON) -> None:
    """An invalid or impossibly large total is None."""
    assert page_of(total=total).total is None


@pytest.mark.parametrize(
    ("item", "run_id"),
    [
        ({"workflowRunId": "W"}, "W"),
        ({"id": None, "workflowRunId": "W"}, "W"),
        ({"id": 7}, "7"),
    ],
)
def test_other_ids(item: dict[str, JSON], run_id: str) -> None:
    """If ``id`` is missing, ``workflowRunId`` is the id; a number is converted to a string."""
    assert page_of(item).items[0].id == run_id


@pytest.mark.parametrize(
    "item", [None, 3, "W", [], [0, 1], [2, None], {}, {"id": ""}, {"id": {}}, {"id": True}, {"id": 1.5}]
)
def test_not_a_run(item: JSON) -> None:
    """An item that is not an object, or has no id, raises an error that names its place."""
    with pytest.raises(InvalidResponseError, match=r"data\.data\[1\]: a run "):
        page_of({"id": "W"}, item)
    with pytest.raises(InvalidResponseError, match=r"data\.data\[0\]: a run "):
        page_of(item, item)


@pytest.mark.parametrize(
    ("response", "place"),
    [
        ([], ""),
        ({}, "data"),
        ({"data": []}, "data"),
        ({"data": {"total": 3}}, "data.data"),
        ({"status": "error", "errorCode": "NOT_FOUND"}, "status"),
        ({"status": "error", "data": {"total": 1, "data": [{"id": "W"}]}}, "status"),
    ],
)
def test_not_a_page(response: JSON, place: str) -> None:
    """A response of another structure raises an error with the place and an excerpt."""
    with pytest.raises(InvalidResponseError) as caught:
        read_page(response)

    assert caught.value.place == place
    assert caught.value.excerpt


def test_excerpt_is_short() -> None:
    """An excerpt is short, on one line, and without control characters."""
    shown = excerpt("\x1b[31m\n" + "x" * 1000)

    assert len(shown) <= 81
    assert shown.isprintable()
    assert len(excerpt({"a": "x" * 1000})) <= 81
    assert len(excerpt([1] * 1000)) <= 81


@pytest.mark.parametrize(
    ("text", "code", "details"),
    [
        ('{"status":"error","errorCode":"NOT_FOUND"}', "NOT_FOUND", None),
        ('{"errorCode":"REQUEST_INVALID","details":{"url":["bad"]}}', "REQUEST_INVALID", {"url": ["bad"]}),
        ("{}", None, None),
        ("[]", None, None),
        ('{"errorCode":5}', None, None),
        ("<html>Bad gateway</html>", None, None),
        ("\ud800", None, None),
    ],
)
def test_error_bodies(text: str, code: str | None, details: JSON) -> None:
    """The code and the details are read from the body of an error if it has them."""
    assert read_error(text)[:2] == (code, details)


def test_run_is_a_value() -> None:
    """A run is immutable, slotted and hashable, and its copies, pickled or not, are equal to it."""
    run = page_of({"id": "W", "status": "PAUSED", "output": {"a": [1]}, "b": None}).items[0]

    assert pickle.loads(pickle.dumps(run)) == run == copy.deepcopy(run)  # noqa: S301 (our own)
    assert hash(run) == hash("W")
    assert len({run, copy.copy(run)}) == 1
    assert not hasattr(run, "__dict__")
    assert set(asdict(run)) == {field.name for field in fields(Run)} == {*WIRE_NAMES, "extra"}
    with pytest.raises(AttributeError):
        run.id = "V"  # type: ignore[misc]  # the point of the test


def test_statuses() -> None:
    """The enum has the known statuses, two of which are final; an unknown status equals its string."""
    paused = RunStatus("PAUSED")

    assert paused == "PAUSED"
    assert f"{paused}" == "PAUSED"
    assert hash(paused) == hash("PAUSED")
    assert pickle.loads(pickle.dumps(paused)) == copy.deepcopy(paused) == paused  # noqa: S301 (our own)
    assert [status for status in RunStatus if status.is_final] == [RunStatus.COMPLETE, RunStatus.FAILED]
    assert not paused.is_final
    assert len(RunStatus) == 6
    with pytest.raises(ValueError, match="3"):
        RunStatus(3)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    ("value", "parses"),
    [
        ("1e300", 0),
        ("123456789012345678901234", 0),
        ("1e999", 1),
        ("1" * 5000, 1),
        ("1", 0),
        ('"\\ud800"', 1),
        ("[", 0),
    ],
)
def test_slow_parser_is_used_only_if_necessary(monkeypatch: pytest.MonkeyPatch, value: str, parses: int) -> None:
    """The standard library parses a body only if msgspec rejects a value that must be kept."""
    pytest.importorskip("msgspec")
    slow: list[bytes] = []

    def parse(body: bytes) -> object:
        slow.append(body)
        return json.loads(body, parse_int=str)

    monkeypatch.setattr(_json, "_loads_tolerantly", parse)
    with suppress(InvalidResponseError):
        parse_json(f'{{"data": {value}}}'.encode())

    assert len(slow) == parses


def test_large_page_is_read_in_slices() -> None:
    """A page that is parsed in several steps has all runs in order, and all invalid fields."""
    items: list[JSON] = [{"id": str(number), "credits": 1} for number in range(2001)]
    items[1500] = {"id": "1500", "credits": "many", "output": {"big": 2**70}}
    page = read_page({"data": {"data": items}})
    assert [run.id for run in page.items] == [str(number) for number in range(2001)]
    assert page.invalid_fields == {"credits"}
    assert page.items[1500].output == {"big": 2**70}
    items[2000] = None
    with pytest.raises(InvalidResponseError, match=r"data\.data\[2000\]"):
        read_page({"data": {"data": items}})


def page_body(*items: dict[str, JSON]) -> bytes:
    return json.dumps({"status": "success", "data": {"total": len(items), "data": list(items)}}).encode()


def test_page_with_the_fields_of_the_page_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """With msgspec, a page is parsed into structs if its runs have only fields of the page before."""
    pytest.importorskip("msgspec")
    read: list[JSON] = []

    def read_and_note(response: JSON, number: int, size: int, workflow_id: str | None) -> Page[Run]:
        read.append(response)
        return read_run_page(response, number, size, workflow_id)

    monkeypatch.setattr(_run_pages, "read_run_page", read_and_note)
    parser = RunPageParser()

    def is_parsed_into_structs(*items: dict[str, JSON]) -> bool:
        read.clear()
        page = parser.parse(page_body(*items), 1, 10)
        assert page == read_run_page(json.loads(page_body(*items)), 1, 10)
        return not read

    assert not is_parsed_into_structs({"id": "1", "new": 1})
    assert is_parsed_into_structs({"id": "2", "new": 1}, {"id": "3"}, {"id": "4", "new": None, "status": "PAUSED"})
    assert is_parsed_into_structs()
    assert not is_parsed_into_structs({"id": "5", "other": 1})
    assert is_parsed_into_structs({"id": "6", "other": {"a": [2**70]}, "metadata": None, "input": {"b": None}})
    assert not is_parsed_into_structs({"id": "7", "credits": "2"})
    assert is_parsed_into_structs({"id": "8", "createdAt": "2026-01-31T09:00:00+01:00"})
    assert not is_parsed_into_structs({"id": "9", "credits": "many"})
    assert not is_parsed_into_structs({"id": "10"})
    assert is_parsed_into_structs({"id": "11"})


@pytest.mark.parametrize("name", ['a"b', "a\\b", "\n", "\ud800", "", "x" * 10_001, "data", "field_0", "_ABSENT"])
def test_any_field_name(name: str) -> None:
    """A field without an attribute is kept under any name, even one that msgspec does not accept."""
    parser = RunPageParser()
    for _ in range(3):
        assert parser.parse(page_body({"id": "1", name: 1}, {"id": "2"}), 1, 10).items[0].extra == {name: 1}


def test_order_of_fields_without_an_attribute() -> None:
    """The fields of `extra` are in the order of the response, on every page."""
    parser = RunPageParser()
    for _ in range(2):
        page = parser.parse(page_body({"z": 1, "id": "1", "a": 2, "m": 3}), 1, 10)
        assert list(page.items[0].extra) == ["z", "a", "m"]


def test_many_fields_of_one_run_take_no_memory_for_others() -> None:
    """A run with many fields does not increase the memory that the runs of the next page take."""
    parser = RunPageParser()
    parser.parse(page_body({"id": "1", **{str(number): 1 for number in range(1_000)}}), 1, 10)
    body = page_body(*[{"id": "2"}] * 5_000)
    tracemalloc.start()
    try:
        parser.parse(body, 1, 10)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_broken_page_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that is not JSON is not parsed again by a parser for other types."""
    pytest.importorskip("msgspec")
    parser = RunPageParser()
    parser.parse(page_body({"id": "1"}), 1, 10)
    monkeypatch.setattr(_parsing, "loads", None)
    with pytest.raises(InvalidResponseError, match="not JSON"):
        parser.parse(page_body({"id": "1"})[:-1], 1, 10)


@pytest.mark.parametrize("body", [b'{"data": {"data": []}, "x": "\xff"}', b'{"data": {"data": [], "\xff": 1}}'])
def test_ignored_fields_must_be_json(body: bytes) -> None:
    """Invalid UTF-8 raises an error even in a field that is ignored."""
    with pytest.raises(InvalidResponseError, match="not JSON"):
        RunPageParser().parse(body, 1, 10)


def test_deep_run_after_a_page_with_the_same_fields() -> None:
    """A run that is nested too deeply is named by any parser."""
    parser = RunPageParser()
    parser.parse(page_body({"id": "1", "output": {}}), 1, 10)
    body = page_body({"id": "2", "output": {"a": "deep"}}).replace(b'"deep"', b"[" * 960 + b"]" * 960)
    # In a thread, where the stack is empty, msgspec parses more levels than are read.
    with ThreadPoolExecutor(1) as pool, pytest.raises(InvalidResponseError, match="run 2 is nested too deeply"):
        pool.submit(parser.parse, body, 1, 10).result()


def test_pages_that_never_fit_into_structs(monkeypatch: pytest.MonkeyPatch) -> None:
    """After five pages in a row that do not fit into structs, a session parses each page once."""
    pytest.importorskip("msgspec")
    tried: list[tuple[str, ...]] = []
    monkeypatch.setattr(_run_pages, "_struct_decoder", lambda extra: tried.append(extra) or _StructDecoder(extra))
    parser = RunPageParser()
    fits = page_body({"id": "1"})
    misfits = json.dumps({"status": "success", "next": 2, "data": {"total": 1, "data": [{"id": "1"}]}}).encode()
    for body in (misfits, misfits, misfits, misfits, fits, *[misfits] * 8, fits):
        assert [run.id for run in parser.parse(body, 1, 10).items] == ["1"]

    assert len(tried) == 10
