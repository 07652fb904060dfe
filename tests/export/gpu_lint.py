"""
What execution providers for GPUs do not run: a list to hold graphs against, since none of them can be asked here.

TensorRT's limits are those of onnx-tensorrt's ``docs/operators.md`` (10.1; TensorRT: untested by this project); CUDA's are
the kernels that ONNX Runtime 1.31.1 lacks or drops to the CPU, which also brings copies and ends CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from camrt.export.vjp.emit import constant

__all__ = ["added_offences", "offences"]

NOWHERE = {
    **dict.fromkeys(("If", "Loop", "Scan"), "control flow ends CUDA graphs and splits engines"),
    **dict.fromkeys(("NonZero", "Unique", "Compress"), "its shape depends on data"),
    **dict.fromkeys(("MaxUnpool", "Col2Im", "AffineGrid", "MaxRoiPool"), "TensorRT does not know it"),
    "ScatterND": "TensorRT knows no reduction, and CUDA's sums have no order",
}
AXES = {"Slice": 3, "Pad": 3} | {
    f"Reduce{kind}": 1 for kind in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
}  # the input that names axes, which TensorRT wants to be an initializer
MOST = 3840  # that TensorRT's TopK takes
INHERITED = {"MaxPool: dilated"}  # the gradient of a dilated pool of many taps pools once more along fewer axes


def offences(nodes: Iterable[ir.Node]) -> list[str]:
    """
    Say what of some nodes a GPU's provider would not run.

    Parameters
    ----------
    nodes : iterable of onnx_ir.Node
        In their graph.

    Returns
    -------
    list of str
        ``operator: reason``, sorted, each once.
    """
    found = ((node.op_type, why) for node in nodes for why in (_foreign(node), _offence(node)) if why)
    return sorted({f"{op}: {why}" for op, why in found})


def added_offences(added: Iterable[ir.Node], given: Iterable[ir.Node]) -> list[str]:
    """
    Say what a GPU's provider would not run of what was added to a model, and could have run of the model.

    Parameters
    ----------
    added, given : iterable of onnx_ir.Node
        What the exporter made, and the model's own.

    Returns
    -------
    list of str
        As `offences`.

    Notes
    -----
    What the model itself has of `INHERITED` is passed over: such a model is not TensorRT's to begin with.
    """
    return sorted(set(offences(added)) - (INHERITED & set(offences(given))))


def _foreign(node: ir.Node) -> str:
    """Return the domain of an operator that is not ONNX's own."""
    return "" if node.domain in ("", "ai.onnx") else f"of domain {node.domain}"


def _offence(node: ir.Node) -> str:
    """Return why one node would not run, or nothing."""
    op = node.op_type
    if op in NOWHERE:
        return NOWHERE[op]
    if op == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].name:
        return "Indices are given away"
    if op in ("MaxPool", "AveragePool") and any(d != 1 for d in node.attributes.get_ints("dilations", ())):
        return "dilated"
    if op == "ConvTranspose":
        return _transposed(node)
    if op == "Resize" and (
        node.attributes.get_string("mode", "nearest") == "cubic" or node.attributes.get_int("antialias", 0)
    ):
        return "cubic or antialiased"
    if op == "TopK" and ((k := constant(node.inputs[1])) is None or int(k.item()) >= MOST):
        return f"K is not a constant below {MOST}"
    place = AXES.get(op)
    axes = None if place is None or len(node.inputs) <= place else node.inputs[place]
    return "axes are not constant" if axes is not None and constant(axes) is None else ""


def _transposed(node: ir.Node) -> str:
    """Return why the CUDA provider would drop a ConvTranspose to the CPU, or nothing."""
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return "with auto_pad"
    if "output_shape" in node.attributes:
        return "with output_shape, which chooses its pads itself"
    pads = node.attributes.get_ints("pads", ())
    half = len(pads) // 2
    return "with asymmetric pads" if list(pads[:half]) != list(pads[half:]) else ""
