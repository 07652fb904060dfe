"""
What a model offers, as plain data: its input, head, layers, operators and their rules.

In: an `Explainer`. Out: a dictionary that ``camrt inspect`` prints, or gives as JSON.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from .explainer import Explainer

__all__ = ["inspect_model"]

_TELLING = {
    "Relu",
    "Clip",
    "Add",
    "Concat",
    "Mul",
    "HardSwish",
    "Gelu",
    "LayerNormalization",
    "LeakyRelu",
    "PRelu",
    "Mish",
}


def inspect_model(explainer: Explainer, *, every_layer: bool = False) -> dict[str, Any]:
    """
    Describe a model.

    Parameters
    ----------
    explainer : Explainer
        The model.
    every_layer : bool, default False
        List every candidate instead of the last one of each grid and module.

    Returns
    -------
    dict
        ``model``, ``input``, ``output``, ``head``, ``classes``, ``batch``, ``preprocess``, ``layers``,
        ``linear_layers``, ``verification`` and, for a raw model, ``operators``.

    Notes
    -----
    Cost: none beyond opening the model.
    """
    manifest = explainer.manifest
    layers = explainer.layers if every_layer else _telling(explainer)
    described = {
        "model": manifest.model,
        "input": manifest.input,
        "output": manifest.output,
        "head": manifest.head,
        "classes": manifest.classes,
        "labels": len(explainer.labels),
        "batch": manifest.batch,
        "preprocess": {**explainer.preprocess.to_dict(), "reason": explainer.preprocess_reason},
        "layers": [asdict(layer) for layer in layers],
        "layers_in_all": len(explainer.layers),
        "linear_layers": list(manifest.linear_layers),
        "verification": manifest.verification,
    }
    operators = _operators(explainer)
    return described if operators is None else {**described, "operators": operators}


def _telling(explainer: Explainer) -> tuple[Any, ...]:
    """Keep the last activation of each module, and the default."""
    last: dict[tuple[str, tuple[int, int]], Any] = {}
    for layer in explainer.layers:
        if layer.op in _TELLING or layer.default:
            stem = layer.module.rsplit(".", 1)[0] if layer.module else ""
            last[(stem, layer.grid)] = layer
    chosen = {layer.name for layer in last.values()} | {layer.name for layer in explainer.layers if layer.default}
    return tuple(layer for layer in explainer.layers if layer.name in chosen)


def _operators(explainer: Explainer) -> dict[str, dict[str, Any]] | None:
    """Count a raw model's operators and say which have a gradient rule; a bundle no longer needs the answer."""
    classifier = getattr(explainer.source, "classifier", None)
    if classifier is None:
        return None
    from camrt.export.vjp import RULES
    from camrt.export.vjp.table import op_key

    counts = Counter(op_key(node) for node in classifier.model.graph)
    return {op: {"count": n, "rule": op in RULES} for op, n in counts.most_common()}
