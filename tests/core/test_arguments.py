"""Tests of numbers and durations in every public parameter: absurd values raise `ValueError`."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
import pandas as pd
import pytest

from aiocopyai import ConfigurationError, CopyAISession, Pager, RetryPolicy
from aiocopyai.emulator import Emulator, Fault, Quirks, Script
from aiocopyai.webhooks import WebhookReceiver
from tests.support.arguments import INVALID_INTEGERS, INVALID_NUMBERS, INVALID_SPANS, problem_of


async def ignore(_event: object) -> None:
    """Do nothing."""


def assign(name: str, value: Any) -> None:  # noqa: ANN401 (any value)
    """Assign an attribute of an emulator."""
    setattr(Emulator(), name, value)


KEY = "a-key-of-16-chars"
KEYED = {"idempotency_key": "k"}
CALLS: dict[str, Callable[..., Any]] = {
    "CopyAISession": partial(CopyAISession, KEY),
    "CopyAISession.with_options": lambda **given: CopyAISession(KEY).with_options(**given),
    "CopyAISession.runs": lambda **given: CopyAISession(KEY).runs("W", **given),
    "CopyAISession.runs_page": lambda **given: CopyAISession(KEY).runs_page("W", **given),
    "CopyAISession.start_run": lambda **given: CopyAISession(KEY).start_run("W", {}, **KEYED, **given),
    "CopyAISession.wait_run": lambda **given: CopyAISession(KEY).wait_run("W", "R", **given),
    "CopyAISession.run_workflow": lambda **given: CopyAISession(KEY).run_workflow("W", {}, **KEYED, **given),
    "CopyAISession.run_many": lambda **given: CopyAISession(KEY).run_many(
        "W", [], **given, idempotency_key=lambda index, _inputs: str(index)
    ),
    "CopyAISession.watch_run": lambda **given: CopyAISession(KEY).watch_run("W", "R", **given),
    "CopyAISession.watch": lambda **given: CopyAISession(KEY).watch("W", **given),
    "Pager.collect": lambda **given: CopyAISession(KEY).runs("W").collect(**given),
    "RetryPolicy": RetryPolicy,
    "WebhookReceiver": partial(WebhookReceiver, CopyAISession(KEY), ignore),
    "Emulator": Emulator,
    "Emulator.script_next_runs": lambda **given: Emulator().script_next_runs(Script(), **given),
    "Emulator.add_runs": lambda **given: Emulator().add_runs(**given),
    "Emulator.inject": lambda **given: Emulator().inject(Fault(), **given),
    "Emulator.run_time": lambda **given: assign("run_time", *given.values()),
    "Emulator.latency": lambda **given: assign("latency", *given.values()),
    "Emulator.credits": lambda **given: assign("credits", *given.values()),
    "Fault": Fault,
    "Quirks": Quirks,
    "Script": Script,
}
VALUES = {"int": INVALID_INTEGERS, "float": INVALID_NUMBERS, "timedelta": INVALID_SPANS}
MEANINGFUL = {("Emulator", "seed", "-1"), ("Emulator", "runs", "np.array")}
"""Values that a parameter accepts in spite of the above."""
INTERNAL = {"RetryPolicy.allows", "RetryPolicy.wait_after"}
"""Methods that only the client calls."""


def parameters() -> dict[tuple[str, str], str]:
    """Return the kind of each parameter for a number or a duration, by the label of its callable and its name."""
    found: dict[tuple[str, str], str] = {}
    for owner in (CopyAISession, Pager, RetryPolicy, WebhookReceiver, Emulator, Fault, Quirks, Script):
        callables: dict[str, Any] = {owner.__name__: owner}
        for name, member in inspect.getmembers(owner):
            if not name.startswith("_"):
                callables[f"{owner.__name__}.{name}"] = member.fset if isinstance(member, property) else member
        for label, function in callables.items():
            if not callable(function) or label in INTERNAL:
                continue
            for parameter in inspect.signature(function).parameters.values():
                kind = re.search(r"^(int|float|timedelta)\b", str(parameter.annotation).removeprefix("RetryPolicy | "))
                if kind is not None:
                    found[label, parameter.name] = kind[1]
    return found


PARAMETERS = parameters()


def test_every_number_is_known() -> None:
    """Every public callable with a parameter for a number or a duration is tested here."""
    assert {label for label, _ in PARAMETERS} == CALLS.keys()
    assert len(PARAMETERS) > 50


@pytest.mark.parametrize(("label", "name"), PARAMETERS, ids=str)
async def test_absurd_numbers_are_rejected(label: str, name: str) -> None:
    """An absurd number or duration raises `ValueError`. The message is one line and names the parameter."""
    for text, value in VALUES[PARAMETERS[label, name]].items():
        if (label, name, text) in MEANINGFUL:
            continue
        with pytest.raises(ValueError, match="must") as caught:
            result = CALLS[label](**{name: value})
            if inspect.isawaitable(result):
                await result

        assert problem_of(caught.value) == ""
        assert str(caught.value).split()[0].endswith((name, label.rpartition(".")[2]))


@pytest.mark.parametrize("name", ["total", "connect", "sock_connect", "sock_read", "ceil_threshold"])
@pytest.mark.parametrize("value", [10**400, math.nan, math.inf, -1, "1"], ids=["10**400", "nan", "inf", "-1", "'1'"])
def test_an_absurd_client_timeout_is_rejected(name: str, value: Any) -> None:  # noqa: ANN401 (any value)
    """The numbers in an `aiohttp.ClientTimeout` are checked, as aiohttp itself does not check them."""
    given: Mapping[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=rf"timeout\.{name} must be"):
        CopyAISession(KEY, timeout=aiohttp.ClientTimeout(**given))


@pytest.mark.parametrize("rate", [5e-324, 1e-310, 1e-10])
def test_a_rate_of_less_than_one_request_in_decades_is_rejected(rate: float) -> None:
    """A rate whose reciprocal is longer than any clock can express raises `ConfigurationError`."""
    with pytest.raises(ConfigurationError, match="max_rate must be at least 1e-09 requests per second, got"):
        CopyAISession(KEY, max_rate=rate)


@pytest.mark.parametrize("call", ["runs", "watch"])
def test_nat_is_rejected(call: str) -> None:
    """`since` rejects the NaT of pandas, such as the latest time of an empty column."""
    latest = pd.Series([], dtype="datetime64[us, UTC]").max()

    with pytest.raises(ValueError, match=r"since must be a datetime with a time zone, .* got NaT"):
        getattr(CopyAISession(KEY), call)("W", since=latest)


async def test_the_largest_numbers_are_accepted(copyai_emulator: Emulator) -> None:
    """The largest accepted values do not overflow a clock, a date or a limit."""
    workflow_id = copyai_emulator.workflow_id
    copyai_emulator.add_runs(3)
    largest, most = sys.float_info.max, sys.maxsize
    forever = {"timeout": largest, "max_poll_interval": largest, "reuse_within": timedelta.max}
    policy = RetryPolicy(most, largest, 0, largest, 0)
    async with CopyAISession(
        copyai_emulator.api_key, base_url=copyai_emulator.url, timeout=largest, retry=policy, max_rate=largest
    ) as session:
        for since in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
            assert len(await session.runs(workflow_id, since=since, limit=most).collect(most)) in {0, 3}
        copyai_emulator.inject(Fault(status=503))
        assert (await session.run_workflow(workflow_id, {}, idempotency_key="k", **forever)).output
        results = session.run_many(
            workflow_id, [{}], concurrency=most, idempotency_key=lambda _index, _inputs: "k", **forever
        )
        assert [result.reused async for result in results] == [True]
        watch = session.watch(workflow_id, interval=largest, since=datetime.min.replace(tzinfo=UTC))
        assert (await anext(watch)).kind == "new"
