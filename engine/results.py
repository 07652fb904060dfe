"""
From maps to what a caller gets: an `Explanation`, or `Drawn` maps that stay where they are.

In: the `Maps` of every batch, and the plan they were made by. Out: one result. An explanation lies on the host and holds
everything that is needed to make it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt.kernels import is_cupy

from .device import on_host
from .evidence import Evidence
from .explanation import Explanation
from .image import Prepared
from .maps import Maps, beside, joined, together
from .methods.raw import check_finite
from .plans import Plan
from .preprocess import Preprocess
from .session import Sessions, runtime

__all__ = ["Drawn", "drawn_of", "explanation_of", "fetched", "made_by", "provenance_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Drawn:
    """
    One map an image, and what the model said while it was made.

    Attributes
    ----------
    heat : ndarray of float, shape (N, H, W)
        Heatmaps, where the model runs.
    degenerate : ndarray of bool, shape (N,)
        Which are constant; on the host.
    raw : ndarray of float, shape (N, h, w)
        The last layer's maps before ReLU, resize and scaling.
    logits : ndarray, shape (N, C)
        Scores of the inputs, where the model runs.
    classes : ndarray of int64, shape (N,)
        The class each map explains; on the host.
    """

    heat: Array
    degenerate: npt.NDArray[np.bool_]
    raw: Array
    logits: Array
    classes: npt.NDArray[np.int64]


def fetched(plan: Plan, maps: Maps, labels: Sequence[str]) -> Maps:
    """
    Bring what a result holds to the host; this is where a device is waited for.

    Parameters
    ----------
    plan : Plan
        What the maps were made by.
    maps : Maps
        Of one batch.
    labels : sequence of str
        Class names, or none.

    Returns
    -------
    Maps
        On the host; themselves where they were there.

    Raises
    ------
    NumericError
        If a map or the logits of a device hold NaN or infinity.
    """
    if not is_cupy(maps.heat):
        return maps
    raws = tuple(on_host(raw) for raw in maps.raws)
    for raw, name in zip(raws, plan.names, strict=True):
        check_finite(raw, plan.method.id, name)
    return Maps(
        tuple(evidence.fetched(labels) for evidence in maps.evidence),
        raws,
        on_host(maps.heat),
        on_host(maps.degenerate),
        {name: on_host(flag) for name, flag in maps.flags.items()},
        None if maps.raw_input is None else on_host(maps.raw_input),
    )


def explanation_of(
    plan: Plan, chunks: Sequence[Maps], prepared: Prepared, provenance: Mapping[str, Any]
) -> Explanation:
    """
    Put the batches together.

    Parameters
    ----------
    plan : Plan
        What the maps were made by.
    chunks : sequence of Maps
        One a batch, on the host.
    prepared : Prepared
        The pictures of all batches.
    provenance : mapping
        What made the result.

    Returns
    -------
    Explanation
        Axis 0 images, axis 1 targets.
    """
    whole = together(chunks, 0)

    def _said(pick: Callable[[Evidence], Array]) -> Array:
        return joined([beside([pick(evidence) for evidence in maps.evidence]) for maps in chunks])

    return Explanation(
        logits=joined([maps.evidence[0].logits for maps in chunks]).astype(np.float32, copy=False),
        targets=_said(lambda evidence: evidence.target),
        values=_said(lambda evidence: evidence.values),  # type: ignore[arg-type, return-value]
        labels=[row for maps in chunks for row in zip(*(e.names for e in maps.evidence), strict=True)],
        raw=whole.raws[-1],
        layer_raws=dict(zip(plan.names, whole.raws, strict=True)),
        heatmaps=whole.heat.astype(np.float32, copy=False),
        degenerate=whole.degenerate,
        raw_input=whole.raw_input,
        flags=dict(sorted(whole.flags.items())),
        method=plan.method.id,
        variant=plan.variant,
        options=dict(plan.options),
        layers=plan.names,
        pipeline=plan.pipeline,
        pictures=prepared.pictures,
        names=prepared.names,
        provenance=provenance,
    )


def drawn_of(plan: Plan, chunks: Sequence[Maps]) -> Drawn:
    """
    Put the batches of one target an image together, and leave the maps where they are.

    Parameters
    ----------
    plan : Plan
        What the maps were made by.
    chunks : sequence of Maps
        One a batch.

    Returns
    -------
    Drawn
        Its flags and classes are on the host.

    Raises
    ------
    NumericError
        If a map of a device holds NaN or infinity.
    """
    whole = together(chunks, 0)
    raw = whole.raws[-1][:, 0]
    if is_cupy(raw):
        check_finite(on_host(abs(raw).max((1, 2))), plan.method.id, plan.names[-1])
    return Drawn(
        heat=whole.heat[:, 0],
        degenerate=on_host(whole.degenerate[:, 0]),
        raw=raw,
        logits=joined([maps.evidence[0].logits for maps in chunks]),
        classes=np.concatenate([on_host(maps.evidence[0].target) for maps in chunks]).astype(np.int64, copy=False),
    )


def provenance_of(plan: Plan, made: Mapping[str, Any], *, tta: bool) -> dict[str, Any]:
    """
    Say what made a result, so that it can be made again.

    Parameters
    ----------
    plan : Plan
        What the maps were made by.
    made : mapping
        What `made_by` says.
    tta : bool
        Whether maps of changed inputs were averaged.

    Returns
    -------
    dict
        Plain data.
    """
    return {
        **made,
        "fuse": plan.fuse if len(plan.layers) > 1 else None,
        "eigen_smooth": plan.eigen_smooth,
        "tta": tta,
        **({"mask_space": plan.mask_space} if {"masked_of", "hidden"} & set(plan.method.needs) else {}),
    }


def made_by(sessions: Sessions, preprocess: Preprocess) -> dict[str, Any]:
    """
    Say what does not change from call to call.

    Parameters
    ----------
    sessions : Sessions
        The model's programs.
    preprocess : Preprocess
        How its inputs are made.

    Returns
    -------
    dict
        The model, versions, providers, precision and preprocessing, as plain data.
    """
    return {
        "model": sessions.source.manifest.model,
        "camrt": version("camrt"),
        "onnxruntime": runtime().__version__,
        "numpy": np.__version__,
        "providers": [provider.name for provider in sessions.providers],
        "precision": sessions.precision,
        "preprocess": preprocess.to_dict(),
    }
