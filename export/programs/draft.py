"""
The draft of a program: a copy of the classifier, and the inputs and outputs it has so far.

In: a classifier and some layers. Out: once a kind has grown it, a graph with the inputs and outputs that were declared,
under their names, and nothing that no output needs. The classifier stays as it was; weights are shared.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import onnx_ir.passes.common as passes

from ..layers import value_of
from ..load import Classifier
from ..manifest import Layer
from ..vjp.emit import Emit, described, dims

__all__ = ["Draft"]


class Draft:
    """
    A copy of the classifier that a program is made of, and its inputs and outputs so far.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it.
    layers : sequence of Layer
        Which layers the program is for, in order.

    Attributes
    ----------
    x : onnx_ir.Value
        The image.
    logits : onnx_ir.Value
        Scores (N, C), where cotangents start.
    scores : onnx_ir.Value
        The scores that are given: the given model's own where it is quantised, else `logits`.
    batch : int or str
        Its size, or its name.
    emit : Emit
        Appends nodes to the graph.
    values : list of onnx_ir.Value
        Each layer's tensor, as the model lays it out.
    inputs, outputs : dict of str to onnx_ir.Value
        Of the program, by the names they will have.
    """

    def __init__(self, classifier: Classifier, layers: Sequence[Layer]) -> None:
        self.model = classifier.model.clone()
        self.graph = self.model.graph
        self.layers = tuple(layers)
        self.classes = classifier.classes
        self.quantised = classifier.quantised
        self.x = self.graph.inputs[0]
        self.logits = self.graph.outputs[0]
        self.scores = self.graph.outputs[-1]
        self.batch = dims(self.logits)[0]
        self.emit = Emit(self.graph, "camrt")
        self.values = [value_of(self.model, layer) for layer in layers]
        self.inputs: dict[str, ir.Value] = {}
        self.outputs: dict[str, ir.Value] = {}

    def begin_at_image(self) -> None:
        """Start from the image and give the logits."""
        self.inputs["x"] = self.x
        self.outputs["logits"] = self.scores

    def new_input(self, name: str, shape: Sequence[int | str], dtype: ir.DataType | None) -> ir.Value:
        """
        Declare an input that the model does not have.

        Parameters
        ----------
        name : str
            Of the input.
        shape : sequence of int or str
            Its dimensions.
        dtype : onnx_ir.DataType or None
            Of a tensor of the model; always known once it is loaded.

        Returns
        -------
        onnx_ir.Value
            What nodes read.
        """
        if dtype is None:
            raise AssertionError(f"the element type of {name} is unknown")
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.inputs[name] = value
        return value

    def finish(self, kind: str) -> ir.Model:
        """
        Give inputs and outputs their names, and drop what no output needs.

        Parameters
        ----------
        kind : str
            What the graph is called.

        Returns
        -------
        onnx_ir.Model
            The program; the draft is used up.
        """
        graph, emit = self.graph, self.emit
        if self.quantised is not None:
            self.quantised.round(emit, beside=self.scores in self.outputs.values())
        graph.inputs.clear()
        graph.inputs.extend(self.inputs.values())
        graph.outputs.clear()
        taken: set[ir.Value] = set(self.inputs.values())
        for name, value in self.outputs.items():
            if value in taken:  # one tensor under two names needs a node of its own
                self.outputs[name] = value = described(emit.Identity(value), value)
            taken.add(value)
        graph.outputs.extend(self.outputs.values())
        passes.RemoveUnusedNodesPass()(self.model)
        names = {**{v: n for n, v in self.inputs.items()}, **{v: n for n, v in self.outputs.items()}}
        reserved = set(names.values())
        for value in [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]:
            if value.name in reserved and value not in names:
                value.name = f"{value.name}__model"
        for value, name in names.items():
            value.name = name
        graph.name = kind
        self.model.producer_name, self.model.producer_version = "camrt", None
        return self.model
