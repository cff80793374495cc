"""The values a caller meets: runs, webhooks, pages of them, and what moved during a walk.

Plain frozen attrs classes without a wire name in them; how they are read from JSON is in ``_wire``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, Generic, NoReturn, Self, TypeAlias, TypeVar

from attrs import field, frozen


JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""Any JSON value, as `json.loads` gives it."""

T_co = TypeVar("T_co", covariant=True)


class _OpenEnum(StrEnum):
    """Texts of which the reference names some; any other makes a member on the fly."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        # Not registered: a server that invents a new one each time can't fill the memory.
        unknown = str.__new__(cls, value)
        unknown._name_ = value
        unknown._value_ = value
        return unknown

    def __reduce_ex__(self, _protocol: object) -> tuple[type[Self], tuple[str]]:
        """Pickle by value, so that an unknown one survives."""
        return type(self), (self._value_,)


class RunStatus(_OpenEnum):
    """Where a run stands. The six states are those of the vendor's reference.

    A status that the reference doesn't know is kept: ``RunStatus("PAUSED") == "PAUSED"``. It hashes, prints and
    pickles like its text, and ``list(RunStatus)`` still names the known ones only.
    """

    NEW = "NEW"
    WAITING = "WAITING"
    PROCESSING = "PROCESSING"
    RETRYING = "RETRYING"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        """Whether the run is over: ``COMPLETE`` or ``FAILED``. An unknown status is not final."""
        return self == RunStatus.COMPLETE or self == RunStatus.FAILED  # noqa: PLR1714 (twice as fast as `in`)


class WebhookEventType(_OpenEnum):
    """What a webhook is called for. The four are those of the vendor's reference; any other is kept, like a status."""

    RUN_STARTED = "workflowRun.started"
    RUN_COMPLETED = "workflowRun.completed"
    RUN_FAILED = "workflowRun.failed"
    CREDIT_LIMIT_REACHED = "workflowCreditLimit.reached"


@frozen(weakref_slot=False)
class Run:
    """One run of a workflow, as the API last told it.

    Only `id` can be relied on; the vendor's own examples leave out every other field. A field whose value doesn't fit
    (credits "many", a date "yesterday") is None or empty here and stands in `extra` as it came.
    Runs compare by all their fields and hash by their id.
    """

    id: str
    """The run's id; opaque."""
    workflow_id: str | None = None
    """The id of the workflow that ran, in the form that the server uses."""
    status: RunStatus | None = None
    """Where the run stands; None where the server doesn't say."""
    input: Mapping[str, JSON] = field(factory=dict[str, JSON])
    """What the run was started with, by input name."""
    output: Mapping[str, JSON] = field(factory=dict[str, JSON])
    """What the run made, by step name; filled in part while it is under way."""
    metadata: Mapping[str, JSON] = field(factory=dict[str, JSON])
    """What the starter attached; empty where the server sends null."""
    created_at: datetime | None = None
    """When the run was started: aware, in UTC."""
    credits: int | None = None
    """What the run has cost so far, in credits."""
    error: JSON = None
    """Why the run failed, as raw JSON (its shape is not documented)."""
    extra: Mapping[str, JSON] = field(factory=dict[str, JSON], repr=False)
    """Every field that has no attribute of its own here, under its wire name and as it came."""

    def __hash__(self) -> int:
        return hash(self.id)

    def output_json(self, key: str) -> JSON:
        """Return the output `key` as JSON: read from its text, or as it is where the server sent more than a text.

        Workflow steps often give JSON inside a string; a captured payload shows that.

        Raises:
            KeyError: the run has no such output; the message names those it has.
            ValueError: the text is not JSON; the message says where it stops being so.
        """
        if key not in self.output:
            known = ", ".join(map(repr, self.output)) or "none"
            raise KeyError(f"run {self.id} has no output {key!r}; it has: {known}")
        value = self.output[key]
        if not isinstance(value, str):
            return value
        try:
            parsed: JSON = json.loads(value, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            shown = repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}…"
            raise ValueError(f"output {key!r} of run {self.id} is not JSON ({error}): {shown}") from None
        return parsed


_SHOWN: Final = 80


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


@frozen
class Webhook:
    """A URL that Copy.ai calls when something happens to runs."""

    id: str
    """The webhook's id; opaque."""
    url: str | None = None
    """Where deliveries are posted."""
    event_type: WebhookEventType | None = None
    """What it is called for; one event for each webhook."""
    workflow_id: str | None = None
    """Whose runs it is called for; None for those of the whole workspace."""
    created_at: datetime | None = None
    """When it was registered, where the server says; the vendor's reference has no such field."""
    extra: Mapping[str, JSON] = field(factory=dict[str, JSON], repr=False)
    """Every field that has no attribute of its own here, under its wire name and as it came."""

    def __hash__(self) -> int:
        return hash(self.id)


@frozen
class Page(Generic[T_co]):
    """One page of a list, as one answer told it."""

    number: int
    """Which page was asked for; the list of runs starts at 1."""
    size: int
    """How many items were asked for; the server may send fewer."""
    total: int | None
    """How many items the server says the whole list has; None where it doesn't say, or says nonsense."""
    items: Sequence[T_co]
    """The items in the server's order."""
    invalid_fields: frozenset[str] = frozenset()
    """Wire names of the known fields that, in some item of this page, held a value that doesn't fit."""


@frozen
class Changes:
    """What moved under a walk, counted so far."""

    repeated: int = 0
    """Items that slid into a page where they were met again, and were not given out again."""
    reread: int = 0
    """Pages asked for again because the list had shrunk."""
    missing: int = 0
    """Positions at the list's end that `total` promised and no page filled. Only a finished walk knows."""
    first_total: int | None = None
    """The first `total` seen."""
    last_total: int | None = None
    """The latest `total` seen."""

    def __bool__(self) -> bool:
        """Whether anything moved at all."""
        return bool(self.repeated or self.reread or self.missing or self.first_total != self.last_total)
