"""The emulator itself: what its user holds, and the way from a request to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from aiohttp import web

from aiocopyai.emulator import _routes, _sending
from aiocopyai.emulator._answers import Answer
from aiocopyai.emulator._call import Call
from aiocopyai.emulator._deliveries import Delivery, run_body, workflow_body
from aiocopyai.emulator._faults import Fault, Faults
from aiocopyai.emulator._json import JSON
from aiocopyai.emulator._persistence import Store
from aiocopyai.emulator._postman import Postman
from aiocopyai.emulator._quirks import Quirks
from aiocopyai.emulator._request import Request, make_request, read_body
from aiocopyai.emulator._scenarios import Script
from aiocopyai.emulator._state import State
from aiocopyai.emulator._webhooks import EVENT_TYPES


_HOST: Final = "127.0.0.1"
_NO_FAULT: Final = Fault()
# For requests that hang on purpose: nobody waits for their answers any more.
_GRACE_SECONDS: Final = 0.01


class Emulator:
    """A local Copy.ai: a server on a loopback port that answers like the Workflows API.

    ::

        async with Emulator(runs=250) as emulator:
            async with CopyAISession(emulator.api_key, base_url=emulator.url) as session:
                ...

    It answers the seven calls, with or without a slash at the end, as the vendor's reference
    documents them. A wrong key gets a 401, an unknown workflow, run, webhook or call a 404, a
    `size` or `page` that is no number, or too small, a 400 with `{}`, and a body that won't do a
    422. The reference says nothing of a 401's body; here it is like the documented error bodies.

    A run that is started goes from its first to its last state in `run_time` seconds, by the clock
    alone (see `plan`). It stands in the list before the invented ones. Registered webhooks are told
    of its start and its end, and of starts refused for want of credits; see `deliveries`.

    Args:
        runs: How many runs to invent, the same ones for the same `seed`; or the raw JSON items of
            the list, newest first, which are sent as they are and may be malformed.
        workflow_id: The workflow that has these runs.
        api_key: The only key that is let in.
        seed: What the invented runs follow from.
        quirks: How the server deviates.
        latency: Seconds between the work and the answer, for every request.
        run_time: Seconds that a run takes from its start to its end.
        credits: What starts of runs may spend; None for no limit.
        state: A SQLite file that keeps the runs, the webhooks and the credits left, for the next
            emulator with this file; made if it isn't there, and used by one emulator at a time.
            What it holds comes before `runs`, `seed` and `credits`. None keeps all in memory.
        port: The port to listen on; 0 for any that is free.

    Raises:
        ValueError: `runs` or `run_time` is negative, or `state` is something else than such a file.
        sqlite3.OperationalError: `state` can't be opened.
    """

    def __init__(
        self,
        runs: int | Iterable[JSON] = 0,
        *,
        workflow_id: str = "WCFG-6db59f06-2f6c-4d3e-9a51-7c0b8e4d1f27",
        api_key: str = "emulator-key",
        seed: int = 0,
        quirks: Quirks = Quirks(),  # noqa: B008 (a frozen value)
        latency: float = 0.0,
        run_time: float = 0.05,
        credits: int | None = None,  # noqa: A002 (the API's own word)
        state: str | Path | None = None,
        port: int = 0,
    ) -> None:
        self.workflow_id: Final = workflow_id
        """The workflow that the other methods mean unless told."""
        self.api_key: Final = api_key
        """The key to send as `x-copy-ai-api-key`."""
        self.quirks = quirks
        """How the server deviates; may be assigned at any time."""
        self.latency = latency
        """Seconds between the work and the answer; may be assigned at any time."""
        self.requests: list[Request] = []
        """Every request so far, in the order in which they were answered."""
        self.on_request: Callable[[Emulator, Request], None] | None = None
        """Called before each answer is computed; adds or removes runs for a list that moves."""
        self.deliveries: Final[list[Delivery]] = []
        """What was delivered to webhooks so far, in the order in which it was answered.

        Only URLs on the loopback interface are sent to. A delivery to another one is here all the
        same, with a `status` of None. What was under way at `stop()` isn't."""
        self._port = port
        self._asked = 0
        self._faults = Faults()
        self._state = State(seed, run_time, credits)
        self._store = None if state is None else Store(state)
        self._postman = Postman(self._state, lambda: self.quirks, self.deliveries)
        self._runner: web.ServerRunner | None = None
        self._closing = AsyncExitStack()
        self.run_time = run_time
        if self._store is not None:
            self._store.restore(self._state)
        if workflow_id not in self._state.workflows:
            self._fill(runs)

    def _fill(self, runs: int | Iterable[JSON]) -> None:
        if isinstance(runs, int):
            self.add_runs(runs)
        else:
            self.replace_runs(runs)

    def __repr__(self) -> str:
        where = "stopped" if self._runner is None else self.url
        return f"<Emulator {where}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; afterwards `url` is known.

        Raises:
            RuntimeError: it has been started already.
            OSError: the port is taken.
        """
        if self._runner is not None:
            raise RuntimeError("the emulator has been started already")
        # A client that goes away ends its request, so that none outlives the test that made it.
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=_GRACE_SECONDS)
        async with AsyncExitStack() as stack:
            if self._store is not None:
                self._store.hold()
                stack.callback(self._store.release)
            self._postman.start()
            stack.push_async_callback(self._postman.stop)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, _HOST, self._port).start()
            self._closing = stack.pop_all()
        self._runner = runner

    async def stop(self) -> None:
        """Close every connection and stop listening, at once; a second time does nothing.

        Webhooks are not told of runs that end before the next `start()`.
        """
        self._runner = None
        await self._closing.aclose()

    @property
    def url(self) -> str:
        """The base URL, such as `http://127.0.0.1:41234/api`.

        Raises:
            RuntimeError: the emulator is not started.
        """
        if self._runner is None:
            raise RuntimeError("the emulator is not started: use `async with`, or await start()")
        return f"http://{_HOST}:{self._runner.addresses[0][1]}/api"

    @property
    def run_time(self) -> float:
        """Seconds that runs started from now on take to their end; may be assigned at any time."""
        return self._state.run_time

    @run_time.setter
    def run_time(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"the time of a run can't be negative: {seconds}")
        self._state.run_time = seconds

    @property
    def credits(self) -> int | None:
        """Credits left, None for no limit; may be assigned at any time."""
        return self._state.credits

    @credits.setter  # noqa: A003 (the API's own word)
    def credits(self, left: int | None) -> None:
        self._state.leave(left)

    @property
    def webhooks(self) -> list[dict[str, JSON]]:
        """The registered webhooks as the API sends them, the oldest first."""
        return [hook.make() for hook in self._state.webhooks.all()]

    def script_next_runs(self, script: Script, *, times: int | None = 1) -> None:
        """Say how the next started runs go; several plans are met in the order of these calls.

        Args:
            script: How they go.
            times: How many of them; None for all from now on.

        Raises:
            ValueError: `times` is less than 1.
        """
        self._state.plans.add(script, times)

    def runs(self, workflow_id: str | None = None) -> list[dict[str, JSON]]:
        """Give a workflow's runs, newest first, as copies.

        Items put in by hand that are no objects are left out.
        """
        return self._state.workflow(workflow_id or self.workflow_id).objects(self._state.clock.now())

    def add_runs(
        self,
        count: int = 1,
        *,
        workflow_id: str | None = None,
        at: Literal["head", "tail"] = "head",
        **fields: JSON,
    ) -> list[str]:
        """Invent runs that are newer than all before, or at the tail older than all.

        Args:
            count: How many.
            workflow_id: Whose; one not known yet becomes known.
            at: At which end of the list.
            **fields: Wire names with the values that each of these runs has, such as
                `status="FAILED"`.

        Returns:
            The ids of the new runs, in the list's order.

        Raises:
            ValueError: `count` is negative.
        """
        if count < 0:
            raise ValueError(f"the number of runs can't be negative: {count}")
        return self._state.add(workflow_id or self.workflow_id, count, at, fields)

    def replace_runs(self, items: Iterable[JSON], *, workflow_id: str | None = None) -> None:
        """Replace a workflow's list by raw JSON items, which may be malformed.

        A workflow not known yet becomes known, with an empty list if there are no items.
        """
        self._state.put(workflow_id or self.workflow_id, items)

    def remove_runs(self, ids: Iterable[str], *, workflow_id: str | None = None) -> None:
        """Take runs out of a workflow's list; an id that isn't there is passed over."""
        self._state.remove(workflow_id or self.workflow_id, ids)

    def inject(
        self,
        fault: Fault,
        *,
        times: int | None = 1,
        method: str | None = None,
        path: str | None = None,
        page: int | None = None,
    ) -> None:
        """Let the next requests go wrong.

        Of several faults that match a request, it meets the one that was asked for first.

        Args:
            fault: What goes wrong.
            times: For how many requests; None for all from now on.
            method: Only for this HTTP method.
            path: Only where this stands in the path, percent-encoded.
            page: Only where this page is asked for.

        Raises:
            ValueError: `times` is less than 1.
        """
        self._faults.arm(fault, times=times, method=method, path=path, page=page)

    async def deliver(self, event_type: str, *, run_id: str | None = None, **fields: JSON) -> list[Delivery]:
        """Deliver an event by hand to every webhook that wants it.

        Args:
            event_type: Such as `workflowRun.completed`.
            run_id: The run it is about; one that isn't there gets a body without its fields.
            **fields: What the body has besides, or in place of the run's.

        Returns:
            What was delivered, once all of it has been answered; nothing where no webhook wants it.

        Raises:
            ValueError: there is no such event.
            RuntimeError: the emulator is not started.
        """
        if event_type not in EVENT_TYPES:
            raise ValueError(f"not an event: {event_type!r}")
        if self._runner is None:
            raise RuntimeError("the emulator is not started: use `async with`, or await start()")
        body = self._body(event_type, run_id) | fields
        hooks = self._state.webhooks.concerned(event_type, str(body["workflowId"]))
        return list(await asyncio.gather(*self._postman.send(hooks, event_type, body)))

    def _body(self, event_type: str, run_id: str | None) -> dict[str, JSON]:
        if run_id is None:
            return workflow_body(event_type, self.workflow_id)
        run = self._state.find(run_id)
        if not isinstance(run, dict):
            run = {"id": run_id, "workflowId": self.workflow_id}
        return run_body(event_type, run, self.quirks.delivery)

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        body = await read_body(http)
        # No await until the answer is there: requests are answered in the order they are logged.
        self._asked += 1
        request = make_request(http, body, self._asked)
        self.requests.append(request)
        if self.on_request is not None:
            self.on_request(self, request)
        fault = self._faults.take(request) or _NO_FAULT
        answer = self._answer(request, fault)
        if wait := self.latency + fault.delay:
            await asyncio.sleep(wait)
        if fault.reset is not None:
            return _sending.drop(http)
        return await _sending.send(http, answer, fault)

    def _answer(self, request: Request, fault: Fault) -> Answer:
        if fault.spares_work:
            return _sending.faulty_answer(fault)
        return _routes.answer(Call(self._state, self._postman, self.quirks, request), self.api_key)
