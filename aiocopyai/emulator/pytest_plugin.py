"""The pytest plugin with the fixture `copyai_emulator`. pytest loads it if the package is installed.

pytest imports this module in every run, so it must load quickly. Only the fixture imports the emulator and aiohttp.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    from aiocopyai.emulator import Emulator


@pytest.fixture
def copyai_emulator() -> Iterator[Emulator]:
    """A started `aiocopyai.emulator.Emulator` without runs, in its own thread, for any kind of test."""
    from aiocopyai.emulator import Emulator  # noqa: PLC0415 (only if the fixture is used)

    with Emulator() as emulator:
        yield emulator
