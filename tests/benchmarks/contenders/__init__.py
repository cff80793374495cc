"""Ways to read every run of a workflow, each with the libraries that it needs and no others loaded.

Each module has one function, ``reader(base_url, prefetch)``: an async context manager that keeps connections open and
yields ``read()``, to be awaited once for each reading of the whole list; that returns the number of runs it read. Only
aiocopyai's uses `prefetch`; None means its default.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias


Read: TypeAlias = Callable[[], Awaitable[int]]
Reader: TypeAlias = Callable[[str, int | None], AbstractAsyncContextManager[Read]]
