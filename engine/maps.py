"""
The maps of a batch as they were drawn, and how batches and targets are put together.

In: arrays by image, target and layer. Out: the same, joined; a single part is never copied. Everything stays where it
was made, on the host or on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .evidence import Evidence
from .methods import Result
from .methods.arrays import namespace

__all__ = ["Maps", "beside", "flags_by_name", "highest_flags", "joined", "together"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Maps:
    """
    Maps of N images for T targets each.

    Attributes
    ----------
    evidence : tuple of Evidence
        What the model said, one a target.
    raws : tuple of ndarray, shape (N, T, h, w)
        Raw maps, one entry a layer.
    heat : ndarray of float, shape (N, T, H, W)
        Heatmaps.
    degenerate : ndarray of bool, shape (N, T)
        Which are constant.
    flags : mapping of str to ndarray, shape (N, T)
        What the method reports.
    raw_input : ndarray of float, shape (N, T, C, H, W), optional
        The last layer's signed maps at the image.
    """

    evidence: tuple[Evidence, ...]
    raws: tuple[Array, ...]
    heat: Array
    degenerate: Array
    flags: Mapping[str, Array]
    raw_input: Array | None = None


def together(parts: Sequence[Maps], axis: int) -> Maps:
    """
    Put maps of several batches, or of several targets, together.

    Parameters
    ----------
    parts : sequence of Maps
        At least one; a single one stays as it is.
    axis : {0, 1}
        0 for batches, 1 for targets.

    Returns
    -------
    Maps
        Their arrays in order; a flag that some parts do not raise is zero there. `evidence` holds that of all parts.
    """
    if len(parts) == 1:
        return parts[0]
    flags = flags_by_name([part.flags for part in parts], [part.degenerate.shape for part in parts])
    at_image = [part.raw_input for part in parts if part.raw_input is not None]
    return Maps(
        tuple(evidence for part in parts for evidence in part.evidence),
        tuple(joined(raws, axis) for raws in zip(*(part.raws for part in parts), strict=True)),
        joined([part.heat for part in parts], axis),
        joined([part.degenerate for part in parts], axis),
        {name: joined(flag, axis) for name, flag in flags.items()},
        joined(at_image, axis) if at_image else None,
    )


def joined(parts: Sequence[Array], axis: int = 0) -> Array:
    """
    Join arrays along an axis.

    Parameters
    ----------
    parts : sequence of ndarray
        At least one, all on the host or all on the device; a single one is not copied.
    axis : int, default 0
        Along which.

    Returns
    -------
    ndarray
        Where the parts are.
    """
    if len(parts) == 1:
        return parts[0]
    whole: Array = namespace(parts[0]).concatenate(parts, axis=axis)
    return whole


def beside(columns: Sequence[Array]) -> Array:
    """
    Make the arrays of all targets one.

    Parameters
    ----------
    columns : sequence of ndarray, shape (N, ...)
        One a target; a single one is not copied.

    Returns
    -------
    ndarray, shape (N, T, ...)
        Where the columns are.
    """
    return joined([column[:, None] for column in columns], 1)


def flags_by_name(parts: Sequence[Mapping[str, Array]], shapes: Sequence[tuple[int, ...]]) -> dict[str, list[Array]]:
    """
    Sort the flags of several parts by name.

    Parameters
    ----------
    parts : sequence of mapping of str to ndarray
        What each part raises.
    shapes : sequence of tuple of int
        The shape of each part's flags.

    Returns
    -------
    dict of str to list of ndarray
        One array a part; what a part does not raise is zero there.
    """
    kinds = {name: flag for part in parts for name, flag in part.items()}
    return {
        name: [
            part[name] if name in part else namespace(like).zeros(shape, like.dtype)
            for part, shape in zip(parts, shapes, strict=True)
        ]
        for name, like in sorted(kinds.items())
    }


def highest_flags(results: Sequence[Result]) -> dict[str, Array]:
    """
    Return what a method reports of one target, the highest of all layers'.

    Parameters
    ----------
    results : sequence of Result
        One a layer.

    Returns
    -------
    dict of str to ndarray, shape (N,)
        Every flag that some layer raises.
    """
    flags: dict[str, Array] = {}
    for result in results:
        for name, flag in result.flags.items():
            flags[name] = flag if name not in flags else np.maximum(flags[name], flag)
    return flags
