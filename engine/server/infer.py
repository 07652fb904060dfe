"""
The Open Inference Protocol, version 2: a request's bytes to an `Ask`, an `Answer` to bytes.

It has no verb for explanations, so a heatmap is an output tensor like the scores, and how it is made is said by the
request's parameters. ``image`` comes as encoded pictures (BYTES), pictures (UINT8) or prepared (float); ``target`` beside
it holds classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, NumericError
from ..render import png
from .asking import make_ask, read_target, read_timeout, read_wish
from .asks import Ask
from .documents import read_base64, read_json, said, write_json
from .faults import TooLargeError
from .tensors import DATATYPES, MAX_TENSORS, Tensor, datatype_of, read_tensors, write_tensors

if TYPE_CHECKING:
    from .served import Served
    from .settings import Settings
    from .tickets import Answer

__all__ = ["OUTPUTS", "Wanted", "check_json_answer", "finite", "metadata", "read_infer", "write_infer"]

OUTPUTS = {  # name: (datatype, shape behind N), H, W, h, w, C and T open
    "cam": ("FP32", "THW"),
    "logits": ("FP32", "C"),
    "target": ("INT64", "T"),
    "value": ("FP32", "T"),
    "degenerate": ("BOOL", "T"),
    "raw": ("FP32", "Thw"),
    "overlay": ("BYTES", "T"),
}
UNASKED = ("cam", "logits", "target", "value", "degenerate")  # what is sent where no outputs are named
MAX_ID = 256  # letters
MAX_OVERLAYS = 64  # a request; 20 ms each, when the work that was paid for is done
JSON_VALUE = 12  # bytes that a number of float32 takes as text
HEADER = "Inference-Header-Content-Length"
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True)
class Wanted:
    """
    What a client wants back.

    Attributes
    ----------
    id : str
        Given back as it came; nothing where empty.
    outputs : tuple of (str, bool)
        Names of `OUTPUTS` in order, each with whether it is sent as bytes.
    """

    id: str = ""
    outputs: tuple[tuple[str, bool], ...] = tuple((name, False) for name in UNASKED)

    @property
    def explains(self) -> bool:
        """Whether anything but the scores is wanted."""
        return any(name != "logits" for name, _ in self.outputs)


def read_infer(body: bytes, json_length: int | None, served: Served, settings: Settings) -> tuple[Ask, Wanted]:
    """
    Read a request.

    Parameters
    ----------
    body : bytes
        Decompressed.
    json_length : int or None
        The header Inference-Header-Content-Length, read by `camrt.server.bodies.read_length`; None where it is missing:
        all of the body is JSON. Where it is 0, all of it is one image: a prepared tensor of the model's own type, or an
        encoded picture.
    served : Served
        The model.
    settings : Settings
        Limits.

    Returns
    -------
    ask : Ask
        Arrays in it look into `body`.
    wanted : Wanted
        For `write_infer`.

    Raises
    ------
    InputError
        If anything is not as the protocol or the model has it; its subclasses say which status.

    Notes
    -----
    Cost: 0.05 ms for a prepared image of 0.6 MB in bytes; 10 ms in JSON.
    """
    if json_length == 0:
        images = _raw(body, served, settings)
        ask = make_ask(images, None, read_wish({}, served, settings), settings.timeout, served, settings)
        return ask, Wanted(outputs=tuple((name, True) for name in UNASKED))
    if json_length is not None and json_length > len(body):
        raise InputError(f"{HEADER} is {json_length}, but the body has {len(body)} bytes")
    start = len(body) if json_length is None else json_length
    document = read_json(body if json_length is None else body[:json_length])
    if not isinstance(document, dict):
        raise InputError(f"a request is a JSON object with inputs; got {said(document)}")
    parameters = _object(document.get("parameters"), "parameters")
    wanted = _wanted(document, parameters)
    tensors = read_tensors(document.get("inputs"), body, start)
    images, target = _taken(tensors, served, settings)
    if target is not None and "target" in parameters:
        raise InputError("a target was given as an input and as a parameter; give one of them")
    ask = make_ask(
        images,
        read_target(parameters) if target is None else target,
        read_wish(parameters, served, settings) if wanted.explains else None,
        _timeout(parameters.get("timeout"), settings),
        served,
        settings,
    )
    if ask.wish is not None:
        maps = sum(not binary for name, binary in wanted.outputs if name in ("cam", "raw", "overlay"))
        check_json_answer(ask, maps, served, settings)
        if any(name == "overlay" for name, _ in wanted.outputs) and ask.count * ask.width > MAX_OVERLAYS:
            raise TooLargeError(
                f"{ask.count} x {ask.width} overlays were asked for; {MAX_OVERLAYS} are drawn at a time"
            )
    return ask, wanted


def write_infer(answer: Answer, wanted: Wanted) -> tuple[bytes, dict[str, str]]:
    """
    Write a response.

    Parameters
    ----------
    answer : Answer
        From the scheduler.
    wanted : Wanted
        From `read_infer`.

    Returns
    -------
    body : bytes
        JSON, then the tensors that were asked for as bytes.
    headers : dict of str to str
        Content-Type, and the JSON's length where tensors follow it.

    Raises
    ------
    NumericError
        If the model's scores are not finite; JSON could not say so.

    Notes
    -----
    Cost: one copy of what is sent as bytes; JSON takes about 40 ns a number.
    """
    entries, buffers = write_tensors([(name, *_output(name, answer), binary) for name, binary in wanted.outputs])
    document: dict[str, Any] = {"model_name": answer.served.name, "model_version": answer.served.version}
    if wanted.id:
        document["id"] = wanted.id
    head = write_json(document | {"outputs": entries})
    if not buffers:
        return head, {"Content-Type": "application/json"}
    return b"".join([head, *buffers]), {"Content-Type": "application/octet-stream", HEADER: str(len(head))}


def metadata(served: Served, versions: Sequence[str]) -> dict[str, Any]:
    """
    Say what a model takes and gives.

    Parameters
    ----------
    served : Served
        The model.
    versions : sequence of str
        All that are ready.

    Returns
    -------
    dict
        The protocol's metadata; -1 for sizes that are open.
    """
    explainer = served.explainer
    sizes = dict(zip("HW", explainer.preprocess.size, strict=True)) | {"C": explainer.manifest.classes}
    return {
        "name": served.name,
        "versions": list(versions),
        "platform": "onnx_onnxv1",
        "inputs": [
            {
                "name": "image",
                "datatype": datatype_of(explainer.preprocess.dtype),
                "shape": [-1, *explainer.preprocess.shape],
            },
            {"name": "target", "datatype": "INT64", "shape": [-1, -1]},
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, *(sizes.get(axis, -1) for axis in axes)]}
            for name, (datatype, axes) in OUTPUTS.items()
        ],
    }


def check_json_answer(ask: Ask, maps: int, served: Served, settings: Settings) -> None:
    """
    Refuse a request whose answer would take more text than an answer may have bytes.

    Parameters
    ----------
    ask : Ask
        The request.
    maps : int
        How many maps of the input's size each target has in JSON.
    served : Served
        The model.
    settings : Settings
        ``max_answer``.

    Raises
    ------
    TooLargeError
        If it would.
    """
    height, width = served.explainer.preprocess.size
    if JSON_VALUE * maps * ask.count * ask.width * height * width > settings.max_answer:
        raise TooLargeError(
            f"{ask.count} x {ask.width} heatmaps of {height} x {width} are too many for JSON; ask for fewer at a time, "
            "or for binary tensors (version 2 of the protocol)"
        )


def finite(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """
    Return scores as they are sent, or say that they cannot be.

    Parameters
    ----------
    array : ndarray of float
        Logits, values or raw maps.

    Returns
    -------
    ndarray of float32
        The same.

    Raises
    ------
    NumericError
        If one is NaN or infinite; JSON could not say so.
    """
    if not np.isfinite(array).all():
        raise NumericError("the model's scores for this input hold NaN or infinity")
    return np.asarray(array, np.float32)


def _object(value: object, what: str) -> dict[str, Any]:
    """Return an object of JSON, empty where it is missing."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{what} must be an object; got {said(value)}")
    return value


def _wanted(document: dict[str, Any], parameters: dict[str, Any]) -> Wanted:
    """Read which outputs are wanted, and how."""
    name = document.get("id") or ""
    if not isinstance(name, str) or len(name) > MAX_ID:
        raise InputError(f"id must be a text of at most {MAX_ID} letters; got {said(name)}")
    every = _flag(parameters, "binary_data_output", False)
    entries = document.get("outputs")
    if entries is None or entries == []:
        return Wanted(name, tuple((output, every) for output in UNASKED))
    if not isinstance(entries, list):
        raise InputError(f"outputs must be a list; got {said(entries)}")
    if len(entries) > MAX_TENSORS:
        raise TooLargeError(f"{len(entries)} outputs were asked for; {MAX_TENSORS} are allowed")
    found: dict[str, bool] = {}
    for entry in entries:
        output = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(output, str) or output not in OUTPUTS:
            raise InputError(f"an output is an object whose name is one of {', '.join(OUTPUTS)}; got {said(entry)}")
        if output in found:
            raise InputError(f"output {output!r} was asked for twice")
        told = _object(entry.get("parameters"), f"parameters of output {output!r}")
        if any(key == "classification" or key.startswith("shared_memory") for key in told):
            raise InputError(f"output {output!r}: classification and shared memory are not offered")
        found[output] = _flag(told, "binary_data", every)
    return Wanted(name, tuple(found.items()))


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    """Return a truth value of the protocol's own."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false; got {said(value)}")
    return value


def _timeout(microseconds: object, settings: Settings) -> float:
    """Return seconds."""
    if microseconds is None:
        return settings.timeout
    if isinstance(microseconds, bool) or not isinstance(microseconds, int | float):
        raise InputError(f"timeout must be a number of microseconds; got {said(microseconds)}")
    return read_timeout(microseconds / 1e6, settings)


def _taken(
    tensors: dict[str, Tensor], served: Served, settings: Settings
) -> tuple[tuple[bytes, ...] | npt.NDArray[Any], list[Any] | None]:
    """Return the images, and the targets where they are given."""
    own = str(served.explainer.manifest.input["name"])
    targets = tensors.pop("target", None)
    image = tensors.pop("image", None)
    if own not in ("image", "target") and own in tensors:
        if image is not None:
            raise InputError(f"inputs 'image' and {own!r} are the same one; give one of them")
        image = tensors.pop(own)
    if image is None or tensors:
        got = ", ".join(said(name) for name in tensors)
        raise InputError(f"inputs are 'image' (or {own!r}) and, if you like, 'target'; got {got or 'no image'}")
    return _images(image, settings), None if targets is None else _targets(targets)


def _images(image: Tensor, settings: Settings) -> tuple[bytes, ...] | npt.NDArray[Any]:
    """Return what an image tensor holds."""
    values = image.values
    if isinstance(values, tuple):
        if len(image.shape) > 2 or image.shape[1:] not in ((), (1,)):
            raise InputError(f"encoded pictures have shape [N] or [N, 1]; got {list(image.shape)}")
        if len(values) > settings.max_images:
            raise TooLargeError(f"{len(values)} images were sent; {settings.max_images} are allowed in a request")
        return values if image.binary else tuple(read_base64(text.decode(), "a picture in JSON") for text in values)
    if len(image.shape) != 4 or (values.dtype.kind != "f" and image.datatype != "UINT8"):
        raise InputError(
            f"an image is BYTES [N], UINT8 [N, H, W, 3], or prepared FP32, FP16 or FP64 of four axes; "
            f"got {image.datatype} {list(image.shape)}"
        )
    return values


def _targets(tensor: Tensor) -> list[Any]:
    """Return N targets, or N lists of T."""
    values, shape = tensor.values, tensor.shape
    if len(shape) > 2 or tensor.datatype not in ("INT64", "INT32", "BYTES"):
        raise InputError(
            f"targets are INT64, INT32 or BYTES of shape [N] or [N, T]; got {tensor.datatype} {list(shape)}"
        )
    if isinstance(values, np.ndarray):
        listed: list[Any] = values.tolist()
        return listed
    try:
        words = [value.decode() for value in values]
    except UnicodeDecodeError:
        raise InputError("a target in BYTES is a text in UTF-8; got other bytes") from None
    return words if len(shape) == 1 else [words[i : i + shape[1]] for i in range(0, len(words), max(1, shape[1]))]


def _raw(body: bytes, served: Served, settings: Settings) -> tuple[bytes, ...] | npt.NDArray[Any]:
    """Return the image that a body without JSON is."""
    preprocess = served.explainer.preprocess
    dtype = DATATYPES[datatype_of(preprocess.dtype)]
    size = math.prod(preprocess.shape) * dtype.itemsize
    whole = len(body) > 0 and len(body) % size == 0
    encoded = body.startswith(_MAGIC) or (body[:4] == b"RIFF" and body[8:12] == b"WEBP")
    if encoded and not (whole and dtype == np.uint8):  # as floats those bytes are numbers that no preprocessing makes
        return (body,)
    if not whole:
        raise InputError(
            f"a body without JSON is one prepared tensor of {size} bytes (or several), or a JPEG, PNG or WebP file; "
            f"got {len(body)} bytes of something else"
        )
    return np.frombuffer(body, dtype).reshape(-1, *preprocess.shape)


def _output(name: str, answer: Answer) -> tuple[Any, tuple[int, ...]]:
    """Return an output's values and shape."""
    if name == "logits":
        return finite(answer.logits), answer.logits.shape
    explanation = answer.explanation
    if explanation is None:
        raise InputError(f"output {name!r} needs an explanation, and none was made")
    if name == "overlay":
        pair = explanation.targets.shape
        drawn = tuple(png(explanation.overlay(*place)) for place in np.ndindex(*pair))
        return drawn, pair
    array = {
        "cam": explanation.heatmaps,
        "target": explanation.targets,
        "value": explanation.values,
        "degenerate": explanation.degenerate,
        "raw": explanation.raw,
    }[name]
    typed = np.asarray(array, DATATYPES[OUTPUTS[name][0]])
    return (finite(typed) if name in ("value", "raw") else typed), typed.shape
