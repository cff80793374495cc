"""Decompression of bodies in bounded pieces, so that a few bytes never expand to gigabytes in memory.

aiohttp limits the size of a piece from 3.14 on; before, it decompresses each piece of a socket's data in one go. So the
client asks aiohttp not to decompress responses, and requests only the encodings that are supported here.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from typing import Final


ACCEPT_ENCODING: Final = "gzip, deflate"
"""The encodings to request."""
SUPPORTED_ENCODINGS: Final = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
"""Each ``Content-Encoding`` that can be decompressed, in lower case."""
PIECE_SIZE: Final = 2**18
"""Bytes that are decompressed in one go at most."""
_MAX_MEMBERS: Final = 10_000
"""Members of one gzip body: an empty one costs 20 bytes and far more time."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_DEFLATE_METHOD: Final = 8


class Decompressor:
    """Decompresses one body.

    Args:
        encoding: the ``Content-Encoding``, one of `SUPPORTED_ENCODINGS` in any case.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower()
        self._is_gzip = "gzip" in self._encoding
        self._zlib = zlib.decompressobj(_GZIP) if self._is_gzip else None
        self._members = 1

    @property
    def is_complete(self) -> bool:
        """Whether the body may end here."""
        return self._zlib is None or self._zlib.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed data in pieces of at most `PIECE_SIZE` bytes.

        Raises:
            ValueError: the data is not in the named encoding.
        """
        if self._encoding == "deflate" and self._zlib is None and data:
            # "deflate" is the format of zlib, but some servers send the raw data inside of it.
            is_raw = data[0] & 15 != _DEFLATE_METHOD
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS if is_raw else zlib.MAX_WBITS)
        if self._zlib is None:
            yield data
            return
        piece = b""
        # After a full piece more output may be pending, even if no input is left.
        while data or len(piece) == PIECE_SIZE:
            if self._zlib.eof and not (data := self._next_member(data)):
                return
            try:
                piece = self._zlib.decompress(data, PIECE_SIZE)
            except zlib.error:
                raise ValueError(f"not valid {self._encoding}") from None
            data = self._zlib.unconsumed_tail or self._zlib.unused_data
            if piece:
                yield piece

    def _next_member(self, data: bytes) -> bytes:
        """Begin the next member of a gzip body, which may be padded with zeros, and return the data without them."""
        data = data.lstrip(b"\0") if self._is_gzip else data
        if data and (not self._is_gzip or self._members == _MAX_MEMBERS):
            raise ValueError("data after the end of the compressed data")
        if data:
            self._zlib = zlib.decompressobj(_GZIP)
            self._members += 1
        return data


async def decompress(chunks: AsyncIterable[bytes], encoding: str) -> AsyncGenerator[bytes, None]:
    """Yield a body's decompressed data in pieces; other tasks run between large ones.

    Args:
        chunks: the body as it was received.
        encoding: as for `Decompressor`.

    Raises:
        ValueError: the body is not in the named encoding, or is incomplete.
    """
    decompressor = Decompressor(encoding)
    async for chunk in chunks:
        for piece in decompressor.feed(chunk):
            yield piece
            if len(piece) >= PIECE_SIZE:
                await asyncio.sleep(0)
    if not decompressor.is_complete:
        raise ValueError("incomplete compressed data")
