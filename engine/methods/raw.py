"""
From a method and its evidence to a raw map.

This is the one way to run a method: it hands the function its evidence, turns weights into a map, gathers flags, and
refuses NaN. What comes out is at the layer's resolution, signed and unscaled, and goes through `camrt.pipeline` next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from camrt import kernels
from camrt.kernels import is_cupy

from ..errors import MethodError, NumericError
from .arrays import Array, has_negative
from .component import smooth
from .table import Method, Result


def raw_map(
    method: Method,
    evidence: Mapping[str, object],
    *,
    variant: str,
    options: Mapping[str, object],
    layer: str = "",
    eigen_smooth: bool = False,
) -> Result:
    """
    Run one method on one layer.

    Parameters
    ----------
    method : Method
        A row of the table.
    evidence : mapping of str to object
        At least what ``method.needs`` names.
    variant : str
        One of the method's variants, as `validate` returns it.
    options : mapping of str to object
        Every option, as `validate` returns them; fusion options among them are left aside.
    layer : str
        Name of the layer, for messages.
    eigen_smooth : bool
        Replace the sum over channels by the first principal component of the weighted activations, its sign chosen
        to agree with the sum. Only for methods that give weights; it voids HiResCAM's guarantee.

    Returns
    -------
    Result
        `array` is the raw map (N,h,w) with ``gives="map"``, or a finished heatmap (N,H,W) with ``gives="heatmap"``.
        `flags` holds the method's own flags, ``signed_activations`` (N,) for methods that assume ``A >= 0``, and
        ``unstable`` where smoothing met a tie.

    Raises
    ------
    MethodError
        If `eigen_smooth` is asked of a method without weights.
    NumericError
        If a map holds NaN or infinity; the message names method, layer and image.

    Notes
    -----
    Cost: the method's own, one weighted sum over the activations, and one pass over the map for the check.
    """
    read = {"acts", *method.needs} & set(evidence)
    evidence = {name: _at_least_single(evidence[name]) for name in read}
    kept = {name: value for name, value in options.items() if name in method.options}
    try:
        with np.errstate(all="ignore"):  # what is not finite is named below
            answer = method.function(*(evidence[name] for name in method.needs), variant=variant, **kept)
            result = answer if isinstance(answer, Result) else Result(answer)
            gives = result.gives or method.gives
            if eigen_smooth and gives != "weights":
                raise MethodError(f"eigen_smooth needs a method that weighs channels; {method.id} gives a {gives}")
            array, flags = result.array, dict(result.flags)
            if gives == "weights":
                acts: Array = evidence["acts"]  # type: ignore[assignment]
                if eigen_smooth:
                    array, flags["unstable"] = smooth(acts, array)
                else:
                    array = kernels.weighted_sum(acts, array)
            if method.nonnegative:
                flags["signed_activations"] = has_negative(evidence["acts"])  # type: ignore[arg-type]
    except np.linalg.LinAlgError as error:
        check_finite(evidence["acts"], method.id, layer)  # type: ignore[arg-type]
        raise NumericError(f"{method.id} at layer {layer!r}: the decomposition did not converge ({error})") from error
    check_finite(array, method.id, layer)
    return Result(array, flags, "heatmap" if gives == "heatmap" else "map", result.raw_input)


def check_finite(array: Array, method: str, layer: str) -> None:
    """
    Refuse NaN and infinity, naming where they are.

    Parameters
    ----------
    array : ndarray of float, shape (N, ...)
        Raw maps, or the evidence they are made of.
    method, layer : str
        For the message.

    Raises
    ------
    NumericError
        If an image's values are not all finite.

    Notes
    -----
    Cost: one pass over `array`. On a CUDA device nothing is done, because it would wait for the device: the caller asks
    again once the maps are fetched.
    """
    if is_cupy(array):
        return
    if not array.size or float(abs(array).max()) < math.inf:  # false for NaN, which survives a maximum
        return
    broken = [index for index, row in enumerate(array) if not bool(abs(row).max() < np.inf)]
    if broken:
        which = f"image {broken[0]}" if len(broken) == 1 else f"images {', '.join(map(str, broken))}"
        raise NumericError(
            f"{method} at layer {layer!r}: the map of {which} holds NaN or infinity; "
            "check the picture and the model's weights, or run the model in float32"
        )


def _at_least_single(value: object) -> object:
    """Widen a half precision array to float32; anything else passes."""
    if isinstance(value, np.ndarray) or is_cupy(value):
        array: Array = value  # type: ignore[assignment]
        return array.astype(np.float32) if array.dtype == np.float16 else array
    return value
