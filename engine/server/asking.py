"""
What all protocols ask for, read from plain values and held to the server's limits.

In: scalars by name, targets in any of the forms they travel in, images as bytes or arrays. Out: `Wish`, targets, seconds,
and the `Ask` of them all. A client's words are cut before they reach a table of names, so that no message grows with
them, and everything that may be repeated is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import targets as target_table
from ..anytime import Budget
from ..errors import InputError, MethodError, TargetError
from ..fuse import HEAT_FUSIONS, RAW_FUSIONS
from ..methods import Method, resolve, validate
from ..pipeline import PIPELINES
from ..plans import MASK_SPACES
from ..targets import Target
from ..words import match
from .asks import Ask, Wish
from .decoding import blaming
from .documents import said
from .faults import TooLargeError, UnsupportedError
from .pictures import check_beginning

if TYPE_CHECKING:
    from .served import Served
    from .settings import Settings

__all__ = ["ceiling_of", "make_ask", "read_target", "read_targets", "read_timeout", "read_wish"]

MAX_TEXT = 512  # letters of a word; ImageNet's longest label has 121, and a contrast names two
MAX_LAYERS = 16  # fused in one map
MAX_PARAMETERS = 64  # no method has so many options
MAX_HYPHENS = 16  # of a contrast, which is tried at every one
BLACK_BOX = "black-box"  # the family whose masks are not made of activations
MAX_INTEGER = 2**53  # where an option has no ceiling; what JSON carries exactly

# A request's own, or some other server's; nothing of them is an option of a method.
NOT_OPTIONS = {
    "target",
    "timeout",
    "priority",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "binary_data_output",
    "headers",
}
WISHES = {
    "method",
    "variant",
    "layer",
    "pipeline",
    "fuse",
    "eigen_smooth",
    "tta",
    "mask_space",
    "max_forwards",
    "max_seconds",
    "stability",
}
_YES = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}


def read_wish(parameters: Mapping[str, object], served: Served, settings: Settings) -> Wish:
    """
    Read how to explain.

    Parameters
    ----------
    parameters : mapping of str to str, int, float or bool
        ``method``, ``variant``, ``layer`` (several between commas), ``pipeline``, ``fuse``, ``eigen_smooth``, ``tta``,
        ``mask_space``, ``max_forwards``, ``max_seconds``, ``stability``; ``target``, ``timeout`` and what other servers
        know are left alone; any other name is an option of the method. Text may stand for numbers and truth values.
    served : Served
        The model.
    settings : Settings
        ``ceilings``.

    Returns
    -------
    Wish
        Names resolved and every option present, so that equal wishes are equal. `layer` is None where the layers are
        those that would be taken anyway.

    Raises
    ------
    MethodError, LayerError, InputError
        If a name does not exist, or a value is of the wrong kind, out of range, or above its ceiling.
    UnsupportedError
        If the layer has more channels than the method may hide here.
    """
    given = _scalars(parameters)
    method = resolve(_text(given, "method") or "gradcam")
    options = {name: value for name, value in given.items() if name not in WISHES and name not in NOT_OPTIONS}
    variant, full = validate(method, _text(given, "variant"), options)
    budget = _budget(given, method)
    layer = _layers(given, method, served)
    _check_ceilings(method, full, layer, served, settings)
    return Wish(
        method=method.id,
        variant=variant,
        options=tuple(sorted(full.items())),
        layer=layer,
        pipeline=_one_of(given, "pipeline", PIPELINES) or "camrt",
        fuse=_one_of(given, "fuse", [*HEAT_FUSIONS, *RAW_FUSIONS]),
        eigen_smooth=_flag(given, "eigen_smooth"),
        tta=_flag(given, "tta"),
        mask_space=_one_of(given, "mask_space", MASK_SPACES) or "normalised",
        budget=budget,
    )


def read_target(parameters: Mapping[str, object]) -> str | int | None:
    """
    Return the target among scalar parameters, which is that of every image.

    Parameters
    ----------
    parameters : mapping of str to object
        As a client sent them.

    Returns
    -------
    str, int or None
        For `read_targets`; None where there is none.

    Raises
    ------
    TargetError
        If it is no text and no whole number.
    """
    value = parameters.get("target")
    if value is None or isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise TargetError(f"parameter 'target' must be a class index or a text; got {said(value)}")


def read_targets(value: object, count: int, served: Served, settings: Settings) -> list[list[Target]] | None:
    """
    Read what is explained of each image.

    Parameters
    ----------
    value : optional
        None; a class index (-1 for the predicted class) or a text that `camrt.targets.parse` knows, for every image; N
        of those, one an image; N lists of T of those; or an integer array (N,) or (N, T).
    count : int
        N.
    served : Served
        The model.
    settings : Settings
        ``max_targets``.

    Returns
    -------
    list of list of Target, or None
        N lists of T; None where each image's predicted class alone is wanted.

    Raises
    ------
    TargetError
        If a target does not exist, or there is not the same number for each image.
    TooLargeError
        If an image has more than allowed.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if value is None:
        return None
    rows = value if isinstance(value, list | tuple) else [value] * count
    if len(rows) != count:
        raise TargetError(f"want one target, or list of targets, for each of {count} images; got {len(rows)}")
    table = [list(row) if isinstance(row, list | tuple) else [row] for row in rows]
    widths = {len(row) for row in table}
    if max(widths) > settings.max_targets:
        raise TooLargeError(f"an image has {max(widths)} targets; {settings.max_targets} are allowed")
    if len(widths) > 1 or 0 in widths:
        raise TargetError(f"every image needs the same number of targets, at least one; got {sorted(widths)}")
    known: dict[tuple[type, object], Target] = {}  # a name is looked up once, however often it comes
    found = [[_target(item, served, known) for item in row] for row in table]
    return None if widths == {1} and all(row == [target_table.Logit(None)] for row in found) else found


def read_timeout(seconds: object, settings: Settings) -> float:
    """
    Read how long a client waits.

    Parameters
    ----------
    seconds : object
        A number, or its text; None or 0 where the client says nothing.
    settings : Settings
        ``timeout`` and ``max_timeout``.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    InputError
        If it is no number, negative, or longer than allowed.
    """
    if seconds is None:
        return settings.timeout
    value = _number(seconds, "timeout")
    if not 0 <= value <= settings.max_timeout:
        raise InputError(f"a timeout is at most {settings.max_timeout:g} seconds, and not negative; got {value:g}")
    return value or settings.timeout


def ceiling_of(method: Method, name: str, settings: Settings) -> int:
    """
    Return how high an integer option may go.

    Parameters
    ----------
    method : Method
        A row of the table.
    name : str
        One of its options.
    settings : Settings
        ``ceilings``.

    Returns
    -------
    int
        The ceiling of the option's name; that of ``masks`` for the masks of a black-box method, which are its whole cost
        while elsewhere ``n`` multiplies another number; 2^53 where nothing is said.
    """
    return settings.ceilings.get("masks" if method.family == BLACK_BOX and name == "n" else name, MAX_INTEGER)


def make_ask(
    images: tuple[bytes, ...] | npt.NDArray[Any],
    target: object,
    wish: Wish | None,
    timeout: float,
    served: Served,
    settings: Settings,
) -> Ask:
    """
    Put a request together, and hold it to the limits that need no decoding.

    Parameters
    ----------
    images : tuple of bytes, or ndarray
        Encoded pictures; uint8 (N, H, W, 3) pictures; or inputs prepared in the model's layout, float, or uint8 for a
        model of uint8.
    target : optional
        As `read_targets` takes it.
    wish : Wish or None
        From `read_wish`; None for scores alone.
    timeout : float
        Seconds.
    served : Served
        The model.
    settings : Settings
        ``max_images``, ``max_pixels``, ``max_side``, ``max_targets``, ``max_answer``.

    Returns
    -------
    Ask
        For the scheduler.

    Raises
    ------
    InputError
        If there is no image, or an array has another shape or type.
    TooLargeError
        If there are more images, pixels or targets than allowed, or the answer would be larger.
    ImageError, MediaTypeError
        If a picture begins like none, or like one of a format that is not taken.
    TargetError
        If a target does not exist.

    Notes
    -----
    Cost: nothing is copied. Whether a prepared input is finite is checked where it is copied, by `camrt.image.prepare`.
    """
    count = len(images)
    if count < 1:
        raise InputError("there is no image; give at least one")
    if count > settings.max_images:
        raise TooLargeError(f"{count} images were sent; {settings.max_images} are allowed in a request")
    if isinstance(images, np.ndarray):
        _check_array(images, served, settings)
    elif not all(images):
        raise InputError("a picture is empty (0 bytes); send the content of an image file")
    else:
        for place, content in enumerate(images):
            with blaming(place, count):
                check_beginning(content)
    targets = read_targets(target, count, served, settings)
    ask = Ask(images, targets, wish, timeout)
    height, width = served.explainer.preprocess.size
    size = 4 * count * ask.width * height * width
    if wish is not None and size > settings.max_answer:
        raise TooLargeError(
            f"{count} x {ask.width} heatmaps of {height} x {width} are {size} bytes; {settings.max_answer} are allowed: "
            "ask for fewer images or targets at a time"
        )
    return ask


def _scalars(parameters: Mapping[str, object]) -> dict[str, str | int | float | bool]:
    """Check names and kinds; Python's own text for what is not given is not among them."""
    if len(parameters) > MAX_PARAMETERS:
        raise InputError(f"{len(parameters)} parameters were sent; {MAX_PARAMETERS} are allowed")
    found: dict[str, str | int | float | bool] = {}
    for name, value in parameters.items():
        if name in NOT_OPTIONS:
            continue
        if len(name) > MAX_TEXT:
            raise InputError(f"a parameter's name has at most {MAX_TEXT} letters; got {said(name)}")
        if not isinstance(value, str | int | float | bool):
            raise InputError(f"parameter {said(name)} must be a text, a number or a truth value; got {said(value)}")
        most = MAX_TEXT * (MAX_LAYERS if name == "layer" else 1)
        if isinstance(value, str) and len(value) > most:
            raise InputError(f"parameter {said(name)} has at most {most} letters; got {said(value)}")
        found[name] = value
    return found


def _text(given: Mapping[str, object], name: str) -> str | None:
    """Return a word, None where it is missing or empty."""
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} must be a text; got {said(value)}")
    return value.strip() or None if value is not None else None


def _flag(given: Mapping[str, object], name: str) -> bool:
    """Return a truth value, no where it is missing."""
    value = given.get(name, False)
    if isinstance(value, bool):
        return value
    try:
        return _YES[match(str(value), _YES)]
    except ValueError:
        raise InputError(f"{name} must be true or false; got {said(value)}") from None


def _one_of(given: Mapping[str, object], name: str, words: Any) -> str | None:
    """Return one of a few words, None where it is missing."""
    text = _text(given, name)
    if text is not None and text not in words:
        raise InputError(f"{name} must be one of {', '.join(words)}; got {said(text)}")
    return text


def _number(value: object, name: str) -> float:
    """Return a finite number."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} must be a number; got {said(value)}")
    return number


def _budget(given: Mapping[str, object], method: Method) -> Budget | None:
    """Return what masked forwards may cost, None where nothing is said."""
    forwards, seconds, stability = (
        _number(given[name], name) if name in given else None for name in ("max_forwards", "max_seconds", "stability")
    )
    if forwards is seconds is stability is None:
        return None
    if method.runs is None:
        raise MethodError(f"a budget is for methods of many masked forwards; {method.id} has none to leave out")
    return Budget(None if forwards is None else math.floor(forwards), seconds, stability)


def _layers(given: Mapping[str, object], method: Method, served: Served) -> tuple[str, ...] | None:
    """Return layers by their own names, None for those that the method takes anyway."""
    names = [name.strip() for name in (_text(given, "layer") or "").split(",") if name.strip()]
    if len(names) > MAX_LAYERS:
        raise InputError(f"{len(names)} layers were given; {MAX_LAYERS} are allowed")
    if any(len(name) > MAX_TEXT for name in names):
        raise InputError(f"a layer's name has at most {MAX_TEXT} letters")
    found = served.explainer.layers_of(method.id, names or None)
    if not names or ("head" not in method.needs and found == served.explainer.layers_of(method.id)):
        return None  # a method of linear heads may have no default
    return found


def _check_ceilings(
    method: Method, options: Mapping[str, object], layer: tuple[str, ...] | None, served: Served, settings: Settings
) -> None:
    """Refuse options that would make one request too dear, or an array too large."""
    for name, value in options.items():
        highest = max(value, default=0) if isinstance(value, tuple) else value
        if isinstance(highest, int) and highest > (most := ceiling_of(method, name, settings)):
            raise MethodError(f"option {name!r} of {method.id} is at most {most} on this server; got {highest}")
    if method.runs is None:
        return
    names = layer or served.explainer.layers_of(method.id)
    for one in served.explainer.layers:
        if one.name not in names:
            continue
        cells = one.grid[0] * one.grid[1]
        runs = method.runs(options, one.channels, cells)
        masks, channels = settings.ceilings["masks"], settings.ceilings["channels"]
        if method.family == BLACK_BOX and runs > masks:
            raise MethodError(f"{method.id} would hide {runs} parts of the picture; {masks} are allowed on this server")
        if one.channels > channels and runs != method.runs(options, one.channels + 1, cells):
            raise UnsupportedError(
                f"layer {one.name!r} has {one.channels} channels; {method.id} hides one after the other, and {channels} "
                "are allowed on this server"
            )


def _target(item: object, served: Served, known: dict[tuple[type, object], Target]) -> Target:
    """Read one target; -1 is the predicted class."""
    if isinstance(item, str):
        if len(item) > MAX_TEXT or item.count("-") > MAX_HYPHENS:
            raise TargetError(f"a target has at most {MAX_TEXT} letters and {MAX_HYPHENS} hyphens; got {said(item)}")
    elif item is not None and (isinstance(item, bool) or not isinstance(item, int)):
        raise TargetError(f"a target must be a class index or a text; got {said(item)}")
    key = (type(item), item)
    if key not in known:
        plain = None if item in (-1, "-1") else item
        ((known[key],),) = target_table.parse(
            plain, n_images=1, n_classes=served.explainer.manifest.classes, labels=served.explainer.labels
        )
    return known[key]


def _check_array(images: npt.NDArray[Any], served: Served, settings: Settings) -> None:
    """Check that an array is pictures, or inputs of the model's own shape."""
    preprocess = served.explainer.preprocess
    shape = "x".join(map(str, images.shape[1:]))
    wanted = "x".join(map(str, preprocess.shape))
    if images.dtype.kind == "f" or (preprocess.dtype == "uint8" and images.shape[1:] == preprocess.shape):
        if images.shape[1:] != preprocess.shape:
            raise InputError(f"a prepared input has shape Nx{wanted}; got Nx{shape}")
        return
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(
            f"want pictures as uint8 NxHxWx3, or prepared inputs as float Nx{wanted}; got {images.dtype} Nx{shape}"
        )
    height, width = images.shape[1:3]
    if height < 1 or width < 1:
        raise InputError(f"a picture of {width} x {height} pixels is empty")
    if height * width > settings.max_pixels or max(height, width) > settings.max_side:
        raise TooLargeError(
            f"a picture has {width} x {height} pixels; {settings.max_pixels}, and a side of {settings.max_side}, are allowed"
        )
