"""`Emulator`: the server, and the methods with which a test controls it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Final, Literal, Self

from aiohttp import web

from aiocopyai.emulator._argument_checks import (
    check_choice,
    check_integer,
    check_items,
    check_json,
    check_seconds,
    check_string,
    check_type,
)
from aiocopyai.emulator._deliveries import Delivery, WebhookSender, run_body, workflow_body
from aiocopyai.emulator._faults import Fault, FaultQueue, replacement_response, send_response
from aiocopyai.emulator._messages import Request, make_request
from aiocopyai.emulator._persistence import StateFile
from aiocopyai.emulator._quirks import Quirks
from aiocopyai.emulator._routes import APICall
from aiocopyai.emulator._run_scripts import Script
from aiocopyai.emulator._state import EVENT_TYPES, EmulatorState


# Not a child of the client's logger, so that the client's log does not contain the emulator's messages.
logger = logging.getLogger("aiocopyai_emulator")

DEFAULT_WORKFLOW_ID: Final = "WCFG-6db59f06-2f6c-4d3e-9a51-7c0b8e4d1f27"

_HOST: Final = "127.0.0.1"
_MAX_PORT: Final = 65_535
_MAX_ADDED: Final = 10_000_000
"""The maximum number of sample runs to add at a time. More would fill the memory."""
# Short, because requests in progress may hang on purpose, and their responses are no longer needed.
_SHUTDOWN_SECONDS: Final = 0.01


class Emulator:
    """An HTTP server on a loopback port that implements the Copy.ai Workflows API.

    ::

        async with Emulator(runs=250) as emulator:
            async with CopyAISession(emulator.api_key, base_url=emulator.url) as session:
                ...

    In synchronous code, ``with Emulator() as emulator:`` runs it in its own thread. Then its methods can be called from
    any thread, and `on_request` is called in the emulator's thread.

    It implements the seven calls of Copy.ai's reference, with or without a slash at the end of the path. The errors
    are: 401 for a wrong key; 404 for an unknown workflow, run, webhook or call; 400 with `{}` for an invalid `size` or
    `page`; 422 for an invalid body, or one nested more than 200 levels deep; and 403 for a `Host` header that does not
    name the loopback interface. The reference does not mention 401 and 403; their bodies are like the documented ones.

    A started run passes through its states in `run_time` seconds (see `script_next_runs`), and is listed before the
    sample runs. Webhooks receive its start and its end, and starts that failed because the credits ran out (see
    `deliveries`).

    Args:
        runs: the number of sample runs, which are the same for the same `seed`; or the items of the list as raw JSON,
            newest first, which are sent unchanged and may be malformed.
        workflow_id: the workflow that has these runs.
        api_key: the only key that is accepted.
        seed: the seed of the sample runs.
        quirks: the behavior where the reference leaves it open.
        latency: seconds between executing a call and responding, for every request.
        run_time: seconds from a run's start to its end; `math.inf` for runs that never end.
        credits: the credits that started runs may spend; None for no limit.
        state: an SQLite file that stores the runs, the webhooks and the remaining credits for the next emulator with
            this file. It is created if it does not exist, and only one emulator can use it at a time. Its content
            replaces `runs`, `seed` and `credits`. None for no file.
        port: the port to listen on; 0 for any free one.

    Attributes:
        workflow_id: the workflow that the methods use by default.
        api_key: the key to send as `x-copy-ai-api-key`.
        requests: all requests so far, in the order in which they were executed.
        on_request: None, or a function that is called with the emulator and the request before each request is
            executed. It may add or remove runs, so that the list changes during an iteration, or inject a fault.
        deliveries: all webhook deliveries so far, in the order of their responses. Only URLs on the loopback interface
            receive them; a delivery to any other URL is recorded with a `status` of None. A delivery in progress at
            `stop()` is not recorded.

    Raises:
        ValueError: an argument is invalid, or `state` is not a state file of this version.
        sqlite3.OperationalError: `state` cannot be opened.
    """

    def __init__(
        self,
        runs: int | Iterable[Any] = 0,
        *,
        workflow_id: str = DEFAULT_WORKFLOW_ID,
        api_key: str = "emulator-key",
        seed: int = 0,
        quirks: Quirks = Quirks(),  # noqa: B008 (a frozen value)
        latency: float = 0.0,
        run_time: float = 0.05,
        credits: int | None = None,  # noqa: A002 (the API's own word)
        state: str | Path | None = None,
        port: int = 0,
    ) -> None:
        check_string("workflow_id", workflow_id)
        check_string("api_key", api_key)
        check_integer("seed", seed, None)
        if isinstance(runs, int) or not isinstance(runs, Iterable):
            check_integer("runs", runs, 0, _MAX_ADDED)
        else:
            check_items("runs", runs)
        check_integer("port", port, 0, _MAX_PORT)
        if credits is not None:
            check_integer("credits", credits, 0)
        self.workflow_id: Final = workflow_id
        self.api_key: Final = api_key
        self.quirks = quirks
        self.latency = latency
        self.requests: list[Request] = []
        self.on_request: Callable[[Emulator, Request], None] | None = None
        self.deliveries: Final[list[Delivery]] = []
        self._port = port
        self._request_count = 0
        self._faults = FaultQueue()
        self._state = EmulatorState(seed, run_time, credits)
        self.run_time = run_time
        self._state_file = None if state is None else StateFile(state)
        self._sender = WebhookSender(self._state, lambda: self.quirks, self.deliveries)
        self._runner: web.ServerRunner | None = None
        self._cleanup = AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._exit = asyncio.Event()
        if self._state_file is not None:
            self._state_file.load(self._state)
            self._state.storage = self._state_file
        if workflow_id not in self._state.workflows:
            if isinstance(runs, int):
                self.add_runs(runs)
            else:
                self.replace_runs(runs)

    def __repr__(self) -> str:
        address = "stopped" if self._runner is None else self.url
        return f"<Emulator {address}>"

    def __enter__(self) -> Self:
        started: Future[None] = Future()
        thread = Thread(target=lambda: asyncio.run(self._run(started)), name="aiocopyai emulator", daemon=True)
        thread.start()
        if started.exception() is not None:
            thread.join()
        started.result()
        self._thread = thread
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None and self._loop is not None:
            thread, self._thread = self._thread, None
            self._loop.call_soon_threadsafe(self._exit.set)
            thread.join()

    async def _run(self, started: Future[None]) -> None:
        """Serve until `__exit__`; `started` receives the outcome of the start."""
        try:
            await self.start()
        except BaseException as error:  # noqa: BLE001 (raised in the other thread)
            started.set_exception(error)
            return
        self._exit = asyncio.Event()
        started.set_result(None)
        await self._exit.wait()
        await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start listening, and set `url`.

        Raises:
            RuntimeError: the emulator is already started.
            OSError: the port is in use.
        """
        if self._runner is not None:
            raise RuntimeError("the emulator is already started")
        # A request is cancelled if its client disconnects, so that no request outlives its test.
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
        async with AsyncExitStack() as stack:
            if self._state_file is not None:
                self._state_file.open()
                stack.callback(self._state_file.close)
            self._sender.start()
            stack.push_async_callback(self._sender.stop)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, _HOST, self._port).start()
            self._cleanup = stack.pop_all()
        self._loop = asyncio.get_running_loop()
        self._runner = runner

    async def stop(self) -> None:
        """Close every connection and stop listening at once. Do nothing if the emulator is not started.

        Webhooks do not receive the ends of runs that end before the next `start()`.

        Raises:
            RuntimeError: the emulator runs in its own thread, until the end of its ``with`` block.
        """
        if self._thread is not None:
            raise RuntimeError("the emulator runs in a thread: leave its `with` block to stop it")
        self._runner = None
        await self._cleanup.aclose()

    @property
    def url(self) -> str:
        """The base URL, such as `http://127.0.0.1:41234/api`.

        Raises:
            RuntimeError: the emulator is not started.
        """
        runner = self._started_runner()
        return f"http://{_HOST}:{runner.addresses[0][1]}/api"

    @property
    def run_time(self) -> float:
        """Seconds from the start to the end of runs that are started later; may be assigned at any time."""
        return self._state.run_time

    @run_time.setter
    def run_time(self, seconds: float) -> None:
        check_seconds("run_time", seconds)
        self._state.run_time = seconds

    @property
    def latency(self) -> float:
        """Seconds between executing a call and responding; may be assigned at any time."""
        return self._latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        check_seconds("latency", seconds)
        self._latency = seconds

    @property
    def quirks(self) -> Quirks:
        """The behavior where the reference leaves it open; may be assigned at any time."""
        return self._quirks

    @quirks.setter
    def quirks(self, quirks: Quirks) -> None:
        check_type("quirks", quirks, Quirks)
        self._quirks = quirks

    @property
    def credits(self) -> int | None:
        """The remaining credits; None for no limit. May be assigned at any time."""
        return self._state.credits

    @credits.setter  # noqa: A003 (the API's own word)
    def credits(self, credits_left: int | None) -> None:
        if credits_left is not None:
            check_integer("credits", credits_left, 0)
        with self._state.lock:
            self._state.set_credits(credits_left)

    @property
    def workflow_ids(self) -> list[str]:
        """The ids of all workflows, in the order in which they were created."""
        with self._state.lock:
            return list(self._state.workflows)

    @property
    def webhooks(self) -> list[dict[str, Any]]:
        """The webhooks as the API sends them, oldest first."""
        with self._state.lock:
            return [webhook.to_json() for webhook in self._state.webhooks.values()]

    def script_next_runs(self, script: Script, *, times: int | None = 1) -> None:
        """Set the script of the next started runs. Several scripts are used in the order of the calls.

        Args:
            script: the script.
            times: the number of runs that follow it; None for all following ones.

        Raises:
            ValueError: `times` is not an integer of 1 or more.
        """
        check_type("script", script, Script)
        _check_times(times)
        with self._state.lock:
            self._state.scripts.add(script, times)

    def runs(self, workflow_id: str | None = None) -> list[dict[str, Any]]:
        """Return copies of a workflow's runs as JSON objects, newest first, without items that are not objects."""
        with self._state.lock:
            return self._state.workflow(workflow_id or self.workflow_id).objects(self._state.clock.now())

    def add_runs(
        self,
        count: int = 1,
        *,
        workflow_id: str | None = None,
        at: Literal["head", "tail"] = "head",
        **fields: Any,  # noqa: ANN401 (any JSON)
    ) -> list[str]:
        """Add sample runs that are newer than all others, or older with `at="tail"`.

        Args:
            count: the number of runs.
            workflow_id: their workflow; an unknown one is created.
            at: the end of the list to add them to.
            **fields: values for fields of each of these runs, by the names in the API, such as `status="FAILED"`.

        Returns:
            The ids of the new runs, in the order of the list.

        Raises:
            ValueError: `count` is not an integer from 0 to 10 million, `at` is invalid, or a field is not
                JSON.
        """
        check_json("fields", fields)
        check_integer("count", count, 0, _MAX_ADDED)
        check_choice("at", at, ("head", "tail"))
        with self._state.lock:
            return self._state.add_samples(workflow_id or self.workflow_id, count, at, fields)

    def replace_runs(self, items: Iterable[Any], *, workflow_id: str | None = None) -> None:
        """Replace a workflow's list with raw JSON items, which may be malformed.

        An unknown workflow is created, with an empty list if there are no items.

        Raises:
            ValueError: an item is not JSON, or `items` is a string or a mapping.
        """
        check_items("items", items)
        items = list(items)
        check_json("items", items)
        with self._state.lock:
            self._state.replace_runs(workflow_id or self.workflow_id, items)

    def remove_runs(self, ids: Iterable[str], *, workflow_id: str | None = None) -> None:
        """Remove runs from a workflow's list; unknown ids are ignored.

        Raises:
            ValueError: `ids` is a string.
        """
        check_items("ids", ids)
        with self._state.lock:
            self._state.remove_runs(workflow_id or self.workflow_id, ids)

    def inject(
        self,
        fault: Fault,
        *,
        times: int | None = 1,
        method: str | None = None,
        path: str | None = None,
        page: int | None = None,
    ) -> None:
        """Apply a fault to the next requests.

        If several faults match a request, the one injected first applies.

        Args:
            fault: the fault.
            times: the number of requests that it applies to; None for all following ones.
            method: apply it only to requests with this HTTP method.
            path: apply it only to requests whose percent-encoded path contains this.
            page: apply it only to requests for this page.

        Raises:
            ValueError: an argument is invalid.
        """
        check_type("fault", fault, Fault)
        _check_times(times)
        for name, value in (("method", method), ("path", path)):
            if value is not None:
                check_string(name, value)
        if page is not None:
            check_integer("page", page, 0)
        self._faults.add(fault, times=times, method=method, path=path, page=page)

    def clear_faults(self) -> None:
        """Remove all injected faults."""
        self._faults = FaultQueue()

    async def deliver(
        self,
        event_type: str,
        *,
        run_id: str | None = None,
        **fields: Any,  # noqa: ANN401 (any JSON)
    ) -> list[Delivery]:
        """Deliver an event to every webhook for its type, whether it happened or not, and wait for the responses.

        Args:
            event_type: the type of the event, such as `workflowRun.completed`.
            run_id: the run that the event is about. If the run is unknown, the body lacks its fields.
            **fields: fields to add to the body or to replace in it.

        Returns:
            The deliveries; an empty list if there is no such webhook.

        Raises:
            ValueError: the event type is unknown, or a field is not JSON.
            RuntimeError: the emulator is not started.
        """
        check_choice("event_type", event_type, EVENT_TYPES)
        check_json("fields", fields)
        self._started_runner()
        with self._state.lock:
            if run_id is None:
                body = workflow_body(event_type, self.workflow_id)
            else:
                run = self._state.find_run(run_id)
                if not isinstance(run, dict):
                    run = {"id": run_id, "workflowId": self.workflow_id}
                body = run_body(event_type, run, self.quirks.delivery)
            body |= fields
            webhooks = self._state.subscribers(event_type, str(body["workflowId"]))

        async def send() -> list[Delivery]:
            return list(await asyncio.gather(*self._sender.send(webhooks, event_type, body)))

        if self._thread is None or self._loop is None:
            return await send()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(send(), self._loop))

    def _started_runner(self) -> web.ServerRunner:
        if self._runner is None:
            raise RuntimeError("the emulator is not started: use `async with` or `with`, or await start()")
        return self._runner

    async def _handle(self, web_request: web.BaseRequest) -> web.StreamResponse:
        raw = await web_request.read() if web_request.can_read_body else b""
        # No await from here until the response is computed, so that requests are executed in the order of `requests`.
        self._request_count += 1
        request = make_request(web_request, raw, self._request_count)
        self.requests.append(request)
        if self.on_request is not None:
            self.on_request(self, request)
        fault = self._faults.take(request)
        if fault.skips_call:
            response = replacement_response(fault)
        else:
            with self._state.lock:
                response = APICall(self._state, self._sender, self.quirks, self.api_key, request).respond()
        result = f"HTTP {response.status}" if fault.reset is None else "connection reset"
        logger.debug("%s %s: %s", request.method, web_request.raw_path, result)
        if delay := self.latency + fault.delay:
            await asyncio.sleep(delay)
        return await send_response(web_request, response, fault)


def _check_times(times: int | None) -> None:
    if times is not None:
        check_integer("times", times, 1)
