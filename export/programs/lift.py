"""
The program of DeepLIFT: what activations contribute to the change of the logits from activations of zero.

In: a draft of one layer. Out: ``contributions.0`` (N, K, h, w), multipliers by the rules of
`camrt.export.propagation.lift` times the activations that are fed. Their sum is the change.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..propagation.lift import lift_rules, second_run
from ..vjp.emit import described
from .cut import begin_at_layer
from .draft import Draft
from .gradients import give_gradients
from .seeds import seed_input

__all__ = ["lift"]


def lift(draft: Draft) -> None:
    """
    Give the contributions of a layer's activations.

    Parameters
    ----------
    draft : Draft
        Of one layer; the graph behind it is run a second time, from zero.
    """
    begin_at_layer(draft)
    acts, e = draft.inputs["activations.0"], draft.emit
    zero = described(e.ConstantOfShape(e.Shape(acts), value=ir.tensor(np.zeros(1, e.numpy_dtype(acts)))), acts)
    twins = second_run(draft.graph, e, acts, zero, draft.logits)
    give_gradients(draft, seed_input(draft), draft.values, lift_rules(twins), "contributions")
    draft.outputs["contributions.0"] = described(e.Mul(draft.outputs["contributions.0"], acts), acts)
