"""A local Copy.ai: the Workflows API over a real socket, for tests and demonstrations.

It answers as the vendor's reference says, odd corners included (`Quirks`), fails on demand
(`Fault`), and its list of runs may move between any two requests (`Emulator.on_request`).
It shares no code with the client: were both to misread the API alike, every test would pass.

The names are loaded when first asked for, so that the pytest plugin next door costs a run of
pytest that doesn't use it nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from aiocopyai.emulator._deliveries import Delivery
    from aiocopyai.emulator._faults import Fault
    from aiocopyai.emulator._quirks import Quirks
    from aiocopyai.emulator._request import Request
    from aiocopyai.emulator._script import Script
    from aiocopyai.emulator._serve import main, serve
    from aiocopyai.emulator._server import Emulator

__all__ = ["Delivery", "Emulator", "Fault", "Quirks", "Request", "Script", "main", "serve"]

_ROOMS: Final = {
    "Delivery": "_deliveries",
    "Emulator": "_server",
    "Fault": "_faults",
    "Quirks": "_quirks",
    "Request": "_request",
    "Script": "_script",
    "main": "_serve",
    "serve": "_serve",
}


def __getattr__(name: str) -> object:
    """Load a public name from the room it lives in.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
