"""Fixtures of the webhook receiver's tests."""

from __future__ import annotations

import pytest

from tests.support.serving import Handled


@pytest.fixture(name="handled")
def _handled() -> Handled:
    """A handler that keeps the events it receives."""
    return Handled()
