"""Bodies under limits: what arrives is what was sent, and what is too large, too slow or broken is refused early."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.errors import CancelledError, InputError
from camrt.server.bodies import inflate, read_body, read_length
from camrt.server.faults import MediaTypeError, SlowError, TooLargeError, status_of
from camrt.server.settings import Settings

SETTINGS = Settings(max_body=1000)
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def messages(pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return what a server says of a body that comes in pieces."""
    found = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    return [*found, {"type": "http.request"}]  # both keys may be left out


def receiving(said: list[dict[str, Any]]) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Return ASGI's receive; it must not be asked for more than there is."""
    rest = iter(said)

    async def receive() -> dict[str, Any]:
        return next(rest)

    return receive


def read(said: list[dict[str, Any]], headers: dict[str, str] | None = None, settings: Settings = SETTINGS) -> bytes:
    """Read a body."""
    return asyncio.run(read_body(receiving(said), headers or {}, settings))


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_pieces_are_joined_in_order(pieces: list[bytes]) -> None:
    assert read(messages(pieces)) == b"".join(pieces)


def test_a_body_in_one_piece_is_not_copied() -> None:
    body = bytes(500)
    assert read([{"type": "http.request", "body": body, "more_body": False}]) is body


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZip", " deflate "])
def test_compressed_bodies_come_out_as_they_went_in(encoding: str) -> None:
    body = bytes(range(256)) * 3
    packed = PACKERS[encoding.strip().lower()](body)
    assert read(messages([packed[:9], packed[9:]]), {"content-encoding": encoding}) == body


@pytest.mark.parametrize("encoding", ["", "identity"])
def test_a_plain_body_is_left_alone(encoding: str) -> None:
    packed = gzip.compress(b"as it is")
    assert read(messages([packed]), {"content-encoding": encoding}) == packed


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert len(read(messages([bytes(999), bytes(1)]), {"content-length": "1000"})) == 1000


def test_a_declared_length_beyond_the_limit_is_refused_before_anything_is_received() -> None:
    with pytest.raises(TooLargeError, match="1001 bytes; 1000 are allowed"):
        read([], {"content-length": "1001"})


def test_a_body_without_a_length_may_be_as_long_as_those_may_be() -> None:
    small = Settings(max_body=1000, max_unsized=100)
    assert len(read(messages([bytes(60), bytes(40)]), {}, small)) == 100
    with pytest.raises(TooLargeError, match="Content-Length"):
        read(messages([bytes(60), bytes(41)]), {}, small)
    assert len(read(messages([bytes(60), bytes(41)]), {"content-length": "101"}, small)) == 101


def test_chunks_are_refused_at_the_one_that_goes_beyond_the_limit() -> None:
    endless = [{"type": "http.request", "body": bytes(400), "more_body": True}] * 3  # a fourth is not asked for
    with pytest.raises(TooLargeError, match="more than the 1000 bytes"):
        read(endless, {"transfer-encoding": "chunked"})


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd", "x" * 10**5])
def test_an_unknown_encoding_is_refused_before_anything_is_received(encoding: str) -> None:
    with pytest.raises(MediaTypeError, match="plain, as gzip or as deflate") as caught:
        read([], {"content-encoding": encoding})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text", ["", "-1", "+5", " 5", "5 ", "0x10", "1e3", "1_000", "5.0", "٣", "²", "9" * 19, "9" * 10**6]
)
def test_a_length_is_decimal_digits_and_nothing_else(text: str) -> None:
    with pytest.raises(InputError, match="must be a decimal number of bytes") as caught:
        read([], {"content-length": text})
    assert len(str(caught.value)) < 200


def test_lengths_are_read() -> None:
    assert (read_length(None, "x"), read_length("0", "x"), read_length("007", "x"), read_length("9" * 18, "x")) == (
        None, 0, 7, 10**18 - 1,
    )  # fmt: skip


def test_a_body_that_stops_coming_is_given_up() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(SlowError, match=r"within 0\.01 seconds") as caught:
        asyncio.run(read_body(receive, {}, Settings(body_timeout=0.01)))
    assert status_of(caught.value) == 408


def test_a_client_that_leaves_is_noticed() -> None:
    with pytest.raises(CancelledError):
        read([*messages([b"half"])[:1], {"type": "http.disconnect"}])


@given(st.binary(max_size=2000), st.sampled_from(sorted(PACKERS)))
def test_inflating_undoes_compressing(body: bytes, encoding: str) -> None:
    assert inflate(PACKERS[encoding](body), 2000) == body


@pytest.mark.parametrize("encoding", sorted(PACKERS))
def test_what_unpacks_to_more_than_allowed_is_refused_and_never_held(encoding: str) -> None:
    packed = PACKERS[encoding](bytes(1001))
    with pytest.raises(TooLargeError, match="more than the 1000"):
        inflate(packed, 1000)
    assert inflate(packed, 1001) == bytes(1001)


def test_a_bomb_is_refused_long_before_the_plain_limit() -> None:
    """Zeros are packed a thousandfold: 24 MiB of them stop at eight, a tensor of them is let through."""
    with pytest.raises(TooLargeError, match=f"more than the {4 * 2**20} that are allowed"):
        inflate(gzip.compress(bytes(24 * 2**20), 6), 64 * 2**20)
    assert inflate(gzip.compress(bytes(602_112)), 64 * 2**20) == bytes(602_112)


def test_what_is_packed_tenfold_may_reach_the_plain_limit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 2**20, np.uint8).tobytes()
    body = noise + bytes(9 * 2**20)
    assert inflate(gzip.compress(body, 1), 10 * 2**20) == body


@pytest.mark.parametrize("encoding", sorted(PACKERS))
@pytest.mark.parametrize("kept", [0, 1, 5, 20, -1])
def test_a_compressed_body_that_is_cut_off_is_refused(encoding: str, kept: int) -> None:
    with pytest.raises(InputError, match="cut off"):
        inflate(PACKERS[encoding](bytes(range(200)))[:kept], 1000)


@pytest.mark.parametrize(
    "body", [b"plain", b"{}", zlib.compress(b"raw")[2:-4], gzip.compress(b"abc")[:-5] + b"\0\0\0\0\0"]
)
def test_what_is_not_compressed_as_said_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="cannot be decompressed"):
        inflate(body, 1000)


@pytest.mark.parametrize("tail", [b"x", gzip.compress(b"second")])
def test_what_follows_a_compressed_body_is_refused(tail: bytes) -> None:
    with pytest.raises(InputError, match="something follows"):
        inflate(gzip.compress(b"first") + tail, 1000)
