"""Idempotency keys: one run per key. The API does not support them, and each accepted start uses credits.

The key is sent in the run's metadata. If a response is lost, the newest runs are searched for the key before the start
is sent again. A session remembers the keys that it has used. Another process has to search for them, because the API
does not reject a repeated key.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Final

from attrs import define, evolve, field, frozen

from aiocopyai._key_search import KEY_NAME, LOOK_BACK, FoundRuns, KeySearch, ListSearch, inputs_differ
from aiocopyai._retry import RetryPolicy
from aiocopyai._text import escape, excerpt
from aiocopyai._validation import check_string, check_timedelta
from aiocopyai.errors import AmbiguousStartError, AuthenticationError, CopyAIError
from aiocopyai.models import JSON, Run


logger = logging.getLogger("aiocopyai")

SEARCH_DELAYS: Final = (0.0, 0.5, 1.5, 3.0, 6.0)
"""The times of the searches after a lost response, in seconds. The start is not sent again earlier.

They do not depend on the `RetryPolicy`, because a run may be missing in the list for a few seconds after its start. For
the same reason, the search for reusable runs is repeated if the session is younger than the last of these times.
"""
MAX_REMEMBERED: Final = 10_000
"""The maximum number of keys, and of run ids, that a session remembers."""


@frozen
class StartRequest:
    """A start to send, with validated arguments.

    Attributes:
        workflow_id: the workflow's id.
        inputs: the start variables.
        metadata: the metadata to send, with the idempotency key.
        key: the idempotency key; None for a start without one.
        is_one_off: whether no other call uses the key, so that it is forgotten after a success.
    """

    workflow_id: str
    inputs: Mapping[str, JSON]
    metadata: Mapping[str, JSON]
    key: str | None
    is_one_off: bool = False

    def to_run(self, run_id: str) -> Run:
        """Return the started run, without a status."""
        return Run(run_id, self.workflow_id, input=self.inputs, metadata=self.metadata)


@define
class _CallInProgress:
    """A call of `Starter.start` that has not finished.

    Attributes:
        finished: set when the call ends.
        error: the error that it raised; None if it succeeded or was cancelled.
    """

    finished: asyncio.Event = field(factory=asyncio.Event)
    error: Exception | None = None


@define
class _KeyRecord:
    """The state of one key in a session.

    Attributes:
        key: the key.
        digest: the hash of the inputs.
        sent: when a start with this key was first and last sent; None if it was not sent.
        lost_at: the monotonic time of the latest lost response; None if every response was received.
        run_id: the run's id; None if unknown.
        call: the call in progress; other calls with this key wait for it.
    """

    key: str
    digest: bytes
    sent: tuple[datetime, datetime] | None = None
    lost_at: float | None = None
    run_id: str | None = None
    call: _CallInProgress | None = None


@define
class _UsedKeys:
    """The keys and runs of a session, shared with the sessions that its `with_options` returned.

    Attributes:
        created_at: when the session was created, by the monotonic clock.
        records: the used keys, by workflow id and key.
        own_runs: the key of each started or reused run, by run id; None for a run without a key.
    """

    created_at: float = field(factory=time.monotonic)
    records: OrderedDict[tuple[str, str], _KeyRecord] = field(factory=OrderedDict[tuple[str, str], _KeyRecord])
    own_runs: OrderedDict[str, str | None] = field(factory=OrderedDict[str, str | None])

    def add_run(self, run_id: str, key: str | None) -> None:
        """Remember a run, and forget the oldest one if there are too many."""
        self.own_runs[run_id] = key
        if len(self.own_runs) > MAX_REMEMBERED:
            self.own_runs.popitem(last=False)

    def evict(self) -> None:
        """Forget the oldest keys without a call in progress, first those whose run is known."""
        while len(self.records) > MAX_REMEMBERED:
            idle = (key for key, record in self.records.items() if record.call is None)
            confirmed = (
                key for key, record in self.records.items() if record.call is None and record.run_id is not None
            )
            key = next(confirmed, None) or next(idle, None)
            if key is None:
                return
            del self.records[key]


class Starter:
    """Starts the runs of a session, one per idempotency key, and searches for runs by key.

    Args:
        post: sends one start.
        list_runs: lists a workflow's runs created since a time; None for all runs.
        get_run: reads one run.
        retry: the retry policy of starts with a key.
        shared: another starter with which to share the used keys; None to share nothing.
    """

    def __init__(
        self,
        post: Callable[[StartRequest], Awaitable[Run]],
        list_runs: Callable[[str, datetime | None], AsyncIterable[Run]],
        get_run: Callable[[str, str], Awaitable[Run]],
        retry: RetryPolicy,
        shared: Starter | None = None,
    ) -> None:
        self._post = post
        self._list_runs = list_runs
        self._get_run = get_run
        self._retry = retry
        self._used_keys: _UsedKeys = _UsedKeys() if shared is None else shared._used_keys  # noqa: SLF001 (of the same class)

    async def start(self, request: StartRequest, reuse_within: timedelta | None = None) -> tuple[Run, bool]:
        """Start one run, or return the run that was started with its key.

        If a call with the same key is in progress, wait for it. With `reuse_within`, first search the runs created
        within this time.

        Returns:
            The run, and whether another call had started it.

        Raises:
            ValueError: the key was used for other inputs.
            AmbiguousStartError: it is unknown whether a run was started.
            CopyAIError: no run was started.
        """
        if request.key is None:
            try:
                run = await self._post(request)
            except CopyAIError as error:
                if not error.ambiguous:
                    raise
                raise AmbiguousStartError(error.message, request.workflow_id) from error
            self._used_keys.add_run(run.id, None)
            logger.info("run %s of %s started", escape(run.id), escape(request.workflow_id))
            return run, False
        record = await self._claim(request, request.key)
        if record.run_id is not None:
            return request.to_run(record.run_id), True
        call = record.call = _CallInProgress()
        try:
            earlier = await self._find_earlier(request, record, reuse_within)
            run = earlier or await self._send_until_confirmed(request, record)
        except Exception as error:
            call.error = error
            raise
        else:
            record.run_id, record.lost_at = run.id, None
            self._used_keys.add_run(run.id, request.key)
            done = "started" if earlier is None else "reused"
            logger.info("run %s of %s %s", escape(run.id), escape(request.workflow_id), done)
            return run, earlier is not None
        finally:
            record.call = None
            call.finished.set()
            is_unused = record.run_id is None and record.lost_at is None
            if is_unused or (request.is_one_off and record.run_id is not None):
                del self._used_keys.records[request.workflow_id, request.key]
            self._used_keys.evict()

    async def reuse(
        self, workflow_id: str, requests: Mapping[str, StartRequest], since: datetime
    ) -> dict[str, AmbiguousStartError]:
        """Search for the runs of several keys in one listing, and remember them, so that `start` returns them.

        Returns:
            An error for each key that an incomplete run may have.

        Raises:
            CopyAIError: the runs cannot be read.
        """
        records = self._used_keys.records
        known = {key for key in requests if (record := records.get((workflow_id, key))) and record.run_id is not None}
        searches = [KeySearch(key, request.inputs) for key, request in requests.items() if key not in known]
        found = await self._find_reusable(workflow_id, searches, since) if searches else {}
        for key, run in found.items():
            if isinstance(run, Run):
                inputs = requests[key].inputs
                # If the inputs differ, `start` rejects the request because of the digest of the run's inputs.
                digest = _digest(run.input if inputs_differ(inputs, run.input) else inputs)
                record = records.setdefault((workflow_id, key), _KeyRecord(key, digest))
                record.run_id = record.run_id or run.id
                self._used_keys.add_run(run.id, key)
        self._used_keys.evict()
        return {key: run for key, run in found.items() if isinstance(run, AmbiguousStartError)}

    async def find(self, workflow_id: str, searches: Iterable[KeySearch], since: datetime | None) -> FoundRuns:
        """Search for the runs of several keys in one listing of the runs created since a time, or of all runs.

        Returns:
            The run of each key, or an `AmbiguousStartError` if an incomplete run may have the key. Keys that no
            listed run has are missing.

        Raises:
            CopyAIError: the runs cannot be read.
        """
        search = ListSearch(workflow_id, searches, self._used_keys.own_runs, self._get_run)
        async for run in self._list_runs(workflow_id, since):
            await search.examine(run)
            if not search.remaining:
                break
        return search.results()

    async def _claim(self, request: StartRequest, key: str) -> _KeyRecord:
        """Wait until no call with a key is in progress, and return its record."""
        digest = _digest(request.inputs)
        records = self._used_keys.records
        while True:
            record = records.setdefault((request.workflow_id, key), _KeyRecord(key, digest))
            if record.digest != digest:
                raise _other_inputs(key)
            if record.call is None:
                records.move_to_end((request.workflow_id, key))
                return record
            call = record.call
            await call.finished.wait()
            if call.error is not None:
                raise call.error

    async def _find_earlier(
        self, request: StartRequest, record: _KeyRecord, reuse_within: timedelta | None
    ) -> Run | None:
        """Search for a run that an earlier call or another process started with the key."""
        if record.lost_at is not None:
            run = await self._find_lost(request, record, max(time.monotonic(), record.lost_at + SEARCH_DELAYS[-1]))
            if run is not None:
                return run
        if reuse_within is None:
            return None
        search = KeySearch(record.key, request.inputs)
        found = await self._find_reusable(request.workflow_id, [search], time_before_now(reuse_within))
        run = _found_run(found, record.key, request)
        if run is not None and inputs_differ(request.inputs, run.input):
            raise _other_inputs(record.key)
        return run

    async def _find_reusable(self, workflow_id: str, searches: Sequence[KeySearch], since: datetime) -> FoundRuns:
        """Search for runs that other processes have started.

        If another process has just crashed, its runs may not be listed yet. Therefore, keys without a run are searched
        for again a few seconds after the session was created.
        """
        found = await self.find(workflow_id, searches, since)
        missing = [search for search in searches if search.key not in found]
        delay = self._used_keys.created_at + SEARCH_DELAYS[-1] - time.monotonic()
        if missing and delay > 0:
            await asyncio.sleep(delay)
            found |= await self.find(workflow_id, missing, max(since, _now() - LOOK_BACK))
        return found

    async def _send_until_confirmed(self, request: StartRequest, record: _KeyRecord) -> Run:
        """Send a start. If the response is lost, search for the run, and send the start again if it is not found.

        Raises:
            AmbiguousStartError: the retry policy allows no further attempt.
        """
        deadline = math.inf if self._retry.timeout is None else time.monotonic() + self._retry.timeout
        for attempt in count(1):
            now = _now()
            record.sent = (record.sent[0] if record.sent else now, now)
            try:
                return await self._post(request)
            except CopyAIError as error:
                if not error.ambiguous:
                    raise
                lost = error
                record.lost_at = lost_at = time.monotonic()
            except BaseException:  # for example a cancellation: a run may exist
                record.lost_at = time.monotonic()
                raise
            logger.warning("start of %s: %s; searching for its run", escape(request.workflow_id), lost)
            resend_at = lost_at + max(SEARCH_DELAYS[-1], self._retry.wait_after(attempt, lost))
            has_attempts = self._retry.attempts is None or attempt < self._retry.attempts
            resends = lost.retryable and has_attempts and resend_at < deadline
            search_until = resend_at if resends else min(lost_at + SEARCH_DELAYS[-1], max(lost_at, deadline))
            run = await self._find_lost(request, record, search_until)
            if run is not None:
                return run
            if not resends:
                raise AmbiguousStartError(lost.message, request.workflow_id, record.key) from lost
        raise AssertionError  # pragma: no cover (the loop is endless)

    async def _find_lost(self, request: StartRequest, record: _KeyRecord, until: float) -> Run | None:
        """Search for a run whose start may have been accepted, at growing intervals, until a monotonic time.

        Raises:
            AmbiguousStartError: the last search failed, or an incomplete run may still be the one.
        """
        lost_at = time.monotonic() if record.lost_at is None else record.lost_at
        search = KeySearch(record.key, request.inputs, record.sent)
        since = (record.sent[0] if record.sent else _now()) - LOOK_BACK
        times = sorted({min(lost_at + delay, until) for delay in SEARCH_DELAYS} | {until})
        for search_at, next_search_at in pairwise([*times, math.inf]):
            now = time.monotonic()
            if next_search_at <= now:
                continue  # if several searches are due, the last one is enough
            await asyncio.sleep(max(0.0, search_at - now))
            try:
                found = await self.find(request.workflow_id, [search], since)
                run = _found_run(found, record.key, request)
            except (CopyAIError, RuntimeError) as error:  # a RuntimeError if the session was closed
                is_last = next_search_at == math.inf or isinstance(error, AuthenticationError | RuntimeError)
                if not is_last:
                    continue
                if isinstance(error, AmbiguousStartError):
                    raise
                message = error.message if isinstance(error, CopyAIError) else str(error)
                reason = f"its response was lost, and the runs could not be searched for it: {message}"
                raise AmbiguousStartError(reason, request.workflow_id, record.key) from error
            if run is not None:
                return run
        return None


def with_key(metadata: dict[str, JSON], key: str | None) -> dict[str, JSON]:
    """Add an idempotency key to a run's metadata.

    Raises:
        ValueError: the key is not a string, or the metadata has a different key.
    """
    if key is None:
        return metadata
    check_string("idempotency_key", key)
    if metadata.get(KEY_NAME, key) != key:
        raise ValueError(f"metadata has a {KEY_NAME!r} other than idempotency_key: pass only one of them")
    return {**metadata, KEY_NAME: key}


def check_reuse_within(reuse_within: timedelta | None, *, has_key: bool) -> None:
    """Check that `reuse_within` is None, or a positive timedelta and used with a key.

    Raises:
        ValueError: it is invalid.
    """
    if reuse_within is None:
        return
    check_timedelta("reuse_within", reuse_within)
    if not has_key:
        msg = "reuse_within searches for runs by their keys: pass idempotency_key as well"
        raise ValueError(msg)


def time_before_now(span: timedelta) -> datetime:
    """Return the current time minus a span, or the minimum of a datetime."""
    try:
        return _now() - span
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _now() -> datetime:
    return datetime.now(UTC)


def _digest(inputs: Mapping[str, JSON]) -> bytes:
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).digest()


def _found_run(found: FoundRuns, key: str, request: StartRequest) -> Run | None:
    """Return the run of a key with the metadata that was sent, or raise the error of the key."""
    run = found.get(key)
    if isinstance(run, AmbiguousStartError):
        raise run
    return run and evolve(run, metadata={**request.metadata, **run.metadata})


def _other_inputs(key: str) -> ValueError:
    return ValueError(f"idempotency_key {excerpt(key)} was used for other inputs: pass a key that no other start has")
