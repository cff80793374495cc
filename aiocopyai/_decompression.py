"""Decompress bodies in pieces of limited size, so that a small body cannot expand to gigabytes in memory.

aiohttp limits the size of decompressed pieces only since version 3.14. Therefore, the client disables decompression in
aiohttp, and requests only the encodings that this module supports.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from typing import Final


ACCEPT_ENCODING: Final = "gzip, deflate"
"""The encodings to request."""
SUPPORTED_ENCODINGS: Final = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
"""The supported values of ``Content-Encoding``, in lower case."""
PIECE_SIZE: Final = 2**18
"""The maximum size of a decompressed piece in bytes."""
_MAX_MEMBERS: Final = 10_000
"""The maximum number of members of a gzip body: empty ones are small, but take much time."""
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
        """Whether the data so far is a complete body."""
        return self._zlib is None or self._zlib.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed data in pieces of at most `PIECE_SIZE` bytes.

        Raises:
            ValueError: the data is not in the named encoding.
        """
        if self._encoding == "deflate" and self._zlib is None and data:
            # "deflate" means the zlib format, but some servers send raw deflate data.
            is_raw = data[0] & 15 != _DEFLATE_METHOD
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS if is_raw else zlib.MAX_WBITS)
        if self._zlib is None:
            yield data
            return
        piece = b""
        # After a full piece, more output may be pending even if all input was consumed.
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
        """Start the next member of a gzip body, and return its data without the zero padding before it."""
        data = data.lstrip(b"\0") if self._is_gzip else data
        if data and (not self._is_gzip or self._members == _MAX_MEMBERS):
            raise ValueError("data after the end of the compressed data")
        if data:
            self._zlib = zlib.decompressobj(_GZIP)
            self._members += 1
        return data


async def decompress(chunks: AsyncIterable[bytes], encoding: str) -> AsyncGenerator[bytes, None]:
    """Yield the decompressed data of a body in pieces; other tasks can run between large pieces.

    Args:
        chunks: the compressed body.
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
