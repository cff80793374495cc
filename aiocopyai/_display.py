"""Format runs and their values as text for people, for example in tables and reports."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Final

from aiocopyai.models import JSON, Run, RunStatus


_PREVIEW_LENGTH: Final = 1000
"""The maximum number of characters of an output or error to use for a preview."""


def json_line(value: JSON | Mapping[str, JSON]) -> bytes:
    """Return a value as one line of JSON, in UTF-8 regardless of the locale."""
    # Also escaped in files and pipes, because some readers treat U+2028 as a line break.
    return printable(json.dumps(value, ensure_ascii=False)).encode() + b"\n"


def printable(text: str) -> str:
    r"""Escape unprintable characters, such as those of terminal control sequences: ESC becomes ``\u001b``.

    The escapes are those of JSON, so that escaped JSON has the same value.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    # json.dumps returns a surrogate pair for a code point of more than four digits, but does not escape DEL.
    return f"\\u{code:04x}" if code <= 0xFFFF else json.dumps(character)[1:-1]  # noqa: PLR2004 (four digits)


def value_text(value: JSON) -> str:
    """Return a JSON value as text: strings unchanged, other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def preview(run: Run) -> str:
    """Return the beginning of the first non-empty output of a run, or of its error, on one line.

    For a failed run, the error takes precedence over the outputs.
    """
    values: list[JSON] = [value for value in run.output.values() if value]
    values.insert(0 if run.status == RunStatus.FAILED else len(values), run.error)
    value = next((value for value in values if value is not None), None)
    return "" if value is None else re.sub(r"\s+", " ", value_text(value)[:_PREVIEW_LENGTH]).strip()


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 run``, ``2,000 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def local_time(time: datetime, zone: tzinfo | None = None) -> datetime:
    """Return a datetime in a time zone, by default the user's.

    A datetime that is out of range in this time zone is returned unchanged.
    """
    try:
        return time.astimezone(zone)
    except (OverflowError, OSError, ValueError):
        return time
