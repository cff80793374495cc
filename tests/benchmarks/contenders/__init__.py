"""Ways to walk every run of a workflow, each with the libraries that it needs and no others loaded.

Each module has one function, ``walker(base_url, prefetch)``: a context in which connections are kept, and which gives
a ``walk()`` to await once for each walk; that returns how many runs it met. Only ours makes use of `prefetch`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias


Walk: TypeAlias = Callable[[], Awaitable[int]]
Walker: TypeAlias = Callable[[str, int], AbstractAsyncContextManager[Walk]]
