"""Values that no parameter for a number or a duration accepts."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np


INVALID_NUMBERS: Final[dict[str, Any]] = {
    "10**400": 10**400,
    "-10**400": -(10**400),
    "10**5000": 10**5_000,
    "nan": float("nan"),
    "-inf": float("-inf"),
    "-1": -1,
    "-0.5": -0.5,
    "True": True,
    "'1'": "1",
    "b'1'": b"1",
    "Decimal": Decimal(1),
    "Decimal NaN": Decimal("NaN"),
    "Fraction": Fraction(1),
    "complex": 1j,
    "timedelta": timedelta(seconds=1),
    "np.int64": np.int64(1),
    "np.float32": np.float32(1),
    "np.nan": np.float64("nan"),
    "np.array": np.array([1, 2]),
    "lines": "1\n" * 1_000,
    "object": object(),
}
"""What neither a number nor a number of seconds may be."""
INVALID_INTEGERS: Final[dict[str, Any]] = {**INVALID_NUMBERS, "1.0": 1.0, "inf": float("inf")}
INVALID_SPANS: Final[dict[str, Any]] = {
    "1": 1,
    "nan": float("nan"),
    "'1'": "1",
    "-1 day": timedelta(days=-1),
    "minimum": timedelta.min,
    "np.timedelta64": np.timedelta64(1, "D"),
    "datetime": datetime(2026, 1, 1),  # noqa: DTZ001 (of any kind)
}


def problem_of(error: ValueError) -> str:
    """Return the problem with the message of an error about an argument, or an empty string."""
    text = str(error)
    if not text.isprintable():
        return "the message is not one printable line"
    if len(text) > 250:
        return "the message is too long"
    return "" if " must " in text and ", got " in text else f"the message does not say what is accepted: {text}"
