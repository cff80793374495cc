"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aiocopyai import _rate_limit


@pytest.fixture(name="_fast_pace", autouse=True, scope="module")
def _keep_the_pace(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a 429 the pace stays high, so that no test but those of the pace itself waits for it."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.module.__name__.endswith("test_rate_limit"):
            patch.setattr(_rate_limit, "_MIN_PACE", 500.0)
        yield
