"""Tests of invalid values, which the emulator rejects when they are passed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from aiocopyai import WebhookEventType
from aiocopyai.emulator import Emulator, Fault, Quirks, Script


CASES: list[tuple[Callable[[], object], str]] = [
    (lambda: make(Quirks, total="number"), "total must be 'int' or 'string' or 'absent', got 'number'"),
    (lambda: make(Quirks, oversize=400), "oversize must be 'clamp' or 'reject', got 400"),
    (lambda: make(Quirks, past_end=500), "past_end must be 'empty' or 'last' or 400 or 404 or 422, got 500"),
    (lambda: make(Quirks, past_end=400.0), "past_end must be 'empty' or 'last' or 400 or 404 or 422, got 400.0"),
    (lambda: make(Quirks, page_zero=404), "page_zero must be 'first' or 400, got 404"),
    (lambda: make(Quirks, ignore_page=1), "ignore_page must be True or False, got 1"),
    (lambda: make(Quirks, sparse="yes"), "sparse must be True or False, got 'yes'"),
    (lambda: make(Quirks, mixed_dates=None), "mixed_dates must be True or False, got None"),
    (lambda: make(Quirks, text_404="false"), "text_404 must be True or False, got 'false'"),
    (lambda: make(Quirks, lists_metadata=0), "lists_metadata must be True or False, got 0"),
    (lambda: make(Quirks, credits="float"), "credits must be 'int' or 'string', got 'float'"),
    (lambda: make(Quirks, short_pages=-1), "short_pages must be at least 0, got -1"),
    (lambda: make(Quirks, late_runs=-0.1), "late_runs must be a number of seconds, 0 or more, got -0.1"),
    (lambda: make(Quirks, retention=-1), "retention must be at least 0, got -1"),
    (lambda: make(Quirks, delivery="new"), "delivery must be 'today' or 'older' or 'run', got 'new'"),
    (lambda: make(Fault, status=100), "status must be between 200 and 999, got 100"),
    (lambda: make(Fault, headers=["x"]), "headers must be a mapping of names to strings, got ['x']"),
    (lambda: make(Fault, headers={"a b": "1"}), "headers must have valid names, got 'a b'"),
    (lambda: make(Fault, headers={"Retry-After": 7}), "headers['Retry-After'] must be a string on one line, got 7"),
    (lambda: make(Fault, headers={"x": "1\r\n"}), r"headers['x'] must be a string on one line, got '1\r\n'"),
    (lambda: make(Fault, reset="during"), "reset must be 'before' or 'after', got 'during'"),
    (lambda: make(Fault, reset="after", status=500), "reset sends no response, so status must not be given"),
    (
        lambda: make(Fault, reset="before", body={}, headers={"x": "1"}, truncate=0, drip=1),
        "reset sends no response, so body, headers, truncate, drip must not be given",
    ),
    (lambda: make(Script, states=("NEW", None)), "states must be a non-empty string, got None"),
    (lambda: make(Script, output=["x"]), "output must be a mapping of names to JSON values, got ['x']"),
    (lambda: make(Emulator, runs="12"), "runs must be a list, got '12'; pass a single one as [run]"),
    (lambda: make(Emulator, runs={"id": "R"}), "runs must be a list, got {'id': 'R'}; pass a single one as [run]"),
    (lambda: make(Emulator, workflow_id=""), "workflow_id must be a non-empty string, got ''"),
    (lambda: make(Emulator, api_key=None), "api_key must be a non-empty string, got None"),
    (lambda: make(Emulator, quirks=None), "quirks must be a Quirks, got None"),
    (
        lambda: setattr(Emulator(), "quirks", Fault),
        "quirks must be a Quirks, got <class 'aiocopyai.emulator._faults.Fault'>",
    ),
    (lambda: make(Emulator().add_runs, at="end"), "at must be 'head' or 'tail', got 'end'"),
    (lambda: make(Emulator().remove_runs, ids="WRUN-1"), "ids must be a list, got 'WRUN-1'; pass a single one as [id]"),
    (lambda: make(Emulator().replace_runs, items={}), "items must be a list, got {}; pass a single one as [item]"),
    (lambda: make(Emulator().inject, fault=503), "fault must be a Fault, got 503"),
    (lambda: make(Emulator().inject, fault=Fault(), method=""), "method must be a non-empty string, got ''"),
    (lambda: make(Emulator().inject, fault=Fault(), path=b"/"), "path must be a non-empty string, got b'/'"),
    (lambda: make(Emulator().script_next_runs, script="x"), "script must be a Script, got 'x'"),
]


def make(create: Callable[..., object], **given: Any) -> object:  # noqa: ANN401 (any values)
    """Call with arguments of any type."""
    return create(**given)


@pytest.mark.parametrize(("call", "message"), CASES, ids=[message for _, message in CASES])
def test_invalid_values_are_rejected(call: Callable[[], object], message: str) -> None:
    """A value that the emulator does not support raises a `ValueError` that says what is accepted."""
    with pytest.raises(ValueError, match="must") as caught:
        call()

    assert str(caught.value) == message


@pytest.mark.parametrize("kind", [Quirks, Fault])
def test_every_field_is_checked(kind: type) -> None:
    """Every field of the public values is checked, except a body, which may be any JSON."""
    for name in inspect.signature(kind).parameters:
        with pytest.raises(ValueError, match=rf"^{name} must "):
            make(kind, **{name: object()})


def test_an_invalid_emulator_does_not_write_its_file(tmp_path: Path) -> None:
    """An emulator with an invalid argument does not create its state file."""
    for given in ({"run_time": -1}, {"runs": -1}, {"port": -1}, {"latency": None}):
        with pytest.raises(ValueError, match="must be"):
            make(Emulator, state=tmp_path / "state.db", **given)

    assert list(tmp_path.iterdir()) == []


async def test_members_of_enumerations_are_accepted() -> None:
    """A member of an enumeration with the value of a choice is accepted like the value."""
    assert make(Quirks, past_end=HTTPStatus.NOT_FOUND) == Quirks(past_end=404)
    async with Emulator() as emulator:
        assert await emulator.deliver(WebhookEventType.RUN_FAILED) == []
