"""
The table of kinds of program, and the one place where a program is built.

In: a classifier, the name of a kind, some layers. Out: the graph, and the names of its inputs and outputs. What each
kind takes and gives is written in `camrt.export.programs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import onnx_ir as ir

from camrt.errors import LayerError

from ..load import Classifier
from ..manifest import Layer, Program
from ..maps import MAPS
from ..propagation.relevance import RELEVANCE, RELEVANCE_BIAS
from .attention import LAST_BLOCKS, attention
from .biases import bias_gradients, tail_bias_terms
from .draft import Draft
from .forward import features, forward, tail
from .gradients import gradient, seeded_gradient, tail_gradient
from .image import guided_gradient, input_gradient
from .lift import lift
from .maps import explained, mapped
from .relevance import relevance

__all__ = ["EXPLAINED", "KINDS", "ON_REQUEST", "WITHOUT_LAYER", "Kind", "build"]


@dataclass(frozen=True)
class Kind:
    """
    A kind of program.

    Attributes
    ----------
    grow : callable
        ``grow(draft)`` makes the draft of a program into one of this kind.
    layers : {"none", "one", "several"}
        How many layers a program of this kind is for; several may be one.
    held : {"always", "on request", "never"}
        Whether a bundle holds it, only where it was asked for, or not at all.
    """

    grow: Callable[[Draft], None]
    layers: Literal["none", "one", "several"]
    held: Literal["always", "on request", "never"] = "always"


_TABLE: dict[str, Kind] = {
    "forward": Kind(forward, "none"),
    "features": Kind(features, "several"),
    "gradient": Kind(gradient, "several"),
    "seeded_gradient": Kind(seeded_gradient, "several"),
    "tail": Kind(tail, "one"),
    "tail_gradient": Kind(tail_gradient, "one"),
    "input_gradient": Kind(input_gradient, "none"),
    **{f"map_{method}": Kind(partial(mapped, method=method), "one") for method, row in MAPS.items() if row.direct},
    # not every model has these
    "guided_gradient": Kind(guided_gradient, "none", "on request"),
    "bias_terms": Kind(partial(bias_gradients, times_bias=True), "none", "on request"),
    "bias_gradients": Kind(partial(bias_gradients, times_bias=False), "none", "on request"),
    "tail_bias_terms": Kind(tail_bias_terms, "one", "on request"),
    "relevance": Kind(partial(relevance, rules=RELEVANCE), "one", "on request"),
    "relevance_bias": Kind(partial(relevance, rules=RELEVANCE_BIAS), "one", "on request"),
    "lift": Kind(lift, "one", "on request"),
    "attention": Kind(partial(attention, last=LAST_BLOCKS), "one", "on request"),
    "attention_all": Kind(partial(attention, last=None), "one", "on request"),
    **{
        f"map_{method}": Kind(partial(mapped, method=method), "one", "on request")
        for method, row in MAPS.items()
        if "attention" in row.needs
    },
    **{f"explained_{method}": Kind(partial(explained, method=method), "several", "never") for method in MAPS},
}
KINDS, ON_REQUEST, EXPLAINED = (
    {name: kind for name, kind in _TABLE.items() if kind.held == held} for held in ("always", "on request", "never")
)
WITHOUT_LAYER = tuple(name for name, kind in _TABLE.items() if kind.layers == "none")


def build(classifier: Classifier, kind: str, layers: Sequence[Layer] = ()) -> tuple[ir.Model, Program]:
    """
    Make one program.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it; left unchanged.
    kind : str
        A key of `KINDS`, `ON_REQUEST` or `EXPLAINED`.
    layers : sequence of Layer
        Which layers it gives; exactly one for a tail.

    Returns
    -------
    model : onnx_ir.Model
        The graph.
    program : Program
        Its description, with the graph not yet serialised (``model`` is empty).

    Raises
    ------
    MissingRuleError
        If a gradient has to pass an operator that has no rule.
    LayerError
        If no gradient flows to a layer, or there are more or fewer layers than such a program is of.

    Notes
    -----
    Cost: a copy of the graph (weights are shared) and one sweep.
    """
    wanted = _TABLE[kind].layers
    if (wanted == "one" and len(layers) != 1) or (wanted == "several" and not layers):
        raise LayerError(f"the program {kind} is of {wanted} layer{'s' * (wanted == 'several')}; {len(layers)} came")
    draft = Draft(classifier, layers)
    _TABLE[kind].grow(draft)
    model = draft.finish(kind)
    names = tuple(layer.name for layer in layers)
    return model, Program(kind, names, tuple(draft.inputs), tuple(draft.outputs), b"")
