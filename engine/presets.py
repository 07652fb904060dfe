"""
Which preprocessing a model wants.

A preset's name, some fields, or nothing but the model's input goes in; a `Preprocess` that fits the model comes out,
with the reason it was chosen. Nobody writes the preprocessing into an ONNX file, so `guess` reads the signs that are
there, in this order: the metadata entry "preprocess", the type, the layout, the channels, the producer, the size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from .errors import ImageError
from .preprocess import DTYPES, Preprocess

__all__ = ["PRESETS", "choose", "guess", "preset"]

_Constants = tuple[str, float, tuple[float, ...], tuple[float, ...]]

PRESETS: Mapping[str, _Constants] = {  # name -> color, scale, mean, std
    "imagenet": ("rgb", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": ("bgr", 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "tf": ("rgb", 1 / 127.5, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    "half": ("rgb", 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ("rgb", 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "raw": ("rgb", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "cifar10": ("rgb", 1 / 255, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}


def preset(
    name: str,
    *,
    size: int | Sequence[int] | None = None,
    layout: str = "nchw",
    channels: int = 3,
    dtype: str = "float32",
) -> Preprocess:
    """
    Return one of the preprocessings that models are usually trained with.

    Parameters
    ----------
    name : {"imagenet", "caffe", "tf", "half", "unit", "raw", "cifar10"}
        "imagenet": torchvision's mean and std; "caffe": BGR, 0..255 minus the mean; "tf" and "half": -1..1;
        "unit": 0..1; "raw": 0..255 unchanged; "cifar10": its mean and std, the whole picture squashed.
    size : int or (int, int), optional
        ``(H, W)`` of the input; 224, or 32 for "cifar10", where absent.
    layout : {"nchw", "nhwc"}, default "nchw"
        Order of the input's axes.
    channels : {3, 1}, default 3
        1 gives a grey preprocess; only presets that treat all channels alike have one.
    dtype : str, default "float32"
        Type of the input.

    Returns
    -------
    Preprocess
        Checked.

    Raises
    ------
    ImageError
        If there is no such preset, or it has no grey form.

    References
    ----------
    torchvision's classification references; Keras ``imagenet_utils.preprocess_input`` modes "caffe" and "tf".

    Examples
    --------
    >>> preset("tf", size=299, layout="nhwc").shape
    (299, 299, 3)
    """
    key = str(name).strip().lower()
    if key not in PRESETS:
        near = get_close_matches(key, PRESETS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ImageError(f"no preprocess is called {name!r}; {hint}there are {', '.join(PRESETS)}, or give the fields")
    color, scale, mean, std = PRESETS[key]
    if channels == 1 and len(set(mean)) > 1:
        raise ImageError(f"preprocess {key!r} has colours, the model takes 1 channel; use unit, raw, tf or half")
    if channels not in (1, 3):
        raise ImageError(f"preprocess {key!r} makes 1 or 3 channels, the model takes {channels}")
    if channels == 1:
        color, mean, std = "grey", mean[:1], std[:1]
    resize = "squash" if key == "cifar10" else "crop"
    return Preprocess.from_dict(
        {
            "name": key,
            "size": (32 if key == "cifar10" else 224) if size is None else size,
            "resize": resize,
            "color": color,
            "layout": layout,
            "scale": scale,
            "mean": mean,
            "std": std,
            "dtype": dtype,
        }
    )


@dataclass(frozen=True)
class _Input:
    """What the model's input tells: layout, channels, size (None where symbolic) and type."""

    layout: str
    channels: int
    height: int | None
    width: int | None
    dtype: str

    @property
    def size(self) -> tuple[int, int]:
        """The size, 224 (or the other side) where it is symbolic."""
        return (self.height or self.width or 224, self.width or self.height or 224)

    def preset(self, name: str) -> Preprocess:
        """Return the preset called `name` in this input's form."""
        return preset(name, size=self.size, layout=self.layout, channels=self.channels, dtype=self.dtype)


def guess(
    input_shape: Sequence[int | str | None],
    dtype: str = "float32",
    producer: str = "",
    metadata: Mapping[str, str] | None = None,
) -> tuple[Preprocess, str]:
    """
    Say which preprocessing a model most probably wants, and why.

    Parameters
    ----------
    input_shape : sequence of int, str or None
        The input's four dimensions; symbolic ones as names or None.
    dtype : str, default "float32"
        NumPy name of the input's type.
    producer : str, default ""
        The model's ``producer_name``.
    metadata : mapping of str, optional
        The model's ``metadata_props``. The entry "preprocess", a JSON object of `Preprocess` fields (and optionally
        "preset": a preset's name to start from), settles the matter.

    Returns
    -------
    Preprocess
        Of the input's size, layout and type.
    str
        One sentence that says which sign was followed.

    Raises
    ------
    ImageError
        If the input is not four-dimensional, or the metadata entry is not usable.
    """
    facts = _read(input_shape, dtype)
    entry = (metadata or {}).get("preprocess")
    if entry is not None:
        try:
            return _custom(json.loads(entry), facts), "The model's metadata says so (entry 'preprocess')."
        except (json.JSONDecodeError, RecursionError, ImageError) as error:
            raise ImageError(
                f"the model's metadata entry 'preprocess' is not usable: {error}; give preprocess="
            ) from None
    if facts.channels not in (1, 3):
        zeros, ones = (0.0,) * facts.channels, (1.0,) * facts.channels
        bands = Preprocess("bands", facts.size, color="bands", layout=facts.layout, scale=1.0, mean=zeros, std=ones)
        return replace(
            bands, dtype=facts.dtype
        ), f"The input has {facts.channels} channels, so it takes prepared arrays, no pictures."
    if facts.dtype == "uint8":
        return facts.preset("raw"), "The input is uint8, so pixels go in as they are."
    if facts.layout == "nhwc":
        return _whole(facts.preset("tf")), "The channels come last, as Keras and TensorFlow have them: -1..1."
    if "cntk" in producer.lower():
        read = _whole(facts.preset("raw"))
        read = replace(read, color="bgr", name="custom") if facts.channels == 3 else read
        return read, f"The producer is {producer!r}, whose reader hands out 0..255 (BGR where there are colours)."
    if facts.channels == 1:
        return _whole(facts.preset("unit")), "The input has one channel: grey, 0..1."
    if "caffe" in producer.lower():
        return facts.preset("caffe"), f"The producer is {producer!r}: BGR, 0..255 minus the mean."
    if facts.size == (32, 32):
        return facts.preset("cifar10"), (
            "The input is 32 x 32, the size of CIFAR-10's pictures; ImageNet's mean and std, which some use, are near."
        )
    return facts.preset("imagenet"), "Nothing says otherwise, so ImageNet's mean and std as in torchvision."


def choose(
    given: Preprocess | Mapping[str, Any] | str | None,
    input_shape: Sequence[int | str | None],
    dtype: str = "float32",
    producer: str = "",
    metadata: Mapping[str, str] | None = None,
) -> tuple[Preprocess, str]:
    """
    Settle the preprocessing of a model from what the caller gave, or guess it.

    Parameters
    ----------
    given : Preprocess, mapping, str or None
        A preprocess; fields (those left out come from the model's input, or from the preset named in "preset"); a
        preset's name; or None to guess.
    input_shape : sequence of int, str or None
        The input's four dimensions; symbolic ones as names or None.
    dtype : str, default "float32"
        NumPy name of the input's type.
    producer : str, default ""
        The model's ``producer_name``.
    metadata : mapping of str, optional
        The model's ``metadata_props``.

    Returns
    -------
    Preprocess
        One that fits the model's input.
    str
        One sentence that says where it comes from.

    Raises
    ------
    ImageError
        If it cannot be used, or makes an input of another shape or type than the model takes.
    """
    if given is None:
        found, reason = guess(input_shape, dtype, producer, metadata)
    elif isinstance(given, Preprocess):
        found, reason = given, "The caller gave it."
    elif isinstance(given, str):
        found, reason = _read(input_shape, dtype).preset(given), f"The caller chose {given!r}."
    else:
        found, reason = _custom(given, _read(input_shape, dtype)), "The caller gave it."
    wanted = tuple(input_shape)[1:]
    if len(wanted) != 3 or any(isinstance(w, int) and w != got for w, got in zip(wanted, found.shape, strict=True)):
        raise ImageError(
            f"preprocess {found.name!r} makes inputs of shape {found.shape}, the model takes {list(wanted)}; "
            "give one with the model's size, layout and channels"
        )
    if found.dtype != np.dtype(dtype).name:
        raise ImageError(f"preprocess {found.name!r} makes {found.dtype}, the model takes {dtype}; set its dtype")
    return found, reason


def _read(input_shape: Sequence[int | str | None], dtype: str) -> _Input:
    """Read layout, channels and size off an input's shape."""
    shape = tuple(input_shape)
    name = np.dtype(dtype).name
    if len(shape) != 4 or name not in DTYPES:
        raise ImageError(
            f"want an input of four axes (N, C, H, W) or (N, H, W, C) and type {', '.join(DTYPES)}; "
            f"the model's has {name} {list(shape)}"
        )
    first, last = (axis if isinstance(axis, int) else None for axis in (shape[1], shape[3]))
    usual = (1, 3)
    if first in usual or last in usual:
        layout = "nchw" if first in usual else "nhwc"
    elif first is None or last is None:
        layout = "nchw" if first is None else "nhwc"
    else:
        layout = "nchw" if first <= last else "nhwc"
    height, width = shape[2:] if layout == "nchw" else shape[1:3]
    return _Input(
        layout,
        (first if layout == "nchw" else last) or 3,
        height if isinstance(height, int) else None,
        width if isinstance(width, int) else None,
        name,
    )


def _custom(data: Any, facts: _Input) -> Preprocess:
    """Make a preprocess from given fields, the others from the preset named there or from the model's input."""
    if not isinstance(data, Mapping):
        raise ImageError(f"a preprocess must be an object with named fields, got {type(data).__name__}")
    given = dict(data)
    if "preset" in given:
        start = facts.preset(given.pop("preset")).to_dict()
    else:
        color = {1: "grey", 3: "rgb"}.get(facts.channels, "bands")
        start = {"size": list(facts.size), "layout": facts.layout, "color": color, "dtype": facts.dtype}
        if color == "bands":
            start |= {"mean": [0.0] * facts.channels, "std": [1.0] * facts.channels}
        if facts.dtype == "uint8":
            start |= {"scale": 1.0}
    return Preprocess.from_dict({**start, **given})


def _whole(found: Preprocess) -> Preprocess:
    """Show small inputs the whole picture: there is no border to spare below 100 pixels."""
    return replace(found, resize="squash") if max(found.size) < 100 else found
