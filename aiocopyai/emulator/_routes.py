"""Which call a request is, and whether it is let in; no network here."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from attrs import evolve

from aiocopyai.emulator._answers import Answer, Refusal, not_found, refusal
from aiocopyai.emulator._call import Call
from aiocopyai.emulator._handlers import get_run, list_runs, start_run
from aiocopyai.emulator._quirks import Quirks
from aiocopyai.emulator._webhook_calls import create_webhook, delete_webhook, get_webhook, list_webhooks


KEY_HEADER: Final = "x-copy-ai-api-key"


def answer(call: Call, api_key: str) -> Answer:
    """Do a call's work and give its answer."""
    try:
        if call.request.headers.get(KEY_HEADER) != api_key:
            raise refusal(401, "UNAUTHORIZED")
        return _dispatch(call)
    except Refusal as refused:
        return _plain_404(refused.answer, call.quirks)


def _dispatch(call: Call) -> Answer:
    match _segments(call.request.path):
        case ["api", "workflow", workflow_id, "run", *rest]:
            return _about_runs(call, workflow_id, rest)
        case ["api", "webhook", *rest]:
            return _about_webhooks(call, rest)
        case _:
            raise not_found()


def _about_runs(call: Call, workflow_id: str, rest: list[str]) -> Answer:
    match call.request.method, rest:
        case "GET", []:
            return list_runs(call, workflow_id)
        case "POST", []:
            return start_run(call, workflow_id)
        case "GET", [run_id]:
            return get_run(call, workflow_id, run_id)
        case _:
            raise not_found()


def _about_webhooks(call: Call, rest: list[str]) -> Answer:
    match call.request.method, rest:
        case "GET", []:
            return list_webhooks(call)
        case "POST", []:
            return create_webhook(call)
        case "GET", [hook_id]:
            return get_webhook(call, hook_id)
        case "DELETE", [hook_id]:
            return delete_webhook(call, hook_id)
        case _:
            raise not_found()


def _segments(path: str) -> list[str]:
    """Split first and decode then: an encoded slash belongs to its segment."""
    return [unquote(segment) for segment in path.removeprefix("/").removesuffix("/").split("/")]


def _plain_404(given: Answer, quirks: Quirks) -> Answer:
    if given.status == 404 and quirks.text_404:  # noqa: PLR2004 (a status is clearest as itself)
        return evolve(given, body=b"Not Found", content_type="text/plain; charset=utf-8")
    return given
