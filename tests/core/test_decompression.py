"""Unpacking answers: whatever was packed comes back, in bounded pieces, and nothing else passes for whole."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai._decompression import PIECE, UNPACKED, Unpacker


def bare(body: bytes) -> bytes:
    """Pack by what is inside of zlib's format, as some servers do for "deflate"."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


PACKERS = [
    ("", bytes),
    ("identity", bytes),
    ("gzip", gzip.compress),
    ("X-GZIP", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", bare),
]


def unpack(encoding: str, chunks: list[bytes]) -> tuple[bytes, bool]:
    """Unpack chunks; give the whole, and whether it is that."""
    unpacker = Unpacker(encoding)
    pieces = [piece for chunk in chunks for piece in unpacker.unpack(chunk)]
    return b"".join(pieces), unpacker.is_whole


@given(st.binary(max_size=400), st.sampled_from(PACKERS), st.lists(st.integers(0, 400), max_size=4))
def test_what_was_packed_comes_back(body: bytes, packing: tuple[str, type[bytes]], cuts: list[int]) -> None:
    """However it is packed, and wherever the network cuts it, a body comes back."""
    encoding, pack = packing
    packed = pack(body)
    edges = [0, *sorted(min(cut, len(packed)) for cut in cuts), len(packed)]
    chunks = [packed[start:end] for start, end in pairwise(edges)]

    assert unpack(encoding, chunks) == (body, True)


@pytest.mark.parametrize(("encoding", "pack"), PACKERS)
@pytest.mark.parametrize("surplus", [-1, 0, 1, 21, 100, 1_000, PIECE])
def test_what_fills_a_piece_comes_back(encoding: str, pack: type[bytes], surplus: int) -> None:
    """A body of about as many bytes as a piece has comes back, though the input is used up before the output is."""
    body = b" " * (PIECE + surplus)

    assert unpack(encoding, [pack(body)]) == (body, True)


@pytest.mark.parametrize(("encoding", "pack"), PACKERS[2:])
def test_half_is_not_whole(encoding: str, pack: type[bytes]) -> None:
    """A body that is cut short is not taken for whole."""
    packed = pack(b"x" * 1_000)

    assert not unpack(encoding, [packed[:-3]])[1]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "body", [b"not packed", b"\x1f\x8b\x08\x00", gzip.compress(b"a", mtime=0) + b"more", b"x\x9c\xff\xff"]
)
def test_what_is_not_packed(encoding: str, body: bytes) -> None:
    """What is not packed as it says, or has more behind its end, is refused or not whole."""
    try:
        whole = unpack(encoding, [body])[1]
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert not whole


@given(st.binary(max_size=60), st.sampled_from(sorted(UNPACKED)))
def test_any_bytes(body: bytes, encoding: str) -> None:
    """Any bytes are unpacked, or a ValueError."""
    try:
        unpack(encoding, [body])
    except ValueError as error:
        assert str(error).isprintable()


def test_pieces_are_bounded() -> None:
    """However much a few bytes unpack to, no piece is larger than `PIECE`, and none is made before it is asked for."""
    pieces = Unpacker("gzip").unpack(gzip.compress(bytes(64 * PIECE)))

    assert [len(next(pieces)) for _ in range(3)] == [PIECE] * 3
