"""Clients that read every run of a workflow, each in a module that imports only its own libraries.

Each module has one function, ``reader(base_url, prefetch)``: an async context manager that keeps connections open and
yields ``read()``. Each ``await read()`` reads the whole list, and returns the number of runs. Only aiocopyai uses
`prefetch`; None means its default.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias


Read: TypeAlias = Callable[[], Awaitable[int]]
Reader: TypeAlias = Callable[[str, int | None], AbstractAsyncContextManager[Read]]
