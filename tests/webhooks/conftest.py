"""Fixtures of the webhook receiver's tests."""

from __future__ import annotations

import pytest

from tests.support.receivers import RecordingHandler


@pytest.fixture(name="handler")
def _handler() -> RecordingHandler:
    """A handler that stores the events that it receives."""
    return RecordingHandler()
