"""Unpacking an answer piece by piece, so that a few bytes that unpack to very many never stand in memory.

aiohttp unpacks with such a bound from 3.14 on. Before, it unpacks each piece from the socket whole: 1,617 bytes of
brotli are a gigabyte. So the client asks aiohttp to leave answers packed, and takes only what it asks servers for.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final


ENCODINGS: Final = "gzip, deflate"
"""What to ask for, as ``Accept-Encoding``."""
UNPACKED: Final = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
"""What is unpacked, by ``Content-Encoding`` in lower case."""
PIECE: Final = 2**18
"""Bytes that are unpacked in one go, at the most."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_ANY_DEFLATE_HEADER: Final = 8


class Unpacker:
    """Unpacks one body.

    Args:
        encoding: the ``Content-Encoding``, one of `UNPACKED` in any case.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower()
        self._zlib = zlib.decompressobj(_GZIP) if "gzip" in self._encoding else None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing at the end."""
        return self._zlib is None or self._zlib.eof

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Give what `data` unpacks to, in pieces.

        Raises:
            ValueError: it is not packed as its encoding says.
        """
        if self._encoding == "deflate" and self._zlib is None and data:
            # "deflate" is zlib's format, but some servers send what is inside of it.
            is_bare = data[0] & 15 != _ANY_DEFLATE_HEADER
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS)
        if self._zlib is None:
            yield data
            return
        piece = b""
        # A full piece may leave more inside of zlib, even where no input is left.
        while data or len(piece) == PIECE:
            if self._zlib.eof:
                if data:
                    raise ValueError("data behind the end of what was packed")
                return
            try:
                piece = self._zlib.decompress(data, PIECE)
            except zlib.error:
                raise ValueError(f"not the {self._encoding} that it says") from None
            data = self._zlib.unconsumed_tail or self._zlib.unused_data
            if piece:
                yield piece
