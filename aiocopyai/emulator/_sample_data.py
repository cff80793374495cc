"""Sample runs, generated on demand. The same seed generates the same runs.

A run depends only on the seed, its workflow and its serial number. A list of 100,000 runs stores only serial numbers
until a page of it is requested. The bytes of a digest are used as random numbers. `cli._demo` sets the number and the
dates of the runs that ``--demo`` shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final, TypeVar

from attrs import define

from aiocopyai.emulator._messages import JSON


T = TypeVar("T")

_EPOCH: Final = datetime(2025, 1, 6, 8, 0, tzinfo=UTC)
# More than the 65.535 s that two bytes of the digest can add, so that a higher serial number is always newer.
_SPACING: Final = timedelta(seconds=97)

# Its length divides 256, so that each byte of the digest is equally likely to select each item.
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
    {"message": "The model did not respond in time.", "step": "Email", "code": "STEP_TIMEOUT"},
    {"message": "A step failed.", "causes": [{"step": "Contacts", "attempts": 3}]},
)


@define
class SampleRun:
    """A sample run that has not been generated yet."""

    seed: int
    workflow_id: str
    serial: int
    """The position in time: a run with a higher number is newer. May be negative."""
    fields: Mapping[str, JSON]
    """Values that replace the generated ones."""

    @property
    def id(self) -> str:
        """The run's id, in the vendor's form `WRUN-<uuid>` unless `fields` has another."""
        custom_id = self.fields.get("id")
        if isinstance(custom_id, str):
            return custom_id
        digits = self._digest()[:16].hex()
        return "-".join(("WRUN", digits[:8], digits[8:12], f"4{digits[13:16]}", f"a{digits[17:20]}", digits[20:]))

    def to_json(self) -> dict[str, JSON]:
        """Generate the run as the API sends it."""
        digest = self._digest()
        run_id = self.id
        status = _pick(_STATUSES, digest[16])
        created = _EPOCH + self.serial * _SPACING + timedelta(milliseconds=int.from_bytes(digest[19:21], "big"))
        inputs: dict[str, JSON] = {
            "Company name": _pick(_COMPANIES, digest[21]),
            "Website": f"https://www.example.com/{digest[21] % len(_COMPANIES)}",
            "Tone": _pick(_TONES, digest[22]),
        }
        metadata: tuple[JSON, ...] = (
            {"api": True},
            {"webapp": True},
            None,
            {"api": True, "customer": f"customer-{digest[28]:03}", "batch": digest[29] % 8},
        )
        run: dict[str, JSON] = {
            "id": run_id,
            "workflowRunId": run_id,
            "workflowId": self.workflow_id,
            "status": status,
            "input": inputs,
            "output": sample_output(digest, status, inputs),
            "metadata": _pick(metadata, digest[30]),
            "createdAt": created.strftime("%Y-%m-%dT%H:%M:%S") + f".{created.microsecond // 1000:03}Z",
            "credits": 0 if status in {"NEW", "WAITING"} else 1 + digest[17] % 24,
            "error": _pick(_ERRORS, digest[18]) if status == "FAILED" else None,
        }
        run.update(self.fields)
        return run

    def _digest(self) -> bytes:
        return sample_digest(f"{self.seed}/{self.workflow_id}/{self.serial}")


def sample_digest(source: str) -> bytes:
    """Return the 32 bytes that select the sample data of a run."""
    return blake2b(source.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def sample_output(digest: bytes, status: str, inputs: Mapping[str, JSON]) -> dict[str, JSON]:
    """Generate the output of the steps that a run with this status has finished.

    The same digest and inputs generate the same output. It is about the first input that is a string, so that runs
    with different inputs have different outputs.
    """
    if status in {"NEW", "WAITING"}:
        return {}
    strings = (value for value in inputs.values() if isinstance(value, str) and value)
    company = next(strings, _pick(_COMPANIES, digest[21]))
    person, title, need = _pick(_PEOPLE, digest[24]), _pick(_TITLES, digest[25]), _pick(_NEEDS, digest[26])
    contact: dict[str, JSON] = {"name": person, "title": title, "score": digest[27] / 256}
    steps: dict[str, JSON] = {
        "Research": f"{company} looks for {need}.\n\nIts {title}, {person}, decides on it.",
        "Contacts": [contact, {"name": "Support", "title": None, "score": 0}],
        "Fit (JSON)": json.dumps({"fit": digest[27] % 2 == 0, "reasons": [need]}),
        "Email": {
            "subject": f"{company}: {need}",
            "body": {"text": f"Hello {person},\nwould {need} help you?", "html": ""},
        },
        "Notes / follow-up?": "",
    }
    finished = len(steps) if status == "COMPLETE" else digest[23] % len(steps)
    return dict(list(steps.items())[:finished])


def _pick(choices: Sequence[T], number: int) -> T:
    return choices[number % len(choices)]
