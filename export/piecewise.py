"""
Behind which tensors a model is piecewise linear: a property of the operators between them and the logits.

In: a graph and its logits. Out: the values from which only operators lead to the logits that are linear, or linear but
for kinks and jumps (ReLU, Clip, maxima). There second derivatives are zero wherever they exist, which Shapley-CAM uses,
and gradient times activation is a complete account of the logit but for biases.
"""

from __future__ import annotations

import onnx_ir as ir

from .backward import reads
from .vjp.fixed import is_fixed
from .vjp.table import op_key

__all__ = ["piecewise_linear"]

_WHATEVER_IT_READS = (
    "Abs Add AveragePool Cast CastLike Ceil Clip Concat DepthToSpace Dropout Expand Flatten Floor GlobalAveragePool "
    "GlobalMaxPool HardSigmoid Identity LeakyRelu Max MaxPool Mean Min Neg Pad ReduceMax ReduceMean ReduceMin ReduceSum "
    "Relu Reshape Round Shrink Sign Slice SpaceToDepth Split Squeeze Sub Sum ThresholdedRelu Tile Transpose Trilu Unsqueeze"
)
_WITH_ONE_FACTOR = {"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul", "Mul"}
_WITH_FIXED_REST = {"BatchNormalization", "Div", "Gather", "PRelu", "Resize"}


def piecewise_linear(graph: ir.Graph, logits: ir.Value) -> set[ir.Value]:
    """
    Return the values behind which a graph is piecewise linear.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Topologically sorted.
    logits : onnx_ir.Value
        Where to look from.

    Returns
    -------
    set of Value
        Those that lead to `logits`, each by piecewise linear operators alone; `logits` itself included.

    Notes
    -----
    Cost: one pass over the graph. A product of two computed tensors counts as not linear, even where only one of them
    depends on the value asked about.
    """
    leads: dict[ir.Value, bool] = {logits: True}
    for node in reversed(graph):
        after = [leads[value] for value in node.outputs if value in leads]
        if not after:
            continue
        straight = all(after) and _is_piecewise_linear(node)
        for value in reads(node):
            leads[value] = leads.get(value, True) and straight
    return {value for value, straight in leads.items() if straight}


def _is_piecewise_linear(node: ir.Node) -> bool:
    """Tell whether one operator is piecewise linear in all that it reads together."""
    op = op_key(node)
    if op in _WITH_ONE_FACTOR:
        return sum(not is_fixed(value) for value in node.inputs) < 2
    if op in _WITH_FIXED_REST:
        return all(is_fixed(value) for value in node.inputs[1:])
    return op in _WHATEVER_IT_READS.split()
