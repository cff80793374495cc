"""The emulator: a local server that implements the Copy.ai Workflows API, for tests and demonstrations.

It responds as Copy.ai's reference documents. `Quirks` select its behavior where the reference says nothing, `Fault`
makes requests fail, and `Emulator.on_request` can change the list of runs between two requests. It shares no code with
the client: if both misread the API in the same way, every test would pass.

The names are loaded on first use, so that the pytest plugin in this package loads quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from aiocopyai.emulator.__main__ import main, serve
    from aiocopyai.emulator._deliveries import Delivery
    from aiocopyai.emulator._emulator import Emulator
    from aiocopyai.emulator._faults import Fault
    from aiocopyai.emulator._messages import Request
    from aiocopyai.emulator._quirks import Quirks
    from aiocopyai.emulator._run_scripts import Script

__all__ = ["Delivery", "Emulator", "Fault", "Quirks", "Request", "Script", "main", "serve"]

_MODULES: Final = {
    "Delivery": "_deliveries",
    "Emulator": "_emulator",
    "Fault": "_faults",
    "Quirks": "_quirks",
    "Request": "_messages",
    "Script": "_run_scripts",
    "main": "__main__",
    "serve": "__main__",
}


if not TYPE_CHECKING:  # hidden from type checkers, which would otherwise accept any name

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value  # the next access does not call this function
        return value
