"""The values of the API: runs, webhooks, pages of them, and the changes of a list while it is read.

Plain frozen attrs classes, without the API's own field names: `_parsing` reads them from JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Generic, Literal, Self, TypeAlias, TypeVar

from attrs import field, frozen


JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""Any JSON value, as `json.loads` returns it."""

T_co = TypeVar("T_co", covariant=True)

_EXCERPT: Final = 80


class _OpenEnum(StrEnum):
    """Strings some of which are known members; any other string becomes an unregistered member."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        # Not registered, so that a server that invents a new one each time cannot fill the memory.
        unknown = str.__new__(cls, value)
        unknown._name_ = value
        unknown._value_ = value
        return unknown

    def __reduce_ex__(self, _protocol: object) -> tuple[type[Self], tuple[str]]:
        """Pickle by value, so that an unknown member survives."""
        return type(self), (self._value_,)


class RunStatus(_OpenEnum):
    """The status of a run. The six members are those of the vendor's reference.

    An unknown status is kept: ``RunStatus("PAUSED") == "PAUSED"``. It hashes, prints and pickles like its string, and
    ``list(RunStatus)`` has the known ones only.
    """

    NEW = "NEW"
    WAITING = "WAITING"
    PROCESSING = "PROCESSING"
    RETRYING = "RETRYING"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        """Whether the run is finished: ``COMPLETE`` or ``FAILED``. An unknown status is not final."""
        return self == RunStatus.COMPLETE or self == RunStatus.FAILED  # noqa: PLR1714 (twice as fast as `in`)


class WebhookEventType(_OpenEnum):
    """The events of webhooks. The four members are those of the vendor's reference; an unknown one is kept."""

    RUN_STARTED = "workflowRun.started"
    RUN_COMPLETED = "workflowRun.completed"
    RUN_FAILED = "workflowRun.failed"
    CREDIT_LIMIT_REACHED = "workflowCreditLimit.reached"


@frozen(weakref_slot=False)
class Run:
    """One run of a workflow, as of one response of the API.

    Only `id` is always present: the vendor's own examples omit every other field. A value that does not fit its
    field (credits "many", a date "yesterday") is None or empty here, and is in `extra` unchanged. Runs compare by all
    their fields and hash by their id.

    Attributes cannot be reassigned. The mappings are plain dicts, so that `json.dumps`, `pickle` and `copy.deepcopy`
    accept them; they are typed as read-only, and nothing in this package modifies them.

    Attributes:
        id: the run's id, an opaque string.
        workflow_id: the workflow's id, in the form that the server uses; if the server leaves it out, the one in
            the request.
        status: the status; None if the server leaves it out.
        input: the inputs by name.
        output: the outputs by step name; incomplete while the run is in progress.
        metadata: the metadata that the run was started with; empty if the server sends null.
        created_at: when the run was started: an aware datetime in UTC.
        credits: the credits that the run has cost so far.
        error: why the run failed, as raw JSON (its shape is not documented).
        extra: all fields without an attribute, under their names in the JSON and unchanged.
    """

    id: str
    workflow_id: str | None = None
    status: RunStatus | None = None
    input: Mapping[str, Any] = field(factory=dict[str, Any])
    output: Mapping[str, Any] = field(factory=dict[str, Any])
    metadata: Mapping[str, Any] = field(factory=dict[str, Any])
    created_at: datetime | None = None
    credits: int | None = None
    error: JSON = None
    extra: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)

    def __hash__(self) -> int:
        return hash(self.id)

    def to_dict(self) -> dict[str, Any]:
        """Return the run as a JSON object: a line of ``aiocopyai export`` and of ``aiocopyai runs --format jsonl``.

        It has the key of each attribute, in their order. `status` is a plain string, `created_at` ISO 8601 in UTC such
        as ``2026-01-31T09:00:00Z``, and both are None if the run has none. The mappings are copied, the values in
        them are not.
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
        """Return `to_dict` as JSON on one line."""
        from aiocopyai._json import dump_json  # noqa: PLC0415 (loads orjson)

        return dump_json(self.to_dict()).decode()

    def output_json(self, key: str) -> Any:  # noqa: ANN401 (any JSON, as from json.loads)
        """Return the output `key` as JSON: parsed if it is a string, and unchanged otherwise.

        Workflow steps often return JSON inside a string, as a captured payload shows.

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
        from aiocopyai._json import refuse_constant  # noqa: PLC0415 (loads orjson)

        try:
            return json.loads(value, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            shown = repr(value) if len(value) <= _EXCERPT else f"{value[:_EXCERPT]!r}…"
            raise ValueError(f"output {key!r} of run {self.id} is not JSON ({error}): {shown}") from None


def utc_isoformat(time: datetime | None) -> str | None:
    """Return a datetime in ISO 8601, in UTC with a ``Z``."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z") if time else None


@frozen
class RunEvent:
    """A change of a run that `CopyAISession.watch` has seen.

    Attributes:
        kind: ``"new"`` for a run that appeared, ``"changed"`` for a change of its status.
        run: the run after the change.
        previous_status: the status before the change, as far as it was seen; None for a new run.
    """

    kind: Literal["new", "changed"]
    run: Run
    previous_status: RunStatus | None = None


@frozen
class Webhook:
    """A URL to which Copy.ai posts events.

    Attributes:
        id: the webhook's id, an opaque string.
        url: where events are posted.
        event_type: the one event that is posted.
        workflow_id: the workflow whose events are posted; None for the whole workspace.
        created_at: when it was created, if the server says so; the vendor's reference has no such field.
        extra: all fields without an attribute, under their names in the JSON and unchanged.
    """

    id: str
    url: str | None = None
    event_type: WebhookEventType | None = None
    workflow_id: str | None = None
    created_at: datetime | None = None
    extra: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)

    def __hash__(self) -> int:
        return hash(self.id)


@frozen
class Page(Generic[T_co]):
    """One page of a list, as of one response.

    Attributes:
        number: the requested page. The list of runs starts at page 1.
        size: the requested number of items; the server may send fewer.
        total: the number of items on the whole list according to the server; None if it is absent or invalid.
        items: the items in the server's order.
        invalid_fields: the JSON names of known fields whose value did not fit in some item of this page.
    """

    number: int
    size: int
    total: int | None
    items: Sequence[T_co]
    invalid_fields: frozenset[str] = frozenset()


@frozen
class Changes:
    """The changes of a list during an iteration, so far. Its truth value is whether there were any.

    Attributes:
        repeated: items that came again, on a later page or a page that was read again, and were not yielded again.
        reread: pages that had to be read again because of a change.
        missing: items that `total` promised and that never came; known when the iteration has finished.
        first_total: the first `total`.
        last_total: the latest `total`.
    """

    repeated: int = 0
    reread: int = 0
    missing: int = 0
    first_total: int | None = None
    last_total: int | None = None

    def __bool__(self) -> bool:
        return bool(self.repeated or self.reread or self.missing or self.first_total != self.last_total)
