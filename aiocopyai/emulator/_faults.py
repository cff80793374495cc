"""What may go wrong, and which request it happens to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import define, field, frozen

from aiocopyai.emulator._json import JSON
from aiocopyai.emulator._request import Request


@frozen(kw_only=True)
class Fault:
    """One thing that goes wrong with a request; see `Emulator.fail`.

    With a `status` or a `body`, that is the answer and the call's work is not done. Without, the
    work is done and the rest happens to its true answer. Everything may be combined.
    """

    status: int | None = None
    """The HTTP status; 200 where only a `body` is given."""
    body: JSON | bytes = None
    """The body: JSON, or bytes to be sent as they are. An empty object where only a `status` is
    given, since the reference shows no bodies for 401, 403, 429 and 5xx."""
    headers: Mapping[str, str] = field(factory=dict[str, str])
    """Headers added to the answer's, or put in their place."""
    delay: float = 0.0
    """Seconds between the work and the answer."""
    reset: Literal["before", "after"] | None = None
    """Drop the connection with a TCP reset: before the call's work, or once it is done."""
    truncate: int | None = None
    """Promise the whole body, send this many bytes of it, and close the connection."""
    drip: float = 0.0
    """Send the body in 16 pieces, with this many seconds before each."""

    @property
    def spares_work(self) -> bool:
        """Whether the call's work is left undone."""
        return self.status is not None or self.body is not None or self.reset == "before"


@define
class _Armed:
    """A fault that waits for its requests; None matches anything."""

    fault: Fault
    left: int | None
    method: str | None
    path: str | None
    page: int | None

    def matches(self, request: Request) -> bool:
        return (
            (self.method is None or self.method.upper() == request.method)
            and (self.path is None or self.path in request.path)
            and (self.page is None or self.page == request.page)
        )


@define
class Faults:
    """The faults that wait, in the order in which they were asked for."""

    _armed: list[_Armed] = field(factory=list[_Armed])

    def arm(
        self,
        fault: Fault,
        *,
        times: int | None,
        method: str | None,
        path: str | None,
        page: int | None,
    ) -> None:
        """Let a fault wait for `times` requests, or for all."""
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1, or None for all: {times}")
        self._armed.append(_Armed(fault, times, method, path, page))

    def take(self, request: Request) -> Fault | None:
        """Use up the first fault that waits for this request."""
        for armed in self._armed:
            if armed.matches(request):
                self._count_down(armed)
                return armed.fault
        return None

    def _count_down(self, armed: _Armed) -> None:
        if armed.left is None:
            return
        armed.left -= 1
        if not armed.left:
            # By identity: two faults armed alike are equal.
            self._armed = [other for other in self._armed if other is not armed]
