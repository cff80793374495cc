"""From bytes to models: the vendor's examples, odd values, and no field lost."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from attrs import asdict, fields
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import JSON, InvalidResponseError, Page, Run, RunStatus
from aiocopyai._parsing import _load_strictly, parse_json, read_error, read_run_page
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


def page_of(*items: JSON, total: JSON = 1) -> Page[Run]:
    answer: JSON = {"status": "success", "data": {"total": total, "data": list(items)}}
    return read_run_page(copy.deepcopy(answer), 1, 10)


def sample(name: str) -> Page[Run]:
    return read_run_page(parse_json((SAMPLES / name).read_bytes()), 1, 100)


def test_example_with_strings() -> None:
    """The vendor's example with totals and credits in strings, and without status, input and output, is read."""
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
    """The vendor's example with integers and a null for metadata is read."""
    page = sample("runs_integers.json")

    assert (page.total, page.items[0].credits, page.items[0].status) == (2, 2, RunStatus.COMPLETE)
    assert [dict(run.metadata) for run in page.items] == [{"api": True}, {}]
    assert page.items[0].input == {"Input 1": "…"}


@given(ITEMS, st.text(min_size=1))
def test_no_field_is_lost(item: dict[str, JSON], run_id: str) -> None:
    """Whatever an item with an id holds, each of its fields is an attribute or stands in `extra` as it came."""
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


@given(JSON_VALUES)
def test_only_documented_errors(answer: JSON) -> None:
    """An answer of any shape is a page or an `InvalidResponseError`."""
    for candidate in (answer, {"data": answer}, {"data": {"data": answer}}, {"data": {"data": [answer]}}):
        try:
            page = read_run_page(copy.deepcopy(candidate), 1, 10)
        except InvalidResponseError as error:
            assert str(error)
        else:
            assert page.number == 1


@given(st.binary())
def test_any_bytes(body: bytes) -> None:
    """Bytes of any kind are JSON or an `InvalidResponseError` that is worth a retry."""
    try:
        parse_json(body)
    except InvalidResponseError as error:
        assert error.retryable
        assert "\n" not in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": NaN}', b'{"status":"succ', b"[" * 100_000, b"\xff"])
def test_no_json(body: bytes) -> None:
    """What is no JSON is refused by either parser."""
    with pytest.raises(InvalidResponseError, match="the answer is not JSON"):
        parse_json(body)
    with pytest.raises((ValueError, RecursionError)):
        _load_strictly(body)


def test_the_standard_parser() -> None:
    """Without orjson the standard library's parser reads the same."""
    body = (SAMPLES / "runs_strings.json").read_bytes()

    assert parse_json(body) == _load_strictly(body) == json.loads(body)
    assert parse_json(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("credits", "many"),
        ("credits", True),
        ("credits", 2.5),
        ("credits", "9" * 5000),
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
def test_odd_field(field: str, value: JSON) -> None:
    """A value that doesn't fit never costs a run: it stands in `extra`, and the page says which field it was."""
    page = page_of({"id": "W", field: value, "toolKey": "t"}, {"id": "V"})

    assert page.invalid_fields == {field}
    assert page.items[0].extra == {field: value, "toolKey": "t"}
    assert [run.id for run in page.items] == ["W", "V"]


@pytest.mark.parametrize("total", [None, "many", -1, "-1", 2.5, True, [3], {}, ""])
def test_unknown_total(total: JSON) -> None:
    """A total that is no count is unknown."""
    assert page_of(total=total).total is None


def test_zones() -> None:
    """A time in another zone is the same moment in UTC."""
    run = page_of({"id": "W", "createdAt": "2026-01-01T12:00:00+02:00"}).items[0]

    assert run.created_at == datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert run.created_at is not None
    assert run.created_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("item", "run_id"),
    [
        ({"workflowRunId": "W"}, "W"),
        ({"id": None, "workflowRunId": "W"}, "W"),
        ({"id": 7}, "7"),
    ],
)
def test_other_ids(item: dict[str, JSON], run_id: str) -> None:
    """Where ``id`` is none, ``workflowRunId`` holds the same, and a number will do."""
    assert page_of(item).items[0].id == run_id


@pytest.mark.parametrize("item", [None, 3, "W", [], {}, {"id": ""}, {"id": {}}, {"id": True}, {"id": 1.5}])
def test_no_run(item: JSON) -> None:
    """An item that is no object or has no id is refused, with its place."""
    with pytest.raises(InvalidResponseError, match=r"data\.data\[1\]: a run "):
        page_of({"id": "W"}, item)


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ([], ""),
        ({}, "data"),
        ({"data": []}, "data"),
        ({"data": {"total": 3}}, "data.data"),
        ({"status": "error", "errorCode": "NOT_FOUND"}, "status"),
    ],
)
def test_no_page(answer: JSON, place: str) -> None:
    """An answer of another shape is refused, with the place and a piece of what came."""
    with pytest.raises(InvalidResponseError) as caught:
        read_run_page(answer, 1, 10)

    assert caught.value.place == place
    assert caught.value.excerpt


def test_excerpt_is_short() -> None:
    """A piece of what came is short, on one line, and without raw control characters."""
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
    """An error's body of any kind is read as far as it goes."""
    assert read_error(text)[:2] == (code, details)


def test_run_is_a_value() -> None:
    """A run is immutable, slotted, hashable, and pickles and copies to an equal one."""
    run = page_of({"id": "W", "status": "PAUSED", "output": {"a": [1]}, "b": None}).items[0]

    assert pickle.loads(pickle.dumps(run)) == run == copy.deepcopy(run)  # noqa: S301 (our own)
    assert hash(run) == hash("W")
    assert len({run, copy.copy(run)}) == 1
    assert not hasattr(run, "__dict__")
    assert set(asdict(run)) == {field.name for field in fields(Run)} == {*WIRE_NAMES, "extra"}
    with pytest.raises(AttributeError):
        run.id = "V"  # type: ignore[misc]  # the point of the test


def test_statuses() -> None:
    """The known states are members, an unknown one equals its text, and two are final."""
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
