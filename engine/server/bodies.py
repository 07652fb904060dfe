"""
A request's body, received and unpacked under limits.

In: ASGI's ``receive`` and the headers. Out: bytes, decompressed, never more than ``max_body``, and less of
chunks that come without a length. Whatever is too large is refused at the first byte that shows it: by its
Content-Length, while its chunks arrive, or while it is inflated.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..errors import CancelledError, InputError
from .documents import said
from .faults import MediaTypeError, SlowError, TooLargeError

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["inflate", "read_body", "read_length"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

EXPANSION = 20  # how often its size a body may unpack to; images and tensors reach 10
UNPACKED = 4 * 2**20  # bytes that any body may unpack to: a few tensors of zeros, which expand a thousandfold
_GZIP_OR_ZLIB = 47  # zlib's window bits: the header says which


async def read_body(receive: Receive, headers: Mapping[str, str], settings: Settings) -> bytes:
    """
    Receive a body, and decompress it.

    Parameters
    ----------
    receive : callable
        ASGI's, of a request whose body nobody has read.
    headers : mapping of str to str
        The request's, names in lower case (or a mapping that does not mind).
    settings : Settings
        ``max_body``, ``max_unsized`` and ``body_timeout``.

    Returns
    -------
    bytes
        The body.

    Raises
    ------
    TooLargeError
        If it is larger than allowed, packed or unpacked.
    MediaTypeError
        If its encoding is neither gzip nor deflate.
    SlowError
        If it does not arrive in time.
    InputError
        If Content-Length is no number, or the compression is broken.
    CancelledError
        If the client leaves.

    Notes
    -----
    Cost: one copy of a body that comes in several pieces, none of others. Compressed bodies are unpacked in a thread.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "deflate"):
        raise MediaTypeError(f"a body is sent plain, as gzip or as deflate; got content-encoding {said(encoding)}")
    length = read_length(headers.get("content-length"), "content-length")
    if length is not None and length > settings.max_body:
        raise TooLargeError(f"the body has {length} bytes; {settings.max_body} are allowed")
    most = settings.max_body if length is not None else min(settings.max_unsized, settings.max_body)
    try:
        async with asyncio.timeout(settings.body_timeout):
            body = await _received(receive, most)
    except TimeoutError:
        raise SlowError(f"the body did not arrive within {settings.body_timeout:g} seconds; send it faster") from None
    if encoding in ("", "identity"):
        return body
    return await asyncio.to_thread(inflate, body, settings.max_body)


def read_length(text: str | None, what: str) -> int | None:
    """
    Read a header that counts bytes.

    Parameters
    ----------
    text : str or None
        The header; None where it is missing.
    what : str
        Its name, for the message.

    Returns
    -------
    int or None
        The number.

    Raises
    ------
    InputError
        If it is anything but one to eighteen ASCII digits.

    Examples
    --------
    >>> read_length("19", "content-length")
    19
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InputError(f"{what} must be a decimal number of bytes; got {said(text)}")
    return int(text)


def inflate(body: bytes, most: int) -> bytes:
    """
    Decompress gzip or deflate without ever holding more than is allowed.

    Parameters
    ----------
    body : bytes
        One gzip member, or one zlib stream.
    most : int
        Bytes that may come out.

    Returns
    -------
    bytes
        What was packed.

    Raises
    ------
    TooLargeError
        If more than `most` comes out, or more than twenty times what went in and 4 MiB.
    InputError
        If it is broken, cut off, or followed by something else.

    Notes
    -----
    gzip packs zeros a thousandfold. Refusing what expands so much at 4 MiB, and not first at `most`, is the difference
    between 12 and 200 ms, and between 4 and 64 MiB, for a bomb of 200 kB.

    Examples
    --------
    >>> inflate(zlib.compress(b"a tensor"), 100)
    b'a tensor'
    """
    limit = min(most, max(UNPACKED, EXPANSION * len(body)))
    machine = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        content = machine.decompress(body, limit + 1)
    except zlib.error:
        raise InputError("the body cannot be decompressed as gzip or deflate (zlib)") from None
    if len(content) > limit:
        raise TooLargeError(
            f"the body of {len(body)} bytes decompresses to more than the {limit} that are allowed; "
            "send less, or send it plain"
        )
    if not machine.eof:
        raise InputError("the compressed body is cut off")
    if machine.unused_data:
        raise InputError("something follows the compressed body; send one gzip member or one zlib stream")
    return content


async def _received(receive: Receive, most: int) -> bytes:
    """Return the body's pieces joined."""
    whole = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CancelledError("the client left while it sent the body")
        piece: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if len(whole) + len(piece) > most:
            raise TooLargeError(
                f"the body has more than the {most} bytes that are allowed; one with a Content-Length may have more"
            )
        if not more and not whole:
            return piece
        whole += piece
        if not more:
            return bytes(whole)
