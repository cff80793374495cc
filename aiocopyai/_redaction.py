"""Mask API keys and other secrets in `repr`, and redact them in text from servers."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import AnyStr, Final, NoReturn, Self, SupportsIndex


_REDACTED: Final = "***"
_PARTIAL_SECRET: Final = 8
"""The length of the beginning of a long secret that is redacted even if the rest was truncated."""
_LONG_SECRET: Final = 16
"""Minimum length of a long secret; a shorter one is redacted only as a whole."""


class Secret(str):
    """A string with a masked `repr`, so that headers and local variables can be shown without it.

    Headers that contain it can be copied, but not pickled.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, key: SupportsIndex | slice) -> Secret:
        return Secret(super().__getitem__(key))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("an API key cannot be pickled")


def redact(data: AnyStr, secret: str) -> AnyStr:
    r"""Replace a secret in text or bytes with ``***``. Data without it is returned unchanged.

    The data is not parsed, as it may be invalid. The secret is found however JSON, Python, URLs and HTML escape it
    (``\/``, ``\u002f``, ``%2f``, ``&#47;``), at any depth of JSON inside JSON strings, and in any case, as header names
    are lower-cased. The first 8 characters of a long secret are redacted, too, because the rest may be truncated.
    """
    pattern = _pattern(secret)
    if isinstance(data, bytes):
        redacted, count = re.subn(pattern.encode(), _REDACTED.encode(), data, flags=re.IGNORECASE)
    else:
        redacted, count = re.subn(pattern, _REDACTED, data, flags=re.IGNORECASE)
    return redacted if count else data


@lru_cache(maxsize=32)
def _pattern(secret: str) -> str:
    spellings = list(_spellings(secret))
    pattern = "".join(spellings)
    if len(secret) >= _LONG_SECRET:
        pattern += f"|{''.join(spellings[:_PARTIAL_SECRET])}" + r"[\w.~%+/=\\-]*"
    return pattern


def _spellings(secret: str) -> Iterator[str]:
    """Yield a pattern for each character of a secret, or for each run of backslashes.

    The patterns do not backtrack (atomic groups and possessive quantifiers), so the search is fast for any body.
    """
    for match in re.finditer(r"\\+|.", secret, re.DOTALL):
        part = match[0]
        character, code = part[0], f"0*{ord(part[0]):x}"
        numeric = rf"%{code}|&#(?:x{code}|0*{ord(character)});"
        if character == "\\":
            yield rf"(?>\\u{code}|{numeric}|\\){{{len(part)},{8 * len(part)}}}+"
        else:
            plain = "|".join(map(re.escape, {html.escape(character): None, character: None}))
            yield rf"(?>\\{{1,8}}+u{code}|{numeric}|\\{{0,8}}+(?:{plain}))"
