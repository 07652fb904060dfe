"""
Programs that end in a map: a method's raw map of one layer for the engine, and whole heatmaps for other runtimes.

In: a draft and a method of `camrt.export.maps.MAPS`. Out: ``map`` (N, h, w), its heatmap ``heat`` (N, H, W), where it
is ``degenerate``, and the method's flags; or ``heatmap`` (N, H, W) alone, fused over all layers in the method's own way.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from ..manifest import Layer
from ..maps import MAPS, InGraph, fused, is_signed
from ..vjp.emit import described
from .draft import Draft
from .evidence import evidence, is_nonnegative
from .layouts import image_size
from .seeds import take_rows, target_seed

__all__ = ["explained", "mapped"]


def mapped(draft: Draft, method: str) -> None:
    """
    Give a method's raw map and heatmap of one layer, with its flags.

    Parameters
    ----------
    draft : Draft
        Of one layer.
    method : str
        A key of `camrt.export.maps.MAPS`.
    """
    draft.begin_at_image()
    row, (layer,), (value,) = MAPS[method], draft.layers, draft.values
    seed = target_seed(draft)
    (known,) = evidence(draft, row, seed)
    raw, flags = _raw(draft, row, layer, known)
    heat, degenerate = fused(draft.emit, [raw], known["size"], how=row.fuse, relu=row.relu)
    draft.outputs |= {"map": raw, "heat": heat, "degenerate": degenerate, **flags}
    if row.assumes_positive and not is_nonnegative(value):
        draft.outputs["signed"] = is_signed(draft.emit, known["acts"])
    degenerate.dtype = ir.DataType.BOOL
    for name in {"degenerate", "signed", *flags} & set(draft.outputs):
        draft.outputs[name].shape = ir.Shape([draft.batch])
    take_rows(draft, seed, draft.outputs["explained"])


def explained(draft: Draft, method: str) -> None:
    """
    Give a method's heatmap, fused over the layers.

    Parameters
    ----------
    draft : Draft
        Of at least one layer.
    method : str
        A key of `camrt.export.maps.MAPS`.
    """
    draft.begin_at_image()
    row = MAPS[method]
    seed = target_seed(draft)
    found = evidence(draft, row, seed)
    if row.gives == "heatmap":
        heat, _ = _drawn(draft, row, found[0])
    else:
        places = list(zip(draft.layers, found, strict=True))[: 1 if row.at_image else None]
        raws = [_raw(draft, row, layer, known)[0] for layer, known in places]
        heat, _ = fused(draft.emit, raws, image_size(draft), how=row.fuse, relu=row.relu)
    described(heat, found[0]["acts"]).shape = ir.Shape([draft.batch, *image_size(draft)])
    take_rows(draft, seed, draft.outputs.pop("explained"))
    draft.outputs["heatmap"] = heat


def _drawn(draft: Draft, row: InGraph, known: dict[str, Any]) -> tuple[ir.Value, dict[str, ir.Value]]:
    """Return what the method gives on one layer, and its flags."""
    drawn = row.function(draft.emit, *(known[name] for name in row.needs))
    return drawn if isinstance(drawn, tuple) else (drawn, {})


def _raw(draft: Draft, row: InGraph, layer: Layer, known: dict[str, Any]) -> tuple[ir.Value, dict[str, ir.Value]]:
    """Return the raw map of one layer and the method's flags."""
    raw, flags = _drawn(draft, row, known)
    described(raw, known["acts"]).shape = ir.Shape([draft.batch, *(known["size"] if row.at_image else layer.grid)])
    return raw, flags
