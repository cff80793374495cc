"""Tests of decompression: bodies are restored in bounded pieces, and incomplete bodies are detected."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import _decompression
from aiocopyai._decompression import PIECE_SIZE, SUPPORTED_ENCODINGS, Decompressor, decompress


def raw_deflate(body: bytes) -> bytes:
    """Compress without the header and checksum of zlib's format, as some servers do for "deflate"."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def members(body: bytes) -> bytes:
    """Compress as several gzip members with zeros after them, as in concatenated files and from some proxies."""
    third = len(body) // 3
    parts = [body[:third], body[third : 2 * third], b"", body[2 * third :]]
    return b"".join(gzip.compress(part) for part in parts) + bytes(7)


COMPRESSIONS = [
    ("", bytes),
    ("identity", bytes),
    ("gzip", gzip.compress),
    ("X-GZIP", gzip.compress),
    ("gzip", members),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
]


def restore(encoding: str, chunks: list[bytes]) -> tuple[bytes, bool]:
    """Decompress chunks; return the body, and whether it is complete."""
    decompressor = Decompressor(encoding)
    pieces = [piece for chunk in chunks for piece in decompressor.feed(chunk)]
    return b"".join(pieces), decompressor.is_complete


@given(st.binary(max_size=400), st.sampled_from(COMPRESSIONS), st.lists(st.integers(0, 400), max_size=4))
def test_every_body_is_restored(body: bytes, compression: tuple[str, type[bytes]], cuts: list[int]) -> None:
    """A body is restored with any supported compression and any chunks from the network."""
    encoding, compress = compression
    compressed = compress(body)
    edges = [0, *sorted(min(cut, len(compressed)) for cut in cuts), len(compressed)]
    chunks = [compressed[start:end] for start, end in pairwise(edges)]

    assert restore(encoding, chunks) == (body, True)


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSIONS)
@pytest.mark.parametrize("surplus", [-1, 0, 1, 21, 100, 1_000, PIECE_SIZE])
def test_a_body_of_about_a_piece_is_restored(encoding: str, compress: type[bytes], surplus: int) -> None:
    """A body of about the size of a piece is restored, although its input is consumed before its output is read."""
    body = b" " * (PIECE_SIZE + surplus)

    assert restore(encoding, [compress(body)]) == (body, True)


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSIONS[2:])
def test_a_cut_body_is_incomplete(encoding: str, compress: type[bytes]) -> None:
    """A truncated body is incomplete."""
    assert not restore(encoding, [compress(b"x" * 1_000).rstrip(b"\0")[:-3]])[1]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "body",
    [
        b"not compressed",
        b"\x1f\x8b\x08\x00",
        gzip.compress(b"a", mtime=0) + b"more",
        gzip.compress(b"a", mtime=0) + b"\0more",
        gzip.compress(b"a", mtime=0) + b"\x1f\x8b",
        zlib.compress(b"a") + b"\0",
        b"x\x9c\xff\xff",
    ],
)
def test_an_invalid_body(encoding: str, body: bytes) -> None:
    """A body that is not in its encoding, or has other data after its end, raises ValueError or is incomplete."""
    try:
        is_complete = restore(encoding, [body])[1]
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert not is_complete


@given(st.binary(max_size=60), st.sampled_from(sorted(SUPPORTED_ENCODINGS)))
def test_any_bytes(body: bytes, encoding: str) -> None:
    """Any bytes are decompressed, or raise a ValueError of one line."""
    try:
        restore(encoding, [body])
    except ValueError as error:
        assert str(error).isprintable()


def test_pieces_are_bounded() -> None:
    """No piece is larger than `PIECE_SIZE`, even if a few bytes expand to very many."""
    pieces = Decompressor("gzip").feed(gzip.compress(bytes(64 * PIECE_SIZE)))

    assert [len(next(pieces)) for _ in range(3)] == [PIECE_SIZE] * 3


def test_members_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of very many empty members, each of which takes time, raises ValueError."""
    monkeypatch.setattr(_decompression, "_MAX_MEMBERS", 3)

    assert restore("gzip", [gzip.compress(b"x") * 3]) == (b"xxx", True)
    with pytest.raises(ValueError, match="data after the end"):
        restore("gzip", [gzip.compress(b"") * 4])


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    """Yield chunks as a socket does."""
    for chunk in chunks:
        yield chunk


async def test_other_tasks_run_between_pieces() -> None:
    """Other tasks run after each piece of a large body."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    sizes = [len(piece) async for piece in decompress(chunks_of(gzip.compress(bytes(20 * PIECE_SIZE))), "gzip")]
    counting.cancel()

    assert sum(sizes) == 20 * PIECE_SIZE
    assert turns >= 19


async def test_an_incomplete_body_is_an_error() -> None:
    """A body that ends too early raises ValueError."""
    with pytest.raises(ValueError, match="incomplete"):
        [piece async for piece in decompress(chunks_of(gzip.compress(b"x" * 99)[:-3]), "gzip")]
