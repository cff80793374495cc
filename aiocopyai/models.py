"""The values of the API: runs, webhooks, pages of them, and the changes of a list during an iteration.

They are frozen attrs classes. `_parsing` creates them from JSON, and knows the API's own field names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar

from attrs import field, frozen

from aiocopyai._text import bounded_repr, excerpt


JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""Any JSON value, as `json.loads` returns it."""

T_co = TypeVar("T_co", covariant=True)


class _OpenEnum(StrEnum):
    """An enum of strings that accepts any other string as an unregistered member."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        # Not registered, so that a server that invents a new one each time cannot fill the memory.
        unknown = str.__new__(cls, value)
        unknown._name_ = value
        unknown._value_ = value
        return unknown

    def __repr__(self) -> str:
        if self._value_ in type(self)._value2member_map_:
            return super().__repr__()
        return f"{type(self).__name__}({bounded_repr(self._value_)})"  # the name is the value, and not escaped

    def __reduce_ex__(self, _protocol: object) -> tuple[type[Self], tuple[str]]:
        """Pickle by value, so that an unknown member survives."""
        return type(self), (self._value_,)


class RunStatus(_OpenEnum):
    """The status of a run. The six members are those of Copy.ai's API reference.

    An unknown status is kept: ``RunStatus("PAUSED") == "PAUSED"``. It compares, hashes and prints like its string, and
    can be pickled. ``list(RunStatus)`` has only the six members.
    """

    NEW = "NEW"
    WAITING = "WAITING"
    PROCESSING = "PROCESSING"
    RETRYING = "RETRYING"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        """Whether a run with this status is finished: ``COMPLETE`` or ``FAILED``. An unknown status is not final."""
        return self == RunStatus.COMPLETE or self == RunStatus.FAILED  # noqa: PLR1714 (twice as fast as `in`)


class WebhookEventType(_OpenEnum):
    """The type of a webhook event. The four members are those of Copy.ai's API reference; an unknown type is kept."""

    RUN_STARTED = "workflowRun.started"
    RUN_COMPLETED = "workflowRun.completed"
    RUN_FAILED = "workflowRun.failed"
    CREDIT_LIMIT_REACHED = "workflowCreditLimit.reached"


@frozen(weakref_slot=False)
class Run:
    """A run of a workflow, as the server sent it in one response.

    Only `id` is always present: the examples in Copy.ai's reference omit every other field. If a value does not fit
    its attribute (credits "many", a date "yesterday"), the attribute is None or empty, and `extra` has the value
    unchanged. Runs are compared by all attributes and hashed by their id.

    Attributes cannot be reassigned. The mappings are plain dicts, so `json.dumps`, `pickle` and `copy.deepcopy` accept
    them. They are typed as read-only, and nothing in this package modifies them.

    Attributes:
        id: the run's id, an opaque string.
        workflow_id: the workflow's id as the server sends it; if the server omits it, the id in the request.
        status: the status; None if the server omits it.
        input: the inputs by name: any JSON.
        output: the outputs by step name: any JSON. Incomplete while the run is in progress.
        metadata: the metadata that the run was started with; empty if the server sends null.
        created_at: when the run was started, as an aware datetime in UTC; None if the server omits it.
        credits: the credits that the run has cost so far; None if the server omits them.
        error: why the run failed, as raw JSON (its shape is not documented); None if there is no error.
        extra: all fields without an attribute, unchanged, by their names in the JSON.
    """

    id: str = field(repr=bounded_repr)
    workflow_id: str | None = field(default=None, repr=bounded_repr)
    status: RunStatus | None = None
    input: Mapping[str, Any] = field(factory=dict[str, Any], repr=bounded_repr)
    output: Mapping[str, Any] = field(factory=dict[str, Any], repr=bounded_repr)
    metadata: Mapping[str, Any] = field(factory=dict[str, Any], repr=bounded_repr)
    created_at: datetime | None = None
    credits: int | None = field(default=None, repr=bounded_repr)
    error: JSON = field(default=None, repr=bounded_repr)
    extra: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)

    def __hash__(self) -> int:
        return hash(self.id)

    def to_dict(self) -> dict[str, Any]:
        """Return the run as a JSON object, as in a line of ``aiocopyai export`` or ``aiocopyai runs --format jsonl``.

        The keys are the names of the attributes, in the order of an export's columns. `status` is a plain string, and
        `created_at` is ISO 8601 in UTC, such as ``2026-01-31T09:00:00Z``; both are None if the run has none. The
        mappings are copied, but the values in them are not.
        """
        return {
            "id": self.id,
            "workflow_id": self.workflow_id,
            "status": None if self.status is None else self.status.value,
            "created_at": utc_isoformat(self.created_at),
            "credits": self.credits,
            "input": dict(self.input),
            "output": dict(self.output),
            "metadata": dict(self.metadata),
            "error": self.error,
            "extra": dict(self.extra),
        }

    def to_json(self) -> str:
        """Return the result of `to_dict` as JSON on one line."""
        from aiocopyai._json import dump_json  # noqa: PLC0415 (loads msgspec)

        return dump_json(self.to_dict()).decode()

    def output_json(self, key: str) -> Any:  # noqa: ANN401 (any JSON, as from json.loads)
        """Return one output as JSON: parsed if it is a string, and unchanged otherwise.

        Some workflow steps return JSON inside a string (seen in a captured payload, not documented).

        Args:
            key: the name of the output.

        Raises:
            KeyError: the run has no such output; the message lists its outputs.
            ValueError: the string is not JSON; the message says where parsing failed.
        """
        if key not in self.output:
            known = ", ".join(map(repr, self.output)) or "none"
            raise KeyError(f"run {self.id} has no output {key!r}, only: {known}")
        value = self.output[key]
        if not isinstance(value, str):
            return value
        from aiocopyai._json import reject_constant  # noqa: PLC0415 (loads msgspec)

        try:
            return json.loads(value, parse_constant=reject_constant)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"output {key!r} of run {self.id} is not JSON ({error}): {excerpt(value)}") from None


def utc_isoformat(time: datetime | None) -> str | None:
    """Return a datetime in ISO 8601, in UTC with a ``Z``."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z") if time else None


@frozen
class RunEvent:
    """A new run or a change of a run's status, yielded by `CopyAISession.watch`.

    Attributes:
        kind: ``"new"`` for a new run, ``"changed"`` for a change of its status.
        run: the run after the change.
        previous_status: the status before the change; None if it is not known, and for a new run.
    """

    kind: Literal["new", "changed"]
    run: Run
    previous_status: RunStatus | None = None


@frozen
class Webhook:
    """A webhook: a URL to which Copy.ai posts events of one type.

    Attributes:
        id: the webhook's id, an opaque string.
        url: the URL to which events are posted.
        event_type: the type of these events.
        workflow_id: the workflow whose events are posted; None for all workflows of the workspace.
        created_at: when the webhook was created, if the server sends that; Copy.ai's reference has no such field.
        extra: all fields without an attribute, unchanged, by their names in the JSON.
    """

    id: str = field(repr=bounded_repr)
    url: str | None = field(default=None, repr=bounded_repr)
    event_type: WebhookEventType | None = None
    workflow_id: str | None = field(default=None, repr=bounded_repr)
    created_at: datetime | None = None
    extra: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)

    def __hash__(self) -> int:
        return hash(self.id)


@frozen
class Page(Generic[T_co]):
    """One page of a list, as the server sent it.

    Attributes:
        number: the number of the requested page, from 1.
        size: the requested number of items; the server may send fewer.
        total: the number of items in the whole list, as the server sent it; None if it is missing or invalid.
        items: the items, in the server's order.
        invalid_fields: the JSON names of the fields whose value did not fit its attribute in at least one item.
    """

    number: int
    size: int
    total: int | None = field(repr=bounded_repr)
    items: Sequence[T_co] = field(repr=bounded_repr)
    invalid_fields: frozenset[str] = field(default=frozenset(), repr=bounded_repr)


@frozen
class Changes:
    """The changes of a list that an iteration has detected so far. It is false if there were none.

    Attributes:
        repeated: how often an item was listed again, and was not yielded again.
        reread: the number of pages that were read again because of a change.
        missing: the number of items by which `total` exceeds the items that were listed; known when the iteration has
            finished.
        first_total: the first `total` that the server sent; None if it sent none.
        last_total: the latest `total` that the server sent; None if it sent none.
    """

    repeated: int = 0
    reread: int = 0
    missing: int = 0
    first_total: int | None = field(default=None, repr=bounded_repr)
    last_total: int | None = field(default=None, repr=bounded_repr)

    def __bool__(self) -> bool:
        return bool(self.repeated or self.reread or self.missing or self.first_total != self.last_total)
