"""
How a picture becomes a model's input, and back.

A checked RGB picture goes in; out comes the same picture as the network sees it (resized, cropped or padded, still
uint8) and the numbers of the model's input tensor. Every constant is part of a `Preprocess`, which travels in the
manifest of each result, because resizing and means change every figure a paper reports. Resizing follows torchvision
on PIL pictures: bilinear with antialiasing, which is what ``Resize(256), CenterCrop(224)`` does there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

import numpy as np
from PIL import Image

from .errors import ImageError, ShapeError

__all__ = ["DTYPES", "MAX_SIDE", "Frame", "Preprocess"]

MAX_SIDE = 8192  # the largest classifiers take 1024; beyond this a size is a typing error that would eat the memory
MAX_ASPECT = 100  # the cropped resize of a 100:1 strip makes 100 inputs' worth of pixels; panoramas reach 10:1

DTYPES = ("float32", "float16", "float64", "uint8")  # the input types of classifiers that pictures are prepared for

_CHOICES = {
    "resize": ("crop", "squash", "pad"),
    "color": ("rgb", "bgr", "grey", "bands"),
    "layout": ("nchw", "nhwc"),
    "dtype": DTYPES,
    "interpolation": ("bilinear",),
}


@dataclass(frozen=True)
class Frame:
    """
    Where the network's window lies on a picture.

    Attributes
    ----------
    source : tuple of int
        ``(height, width)`` of the picture as decoded.
    resized : tuple of int
        ``(height, width)`` after resizing.
    top, left : int
        First row and column of the resized picture that the window shows; negative where it is padded.
    size : tuple of int
        ``(H, W)`` of the window, the model's input.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]

    def boxes(self, boxes: Any) -> np.ndarray:
        """
        Carry boxes from the picture to the network's window.

        Parameters
        ----------
        boxes : array_like, shape (B, 4)
            ``x0 y0 x1 y1`` in pixels of the picture.

        Returns
        -------
        ndarray of float64, shape (B, 4)
            The same corners in pixels of the window, clipped to it; a box outside has no area.
        """
        xyxy = np.asarray(boxes, np.float64).reshape(-1, 4)
        ratio = np.array([self.resized[1] / self.source[1], self.resized[0] / self.source[0]] * 2)
        moved = xyxy * ratio - np.array([self.left, self.top] * 2)
        clipped: np.ndarray = np.clip(moved, 0, np.array([self.size[1], self.size[0]] * 2))
        return clipped

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """
        Carry a mask from the picture to the network's window.

        Parameters
        ----------
        mask : ndarray of bool, shape (height, width)
            Of the picture's size.

        Returns
        -------
        ndarray of bool, shape (H, W)
            Each pixel of the window takes the mask at its own centre (nearest neighbour); padding is False.

        Raises
        ------
        ShapeError
            If the mask has another size than the picture.
        """
        if mask.shape != self.source:
            raise ShapeError(f"a mask must have the picture's shape {self.source}; got {mask.shape}")
        rows, in_rows = _nearest(self.size[0], self.top, self.resized[0], self.source[0])
        columns, in_columns = _nearest(self.size[1], self.left, self.resized[1], self.source[1])
        window: np.ndarray = mask.astype(bool)[rows[:, None], columns] & in_rows[:, None] & in_columns
        return window


@dataclass(frozen=True)
class Preprocess:
    """
    The numbers between a picture and a model's input: ``x = (pixel * scale - mean) / std``.

    Attributes
    ----------
    name : str
        The preset's name, or "custom".
    size : tuple of int
        ``(H, W)`` of the model's input in pixels.
    resize : {"crop", "squash", "pad"}
        "crop" brings the shorter side to ``round(size / crop_ratio)`` and cuts the centre, "squash" ignores the
        aspect ratio, "pad" shows the whole picture centred on the mean colour.
    crop_ratio : float
        The share of the resized picture that "crop" keeps, in (0, 1].
    color : {"rgb", "bgr", "grey", "bands"}
        Order of the channels; "bands" is for models that take no pictures (2, 4, 13... channels): they are given
        prepared arrays.
    layout : {"nchw", "nhwc"}
        Order of the input's axes.
    scale : float
        Factor on the pixel value 0..255, before the mean is taken off.
    mean, std : tuple of float
        One value a channel, in the order of the model's channels.
    dtype : {"float32", "float16", "float64", "uint8"}
        Type of the model's input; uint8 takes pixels as they are.
    interpolation : {"bilinear"}
        Resizing filter, with antialiasing when a picture shrinks.

    Raises
    ------
    ImageError
        If a field is of the wrong type or out of range.
    """

    name: str
    size: tuple[int, int]
    resize: str = "crop"
    crop_ratio: float = 0.875
    color: str = "rgb"
    layout: str = "nchw"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    dtype: str = "float32"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.name, str):
            raise ImageError(f"preprocess name must be a string, got {self.name!r}")
        object.__setattr__(self, "size", _size(self.size))
        for field, allowed in _CHOICES.items():
            if getattr(self, field) not in allowed:
                raise ImageError(
                    f"preprocess {field} must be one of {', '.join(allowed)}; got {getattr(self, field)!r}"
                )
        for field in ("scale", "crop_ratio"):
            object.__setattr__(self, field, _number(field, getattr(self, field)))
        if not 0 < self.crop_ratio <= 1:
            raise ImageError(f"preprocess crop_ratio must be above 0 and at most 1; got {self.crop_ratio}")
        for field in ("mean", "std"):
            object.__setattr__(self, field, _numbers(field, getattr(self, field)))
        self._check_constants()

    def _check_constants(self) -> None:
        """Refuse constants that contradict one another."""
        wanted = {"grey": 1, "bands": len(self.mean)}.get(self.color, 3)
        if len(self.mean) != wanted or len(self.std) != wanted:
            raise ImageError(
                f"preprocess with color {self.color!r} needs {wanted} values in mean and in std; "
                f"got {len(self.mean)} and {len(self.std)}"
            )
        if self.scale == 0 or 0 in self.std:
            raise ImageError("preprocess scale and std must not be 0: every picture would look the same or infinite")
        with np.errstate(all="ignore"):
            levels = self._levels().astype(self.dtype)
        if not np.isfinite(levels).all():
            raise ImageError(f"preprocess scale, mean and std take pixels beyond the range of {self.dtype}")
        if self.dtype == "uint8" and (self.scale != 1 or any(self.mean) or set(self.std) != {1.0}):
            raise ImageError("preprocess dtype 'uint8' takes pixels as they are: scale 1, mean 0, std 1")

    @property
    def channels(self) -> int:
        """The number of channels of the model's input."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one input in the model's layout, without the batch axis."""
        height, width = self.size
        return (self.channels, height, width) if self.layout == "nchw" else (height, width, self.channels)

    @property
    def black(self) -> tuple[float, ...]:
        """The input's value at a black pixel, one a channel; hidden pixels take it in METHODS' raw mask space."""
        return tuple(float(value) for value in self._levels()[:, 0])

    def frame(self, height: int, width: int) -> Frame:
        """
        Return where the network's window lies on a picture.

        Parameters
        ----------
        height, width : int
            Size of the picture in pixels.

        Returns
        -------
        Frame
            The resized size and the window's offset.

        Raises
        ------
        ImageError
            If `resize` is "crop" and one side is more than 100 times the other.

        References
        ----------
        torchvision ``Resize(int)`` truncates the longer side, ``CenterCrop`` rounds half to even; so does this.
        """
        rows, columns = self.size
        if self.resize == "squash":
            return Frame((height, width), self.size, 0, 0, self.size)
        if self.resize == "pad":
            ratio = min(rows / height, columns / width)
            fitted = (max(1, min(rows, round(height * ratio))), max(1, min(columns, round(width * ratio))))
            top, left = -((rows - fitted[0]) // 2), -((columns - fitted[1]) // 2)
            return Frame((height, width), fitted, top, left, self.size)
        if max(height, width) > MAX_ASPECT * min(height, width):
            raise ImageError(
                f"a picture of {width} x {height} pixels is too long to be cropped (at most {MAX_ASPECT}:1); "
                "cut it, or use a preprocess with resize 'pad' or 'squash'"
            )
        tall, wide = round(rows / self.crop_ratio), round(columns / self.crop_ratio)
        covered = (tall, tall * width // height) if tall * width >= wide * height else (wide * height // width, wide)
        top, left = round((covered[0] - rows) / 2), round((covered[1] - columns) / 2)
        return Frame((height, width), covered, top, left, self.size)

    def fit(self, picture: np.ndarray) -> np.ndarray:
        """
        Return the picture as the network sees it.

        Parameters
        ----------
        picture : ndarray of uint8, shape (height, width, 3)
            RGB, as `camrt.image.decode` returns it.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)
            Resized and cropped, squashed or padded; RGB also for a model that takes BGR or grey.

        Raises
        ------
        ImageError
            If the picture is too long to be cropped.
        """
        frame = self.frame(*picture.shape[:2])
        image = Image.fromarray(picture).resize(frame.resized[::-1], Image.Resampling.BILINEAR)
        rows, columns = self.size
        window = Image.new("RGB", (columns, rows), self._mean_colour())
        window.paste(image, (-frame.left, -frame.top))
        return np.asarray(window)

    def apply(self, pictures: np.ndarray) -> np.ndarray:
        """
        Turn pictures the network sees into its input.

        Parameters
        ----------
        pictures : ndarray of uint8, shape (N, H, W, 3)
            RGB, of this preprocess's size.

        Returns
        -------
        ndarray, shape (N, C, H, W) or (N, H, W, C)
            Of this preprocess's dtype, contiguous.

        Raises
        ------
        ImageError
            If the pictures have another size, or the model takes no pictures.

        Notes
        -----
        Cost: one table look-up a value. There are only 256 pixel values, so each channel's 256 results are computed in
        float64 and rounded once to `dtype`.
        """
        if self.color == "bands":
            raise ImageError(
                f"the model takes {self.channels} channels, a picture has 3; give prepared arrays of shape {self.shape}"
            )
        if pictures.ndim != 4 or pictures.shape[1:] != (*self.size, 3) or pictures.dtype != np.uint8:
            raise ImageError(
                f"want uint8 pictures of shape (N, {self.size[0]}, {self.size[1]}, 3), "
                f"got {pictures.dtype} {pictures.shape}; use Preprocess.fit first"
            )
        table = self._levels().astype(self.dtype)
        pixels = _grey(pictures) if self.color == "grey" else pictures
        pixels = pixels[..., ::-1] if self.color == "bgr" else pixels
        axis = 1 if self.layout == "nchw" else 3
        return np.stack([table[c][pixels[..., c]] for c in range(self.channels)], axis)

    def undo(self, x: np.ndarray) -> np.ndarray:
        """
        Turn a model's input back into pictures to look at.

        Parameters
        ----------
        x : ndarray, shape (N, C, H, W) or (N, H, W, C)
            In this preprocess's layout.

        Returns
        -------
        ndarray of uint8, shape (N, H, W, 3)
            RGB, rounded and clipped to 0..255. For "bands" the first three channels (or the first alone), spread from
            each image's lowest to its highest value.
        """
        values = np.asarray(x, np.float64)
        values = np.moveaxis(values, 1, 3) if self.layout == "nchw" else values
        if self.color == "bands":
            values = values[..., :3] if self.channels > 2 else values[..., :1]
            low, high = values.min((1, 2, 3), keepdims=True), values.max((1, 2, 3), keepdims=True)
            pixels = (values - low) / np.where(high > low, high - low, 1) * 255
        else:
            pixels = (values * np.array(self.std) + np.array(self.mean)) / self.scale
        pixels = pixels[..., ::-1] if self.color == "bgr" else pixels
        rounded = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(rounded, (*rounded.shape[:3], 3)))

    def to_dict(self) -> dict[str, Any]:
        """
        Return the fields as plain values that JSON can hold.

        Returns
        -------
        dict
            What `from_dict` takes.
        """
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocess:
        """
        Make a preprocess from plain values, as they come from JSON.

        Parameters
        ----------
        data : mapping
            Field names and values; `size` (a number or ``[H, W]``) is required, the other fields have defaults. One
            number for `mean` or `std` stands for every channel.

        Returns
        -------
        Preprocess
            Checked.

        Raises
        ------
        ImageError
            If a field is unknown, missing, of the wrong type or out of range.

        Examples
        --------
        >>> Preprocess.from_dict({"size": 224, "mean": 0.5, "std": 0.5}).mean
        (0.5, 0.5, 0.5)
        """
        if not isinstance(data, Mapping):
            raise ImageError(f"a preprocess must be an object with named fields, got {type(data).__name__}")
        known = [field.name for field in fields(cls)]
        for key in data:
            if key not in known:
                near = get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"fields are {', '.join(known)}"
                raise ImageError(f"a preprocess has no field {key!r}; {hint}")
        if "size" not in data:
            raise ImageError('a preprocess needs "size": [H, W], the height and width of the model\'s input')
        values = {"name": "custom", **data}
        count = 1 if values.get("color") == "grey" else 3
        for key, default in (("mean", 0.0), ("std", 1.0)):
            value = values.get(key, default)
            values[key] = (value,) * count if isinstance(value, int | float) else value
        return cls(**values)

    def _levels(self) -> np.ndarray:
        """Return the input's value at each pixel value; (C, 256) float64."""
        pixel = np.arange(256, dtype=np.float64) * self.scale
        levels: np.ndarray = (pixel - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]
        return levels

    def _mean_colour(self) -> tuple[int, ...]:
        """Return the RGB colour that becomes 0 in the input, as nearly as a pixel can."""
        channels = [min(255, max(0, round(mean / self.scale))) for mean in self.mean]
        channels = channels * 3 if len(channels) == 1 else channels[:3]
        return tuple(reversed(channels)) if self.color == "bgr" else tuple(channels)


def _nearest(count: int, start: int, resized: int, source: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the source pixel under each window pixel's centre along one axis, and whether there is one; (count,) each."""
    place = np.arange(count) + start
    nearest = (2 * place + 1) * source // (2 * resized)  # floor((place + 1/2) * source / resized) in whole numbers
    return np.clip(nearest, 0, source - 1), (place >= 0) & (place < resized)


def _size(size: Any) -> tuple[int, int]:
    """Return ``(H, W)`` from one number or two."""
    pair = (size, size) if isinstance(size, int | np.integer) else size
    if (
        not isinstance(pair, Sequence)
        or len(pair) != 2
        or not all(
            isinstance(side, int | np.integer) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE for side in pair
        )
    ):
        raise ImageError(f"preprocess size must be [H, W], two whole numbers from 1 to {MAX_SIDE}; got {size!r}")
    return (int(pair[0]), int(pair[1]))


def _number(field: str, value: Any) -> float:
    """Return a finite float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e30:
        raise ImageError(f"preprocess {field} must be a finite number; got {value!r}")
    return float(value)


def _numbers(field: str, values: Any) -> tuple[float, ...]:
    """Return a tuple of finite floats."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ImageError(f"preprocess {field} must be a list of numbers, one a channel; got {values!r}")
    return tuple(_number(field, value) for value in values)


def _grey(pictures: np.ndarray) -> np.ndarray:
    """Return ITU-R 601 luma as Pillow's mode L rounds it; (..., 3) uint8 -> (..., 1)."""
    luma: np.ndarray = pictures.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((luma + 0x8000) >> 16).astype(np.uint8)[..., None]
