"""
Encoded pictures from strangers, decoded under the server's limits.

Three decoders are open to them, of the forty that Pillow has. Size and frames are read from the header, and whatever
is too large or moves is refused before a pixel is decoded.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import ImageError
from ..image import decode
from .faults import MediaTypeError, TooLargeError

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["FORMATS", "check_beginning", "decode_picture"]

FORMATS = ("JPEG", "PNG", "WEBP")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_OTHERS = {  # how files of formats begin that are pictures, but not taken
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"SIMPLE": "FITS",
    b"8BPS": "PSD",
    b"\0\0\1\0": "ICO",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"DDS ": "DDS",
    b"P1\n": "PBM",
    b"P2\n": "PGM",
    b"P3\n": "PPM",
    b"P4\n": "PBM",
    b"P5\n": "PGM",
    b"P6\n": "PPM",
    b"<svg": "SVG",
}


def check_beginning(content: bytes) -> None:
    """
    Refuse by its first bytes what is no picture that is taken, before it waits for anything.

    Parameters
    ----------
    content : bytes
        What came.

    Raises
    ------
    MediaTypeError
        If it begins like a picture of another format.
    ImageError
        If it begins like none.

    Examples
    --------
    >>> check_beginning(bytes.fromhex("89504e470d0a1a0a"))
    """
    other = next((name for start, name in _OTHERS.items() if content.startswith(start)), None)
    if content[4:8] == b"ftyp":
        other = "AVIF, HEIC or video"
    if other is not None:
        raise MediaTypeError(f"{other} files are not taken; send a JPEG, PNG or WebP")
    is_webp = content.startswith(b"RIFF") and content[8:12] == b"WEBP"
    if not (is_webp or content.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))):
        raise ImageError("the bytes: not a picture; give a JPEG, PNG or WebP file")


def decode_picture(content: bytes, settings: Settings) -> npt.NDArray[np.uint8]:
    """
    Read one picture as upright 8-bit RGB.

    Parameters
    ----------
    content : bytes
        A JPEG, PNG or WebP file.
    settings : Settings
        ``max_pixels`` and ``max_side``.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        As `camrt.image.decode` gives it.

    Raises
    ------
    MediaTypeError
        If it is a picture of another format.
    TooLargeError
        If it has too many pixels, or too long a side.
    ImageError
        If it is no picture, damaged, or an animation.

    Notes
    -----
    Cost: the decoder's, about 12 bytes a pixel at once. A large JPEG could be decoded at an eighth of its size
    (`PIL.Image.Image.draft`) in a fraction of the time, but that averages blocks before the resize does, and the map
    would not be the one that `camrt.Explainer.explain` makes of the same file; so it is not.
    Of the several pictures in an MPO, which telephones write as .jpg, the first is taken, as everywhere.
    """
    check_beginning(content)
    try:
        return decode(
            content, max_pixels=settings.max_pixels, formats=FORMATS, check=partial(_check, settings=settings)
        )
    except ImageError as error:
        if isinstance(error.__cause__, _BOMBS):
            raise TooLargeError(
                f"the picture has more than the {settings.max_pixels} pixels that are allowed"
            ) from None
        raise


def _check(image: Image.Image, settings: Settings) -> None:
    """Refuse what is too large, and what moves."""
    if image.width * image.height > settings.max_pixels or max(image.size) > settings.max_side:
        raise TooLargeError(
            f"the picture has {image.width} x {image.height} pixels; {settings.max_pixels}, and a side of "
            f"{settings.max_side}, are allowed"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise ImageError(f"the picture is an animation of {frames} frames; send one of them")
