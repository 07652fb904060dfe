"""
From whatever a user calls an image to checked RGB and the model's input.

A path, bytes, a PIL image, a uint8 array or an already prepared float array goes in, alone or in a list. Out come the
model's input batch, the pictures as the network sees them, and a name for each. Nothing a stranger's file holds can do
more than raise one `ImageError`: only formats of a short list are opened, and the size is checked before a pixel is
decoded.
"""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import ImageError, InputError
from .preprocess import Preprocess

__all__ = ["FORMATS", "MAX_PIXELS", "ImageSource", "Images", "Prepared", "decode", "decode_mask", "join", "prepare"]

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray
Images = ImageSource | Sequence[ImageSource]

MAX_PIXELS = 64_000_000  # 8000 x 8000: above today's 61-megapixel cameras, and 192 MB as RGB
FORMATS = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "TIFF",
    "WEBP",
    "PPM",
)  # decoders in daily use; every other one is attack surface

# What Pillow raises on broken files; its decoders read lengths and tags out of the bytes and trust them.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
    Warning,  # of a bomb or of odd metadata, where warnings are errors
)

_TURNS = {  # EXIF orientation -> what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


class Pictures(Sequence[np.ndarray]):
    """
    What the network sees, as pictures of uint8 (H, W, 3); those of prepared inputs are made when they are looked at.

    Parameters
    ----------
    items : sequence of (ndarray, bool)
        Pictures, or one input each of the model's own shape, marked True.
    preprocess : Preprocess
        How inputs become pictures again.
    """

    def __init__(self, items: Sequence[tuple[np.ndarray, bool]], preprocess: Preprocess) -> None:
        self._items = items
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Pictures: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Pictures:
        if isinstance(index, slice):
            return Pictures(self._items[index], self._preprocess)
        array, is_prepared = self._items[index]
        return self._preprocess.undo(array[None])[0] if is_prepared else array

    @classmethod
    def joined(cls, several: Sequence[Pictures]) -> Pictures:
        """
        Put pictures of one model behind one another.

        Parameters
        ----------
        several : sequence of Pictures
            At least one.

        Returns
        -------
        Pictures
            All of them.
        """
        return cls([item for pictures in several for item in pictures._items], several[0]._preprocess)


@dataclass(frozen=True, eq=False)
class Prepared:
    """
    A batch that is ready for the model.

    Attributes
    ----------
    x : ndarray, shape (N, C, H, W) or (N, H, W, C)
        The model's input, in its type and layout.
    pictures : Pictures
        What the network sees, in RGB; a sequence of ndarray of uint8, each (H, W, 3).
    names : list of str
        The file's stem, or ``image_000`` and so on.
    """

    x: np.ndarray
    pictures: Pictures
    names: list[str]


def decode(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] = FORMATS,
    check: Callable[[Image.Image], None] | None = None,
) -> np.ndarray:
    """
    Read one picture as upright 8-bit RGB.

    Parameters
    ----------
    source : str, path-like, bytes, PIL.Image.Image or ndarray of uint8
        A JPEG, PNG, GIF, BMP, TIFF, WebP or PPM file, its content, a PIL image, or an array (H, W), (H, W, 1),
        (H, W, 3) or (H, W, 4) of RGB(A).
    max_pixels : int, default 64_000_000
        Larger pictures are refused before they are decoded.
    formats : tuple of str, optional
        Those of the formats that files may have.
    check : callable, optional
        Called with each opened file's picture, its size and number of frames known and no pixel decoded; what it raises
        is raised.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB, C-contiguous.

    Raises
    ------
    ImageError
        If there is no such file, it is no picture of these formats, broken, empty or too large, or the array has
        another type or shape.

    Notes
    -----
    EXIF orientation is applied (a damaged EXIF block counts as none, as in browsers). Transparency is shown over
    white. Of an animation the first frame is taken. 16-bit greys are scaled from 0..65535. 32-bit integers are scaled
    from the smallest of 0..255, 0..65535, 0..2^31-1 that holds their largest value, floats from the smallest of 0..1,
    0..255, 0..65535; negative values, NaN and infinity are refused. Colour profiles are not applied.

    Cost: the decoder's; about 12 bytes a pixel at once, 20 with transparency.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the PIL image", max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
        if not content:
            raise ImageError("the picture is empty (0 bytes); give the content of an image file")
        return _from_file(io.BytesIO(content), "the bytes", max_pixels, None, formats, check)
    if isinstance(source, str | os.PathLike):
        return _from_path(source, max_pixels, None, formats, check)
    raise ImageError(
        "an image must be a path, bytes, a PIL image or a uint8 array (H, W, 3); "
        f"got {type(source).__module__}.{type(source).__name__}"
    )


def decode_mask(source: str | os.PathLike[str] | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """
    Read one mask as numbers: a palette's indices, or grey levels.

    Parameters
    ----------
    source : str, path-like or bytes
        A file of the formats that `decode` reads, or its content.
    max_pixels : int, default 64_000_000
        Larger masks are refused before they are decoded.

    Returns
    -------
    ndarray of uint8, shape (H, W)
        Upright. Of palette files the index, of 1-bit files 0 and 1, of grey files the level, of coloured ones the highest
        channel; transparency is not looked at.

    Raises
    ------
    ImageError
        If there is no such file, it is no picture of these formats, broken, empty or too large.
    """
    if isinstance(source, bytes):
        return _from_file(io.BytesIO(source), "the mask", max_pixels, _to_numbers)
    return _from_path(source, max_pixels, _to_numbers)


def join(several: Sequence[Prepared]) -> Prepared:
    """
    Make one batch of several, for one run.

    Parameters
    ----------
    several : sequence of Prepared
        At least one, all for the same model.

    Returns
    -------
    Prepared
        Their images in order; a single one is given back as it is.

    Notes
    -----
    Cost: one copy of the inputs.
    """
    if len(several) == 1:
        return several[0]
    return Prepared(
        np.concatenate([one.x for one in several]),
        Pictures.joined([one.pictures for one in several]),
        [name for one in several for name in one.names],
    )


def prepare(images: Images | Prepared, preprocess: Preprocess, *, max_pixels: int = MAX_PIXELS) -> Prepared:
    """
    Turn images in any accepted form into the model's input batch.

    Parameters
    ----------
    images : path, bytes, PIL image, array, or a sequence of those
        What `decode` takes; a uint8 array (N, H, W, 3) is N pictures; a float array in the model's own layout, with
        or without the batch axis, is taken as prepared and only checked. A model of uint8 inputs also takes a uint8
        batch of exactly its shape as prepared. What this function returned is given back as it is.
    preprocess : Preprocess
        How pictures become the input.
    max_pixels : int, default 64_000_000
        Larger pictures are refused before they are decoded.

    Returns
    -------
    Prepared
        The batch, the pictures as the network sees them, and names.

    Raises
    ------
    ImageError
        If there is no image, one cannot be decoded, or a prepared array has the wrong shape or is not finite.
    """
    if isinstance(images, Prepared):
        if images.x.shape[1:] != preprocess.shape or images.x.dtype != preprocess.dtype:
            raise ImageError(
                f"the images were prepared for another model: want {preprocess.dtype} of shape {preprocess.shape}, "
                f"got {images.x.dtype} of {images.x.shape[1:]}; prepare them for this one"
            )
        return images
    if isinstance(images, np.ndarray) and images.ndim == 4 and _is_prepared(images, preprocess):
        x = _check_prepared(images, preprocess)
        return Prepared(x, Pictures([(one, True) for one in x], preprocess), [_name(None, i) for i in range(len(x))])
    inputs, items, names = [], _items(images), []
    pictures: list[tuple[np.ndarray, bool]] = []
    for position, item in enumerate(items):
        try:
            is_prepared = isinstance(item, np.ndarray) and _is_prepared(item, preprocess)
            if is_prepared:
                x = _check_prepared(item[None] if item.ndim == 3 else item, preprocess)
                if len(x) != 1:
                    raise ImageError(
                        f"an item of a list is one image; got a batch of {len(x)}; give the batch by itself"
                    )
                picture = x[0]
            else:
                picture = preprocess.fit(decode(item, max_pixels=max_pixels))
                x = preprocess.apply(picture[None])
        except ImageError as error:
            if len(items) == 1:
                raise
            raise ImageError(f"image {position} of {len(items)}: {error}") from error
        inputs.append(x)
        pictures.append((picture, is_prepared))
        names.append(_name(item, position))
    return Prepared(np.concatenate(inputs), Pictures(pictures, preprocess), names)


def _items(images: Images) -> list[Any]:
    """Return the images one by one."""
    if isinstance(images, np.ndarray):
        items = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview):
        items = list(images)
    else:
        items = [images]
    if not items:
        raise ImageError("there is no image: the list is empty; give at least one")
    return items


def _is_prepared(array: np.ndarray, preprocess: Preprocess) -> bool:
    """Tell whether an array is taken as an input, not as a picture."""
    if array.dtype == np.uint8 and preprocess.dtype == "uint8":
        return array.ndim == 4 and array.shape[1:] == preprocess.shape
    return array.dtype.kind == "f"


def _check_prepared(batch: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return a prepared batch as a copy in the model's type, if it fits the model and is finite."""
    if batch.shape[1:] != preprocess.shape:
        raise ImageError(
            f"a {batch.dtype} array is taken as an input prepared for the model and must have shape "
            f"{preprocess.shape}, with or without a batch axis; got {batch.shape[1:]}; give a picture as uint8"
        )
    if not len(batch):
        raise ImageError("there is no image: the batch is empty; give at least one")
    if batch.dtype == preprocess.dtype:
        values = np.array(batch, order="C")
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            values = batch.astype(preprocess.dtype, order="C")
    if not (math.isfinite(values.max()) and math.isfinite(values.min())):  # twice as fast as isfinite: no second array
        bad = next(i for i, one in enumerate(values) if not np.isfinite(one).all())
        which = f"image {bad} of the prepared batch" if len(values) > 1 else "the prepared array"
        raise ImageError(f"{which} holds NaN, infinity or values beyond {preprocess.dtype}; give finite ones")
    return values


def _name(item: Any, position: int) -> str:
    """Return the stem of the file an image came from, or its number."""
    origin = getattr(item, "filename", "") if isinstance(item, Image.Image) else item
    stem = Path(origin).stem if isinstance(origin, str | os.PathLike) else ""
    return stem or f"image_{position:03d}"


_Convert: TypeAlias = Callable[[Image.Image, str], np.ndarray]  # an upright picture, and what to call it
_Check: TypeAlias = Callable[[Image.Image], None] | None


def _from_path(
    path: str | os.PathLike[str],
    max_pixels: int,
    convert: _Convert | None = None,
    formats: tuple[str, ...] = FORMATS,
    check: _Check = None,
) -> np.ndarray:
    """Decode a file."""
    name = os.fspath(path)
    try:
        if not os.path.exists(name):
            raise ImageError(f"there is no file {name!r}; give the path of a picture")
        if not os.path.isfile(name):
            raise ImageError(f"{name!r} is not a file; give the path of a picture")
        if not os.path.getsize(name):
            raise ImageError(f"{name!r} is empty (0 bytes); give an image file")
        with open(name, "rb") as file:
            return _from_file(file, repr(name), max_pixels, convert, formats, check)
    except OSError as error:
        raise ImageError(f"cannot read {name!r}: {error.strerror or error}") from error


def _from_file(
    file: Any,
    what: str,
    max_pixels: int,
    convert: _Convert | None = None,
    formats: tuple[str, ...] = FORMATS,
    check: _Check = None,
) -> np.ndarray:
    """Decode an open file of a format on the list."""
    try:
        with Image.open(file, formats=formats) as image:
            if check is not None:
                check(image)
            return _from_pil(image, what, max_pixels, convert)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{what}: not a picture; give a {', '.join(formats[:-1])} or {formats[-1]} file") from error
    except _BROKEN as error:
        raise ImageError(f"{what}: cannot be decoded ({_one_line(error)}); the file is damaged or too large") from error


def _from_pil(image: Image.Image, what: str, max_pixels: int, convert: _Convert | None = None) -> np.ndarray:
    """Check the size, decode the pixels, bring them upright and to RGB, or to what `convert` makes."""
    _check_size(image.height, image.width, what, max_pixels)
    try:
        image.load()
        return (convert or _to_rgb)(_upright(image), what)
    except ImageError:
        raise
    except _BROKEN as error:
        raise ImageError(f"{what}: cannot be decoded ({_one_line(error)}); the file is damaged or truncated") from error


def _to_rgb(upright: Image.Image, what: str) -> np.ndarray:
    """Return 8-bit RGB, transparency over white."""
    if upright.mode.startswith("I") or upright.mode == "F":
        return _to_8_bit(upright, what)
    if upright.has_transparency_data:
        clear = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return np.array(upright.convert("RGB"))


def _to_numbers(upright: Image.Image, what: str) -> np.ndarray:
    """Return palette indices or grey levels; (H, W) uint8."""
    if upright.mode in ("P", "L", "1"):
        return np.array(upright, np.uint8)
    highest: np.ndarray = _to_rgb(upright.convert("RGB") if upright.has_transparency_data else upright, what).max(2)
    return highest


def _from_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
    """Check an array and bring it to RGB."""
    if array.dtype != np.uint8:
        raise ImageError(
            f"a picture array must be uint8 with values 0..255; got {array.dtype} {array.shape}; "
            "convert it, or give a prepared float array to a model"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"a picture array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); got {array.shape}")
    _check_size(array.shape[0], array.shape[1], "the array", max_pixels)
    if array.ndim == 3 and array.shape[2] == 4:
        return _from_pil(Image.fromarray(np.ascontiguousarray(array)), "the array", max_pixels)
    grey_or_rgb = array.reshape(*array.shape[:2], -1)
    return np.array(np.broadcast_to(grey_or_rgb, (*array.shape[:2], 3)))


def _check_size(height: int, width: int, what: str, max_pixels: int) -> None:
    """Refuse pictures without pixels or with too many."""
    if height < 1 or width < 1:
        raise ImageError(f"{what}: a picture of {width} x {height} pixels is empty")
    if height * width > max_pixels:
        raise ImageError(
            f"{what}: {width} x {height} pixels are more than the limit of {max_pixels}; scale it down first"
        )


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:  # damaged metadata of a picture that decodes
        orientation = 1
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_8_bit(image: Image.Image, what: str) -> np.ndarray:
    """Scale a grey picture of 16 or 32 bits, integer or float, to 8."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all() or low < 0:
        raise ImageError(f"{what}: pixels from {low:g} to {high:g}; want finite values from 0 up: convert it to 8 bits")
    tops = {"F": (1, 255, 65535), "I": (255, 65535, 2**31 - 1)}.get(image.mode, (65535,))
    top = next((top for top in tops if high <= top), None)
    if top is None:
        raise ImageError(f"{what}: pixels up to {high:g}; want at most {tops[-1]}: convert it to 8 bits")
    pixels = np.rint(values * np.float32(255 / top)).astype(np.uint8)
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        pixels[values == hidden] = 255  # a 16-bit grey PNG's see-through value, over white
    return np.repeat(pixels[..., None], 3, axis=2)


def _one_line(error: BaseException) -> str:
    """Return an error's text as one short line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
