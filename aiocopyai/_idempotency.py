"""Idempotency keys: one run per key, although the API has no such keys and every accepted start spends credits.

A key is sent in the run's metadata. After a lost response the newest runs are searched for the key before the start is
sent again. A session remembers the keys that it has used. As the API does not recognize a repeated key, another process
has to search for it.
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
"""Seconds after a lost response at which the runs are searched, before the start is sent again at the earliest.

They do not depend on the `RetryPolicy`: a run may be listed a few seconds after its start. For the same reason, runs to
be reused are searched for until the session is as old as the last of them.
"""
MAX_REMEMBERED: Final = 10_000
"""The number of keys, and of run ids, that a session remembers."""


@frozen
class StartRequest:
    """A start to be sent; its arguments are valid.

    Attributes:
        workflow_id: the workflow's id.
        inputs: the start variables.
        metadata: the metadata to send, with the idempotency key.
        key: the idempotency key; None for a start without one.
        is_one_off: whether no other call will use the key, so that it need not be remembered after a success.
    """

    workflow_id: str
    inputs: Mapping[str, JSON]
    metadata: Mapping[str, JSON]
    key: str | None
    is_one_off: bool = False

    def to_run(self, run_id: str) -> Run:
        """Return the run as it is right after its start: what was sent, without a status."""
        return Run(run_id, self.workflow_id, input=self.inputs, metadata=self.metadata)


@define
class _CallInProgress:
    """A call of `Starter.start` that has not finished.

    Attributes:
        finished: set at its end.
        error: the error that it ended with; None if it succeeded or was cancelled.
    """

    finished: asyncio.Event = field(factory=asyncio.Event)
    error: Exception | None = None


@define
class _KeyRecord:
    """The state of one key in a session.

    Attributes:
        key: the key.
        digest: the inputs, hashed.
        sent: when a start with this key was first and last sent; None before that.
        lost_at: the monotonic time of the latest lost response; None if every response was received.
        run_id: the run; None until one is known.
        call: the call in progress, which other calls with this key wait for.
    """

    key: str
    digest: bytes
    sent: tuple[datetime, datetime] | None = None
    lost_at: float | None = None
    run_id: str | None = None
    call: _CallInProgress | None = None


@define
class _UsedKeys:
    """The keys and runs of a session, and of those with other options that share its connections.

    Attributes:
        created_at: when the first of these sessions was created, by the monotonic clock.
        records: the keys that were used, by workflow and key.
        own_runs: the key of each run that was started or reused, by its id; None for a run without a key.
    """

    created_at: float = field(factory=time.monotonic)
    records: OrderedDict[tuple[str, str], _KeyRecord] = field(factory=OrderedDict[tuple[str, str], _KeyRecord])
    own_runs: OrderedDict[str, str | None] = field(factory=OrderedDict[str, str | None])

    def add_run(self, run_id: str, key: str | None) -> None:
        """Remember a run, and forget the oldest if there are too many."""
        self.own_runs[run_id] = key
        if len(self.own_runs) > MAX_REMEMBERED:
            self.own_runs.popitem(last=False)

    def evict(self) -> None:
        """Forget the oldest keys whose run is known, or else the oldest, but none for which a call is in progress."""
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
    """Starts the runs of one session, one per idempotency key, and finds them again.

    Args:
        post: sends one start.
        list_runs: lists a workflow's runs created since a time, or all of them.
        get_run: reads one run.
        retry: how often and for how long a start with a key is sent again.
        shared: another starter, whose age, keys and runs this one shares.
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
        within that time.

        Returns:
            The run, and whether it is reused, i.e. was started by another call.

        Raises:
            ValueError: the key was used for other inputs.
            AmbiguousStartError: a run may or may not have been started.
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
            is_refused = record.run_id is None and record.lost_at is None
            if is_refused or (request.is_one_off and record.run_id is not None):
                del self._used_keys.records[request.workflow_id, request.key]
            self._used_keys.evict()

    async def reuse(
        self, workflow_id: str, requests: Mapping[str, StartRequest], since: datetime
    ) -> dict[str, AmbiguousStartError]:
        """Search for runs by their keys in one listing, and remember them, so that `start` returns them.

        Returns:
            The keys for which some run shows too little to be ruled out.

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
                # If the run has other inputs, their digest makes `start` reject these.
                digest = _digest(run.input if inputs_differ(inputs, run.input) else inputs)
                record = records.setdefault((workflow_id, key), _KeyRecord(key, digest))
                record.run_id = record.run_id or run.id
                self._used_keys.add_run(run.id, key)
        self._used_keys.evict()
        return {key: run for key, run in found.items() if isinstance(run, AmbiguousStartError)}

    async def find(self, workflow_id: str, searches: Iterable[KeySearch], since: datetime | None) -> FoundRuns:
        """Search the runs created since a time, or all of them, for several keys in one listing.

        Returns:
            For each key its run, or an `AmbiguousStartError` if some run shows too little to be ruled out. A key
            that is missing belongs to no listed run.

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
        """Wait until no call is in progress for a key, and return its record."""
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
        """Search for runs that were started before this session.

        In the first seconds of a session, a run of a process that has just crashed may not be listed yet, so that keys
        without a run are searched for again.
        """
        found = await self.find(workflow_id, searches, since)
        missing = [search for search in searches if search.key not in found]
        delay = self._used_keys.created_at + SEARCH_DELAYS[-1] - time.monotonic()
        if missing and delay > 0:
            await asyncio.sleep(delay)
            found |= await self.find(workflow_id, missing, max(since, _now() - LOOK_BACK))
        return found

    async def _send_until_confirmed(self, request: StartRequest, record: _KeyRecord) -> Run:
        """Send a start; after a lost response search for its run, and send it again if that is not found.

        Raises:
            AmbiguousStartError: the attempts or the time of the retry policy are used up.
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
            except BaseException:  # such as a cancellation, after which a run may exist, too
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
        """Search for a run whose start may have been accepted, at growing intervals up to a monotonic time.

        Raises:
            AmbiguousStartError: the last search failed, or some run still shows too little to be ruled out.
        """
        lost_at = time.monotonic() if record.lost_at is None else record.lost_at
        search = KeySearch(record.key, request.inputs, record.sent)
        since = (record.sent[0] if record.sent else _now()) - LOOK_BACK
        times = sorted({min(lost_at + delay, until) for delay in SEARCH_DELAYS} | {until})
        for search_at, next_search_at in pairwise([*times, math.inf]):
            now = time.monotonic()
            if next_search_at <= now:
                continue  # of several searches that are due, the latest is enough
            await asyncio.sleep(max(0.0, search_at - now))
            try:
                found = await self.find(request.workflow_id, [search], since)
                run = _found_run(found, record.key, request)
            except (CopyAIError, RuntimeError) as error:  # a RuntimeError if the session is closed meanwhile
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
        ValueError: the key is not a string, or the metadata has another key.
    """
    if key is None:
        return metadata
    check_string("idempotency_key", key)
    if metadata.get(KEY_NAME, key) != key:
        raise ValueError(f"metadata has a {KEY_NAME!r} other than idempotency_key: pass only one of them")
    return {**metadata, KEY_NAME: key}


def check_reuse_within(reuse_within: timedelta | None, *, has_key: bool) -> None:
    """Check that `reuse_within` is None, or a positive timedelta with a key to search for.

    Raises:
        ValueError: it is not.
    """
    if reuse_within is None:
        return
    check_timedelta("reuse_within", reuse_within)
    if not has_key:
        msg = "reuse_within searches for runs by their keys: pass idempotency_key as well"
        raise ValueError(msg)


def time_before_now(span: timedelta) -> datetime:
    """Return the time this long ago, or the first time that a datetime can express."""
    try:
        return _now() - span
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _now() -> datetime:
    return datetime.now(UTC)


def _digest(inputs: Mapping[str, JSON]) -> bytes:
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).digest()


def _found_run(found: FoundRuns, key: str, request: StartRequest) -> Run | None:
    """Return the run of a key with all the metadata that was sent, or raise the error found for the key."""
    run = found.get(key)
    if isinstance(run, AmbiguousStartError):
        raise run
    return run and evolve(run, metadata={**request.metadata, **run.metadata})


def _other_inputs(key: str) -> ValueError:
    return ValueError(f"idempotency_key {excerpt(key)} was used for other inputs: pass a key that no other start has")
