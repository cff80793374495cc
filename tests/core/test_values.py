"""What all public values have in common: a short `repr` on one line, copies, and pickles."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from aiocopyai import (
    AttemptInfo,
    Changes,
    Page,
    RequestInfo,
    RetryInfo,
    RetryPolicy,
    Run,
    RunEvent,
    RunResult,
    RunStatus,
    Webhook,
    WebhookEvent,
    WebhookEventType,
)
from aiocopyai.emulator import Delivery, Fault, Quirks, Request, Script


LINES = "line\x1b[31m\n" * 1_000
"""A string that no `repr` may contain unchanged."""
KEY = "a-key-of-16-chars"
DEEP: dict[str, Any] = {}
inner = DEEP
for _ in range(400):
    inner["a\n"] = {}
    inner = inner["a\n"]
ANY = {"deep": DEEP, **{f"{LINES}{number}": [LINES] * 50 for number in range(50)}}
RUN = Run(
    f"WRUN-{LINES}", LINES, RunStatus(LINES), ANY, ANY, ANY, datetime(2026, 1, 1, tzinfo=UTC), 10**4_000, [ANY], ANY
)
VALUES = [
    RUN,
    RunEvent("new", RUN, RunStatus(LINES)),
    RunResult(0, ANY, RUN, None, idempotency_key=LINES),
    Page(1, 10, 10**4_000, [RUN] * 100, frozenset([LINES])),
    Webhook(LINES, LINES, WebhookEventType(LINES), LINES, None, ANY),
    WebhookEvent(WebhookEventType(LINES), LINES, LINES, ANY, ANY, 10**4_000, RUN, ANY),
    Changes(first_total=10**4_000, last_total=10**4_000),
    RequestInfo("GET", LINES, 2),
    AttemptInfo("GET", LINES, 1, 200, 0.1),
    RetryInfo("GET", LINES, 1, None, 0.5, LINES),
    RetryPolicy(),
    RunStatus(LINES),
    Delivery(LINES, "workflowRun.completed", ANY, 200),
    Request(
        number=1,
        method="GET",
        path=LINES,
        query={LINES: LINES},
        headers={"x-copy-ai-api-key": KEY},
        page=1,
        size=10,
        body=ANY,
    ),
    Fault(body=[ANY], headers={"x": "y" * 9_000}),
    Script(output=ANY, error=ANY),
    Quirks(total=len),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_repr_is_one_short_line(value: object) -> None:
    """The `repr` of a value is printable, of limited length, and does not contain the key, for any response."""
    shown = repr(value)

    assert shown.isprintable()
    assert len(shown) < 12_000
    assert KEY not in shown


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("duplicate", [lambda value: pickle.loads(pickle.dumps(value)), copy.copy, copy.deepcopy])  # noqa: S301 (our own)
def test_values_can_be_copied(value: object, duplicate: Callable[[object], object]) -> None:
    """A copy of a value, and the value that is read from its pickle, equal the original."""
    duplicated = duplicate(value)

    assert type(duplicated) is type(value)
    assert duplicated == value


def test_a_short_repr_is_complete() -> None:
    """The `repr` of an ordinary run has all of its attributes but `extra`."""
    run = Run("WRUN-1", "WCFG-1", RunStatus.NEW, {"b": 1, "a": "x"}, {}, {}, None, 3, None, {"hidden": 1})

    assert repr(run) == (
        "Run(id='WRUN-1', workflow_id='WCFG-1', status=<RunStatus.NEW: 'NEW'>, input={'a': 'x', 'b': 1}, output={}, "
        "metadata={}, created_at=None, credits=3, error=None)"
    )
    assert repr(RunStatus("PAUSED")) == "RunStatus('PAUSED')"
