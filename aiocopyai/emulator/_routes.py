"""What each call answers, from the vendor's reference; no network here."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from attrs import evolve, frozen

from aiocopyai.emulator._json import JSON, encode
from aiocopyai.emulator._quirks import Quirks
from aiocopyai.emulator._request import Request, to_integer
from aiocopyai.emulator._state import State, Workflow


KEY_HEADER: Final = "x-copy-ai-api-key"

_DEFAULT_SIZE: Final = 10
_ABSENT_IN_SPARSE: Final = frozenset({"status", "input", "output"})


@frozen
class Answer:
    """What is sent back: a status and a body, JSON unless said otherwise."""

    status: int
    body: bytes
    content_type: str = "application/json; charset=utf-8"


class _Refusal(Exception):  # noqa: N818 (it carries an answer, it is no error of ours)
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


def answer(state: State, quirks: Quirks, api_key: str, request: Request) -> Answer:
    """Do a call's work and give its answer."""
    try:
        return _dispatch(state, quirks, api_key, request)
    except _Refusal as refusal:
        return _plain_404(refusal.answer, quirks)


def _dispatch(state: State, quirks: Quirks, api_key: str, request: Request) -> Answer:
    if request.headers.get(KEY_HEADER) != api_key:
        raise _refusal(401, "UNAUTHORIZED")
    match request.method, _segments(request.path):
        case "GET", ["api", "workflow", workflow_id, "run"]:
            return _list_runs(_known(state, workflow_id), quirks, request)
        case _:
            raise _refusal(404, "NOT_FOUND")


def _segments(path: str) -> list[str]:
    """Split first and decode then: an encoded slash belongs to its segment."""
    return [unquote(segment) for segment in path.removeprefix("/").removesuffix("/").split("/")]


def _known(state: State, workflow_id: str) -> Workflow:
    if workflow_id not in state.workflows:
        raise _refusal(404, "NOT_FOUND")
    return state.workflows[workflow_id]


def _refusal(status: int, code: str, **details: JSON) -> _Refusal:
    body: dict[str, JSON] = {"status": "error", "errorCode": code}
    if details:
        body["details"] = details
    return _Refusal(Answer(status, encode(body)))


def _empty_400() -> _Refusal:
    return _Refusal(Answer(400, b"{}"))


def _plain_404(given: Answer, quirks: Quirks) -> Answer:
    if given.status == 404 and quirks.text_404:  # noqa: PLR2004 (a status is clearest as itself)
        return evolve(given, body=b"Not Found", content_type="text/plain; charset=utf-8")
    return given


# The list of runs: GET /workflow/{workflow_id}/run?size=&page=


def _list_runs(workflow: Workflow, quirks: Quirks, request: Request) -> Answer:
    size = _size(quirks, request)
    page = _page(quirks, request, last=max(1, -(-len(workflow) // size)))
    items = workflow.slice((page - 1) * size, page * size)
    kept = items[: max(0, len(items) - quirks.short_pages)]
    data: dict[str, JSON] = {"data": _dressed(kept, quirks)}
    if quirks.total != "absent":
        data = {"total": _total(quirks, len(workflow)), **data}
    return Answer(200, encode({"status": "success", "data": data}))


def _number(request: Request, name: str, *, default: int, least: int) -> int:
    """Read a number from the query; the reference answers a bad one with 400 and `{}`."""
    if name not in request.query:
        return default
    number = to_integer(request.query[name])
    if number is None or number < least:
        raise _empty_400()
    return number


def _size(quirks: Quirks, request: Request) -> int:
    size = _number(request, "size", default=_DEFAULT_SIZE, least=1)
    if size > quirks.max_size and quirks.oversize == "reject":
        raise _empty_400()
    return min(size, quirks.max_size)


def _page(quirks: Quirks, request: Request, *, last: int) -> int:
    """Read which page is meant, where the last one with runs is known."""
    page = _number(request, "page", default=1, least=0 if quirks.page_zero == "first" else 1)
    if quirks.ignore_page:
        return 1
    if page > last and quirks.past_end != "empty":
        return _beyond(quirks, last)
    return max(1, page)


def _beyond(quirks: Quirks, last: int) -> int:
    match quirks.past_end:
        case 400:
            raise _empty_400()
        case 404:
            raise _refusal(404, "NOT_FOUND")
        case 422:
            raise _refusal(422, "REQUEST_INVALID", page=["is past the end"])
        case _:
            return last


def _total(quirks: Quirks, count: int) -> JSON:
    if callable(quirks.total):
        return quirks.total(count)
    return str(count) if quirks.total == "string" else count


def _dressed(items: list[JSON], quirks: Quirks) -> list[JSON]:
    if not (quirks.sparse or quirks.mixed_dates or quirks.credits == "string"):
        return items
    return [_dress(item, quirks) if isinstance(item, dict) else item for item in items]


def _dress(item: dict[str, JSON], quirks: Quirks) -> dict[str, JSON]:
    run = dict(item)
    if quirks.sparse:
        run = {name: value for name, value in run.items() if name not in _ABSENT_IN_SPARSE}
    if quirks.mixed_dates:
        run.update(_without_even_milliseconds(run.get("createdAt")))
    cost = run.get("credits")
    if quirks.credits == "string" and isinstance(cost, int):
        run["credits"] = str(cost)
    return run


def _without_even_milliseconds(created_at: JSON) -> dict[str, JSON]:
    """Shorten a date or leave it; by its own digits, so that a run always looks the same."""
    if not isinstance(created_at, str):
        return {}
    seconds, _, rest = created_at.partition(".")
    even = rest[2:3] in {"0", "2", "4", "6", "8"}
    return {"createdAt": f"{seconds}Z"} if even else {}
