"""The sample pages that the clients read: the same each time, with about 1 KB per run by default."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias


Size: TypeAlias = Literal["small", "medium", "large"]
"""Bytes of a run: about 100, 1,000 or 10,000."""

WORKFLOW: Final = "WCFG-6db59f06-5a3c-4a0e-9d1e-0f2b6c1d7e88"
PAGE_SIZE: Final = 100
_NEWEST: Final = datetime(2026, 6, 1, 12, 0, 0, 326_000, tzinfo=UTC)
_PROSE: Final = (
    "a b2b buyer reads this mail before lunch, so lead with the number; our café team in Zürich cut onboarding "
    "from nine days to two, and “ready by Friday” is now the rule; ask for ten minutes, offer a date, close warmly"
)
_WORDS: Final = _PROSE.split()
_LARGE: Final = 16
"""The ratio of the numbers of words in a large and in a medium run."""


def write_pages(folder: Path, count: int, size: Size = "medium") -> int:
    """Write ``page-1.json`` to ``page-<count>.json``, newest runs first, and return the mean size of a run in bytes."""
    folder.mkdir(exist_ok=True)
    written = 0
    for number in range(1, count + 1):
        written += (folder / f"page-{number}.json").write_bytes(make_page(number, count * PAGE_SIZE, size))
    return written // (count * PAGE_SIZE)


def make_page(number: int, total: int, size: Size = "medium") -> bytes:
    """Return the response body for one page of `PAGE_SIZE` runs, in a list of `total` runs."""
    if size == "small":
        # Only the ids differ between pages, so that a million runs can be served quickly.
        return _SMALL.replace(b"@page", b"%07d" % number).replace(b"@total", b"%d" % total)
    first = (number - 1) * PAGE_SIZE
    scale = _LARGE if size == "large" else 1
    runs = [_run(position, scale) for position in range(first, first + PAGE_SIZE)]
    return _dump({"status": "success", "data": {"total": total, "data": runs}})


def _run(position: int, scale: int) -> dict[str, object]:
    chance = random.Random(position)  # noqa: S311 (sample runs need repeatable numbers, not secret ones)
    failed = position % 20 == 7
    run_id = f"WRUN-{chance.getrandbits(32):08x}-4aa3-4d1c-a87e-{position:012x}"

    def text(words: int) -> str:
        return " ".join(chance.choices(_WORDS, k=words * scale))

    return {
        "id": run_id,
        "workflowRunId": run_id,
        "workflowId": WORKFLOW,
        "status": "FAILED" if failed else "COMPLETE",
        "input": {
            "Company": text(3),
            "Recipient email": f"reader{position}@example.com",
            "Talking points": text(16),
        },
        "output": {} if failed else {"Research": text(30), "Draft": text(60), "score": position % 11},
        "metadata": None if position % 10 == 3 else {"api": True},
        "createdAt": _iso(_NEWEST - timedelta(seconds=97 * position)),
        "credits": 0 if failed else chance.randrange(1, 40),
        "error": {"message": "step Draft failed", "code": 500} if failed else None,
    }


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _small_template() -> bytes:
    runs = [
        {"id": f"WRUN-@page-{place:02d}", "status": "COMPLETE", "createdAt": _iso(_NEWEST), "credits": 2}
        for place in range(PAGE_SIZE)
    ]
    body = _dump({"status": "success", "data": {"total": "@total", "data": runs}})
    return body.replace(b'"@total"', b"@total")


_SMALL: Final = _small_template()
