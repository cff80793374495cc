"""Invented runs: made on demand, the same ones for the same seed.

A run is a function of the seed, its workflow and its serial number, so a list of 100,000 holds
100,000 serial numbers until a page of them is asked for. The bytes of a digest are the dice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final, TypeVar

from attrs import define

from aiocopyai.emulator._json import JSON


T = TypeVar("T")

_EPOCH: Final = datetime(2025, 1, 6, 8, 0, tzinfo=UTC)
# More than the 65.535 s that two dice bytes add at most, so that a higher serial is always newer.
_SPACING: Final = timedelta(seconds=97)

# In 32 parts, as often as one meets them.
_STATUSES: Final = ["COMPLETE"] * 25 + ["FAILED"] * 3 + ["PROCESSING"] + ["RETRYING"] + ["WAITING"] + ["NEW"]
_COMPANIES: Final = (
    "Northwind Bikes", "Müller & Söhne", "Blue Heron Coffee", "Kestrel Robotics", "Olive + Oak",
    "東京デザイン", "Harbour Legal", "Pine Street Dental", "Quill Analytics", "Tidewater Energy",
    "Ampersand Studio",
)  # fmt: skip
_PEOPLE: Final = ("Ada Reyes", "Jonas Weiß", "Mina Park", "Omar Haddad", "Zoë O'Neill")
_TITLES: Final = ("Head of Marketing", "Founder", "VP Sales", "Operations Lead")
_TONES: Final = ("Friendly", "Formal", "Playful 🎈")
_NEEDS: Final = ("fewer tools", "a shorter sales cycle", "content in five languages", "new leads")
_ERRORS: Final[tuple[JSON, ...]] = (
    {"message": "The website could not be read.", "step": "Research", "code": "SCRAPE_FAILED"},
    {"message": "The model gave no answer in time.", "step": "Email", "code": "STEP_TIMEOUT"},
    {"message": "A step failed.", "causes": [{"step": "Contacts", "attempts": 3}]},
)


@define
class SeededRun:
    """A run not made yet."""

    seed: int
    workflow_id: str
    serial: int
    """Its place in time: a higher one is newer. May be negative."""
    fields: Mapping[str, JSON]
    """What stands in place of the invented fields."""

    @property
    def id(self) -> str:
        """The run's id, of the vendor's form `WRUN-<uuid>`."""
        given = self.fields.get("id")
        return given if isinstance(given, str) else _id_from(self._dice())

    def make(self) -> dict[str, JSON]:
        """Make the run as the API sends it."""
        dice = self._dice()
        run_id = self.id
        status = _pick(_STATUSES, dice[16])
        run: dict[str, JSON] = {
            "id": run_id,
            "workflowRunId": run_id,
            "workflowId": self.workflow_id,
            "status": status,
            "input": _input(dice),
            "output": _output(dice, status),
            "metadata": _metadata(dice),
            "createdAt": _created_at(self.serial, dice),
            "credits": 0 if status in {"NEW", "WAITING"} else 1 + dice[17] % 24,
            "error": _pick(_ERRORS, dice[18]) if status == "FAILED" else None,
        }
        run.update(self.fields)
        return run

    def _dice(self) -> bytes:
        return _dice(f"{self.seed}/{self.workflow_id}/{self.serial}")


def invent_output(source: str, status: str) -> dict[str, JSON]:
    """Invent what a run of this status has put out, the same for the same source."""
    return _output(_dice(source), status)


def _dice(source: str) -> bytes:
    return blake2b(source.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def _pick(choices: Sequence[T], die: int) -> T:
    return choices[die % len(choices)]


def _id_from(dice: bytes) -> str:
    digits = dice[:16].hex()
    return "-".join(("WRUN", digits[:8], digits[8:12], f"4{digits[13:16]}", f"a{digits[17:20]}", digits[20:]))


def _created_at(serial: int, dice: bytes) -> str:
    jitter = timedelta(milliseconds=int.from_bytes(dice[19:21], "big"))
    moment = _EPOCH + serial * _SPACING + jitter
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{moment.microsecond // 1000:03}Z"


def _input(dice: bytes) -> dict[str, JSON]:
    company = _pick(_COMPANIES, dice[21])
    return {
        "Company name": company,
        "Website": f"https://www.example.com/{dice[21] % len(_COMPANIES)}",
        "Tone": _pick(_TONES, dice[22]),
    }


def _output(dice: bytes, status: str) -> dict[str, JSON]:
    """Fill in as many steps as a run of this status has done, in the order of the steps."""
    steps = _steps(dice)
    if status == "COMPLETE":
        return steps
    if status in {"NEW", "WAITING"}:
        return {}
    done = dice[23] % len(steps)
    return dict(list(steps.items())[:done])


def _steps(dice: bytes) -> dict[str, JSON]:
    company, person = _pick(_COMPANIES, dice[21]), _pick(_PEOPLE, dice[24])
    title, need = _pick(_TITLES, dice[25]), _pick(_NEEDS, dice[26])
    contact: dict[str, JSON] = {"name": person, "title": title, "score": dice[27] / 256}
    return {
        "Research": f"{company} looks for {need}.\n\nIts {title}, {person}, decides on it.",
        "Contacts": [contact, {"name": "Support", "title": None, "score": 0}],
        "Fit (JSON)": json.dumps({"fit": dice[27] % 2 == 0, "reasons": [need]}),
        "Email": {
            "subject": f"{company}: {need}",
            "body": {"text": f"Hello {person},\nwould {need} help you?", "html": ""},
        },
        "Notes / follow-up?": "",
    }


def _metadata(dice: bytes) -> JSON:
    choices: tuple[JSON, ...] = (
        {"api": True},
        {"webapp": True},
        None,
        {"api": True, "customer": f"customer-{dice[28]:03}", "batch": dice[29] % 8},
    )
    return _pick(choices, dice[30])
