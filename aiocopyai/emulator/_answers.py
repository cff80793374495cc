"""An answer as a value, and the documented ways to refuse."""

from __future__ import annotations

from attrs import frozen

from aiocopyai.emulator._json import JSON, encode


@frozen
class Answer:
    """What is sent back: a status and a body, JSON unless said otherwise."""

    status: int
    body: bytes
    content_type: str = "application/json; charset=utf-8"


class Refusal(Exception):  # noqa: N818 (it carries an answer, it is no error of ours)
    """Ends a call with an answer that is not a success."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


def success(data: JSON) -> Answer:
    """Wrap what a call gives in the usual envelope."""
    return Answer(200, encode({"status": "success", "data": data}))


def refusal(status: int, code: str, **details: JSON) -> Refusal:
    """Make an error body of the documented form; with details, that of a 422."""
    body: dict[str, JSON] = {"status": "error", "errorCode": code}
    if details:
        body["details"] = details
    return Refusal(Answer(status, encode(body)))


def not_found() -> Refusal:
    """Make the 404 for whatever isn't known."""
    return refusal(404, "NOT_FOUND")


def empty_400() -> Refusal:
    """Make the 400 with `{}`, which the reference shows for the lists."""
    return Refusal(Answer(400, b"{}"))
