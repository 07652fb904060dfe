"""
What a model offers, as plain data: its input, head, layers, operators and their rules, and what methods cost on it.

In: an `Explainer`. Out: a dictionary that ``camrt inspect`` prints, or gives as JSON.

::

    model, input, output, head, classes, labels, batch      what the file is
    preprocess       the fields of a `Preprocess`, and the reason for it
    layers           entries of `camrt.export.manifest.Layer`; layers_in_all says how many there are
    linear_layers    where cam is defined
    tokens           of a token model's default layer: prefix, grid, channels, and a sentence
    twin             of a quantised model: how far its float twin is off (`camrt.export.verify.check_agreement`)
    masked           rows of a run of masked forwards, and the bytes they take on top of the opened model
    verification     figures of the export, for a bundle

    of a raw model also, counted at the default layer:
    operators        by name: count, rule ("gradient", "no flow" or "none"), behind (how many lie behind the layer)
    attention        how many blocks legrad finds, and a sentence: which, or why none
    work             `camrt.export.work.Work`: multiply-adds and bytes of one image
    methods          by id, where the layer allows it: cost in letters and numbers, multiply_adds, relative, bytes
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from camrt.export.manifest import Layer

from .errors import LayerError
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
    "Identity",  # where a float twin rounds
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
        With the keys of the module's description.

    Notes
    -----
    Cost: opening the model and a few walks over its graph; a quantised model alone is run, on eight inputs.
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
        "tokens": _tokens(next(layer for layer in explainer.layers if layer.default)),
        "twin": _twin(explainer),
        "masked": {"rows": explainer.chunk, "bytes": explainer.chunk_memory},
        "verification": manifest.verification,
    }
    return {**described, **_counted(explainer)}


def _twin(explainer: Explainer) -> dict[str, Any] | None:
    """Return how a quantised model and its float twin agree: as the bundle says, or by a run of both."""
    classifier = getattr(explainer.source, "classifier", None)
    if classifier is None or classifier.quantised is None:
        return explainer.manifest.verification.get("twin")
    from camrt.export.verify import check_agreement

    return check_agreement(classifier, explainer.source)


def _tokens(layer: Layer) -> dict[str, Any] | None:
    """Say how a token layer lies, or None where it is an image of channels."""
    if not layer.layout.startswith("tokens"):
        return None
    height, width = layer.grid
    before = f"{layer.prefix} prefix token{'s' if layer.prefix > 1 else ''}, then " if layer.prefix else ""
    said = f"{before}{height}x{width} patches of {layer.channels} channels"
    return {"prefix": layer.prefix, "grid": list(layer.grid), "channels": layer.channels, "said": said}


def _telling(explainer: Explainer) -> tuple[Any, ...]:
    """Keep the last activation of each module, and the default."""
    last: dict[tuple[str, tuple[int, int]], Any] = {}
    for layer in explainer.layers:
        if layer.op in _TELLING or layer.default:
            stem = layer.module.rsplit(".", 1)[0] if layer.module else ""
            last[(stem, layer.grid)] = layer
    chosen = {layer.name for layer in last.values()} | {layer.name for layer in explainer.layers if layer.default}
    return tuple(layer for layer in explainer.layers if layer.name in chosen)


def _counted(explainer: Explainer) -> dict[str, Any]:
    """Count a raw model's operators and work; a bundle no longer holds the graph this is read from."""
    classifier = getattr(explainer.source, "classifier", None)
    if classifier is None:
        return {}
    from camrt.export.backward import between, upstream
    from camrt.export.layers import value_of
    from camrt.export.vjp.table import op_key
    from camrt.export.work import work_of

    from .estimate import estimates
    from .methods import METHODS
    from .stages import stages_of

    layer = next(layer for layer in explainer.layers if layer.default)
    graph = classifier.model.graph
    behind = Counter(op_key(n) for n in between(graph, [value_of(classifier.model, layer)], [classifier.logits]))
    needed = upstream(graph, [classifier.logits])  # beside a float twin stands the quantised model itself
    counts = Counter(op_key(node) for node in graph if any(value in needed for value in node.outputs))
    work = work_of(classifier, layer)
    attention = _attention(classifier, layer)
    lacking = set() if layer.name in explainer.manifest.linear_layers else {"head"}
    lacking |= set() if attention["blocks"] else {"attention_of"}
    stages = [item for item in explainer.layers if item.name in stages_of(explainer.layers)]
    costs = estimates(work, [layer], stages)
    methods = {name: cost for name, cost in costs.items() if not lacking & set(METHODS[name].needs)}
    return {
        "operators": {op: {"count": n, "rule": _rule(op), "behind": behind[op]} for op, n in counts.most_common()},
        "attention": attention,
        "work": asdict(work),
        "methods": methods,
    }


def _attention(classifier: Any, layer: Layer) -> dict[str, Any]:
    """Say which blocks of attention a model has, or why legrad has none to read."""
    from camrt.export.attention import find_blocks

    try:
        tower = find_blocks(classifier.model.graph, classifier.x, classifier.logits, layer)
    except LayerError as error:
        return {"blocks": 0, "said": str(error)}
    count, tokens = len(tower.blocks), tower.prefix + tower.grid[0] * tower.grid[1]
    said = f"legrad reads {count} block{'s' if count > 1 else ''} of attention between {tokens} tokens"
    return {"blocks": count, "said": said}


def _rule(op: str) -> str:
    """Say what the gradient does at an operator."""
    from camrt.export.vjp import RULES
    from camrt.export.vjp.known import nothing

    rule = RULES.get(op)
    return "none" if rule is None else "no flow" if rule.function is nothing else "gradient"
