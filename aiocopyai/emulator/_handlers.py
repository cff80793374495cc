"""The three calls about runs, from the vendor's reference."""

from __future__ import annotations

from math import inf

from aiocopyai.emulator._answers import Answer, empty_400, not_found, refusal, success
from aiocopyai.emulator._call import Call
from aiocopyai.emulator._dress import dressed, listed
from aiocopyai.emulator._json import JSON
from aiocopyai.emulator._quirks import Quirks
from aiocopyai.emulator._workflow import Workflow


def list_runs(call: Call, workflow_id: str) -> Answer:
    """Answer `GET /workflow/{workflow_id}/run?size=&page=`."""
    workflow = _known_workflow(call, workflow_id)
    now, known_until = _moments(call)
    count = workflow.count(known_until)
    size = call.size()
    page = _page(call, last=max(1, -(-count // size)))
    items = workflow.slice((page - 1) * size, page * size, now=now, known_until=known_until)
    kept = items[: max(0, len(items) - call.quirks.short_pages)]
    return success(call.page_of(count, listed(kept, call.quirks)))


def get_run(call: Call, workflow_id: str, run_id: str) -> Answer:
    """Answer `GET /workflow/{workflow_id}/run/{run_id}`."""
    now, known_until = _moments(call)
    run = _known_workflow(call, workflow_id).find(run_id, now=now, known_until=known_until)
    if run is None:
        raise not_found()
    return success(dressed(run, call.quirks))


def start_run(call: Call, workflow_id: str) -> Answer:
    """Answer `POST /workflow/{workflow_id}/run`."""
    workflow = _known_workflow(call, workflow_id)
    body = call.body()
    inputs, metadata = body.get("startVariables"), body.get("metadata")
    details: dict[str, JSON] = {}
    if not isinstance(inputs, dict):
        details["startVariables"] = ["must be an object"]
    if not isinstance(metadata, dict | None):
        details["metadata"] = ["must be an object"]
    if details or not isinstance(inputs, dict):
        raise refusal(422, "REQUEST_INVALID", **details)
    run = call.state.start(workflow, inputs, {"api": True} if metadata is None else metadata)
    if run is None:
        call.postman.limit_reached(workflow_id)
        raise refusal(400, "WORKFLOW_CREDIT_LIMIT_REACHED")
    call.postman.run_started(run)
    return success({"id": run.id})


def _known_workflow(call: Call, workflow_id: str) -> Workflow:
    if workflow_id not in call.state.workflows:
        raise not_found()
    return call.state.workflows[workflow_id]


def _moments(call: Call) -> tuple[float, float]:
    """Give the time, and until when a run has to be started to be known by now."""
    now = call.state.clock.now()
    return now, now - call.quirks.late_runs if call.quirks.late_runs else inf


def _page(call: Call, *, last: int) -> int:
    """Read which page is meant, where the last one with runs is known."""
    quirks = call.quirks
    page = call.number("page", default=1, least=0 if quirks.page_zero == "first" else 1)
    if quirks.ignore_page:
        return 1
    if page > last and quirks.past_end != "empty":
        return _beyond(quirks, last)
    return max(1, page)


def _beyond(quirks: Quirks, last: int) -> int:
    match quirks.past_end:
        case 400:
            raise empty_400()
        case 404:
            raise not_found()
        case 422:
            raise refusal(422, "REQUEST_INVALID", page=["is past the end"])
        case _:
            return last
