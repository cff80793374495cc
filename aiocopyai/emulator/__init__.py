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
    from aiocopyai.emulator._emulator import Emulator
    from aiocopyai.emulator._faults import Fault
    from aiocopyai.emulator._http import main, serve
    from aiocopyai.emulator._quirks import Quirks
    from aiocopyai.emulator._request import Request
    from aiocopyai.emulator._scenarios import Script

__all__ = ["Delivery", "Emulator", "Fault", "Quirks", "Request", "Script", "main", "serve"]

_MODULES: Final = {
    "Delivery": "_deliveries",
    "Emulator": "_emulator",
    "Fault": "_faults",
    "Quirks": "_quirks",
    "Request": "_request",
    "Script": "_scenarios",
    "main": "_http",
    "serve": "_http",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
