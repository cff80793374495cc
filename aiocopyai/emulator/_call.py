"""One call as its handler meets it, and what the two lists have in common."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from aiocopyai.emulator._answers import empty_400, refusal
from aiocopyai.emulator._json import JSON
from aiocopyai.emulator._postman import Postman
from aiocopyai.emulator._quirks import Quirks
from aiocopyai.emulator._request import Request, to_integer
from aiocopyai.emulator._state import State


_DEFAULT_SIZE: Final = 10


@frozen
class Call:
    """A request that was let in, with what its answer depends on."""

    state: State
    postman: Postman
    quirks: Quirks
    request: Request

    def size(self) -> int:
        """Read the size of a page."""
        size = self.number("size", default=_DEFAULT_SIZE, least=1)
        if size > self.quirks.max_size and self.quirks.oversize == "reject":
            raise empty_400()
        return min(size, self.quirks.max_size)

    def number(self, name: str, *, default: int, least: int) -> int:
        """Read a number from the query; the reference answers a bad one with 400 and `{}`."""
        if name not in self.request.query:
            return default
        number = to_integer(self.request.query[name])
        if number is None or number < least:
            raise empty_400()
        return number

    def page_of(self, count: int, items: list[JSON]) -> dict[str, JSON]:
        """Make a list's body of its true count and one page of it."""
        match self.quirks.total:
            case "absent":
                return {"data": items}
            case "int":
                return {"total": count, "data": items}
            case "string":
                return {"total": str(count), "data": items}
            case of_count:
                return {"total": of_count(count), "data": items}

    def body(self) -> dict[str, JSON]:
        """Read the request's body, which has to be an object."""
        if not isinstance(self.request.body, dict):
            raise refusal(422, "REQUEST_INVALID", body=["must be a JSON object"])
        return self.request.body
