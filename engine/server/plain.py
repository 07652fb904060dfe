"""
The plain protocol: one picture as the body, wishes in the query, and an answer in the form that was asked for.

In: a query, a body and an ``Accept`` header. Out: an `Ask` with the `Look` of its answer, then JSON, a PNG overlay, or
the heatmaps as ``.npy``.
"""

from __future__ import annotations

import ast
import base64
import io
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..colormap import COLORMAPS
from ..errors import InputError
from ..explanation import Explanation
from ..render import png
from ..scalars import softmax
from ..targets import class_name
from .asking import make_ask, read_timeout, read_wish
from .asks import Ask
from .documents import said, write_json
from .faults import NotAcceptableError

if TYPE_CHECKING:
    from .served import Served
    from .settings import Settings
    from .tickets import Answer

__all__ = ["JSON", "NPY", "PNG", "Look", "accepted", "read_plain", "write_json_answer", "write_npy", "write_png"]

JSON, PNG, NPY = "application/json", "image/png", "application/x-npy"
OFFERED = (JSON, PNG, NPY)  # the first is what anything will do gets
TOP = 5  # classes named beside the targets
FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
ADDRESS = ("model", "version")  # of the query; which model was asked is settled before the rest is read
SEVERAL = ("target", "layer")
_MAGIC = b"\x93NUMPY"
_NUMBERS = re.compile(r"[<>]f[248]|\|u1")
_HEADER = 1024  # letters of a .npy file's description; numpy writes 118
_PREFERENCE = re.compile(r"\s*([\w!#$&^.+*-]+/[\w!#$&^.+*-]+)\s*((?:;[^,]*)?)", re.ASCII)
_QUALITY = re.compile(r";\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Look:
    """
    How an answer looks.

    Attributes
    ----------
    kind : str
        The media type: one of `OFFERED`.
    colormap : str
        Of an overlay.
    opacity : float
        The colours' share of an overlay, from 0 to 1.
    colorbar : bool
        Whether an overlay has a colour bar and a title; without them it is the bare picture.
    as_text : bool
        Whether heatmaps stand in JSON as lists of numbers; as base64 of little-endian float32, row by row, otherwise.
    picture : bool
        Whether the network's view comes with JSON.
    """

    kind: str = JSON
    colormap: str = "jet"
    opacity: float = 0.5
    colorbar: bool = True
    as_text: bool = True
    picture: bool = False


# ---- reading ---------------------------------------------------------------------------------------------------------


def accepted(header: str | None, offered: Sequence[str] = OFFERED) -> str:
    """
    Choose the form of an answer.

    Parameters
    ----------
    header : str or None
        ``Accept``; anything will do where it is absent or empty.
    offered : sequence of str
        Media types; of equally welcome ones the first is taken.

    Returns
    -------
    str
        One of `offered`.

    Raises
    ------
    NotAcceptableError
        If none is welcome.

    References
    ----------
    RFC 9110, section 12.5.1.

    Examples
    --------
    >>> accepted("image/png, application/json;q=0.5"), accepted("text/html, */*;q=0.1")
    ('image/png', 'application/json')
    """
    if not (header or "").strip():
        return offered[0]
    ranges = {}
    for part in str(header).split(","):
        if found := _PREFERENCE.match(part):
            quality = _QUALITY.search(found[2])
            ranges[found[1].lower()] = float(quality[1]) if quality else 1.0
    welcome = {kind: _welcome(kind, ranges) for kind in offered}
    best = max(offered, key=lambda kind: welcome[kind])
    if not welcome[best]:
        raise NotAcceptableError(f"answers come as {', '.join(offered)}; accept one of them")
    return best


def _welcome(kind: str, ranges: Mapping[str, float]) -> float:
    """Return how welcome a media type is: as its most specific range says."""
    for name in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def read_plain(
    query: Sequence[tuple[str, str]], body: bytes, kind: str, served: Served, settings: Settings
) -> tuple[Ask, Look]:
    """
    Read a request.

    Parameters
    ----------
    query : sequence of (str, str)
        Names and values, in order. ``target`` and ``layer`` may come several times; what is no other's is an option of the
        method.
    body : bytes
        One encoded picture, or a ``.npy`` file of one prepared input.
    kind : str
        The answer's media type.
    served : Served
        The model.
    settings : Settings
        The limits.

    Returns
    -------
    ask : Ask
        One image.
    look : Look
        For the answer's writer.

    Raises
    ------
    InputError
        If anything does not fit.
    """
    several: dict[str, list[str]] = {name: [] for name in SEVERAL}
    single: dict[str, object] = {}
    for name, value in query:
        if name in several:
            several[name].append(value)
        elif name in single:
            raise InputError(f"{said(name)} was given twice; give it once")
        elif name not in ADDRESS:
            single[name] = value
    look, rest = _read_look(single, kind)
    timeout = read_timeout(rest.pop("timeout", None), settings)
    if several["layer"]:
        rest["layer"] = ",".join(several["layer"])
    wish = read_wish(rest, served, settings)
    target = [several["target"]] if several["target"] else None
    return make_ask(_images(body), target, wish, timeout, served, settings), look


def _read_look(given: Mapping[str, object], kind: str) -> tuple[Look, dict[str, object]]:
    """Take out of a query what is about the answer's look."""
    rest = dict(given)
    colormap = rest.pop("colormap", Look.colormap)
    if colormap not in COLORMAPS:
        raise InputError(f"colormap is one of {', '.join(COLORMAPS)}; got {said(colormap)}")
    opacity = _number("opacity", rest.pop("opacity", Look.opacity))
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity is from 0 (picture alone) to 1 (colours alone); got {opacity:g}")
    encoding = rest.pop("encoding", "list")
    if encoding not in ("list", "base64"):
        raise InputError(f"encoding is list or base64; got {said(encoding)}")
    colorbar, picture = _flag("colorbar", rest.pop("colorbar", "true")), _flag("picture", rest.pop("picture", "false"))
    return Look(kind, str(colormap), opacity, colorbar, encoding == "list", picture), rest


def _flag(name: str, value: object) -> bool:
    """Read yes or no."""
    if str(value).lower() not in FLAGS:
        raise InputError(f"{name} is true or false; got {said(value)}")
    return FLAGS[str(value).lower()]


def _number(name: str, value: object) -> float:
    """Read a number."""
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} is a number; got {said(value)}")
    return number


def _images(body: bytes) -> tuple[bytes, ...] | npt.NDArray[np.generic]:
    """Return the one image of a body."""
    if not body:
        raise InputError(
            "the body is empty; send one picture as it is in its file, for example curl --data-binary @photo.jpg"
        )
    if not body.startswith(_MAGIC):
        return (body,)
    array = _read_npy(body)
    if array.ndim == 4 and len(array) != 1:
        raise InputError(f"a .npy body is one prepared input; got {len(array)}: send batches to /v2/models/NAME/infer")
    return array if array.ndim == 4 else array[None]


def _read_npy(body: bytes) -> npt.NDArray[np.generic]:
    """
    Read a ``.npy`` file of plain numbers, as numpy's documentation of the format says; nothing in it is ever run.

    `numpy.load` would do, but it parses a header of any Python literal of 10,000 letters, whose shape it believes.
    """
    first = body[:12].ljust(12, b"\0")
    start, layout = (10, "<H") if first[6] == 1 else (12, "<I")
    (length,) = struct.unpack_from(layout, first, 8)
    try:
        if length > _HEADER or first[6] not in (1, 2, 3):
            raise ValueError("no header of numpy's")
        header = ast.literal_eval(body[start : start + length].decode("latin-1"))
        if header["fortran_order"] or not _NUMBERS.fullmatch(header["descr"]):
            raise ValueError("no array of plain numbers in C order")
        dtype, shape = np.dtype(header["descr"]), tuple(header["shape"])
        if any(type(side) is not int or side < 0 for side in shape):
            raise ValueError("no shape")
        if math.prod(shape) * dtype.itemsize != len(body) - start - length:
            raise ValueError("not as many numbers as its shape says")
        return np.frombuffer(body, dtype, offset=start + length).reshape(shape)
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError("the .npy body cannot be read; write it with numpy.save, C order, float32") from error


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_json_answer(answer: Answer, look: Look, request_id: str, seconds: float) -> bytes:
    """
    Write everything about one image.

    Parameters
    ----------
    answer : Answer
        One image's.
    look : Look
        Lists or base64, with the picture or without.
    request_id : str
        Repeated.
    seconds : float
        Since the request came.

    Returns
    -------
    bytes
        A JSON document.

    Notes
    -----
    Cost: 2 ms for a map of 224 x 224 as a list, 0.2 ms as base64; a picture 5 ms more.
    """
    result = _of(answer)
    heatmaps = np.ascontiguousarray(result.heatmaps[0], "<f4")
    probabilities = result.probabilities[0]
    targets = [
        {
            "class": int(index) if index >= 0 else None,
            "label": result.labels[0][t],
            "value": float(result.values[0, t]),
            "probability": float(probabilities[t]) if index >= 0 else None,
            "degenerate": bool(result.degenerate[0, t]),
            "flags": {name: flag[0, t].item() for name, flag in result.flags.items()},
            "heatmap": heatmaps[t] if look.as_text else base64.b64encode(heatmaps[t]).decode("ascii"),
        }
        for t, index in enumerate(result.targets[0])
    ]
    timing = {
        "queue_ms": answer.queue_seconds,
        "decode_ms": answer.decode_seconds,
        "run_ms": answer.run_seconds,
        "total_ms": seconds,
    }
    return write_json(
        {
            "id": request_id,
            "model": answer.served.name,
            "version": answer.served.version,
            "method": result.method,
            "variant": result.variant,
            "layers": list(result.layers),
            "size": list(heatmaps.shape[1:]),
            "targets": targets,
            "top": _top(result, answer.served.explainer.labels),
            "timing": {**{name: round(value * 1e3, 3) for name, value in timing.items()}, "batch": answer.batch},
            "picture": _data_url(result) if look.picture else None,
        }
    )


def write_png(answer: Answer, look: Look) -> bytes:
    """
    Draw the first target's heatmap over the picture.

    Parameters
    ----------
    answer : Answer
        One image's.
    look : Look
        Colours.

    Returns
    -------
    bytes
        A PNG file: with colour bar and title, or the bare picture at the model's size.
    """
    title = None if look.colorbar else ""
    drawn = _of(answer).overlay(colormap=look.colormap, alpha=look.opacity, colorbar=look.colorbar, title=title)
    return png(drawn)


def write_npy(answer: Answer) -> bytes:
    """
    Write the heatmaps.

    Parameters
    ----------
    answer : Answer
        One image's.

    Returns
    -------
    bytes
        A ``.npy`` file of float32, (T, H, W).
    """
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(_of(answer).heatmaps[0], "<f4"), allow_pickle=False)
    return file.getvalue()


def _of(answer: Answer) -> Explanation:
    """Return what was explained."""
    assert answer.explanation is not None  # every wish of this protocol is one for an explanation
    return answer.explanation


def _top(result: Explanation, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Name the likeliest classes; a model of one class alone says yes or no (`Explanation.probabilities`)."""
    logits = result.logits[:1]
    scores = np.pad(logits, ((0, 0), (1, 0))) if logits.shape[1] == 1 else logits
    shares = softmax(scores)[0, -logits.shape[1] :]
    best = np.argsort(-shares, kind="stable")[:TOP]
    return [
        {"class": int(index), "label": class_name(int(index), labels), "probability": float(shares[index])}
        for index in best
    ]


def _data_url(result: Explanation) -> str:
    """Return what the network saw as a PNG in a data URL."""
    file = png(Image.fromarray(result.pictures[0]))
    return f"data:image/png;base64,{base64.b64encode(file).decode('ascii')}"
