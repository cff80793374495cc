"""Idempotency keys: one run per key, although the API has no such keys and every accepted start spends credits.

A key travels in the run's metadata. After a lost response the newest runs are searched for it before the start is sent
again, and a session remembers the keys that it has used. Nothing else knows about a key: not by the API, and not by
another process unless it searches for it, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from typing import Final, TypeAlias

from attrs import define, evolve, field, frozen

from aiocopyai._retry import RetryPolicy
from aiocopyai._text import escape, excerpt
from aiocopyai._validation import check_string
from aiocopyai.errors import (
    AmbiguousStartError,
    AuthenticationError,
    BadRequestError,
    CopyAIError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RequestInvalidError,
)
from aiocopyai.models import JSON, Run


logger = logging.getLogger("aiocopyai")

FoundRuns: TypeAlias = "dict[str, Run | AmbiguousStartError]"

KEY_NAME: Final = "idempotencyKey"
"""The name of the idempotency key in a run's metadata."""
SEARCH_DELAYS: Final = (0.0, 0.5, 1.5, 3.0, 6.0)
"""Seconds after a lost response at which the runs are searched, before the start is sent again at the earliest.

They do not depend on the `RetryPolicy`: a run may be listed a few seconds after its start. For the same reason, runs to
be reused are searched for until the session is as old as the last of them.
"""
MAX_REMEMBERED: Final = 10_000
"""The number of keys, and of run ids, that a session remembers."""
_LOOK_BACK: Final = timedelta(hours=1)
"""How much older or newer than its start a run may seem, as clocks differ, and servers may execute a start late."""
CLOCK_SKEW: Final = timedelta(minutes=5)
"""How much the clocks of client and server may differ if nothing but the age of a run counts."""
_UNREADABLE: Final = (NotFoundError, BadRequestError, RequestInvalidError, PermissionDeniedError, InvalidResponseError)
"""Errors of reading one run that imply nothing for the others. A new run may be unknown for a few seconds."""
_FRUITLESS_READS: Final = 20
"""After this many reads in a row that show no more than the list, or fail, runs are no longer read one by one."""


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


@frozen
class KeySearch:
    """A run to search for by its key.

    Attributes:
        key: the idempotency key.
        inputs: the inputs that it was started with; None if unknown.
        sent: when the start was first and last sent, by the clock of this machine; None if unknown.
    """

    key: str
    inputs: Mapping[str, JSON] | None = None
    sent: tuple[datetime, datetime] | None = None

    def is_candidate(self, run: Run, *, is_complete: bool) -> bool:
        """Return whether a run that does not show any key could still be the one.

        A list may omit fields. `is_complete` says that the run was read by its id, or that reading it shows no more.
        """
        if run.metadata:  # visible, without the key: only equal inputs raise a doubt, in case metadata is not echoed
            return self.inputs is not None and (not run.input or run.input == self.inputs)
        if not is_complete or self._is_as_new(run):
            return True
        return not run.input or (self.inputs is not None and _may_be_equal(dict(self.inputs), dict(run.input)))

    def _is_as_new(self, run: Run) -> bool:
        """Return whether a run was created when the start was sent, as far as that is known."""
        if self.sent is None:
            return False
        first, last = self.sent
        return run.created_at is None or first - CLOCK_SKEW <= run.created_at <= last + _LOOK_BACK


@define
class _KeyRecord:
    """The state of one key in a session.

    Attributes:
        digest: the inputs, hashed.
        sent: when a start with this key was first and last sent; None before that.
        lost_at: the monotonic time of the latest lost response; None if every response was received.
        run_id: the run; None until one is known.
        call: the call in progress, which other calls with this key wait for.
    """

    digest: bytes
    sent: tuple[datetime, datetime] | None = None
    lost_at: float | None = None
    run_id: str | None = None
    call: _CallInProgress | None = None


@define
class _CallInProgress:
    """A call of `Starter.start` that has not finished.

    Attributes:
        finished: set at its end.
        error: the error that it ended with, if that is of use to the calls that waited for it.
    """

    finished: asyncio.Event = field(factory=asyncio.Event)
    error: Exception | None = None


class Starter:
    """Starts the runs of one session, one per idempotency key, and finds them again.

    Args:
        post: sends one start.
        list_runs: lists a workflow's runs created since a time, or all of them.
        get_run: reads one run.
        retry: how often and for how long a start with a key is sent again.
        shared: another starter, whose age and memory of keys and runs are used.
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
        self._created_at = time.monotonic()
        self._records: OrderedDict[tuple[str, str], _KeyRecord] = OrderedDict()
        self._own_runs: OrderedDict[str, str | None] = OrderedDict()  # id of each run started here -> its key
        if shared is not None:
            self._created_at = shared._created_at  # noqa: SLF001 (of the same class)
            self._records, self._own_runs = shared._records, shared._own_runs  # noqa: SLF001 (the same)

    async def start(self, request: StartRequest, reuse_within: timedelta | None = None) -> tuple[Run, bool]:
        """Start one run, or return the run that was started with its key.

        A call in progress with the same key is waited for. With `reuse_within` the runs created within that time are
        searched before anything is sent.

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
            self._remember_run(run.id, None)
            logger.info("run %s of %s started", escape(run.id), escape(request.workflow_id))
            return run, False
        record = await self._claim(request, request.key)
        if record.run_id is not None:
            return request.to_run(record.run_id), True
        call = record.call = _CallInProgress()
        try:
            run, reused = await self._start_with_key(request, record, reuse_within)
        except Exception as error:
            call.error = error
            raise
        else:
            record.run_id, record.lost_at = run.id, None
            self._remember_run(run.id, request.key)
            done = "reused" if reused else "started"
            logger.info("run %s of %s %s", escape(run.id), escape(request.workflow_id), done)
            return run, reused
        finally:
            record.call = None
            call.finished.set()
            is_refused = record.run_id is None and record.lost_at is None
            if is_refused or (request.is_one_off and record.run_id is not None):
                del self._records[request.workflow_id, request.key]
            self._evict()

    async def reuse(
        self, workflow_id: str, requests: Mapping[str, StartRequest], since: datetime
    ) -> dict[str, AmbiguousStartError]:
        """Search for runs by their keys in one listing, and remember them, so that `start` returns them.

        Returns:
            The keys for which some run shows too little to be ruled out.

        Raises:
            CopyAIError: the runs cannot be read.
        """
        unknown = {key: request for key, request in requests.items() if not self._has_run(request)}
        searches = [KeySearch(key, request.inputs) for key, request in unknown.items()]
        found = await self._find_reusable(workflow_id, searches, since) if searches else {}
        for key, run in found.items():
            if isinstance(run, Run):
                inputs = requests[key].inputs
                # Of other inputs, so that `start` refuses these.
                digest = _digest(run.input if _contradict(inputs, run.input) else inputs)
                record = self._records.setdefault((workflow_id, key), _KeyRecord(digest))
                record.run_id = record.run_id or run.id
                self._remember_run(run.id, key)
        self._evict()
        return {key: run for key, run in found.items() if isinstance(run, AmbiguousStartError)}

    async def find(self, workflow_id: str, searches: Iterable[KeySearch], since: datetime | None) -> FoundRuns:
        """Search the runs created since a time, or all of them, for several keys in one listing.

        Returns:
            For each key its run, or an `AmbiguousStartError` if some run shows too little to be ruled out. A key
            that is missing belongs to no listed run.

        Raises:
            CopyAIError: the runs cannot be read.
        """
        remaining = {search.key: search for search in searches}
        found: FoundRuns = {}
        candidates: dict[str, str] = {}
        fruitless = failed = 0
        async for listed in self._list_runs(workflow_id, since):
            if not remaining:
                break
            run, is_complete = listed, fruitless >= _FRUITLESS_READS
            may_show_more = KEY_NAME not in run.metadata and not (run.metadata and run.input)
            is_read = may_show_more and max(fruitless, failed) < _FRUITLESS_READS
            if is_read and any(self._possible_keys(run, remaining, is_complete=False)):
                run, is_complete = await self._read(listed, workflow_id)
                if not is_complete:
                    failed += 1
                elif (run.metadata, run.input) == (listed.metadata, listed.input):
                    fruitless += 1
                else:
                    fruitless = failed = 0
            key = run.metadata.get(KEY_NAME)
            if isinstance(key, str) and key in remaining:
                inputs = remaining.pop(key).inputs
                found[key] = await self._completed(run, workflow_id, inputs, is_complete=is_complete)
                continue
            for possible in self._possible_keys(run, remaining, is_complete=is_complete):
                candidates.setdefault(possible, run.id)
        for key in remaining.keys() & candidates:
            reason = f"run {candidates[key]} may be it, but does not show the metadata that it was started with"
            found[key] = AmbiguousStartError(reason, workflow_id, key)
        return found

    def _possible_keys(self, run: Run, searches: Mapping[str, KeySearch], *, is_complete: bool) -> Iterator[str]:
        """Yield the keys that a run could have, without showing one."""
        if KEY_NAME in run.metadata or run.metadata.get("webapp") is True:
            return
        if run.id in self._own_runs:
            own = self._own_runs[run.id]
            searches = {own: searches[own]} if own is not None and own in searches else {}
        for key, search in searches.items():
            if search.is_candidate(run, is_complete=is_complete):
                yield key

    async def _read(self, listed: Run, workflow_id: str) -> tuple[Run, bool]:
        """Read a listed run by its id, and return whether that shows all there is to know."""
        try:
            return await self._get_run(workflow_id, listed.id), True
        except _UNREADABLE:
            return listed, False
        except ValueError:  # its id fits into no path: the list shows all there is to know
            return listed, True

    async def _completed(
        self, run: Run, workflow_id: str, inputs: Mapping[str, JSON] | None, *, is_complete: bool
    ) -> Run:
        """Return a found run with its workflow and its inputs, which lists may omit."""
        if not run.input and inputs is None and not is_complete:
            run, _ = await self._read(run, workflow_id)
        return evolve(run, workflow_id=run.workflow_id or workflow_id, input=run.input or inputs or {})

    async def _claim(self, request: StartRequest, key: str) -> _KeyRecord:
        """Return the record of a key that no call is in progress for; wait for one that is."""
        digest = _digest(request.inputs)
        while True:
            record = self._records.setdefault((request.workflow_id, key), _KeyRecord(digest))
            if record.digest != digest:
                raise _other_inputs(key)
            if record.call is None:
                self._records.move_to_end((request.workflow_id, key))
                return record
            call = record.call
            await call.finished.wait()
            if call.error is not None:
                raise call.error

    async def _start_with_key(
        self, request: StartRequest, record: _KeyRecord, reuse_within: timedelta | None
    ) -> tuple[Run, bool]:
        """Search if an earlier start may have been accepted, and send what is not found."""
        if record.lost_at is not None:
            now = time.monotonic()
            run = await self._find_lost(request, record, max(now, record.lost_at + SEARCH_DELAYS[-1]))
            if run is not None:
                return run, True
        if reuse_within is not None:
            search = KeySearch(request.key or "", request.inputs)
            found = await self._find_reusable(request.workflow_id, [search], _now() - reuse_within)
            run = self._found_run(request, found)
            if run is not None:
                if _contradict(request.inputs, run.input):
                    raise _other_inputs(request.key or "")
                return run, True
        deadline = math.inf if self._retry.timeout is None else time.monotonic() + self._retry.timeout
        attempt = 0
        while True:
            attempt += 1
            lost = await self._send(request, record)
            if isinstance(lost, Run):
                return lost, False
            logger.warning("start of %s: %s; searching for its run", escape(request.workflow_id), lost)
            lost_at = record.lost_at or time.monotonic()
            resend_at = lost_at + max(SEARCH_DELAYS[-1], self._retry.wait_after(attempt, lost))
            has_attempts = self._retry.attempts is None or attempt < self._retry.attempts
            resends = lost.retryable and has_attempts and resend_at < deadline
            run = await self._find_lost(
                request, record, resend_at if resends else min(lost_at + SEARCH_DELAYS[-1], max(lost_at, deadline))
            )
            if run is not None:
                return run, False
            if not resends:
                raise AmbiguousStartError(lost.message, request.workflow_id, request.key) from lost

    async def _send(self, request: StartRequest, record: _KeyRecord) -> Run | CopyAIError:
        """Send a start once, and return its run, or the error of a lost response."""
        now = _now()
        record.sent = (record.sent[0] if record.sent else now, now)
        try:
            return await self._post(request)
        except BaseException as error:
            if isinstance(error, CopyAIError) and not error.ambiguous:
                raise
            record.lost_at = time.monotonic()
            if isinstance(error, CopyAIError):
                return error
            raise

    async def _find_lost(self, request: StartRequest, record: _KeyRecord, until: float) -> Run | None:
        """Search for a run whose start may have been accepted, at growing intervals up to a monotonic time.

        Raises:
            AmbiguousStartError: the last search failed, or some run still shows too little to be ruled out.
        """
        lost_at = time.monotonic() if record.lost_at is None else record.lost_at
        search = KeySearch(request.key or "", request.inputs, record.sent)
        since = (record.sent[0] if record.sent else _now()) - _LOOK_BACK
        times = sorted({min(lost_at + delay, until) for delay in SEARCH_DELAYS} | {until})
        for search_at, next_search_at in pairwise([*times, math.inf]):
            now = time.monotonic()
            if next_search_at <= now:
                continue  # of several searches that are due, the latest is enough
            await asyncio.sleep(max(0.0, search_at - now))
            try:
                run = await self._find_one(request, search, since)
            except (CopyAIError, RuntimeError) as error:  # the latter if the session is closed meanwhile
                is_last = next_search_at == math.inf or isinstance(error, AuthenticationError | RuntimeError)
                if not is_last:
                    continue
                if isinstance(error, AmbiguousStartError):
                    raise
                reason = f"its response was lost, and the runs could not be searched for it: {_message(error)}"
                raise AmbiguousStartError(reason, request.workflow_id, request.key) from error
            if run is not None:
                return run
        return None

    async def _find_reusable(self, workflow_id: str, searches: Sequence[KeySearch], since: datetime) -> FoundRuns:
        """Search for runs that were started before this session.

        In its first seconds, a run of a process that has just crashed may not be listed yet, so that what is not found
        is searched for once more.
        """
        found = await self.find(workflow_id, searches, since)
        missing = [search for search in searches if search.key not in found]
        delay = self._created_at + SEARCH_DELAYS[-1] - time.monotonic()
        if missing and delay > 0:
            await asyncio.sleep(delay)
            found |= await self.find(workflow_id, missing, max(since, _now() - _LOOK_BACK))
        return found

    async def _find_one(self, request: StartRequest, search: KeySearch, since: datetime) -> Run | None:
        return self._found_run(request, await self.find(request.workflow_id, [search], since))

    def _found_run(self, request: StartRequest, found: FoundRuns) -> Run | None:
        run = found.get(request.key or "")
        if isinstance(run, AmbiguousStartError):
            raise run
        return run and evolve(run, metadata={**request.metadata, **run.metadata})

    def _has_run(self, request: StartRequest) -> bool:
        record = self._records.get((request.workflow_id, request.key or ""))
        return record is not None and record.run_id is not None

    def _remember_run(self, run_id: str, key: str | None) -> None:
        self._own_runs[run_id] = key
        if len(self._own_runs) > MAX_REMEMBERED:
            self._own_runs.popitem(last=False)

    def _evict(self) -> None:
        """Forget the oldest keys whose run is known, or else the oldest for which no call is in progress."""
        while len(self._records) > MAX_REMEMBERED:
            idle = ((identity, record) for identity, record in self._records.items() if record.call is None)
            oldest = next(idle, None)
            if oldest is None:
                return
            confirmed = (each for each in chain([oldest], idle) if each[1].run_id is not None)
            identity, _ = next(confirmed, oldest)
            del self._records[identity]


def with_key(metadata: dict[str, JSON], key: str | None) -> dict[str, JSON]:
    """Add an idempotency key to a run's metadata.

    Raises:
        ValueError: the key is not a string, or the metadata has another one.
    """
    if key is None:
        return metadata
    check_string("idempotency_key", key)
    if metadata.get(KEY_NAME, key) != key:
        raise ValueError(f"metadata has a {KEY_NAME!r} other than idempotency_key: pass only one of them")
    return {**metadata, KEY_NAME: key}


def check_reuse_within(reuse_within: timedelta | None, *, has_key: bool) -> None:
    """Check that a value is a positive timedelta, and that there is a key to search for; or None.

    Raises:
        ValueError: it is not, or there is no key.
    """
    if reuse_within is None:
        return
    if not isinstance(reuse_within, timedelta) or reuse_within <= timedelta(0):
        raise ValueError(
            f"reuse_within must be a positive timedelta, such as timedelta(days=1), got {excerpt(reuse_within)}"
        )
    if not has_key:
        msg = "reuse_within searches for runs by their keys: pass idempotency_key, too"
        raise ValueError(msg)


def _now() -> datetime:
    return datetime.now(UTC)


def _digest(inputs: Mapping[str, JSON]) -> bytes:
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).digest()


def _message(error: Exception) -> str:
    return error.message if isinstance(error, CopyAIError) else str(error)


def _other_inputs(key: str) -> ValueError:
    return ValueError(f"idempotency_key {excerpt(key)} was used for other inputs: pass a key that no other start has")


def _contradict(sent: Mapping[str, JSON], shown: Mapping[str, JSON]) -> bool:
    """Return whether a run that shows these inputs was started with others than those sent."""
    return any(name in shown and not _may_be_equal(value, shown[name]) for name, value in sent.items())


def _may_be_equal(sent: JSON, shown: JSON) -> bool:
    """Return whether a value could be shown like this: with defaults added, numbers as strings, or text cut."""
    if sent in (None, "", [], {}) or sent == shown:
        return True
    if isinstance(sent, dict) and isinstance(shown, dict):
        return all(_may_be_equal(value, shown.get(name)) for name, value in sent.items())
    if isinstance(sent, list) and isinstance(shown, list):
        return len(sent) == len(shown) and all(map(_may_be_equal, sent, shown))
    full, visible = _as_text(sent), _as_text(shown)
    beginning = visible.removesuffix("…").removesuffix("...").rstrip()
    return full == visible or (bool(beginning) and full.startswith(beginning))


def _as_text(value: JSON) -> str:
    text = (value if isinstance(value, str) else json.dumps(value)).strip().casefold()
    try:
        return repr(float(text))
    except ValueError:
        return text
