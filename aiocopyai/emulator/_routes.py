"""The seven calls of the API, as in the vendor's reference. They turn requests into responses, without a network."""

from __future__ import annotations

from math import inf
from typing import Final
from urllib.parse import unquote

from attrs import evolve, frozen
from yarl import URL

from aiocopyai.emulator._deliveries import WebhookSender
from aiocopyai.emulator._messages import (
    JSON,
    EmulatorResponse,
    HTTPError,
    Request,
    empty_400,
    encode_json,
    error,
    is_loopback_url,
    not_found,
    success,
    to_integer,
)
from aiocopyai.emulator._quirks import Quirks, apply_list_quirks, apply_quirks
from aiocopyai.emulator._state import EVENT_TYPES, EmulatorState, RegisteredWebhook, Workflow


_KEY_HEADER: Final = "x-copy-ai-api-key"
_DEFAULT_SIZE: Final = 10


@frozen
class APICall:
    """A request, and everything that its response depends on."""

    state: EmulatorState
    sender: WebhookSender
    quirks: Quirks
    api_key: str
    request: Request

    def respond(self) -> EmulatorResponse:
        """Execute the call and return its response."""
        try:
            # Against DNS rebinding: a web page whose host name resolves to the loopback interface sends that name.
            if not is_loopback_url("http://" + self.request.headers.get("host", "")):
                raise error(403, "HOST_NOT_ALLOWED")
            if self.request.headers.get(_KEY_HEADER) != self.api_key:
                raise error(401, "UNAUTHORIZED")
            return self._dispatch()
        except HTTPError as failure:
            if failure.response.status == 404 and self.quirks.text_404:  # noqa: PLR2004 (a status is clearer as a number)
                return evolve(failure.response, body=b"Not Found", content_type="text/plain; charset=utf-8")
            return failure.response

    def _dispatch(self) -> EmulatorResponse:  # noqa: PLR0911 (one return for each call of the API)
        # Split before decoding: an encoded slash belongs to its segment.
        path = self.request.path.removeprefix("/").removesuffix("/")
        match self.request.method, *map(unquote, path.split("/")):
            case "GET", "api", "workflow", workflow_id, "run":
                return self.list_runs(workflow_id)
            case "GET", "api", "workflow", workflow_id, "run", run_id:
                return self.get_run(workflow_id, run_id)
            case "POST", "api", "workflow", workflow_id, "run":
                return self.start_run(workflow_id)
            case "GET", "api", "webhook":
                return self.list_webhooks()
            case "GET", "api", "webhook", webhook_id:
                return self.get_webhook(webhook_id)
            case "POST", "api", "webhook":
                return self.create_webhook()
            case "DELETE", "api", "webhook", webhook_id:
                return self.delete_webhook(webhook_id)
            case _:
                raise not_found()

    # The calls

    def list_runs(self, workflow_id: str) -> EmulatorResponse:
        """List a workflow's runs: pages start at 1."""
        workflow = self._workflow(workflow_id)
        now = self.state.clock.now()
        visible_until = self._visible_until(now)
        count = workflow.count(visible_until)
        if self.quirks.retention is not None:
            count = min(count, self.quirks.retention)
        size = self._size()
        page = self._page(last=max(1, -(-count // size)))
        items = workflow.slice((page - 1) * size, min(page * size, count), now=now, visible_until=visible_until)
        page_items = items[: max(0, len(items) - self.quirks.short_pages)]
        return success(self._list_body(count, apply_list_quirks(page_items, self.quirks)))

    def get_run(self, workflow_id: str, run_id: str) -> EmulatorResponse:
        """Get one run."""
        now = self.state.clock.now()
        run = self._workflow(workflow_id).find(run_id, now=now, visible_until=self._visible_until(now))
        if run is None:
            raise not_found()
        return success(apply_quirks(run, self.quirks))

    def start_run(self, workflow_id: str) -> EmulatorResponse:
        """Start a run."""
        workflow = self._workflow(workflow_id)
        body = self._body()
        inputs, metadata = body.get("startVariables"), body.get("metadata")
        details: dict[str, JSON] = {}
        if not isinstance(inputs, dict):
            details["startVariables"] = ["must be an object"]
        if not isinstance(metadata, dict | None):
            details["metadata"] = ["must be an object"]
        if details or not isinstance(inputs, dict):
            raise error(422, "REQUEST_INVALID", **details)
        run = self.state.start_run(workflow, inputs, {"api": True} if metadata is None else metadata)
        if run is None:
            self.sender.credit_limit_reached(workflow_id)
            raise error(400, "WORKFLOW_CREDIT_LIMIT_REACHED")
        self.sender.run_started(run)
        return success({"id": run.id})

    def list_webhooks(self) -> EmulatorResponse:
        """List the webhooks: pages start at 0 here, and the response has no envelope."""
        webhooks = list(self.state.webhooks.values())
        size = self._size()
        page = 0 if self.quirks.ignore_page else self._integer("page", default=0, minimum=0)
        items: list[JSON] = [webhook.to_json() for webhook in webhooks[page * size : (page + 1) * size]]
        return EmulatorResponse(200, encode_json(self._list_body(len(webhooks), items)))

    def get_webhook(self, webhook_id: str) -> EmulatorResponse:
        """Get one webhook."""
        if webhook_id not in self.state.webhooks:
            raise not_found()
        return success(self.state.webhooks[webhook_id].to_json())

    def create_webhook(self) -> EmulatorResponse:
        """Register a webhook."""
        body = self._body()
        url, event_type, workflow_id = body.get("url"), body.get("eventType"), body.get("workflowId")
        details: dict[str, JSON] = {}
        if not isinstance(url, str) or not _is_http_url(url):
            details["url"] = ["must be a URL"]
        if event_type not in EVENT_TYPES:
            details["eventType"] = ["must be one of " + ", ".join(EVENT_TYPES)]
        if not isinstance(workflow_id, str | None):
            details["workflowId"] = ["must be a string"]
        if details or not isinstance(workflow_id, str | None):
            raise error(422, "REQUEST_INVALID", **details)
        if workflow_id:
            self._workflow(workflow_id)
        # One vendor example shows an empty string for all workflows.
        webhook = RegisteredWebhook(url=str(url), event_type=str(event_type), workflow_id=workflow_id or None)
        self.state.add_webhook(webhook)
        return success(webhook.to_json())

    def delete_webhook(self, webhook_id: str) -> EmulatorResponse:
        """Delete a webhook."""
        if webhook_id not in self.state.webhooks:
            raise not_found()
        self.state.remove_webhook(webhook_id)
        return EmulatorResponse(202, b"{}")

    # Shared by the calls

    def _workflow(self, workflow_id: str) -> Workflow:
        """Return a workflow that exists."""
        if workflow_id not in self.state.workflows:
            raise not_found()
        return self.state.workflows[workflow_id]

    def _body(self) -> dict[str, JSON]:
        """Return the request's body, which must be an object."""
        body: JSON = self.request.body
        if not isinstance(body, dict):
            raise error(422, "REQUEST_INVALID", body=["must be a JSON object"])
        return body

    def _integer(self, name: str, *, default: int, minimum: int) -> int:
        """Return an integer from the query; the reference shows a 400 with `{}` for an invalid one."""
        if name not in self.request.query:
            return default
        number = to_integer(self.request.query[name])
        if number is None or number < minimum:
            raise empty_400()
        return number

    def _size(self) -> int:
        """Return the page size."""
        size = self._integer("size", default=_DEFAULT_SIZE, minimum=1)
        if size > self.quirks.max_size and self.quirks.oversize == "reject":
            raise empty_400()
        return min(size, self.quirks.max_size)

    def _page(self, *, last: int) -> int:
        """Return the number of the page to send, given that of the last page with runs."""
        page = self._integer("page", default=1, minimum=0 if self.quirks.page_zero == "first" else 1)
        if self.quirks.ignore_page:
            return 1
        if page <= last:
            return max(1, page)
        match self.quirks.past_end:
            case "empty":
                return page
            case "last":
                return last
            case 400:
                raise empty_400()
            case 404:
                raise not_found()
            case 422:
                raise error(422, "REQUEST_INVALID", page=["is past the end"])

    def _visible_until(self, now: float) -> float:
        """Return the time after which a started run is not visible yet."""
        return now - self.quirks.late_runs if self.quirks.late_runs else inf

    def _list_body(self, count: int, items: list[JSON]) -> dict[str, JSON]:
        """Build a list's body from the number of its items and the items of one page."""
        match self.quirks.total:
            case "absent":
                return {"data": items}
            case "int":
                return {"total": count, "data": items}
            case "string":
                return {"total": str(count), "data": items}
            case from_count:
                return {"total": from_count(count), "data": items}


def _is_http_url(text: str) -> bool:
    try:
        url = URL(text)
    except ValueError:
        return False
    return url.scheme in {"http", "https"} and bool(url.host)
