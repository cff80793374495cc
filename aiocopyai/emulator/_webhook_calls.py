"""The four calls about webhooks, from the vendor's reference."""

from __future__ import annotations

from yarl import URL

from aiocopyai.emulator._answers import Answer, not_found, refusal, success
from aiocopyai.emulator._call import Call
from aiocopyai.emulator._json import JSON, encode
from aiocopyai.emulator._webhooks import EVENT_TYPES, Hook


def list_webhooks(call: Call) -> Answer:
    """Answer `GET /webhook?size=&page=`: pages count from 0 here, and there is no envelope."""
    hooks = call.state.webhooks.all()
    size = call.size()
    page = 0 if call.quirks.ignore_page else call.number("page", default=0, least=0)
    items: list[JSON] = [hook.make() for hook in hooks[page * size : (page + 1) * size]]
    return Answer(200, encode(call.page_of(len(hooks), items)))


def get_webhook(call: Call, hook_id: str) -> Answer:
    """Answer `GET /webhook/{id}`."""
    return success(_known_hook(call, hook_id).make())


def delete_webhook(call: Call, hook_id: str) -> Answer:
    """Answer `DELETE /webhook/{id}`."""
    call.state.unregister(_known_hook(call, hook_id).id)
    return Answer(202, b"{}")


def create_webhook(call: Call) -> Answer:
    """Answer `POST /webhook`."""
    hook = _read_hook(call.body())
    if hook.workflow_id is not None and hook.workflow_id not in call.state.workflows:
        raise not_found()
    call.state.register(hook)
    return success(hook.make())


def _known_hook(call: Call, hook_id: str) -> Hook:
    hook = call.state.webhooks.get(hook_id)
    if hook is None:
        raise not_found()
    return hook


def _read_hook(body: dict[str, JSON]) -> Hook:
    details: dict[str, JSON] = {}
    url, event_type, workflow_id = body.get("url"), body.get("eventType"), body.get("workflowId")
    if not isinstance(url, str) or not _is_http_url(url):
        details["url"] = ["must be a URL"]
    if event_type not in EVENT_TYPES:
        details["eventType"] = ["must be one of " + ", ".join(EVENT_TYPES)]
    if not isinstance(workflow_id, str | None):
        details["workflowId"] = ["must be a string"]
    if details:
        raise refusal(422, "REQUEST_INVALID", **details)
    return Hook(url=str(url), event_type=str(event_type), workflow_id=None if workflow_id is None else str(workflow_id))


def _is_http_url(text: str) -> bool:
    try:
        url = URL(text)
    except ValueError:
        return False
    return url.scheme in {"http", "https"} and bool(url.host)
