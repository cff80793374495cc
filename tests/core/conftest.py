"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aiocopyai import _rate_limit


@pytest.fixture(name="_fast_pace", autouse=True, scope="module")
def _keep_the_pace(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep the pace high after a 429, so that only the tests of the pace wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.module.__name__.endswith("test_rate_limit"):
            patch.setattr(_rate_limit, "_MIN_PACE", 500.0)
        yield
