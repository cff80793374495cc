"""What an export raises of its own."""

from __future__ import annotations


class ExportError(ValueError):
    """The export can't be made as it was asked for: what is there already stands against it, or a format is unknown."""


class DamagedPartError(ExportError):
    """What was begun can't be read any more; only to begin anew helps."""
