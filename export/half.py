"""
Programs in half precision: products in float16, everything that would suffer from it in float32.

In: a float32 program. Out: the same program, its inputs and outputs unchanged, in which convolutions and matrix
products read and give float16 numbers, so that no runtime has to be told: CUDA's tensor cores and TensorRT take the types
they find. Where float16 would cost digits, the graph stays in float32:

* what sums, divides by what it summed, or exponentiates (softmax, norms, reductions, powers: `KEPT`), as autocast does;
* what reads a constant that float16 cannot hold: above 65504, or a single number that would become 0, such as an eps;
* cheap operators between those, so that no cast stands between two of them. They follow what they read.

Programs whose arithmetic divides by numbers near zero, or finishes a map, are not narrowed at all (`NARROWED` lists the
others): a relevance or a map's contrast has no digit to spare, and costs little.

Gradients are not scaled up against float16's smallest number, 6e-8. Measured on MobileNetV2, SqueezeNet, ResNet-20 and a
ViT, the gradient at the image differs from float32's by 15, 3, 3 and 1 %, and by the same when its seed is multiplied by
64 or 1024: what differs is which side of a kink activations fall on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import TensorProto, defs, helper, numpy_helper

from camrt.errors import ModelError

from .heavy import joined
from .manifest import Layer, Manifest, Program, Source

__all__ = ["KEPT", "NARROWED", "PRODUCTS", "Half", "narrow"]

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})  # where half precision is worth its casts
KEPT = frozenset(
    {"Softmax", "LogSoftmax", "LogSumExp", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Softplus", "CumSum"}
    | {"LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization"}
    | {"MeanVarianceNormalization", "LpNormalization", "LRN", "GlobalAveragePool", "GlobalLpPool"}
    | {"Cast", "ConstantOfShape", "Range", "EyeLike"}
    | {"HardSigmoid"}  # masks of gradients are steep ones (`camrt.export.vjp.gate`): their slope is no float16
    | {f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Mean", "Prod", "Sum", "SumSquare")}
)
NARROWED = frozenset(
    {"forward", "features", "gradient", "seeded_gradient", "tail", "tail_gradient", "input_gradient", "guided_gradient"}
)
_LARGEST = float(np.finfo(np.float16).max)


class Half:
    """
    A source whose programs are narrowed on their way.

    Parameters
    ----------
    source : Source
        Of float32 programs, a model in memory or a bundle.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def manifest(self) -> Manifest:
        """What the model is."""
        return self._source.manifest

    def program(self, kind: str, layers: Sequence[str] = ()) -> Program:
        """
        Return one program in half precision, or as it is where half precision would spoil it.

        Parameters
        ----------
        kind : str
            As in `Program`.
        layers : sequence of str
            Layer names, in order.

        Returns
        -------
        Program
            Self-contained.

        Raises
        ------
        ModelError
            If nothing in it can be narrowed, or it is too large for one message.
        """
        program = self._source.program(kind, layers)
        if kind not in NARROWED:
            return program
        model = joined(program)
        if not narrow(model) and "x" in program.inputs:
            raise ModelError("float16 was asked for, and the model has no convolution or matrix product to narrow")
        try:
            return replace(program, model=bytes(model.SerializeToString()), weights={})
        except (EncodeError, ValueError) as error:
            raise ModelError("the model is larger than the 2 GiB one message may hold: run it in float32") from error

    def offers(self, kind: str, layers: Sequence[str] = ()) -> bool:
        """
        Tell whether a program can be had.

        Parameters
        ----------
        kind : str
            As in `Program`.
        layers : sequence of str
            Layer names, in order.

        Returns
        -------
        bool
            True where `program` gives one.
        """
        return self._source.offers(kind, layers)

    def resolve(self, name: str) -> Layer:
        """
        Return the layer of a name.

        Parameters
        ----------
        name : str
            A tensor, a node or a module path.

        Returns
        -------
        Layer
            The candidate of that name.
        """
        return self._source.resolve(name)

    def weight_layers(self) -> tuple[str, ...]:
        """
        Name the layers whose weights can be drawn anew.

        Returns
        -------
        tuple of str
            The source's own.
        """
        return self._source.weight_layers()

    def randomised(self, layers: Sequence[str], seed: int = 0) -> Half:
        """
        Return the same model with some weights drawn anew.

        Parameters
        ----------
        layers : sequence of str
            Names of `weight_layers`.
        seed : int, default 0
            Of the numbers.

        Returns
        -------
        Half
            Around what the source makes of it.
        """
        return Half(self._source.randomised(layers, seed))


def narrow(model: onnx.ModelProto) -> int:
    """
    Let the products of a float32 graph, and what only they feed, compute in float16; in place.

    Parameters
    ----------
    model : onnx.ModelProto
        A program, weights inside, without control flow around its products. Inputs and outputs keep their types.

    Returns
    -------
    int
        How many nodes compute in float16 now; 0 where the graph has no product.

    Notes
    -----
    Cost: shape inference and one walk. Weights are rounded to nearest; casts are made once a tensor.
    """
    rewriter = _Rewriter(model)
    for node in model.graph.node:
        rewriter.take(node)
    rewriter.finish()
    return rewriter.narrowed


class _Rewriter:
    """Goes through a graph in order; every float32 tensor exists under its own name, and as ``name/half`` if needed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = onnx.shape_inference.infer_shapes(model).graph
        values = [*graph.input, *graph.output, *graph.value_info]
        self.types = {v.name: v.type.tensor_type.elem_type for v in values}
        self.held = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types |= {name: tensor.data_type for name, tensor in self.held.items()}
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self.nodes: list[onnx.NodeProto] = []
        self.wide = {v.name for v in graph.input} | set(self.held)  # names that exist as float32 (or as they were)
        self.half: set[str] = set()  # names that exist as name/half
        self.narrowed = 0

    def take(self, node: onnx.NodeProto) -> None:
        """Put a node into the new graph, narrowed or not, with the casts it needs before it."""
        slots = self._slots(node)
        if slots is None:
            for name in [*node.input, *_captured(node)]:
                self._widened(name)
            self.nodes.append(node)
            self.wide.update(node.output)
            return
        inputs, outputs = slots
        for i in range(len(node.input)):
            (self._halved if i in inputs else self._widened)(node.input[i])
        for i, name in enumerate(node.input):
            if i in inputs:
                node.input[i] = f"{name}/half"
        self.nodes.append(node)
        for i, name in enumerate(node.output):
            if i in outputs:
                node.output[i] = f"{name}/half"
                self.half.add(name)
            else:
                self.wide.add(name)
        self.narrowed += 1

    def finish(self) -> None:
        """Give outputs their own names and types back, and put the new graph in the old one's place."""
        graph = self.model.graph
        for value in graph.output:
            self._widened(value.name)
        read = {name for node in self.nodes for name in [*node.input, *_captured(node)]}
        read |= {value.name for value in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(kept)
        held = set(read) - {tensor.name for tensor in kept}
        graph.initializer.extend(self._rounded(name) for name in self.held if f"{name}/half" in held)

    def _slots(self, node: onnx.NodeProto) -> tuple[set[int], set[int]] | None:
        """Return which inputs and outputs of a node become float16; None where it stays as it is."""
        if node.domain not in ("", "ai.onnx") or node.op_type in KEPT or _captured(node):
            return None
        names = [*node.input, *node.output]
        if any(name and not self.types.get(name) for name in names):  # shape inference did not reach it
            return None
        moving = [name for name in node.input if name and name not in self.held and self._is_float(name)]
        if node.op_type not in PRODUCTS and not any(name in self.half for name in moving):
            return None
        if any(not self._fits(name) for name in node.input if name in self.held):
            return None
        return _allowed(node, self.opset, self._is_float)

    def _is_float(self, name: str) -> bool:
        return self.types.get(name) == TensorProto.FLOAT

    def _fits(self, name: str) -> bool:
        """Tell whether float16 holds a constant."""
        if not self._is_float(name):
            return True
        array = numpy_helper.to_array(self.held[name])
        if np.abs(array).max(initial=0) > _LARGEST:
            return False
        return array.size != 1 or array.item() == 0 or bool(np.float16(array.item()) != 0)

    def _widened(self, name: str) -> None:
        """See to it that a tensor exists under its own name."""
        if name in self.half and name not in self.wide:
            self._cast(f"{name}/half", name, TensorProto.FLOAT)
            self.wide.add(name)

    def _halved(self, name: str) -> None:
        """See to it that a tensor exists as float16; a constant is rounded, not cast."""
        if name not in self.half:
            if name not in self.held:
                self._cast(name, f"{name}/half", TensorProto.FLOAT16)
            self.half.add(name)

    def _cast(self, source: str, made: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [made], f"camrt/{made}/Cast", to=kind))

    def _rounded(self, name: str) -> onnx.TensorProto:
        """Return a constant in float16."""
        array = numpy_helper.to_array(self.held[name])
        return numpy_helper.from_array(array.astype(np.float16), f"{name}/half")


def _captured(node: onnx.NodeProto) -> list[str]:
    """Return the names that the subgraphs of a node may read from outside."""
    inside = [graph for a in node.attribute for graph in [a.g, *a.graphs] if graph.node]
    return [name for graph in inside for inner in graph.node for name in [*inner.input, *_captured(inner)]]


def _allowed(node: onnx.NodeProto, opset: int, is_float: Callable[[str], bool]) -> tuple[set[int], set[int]] | None:
    """Return the places of a node that its operator lets be float16; None where float32 is all it takes."""
    inputs, outputs, fixed = _formal(node.op_type, opset)
    found: list[set[int]] = []
    for names, formals in ((node.input, inputs), (node.output, outputs)):
        places: set[int] = set()
        for i, name in enumerate(names):
            if not name or not is_float(name):
                continue
            variable = formals[min(i, len(formals) - 1)]
            if variable == "tensor(float)":
                continue  # the scales of Resize, say
            if variable in fixed:
                return None
            places.add(i)
        found.append(places)
    return found[0], found[1]


@lru_cache(maxsize=256)
def _formal(op: str, opset: int) -> tuple[list[str], list[str], frozenset[str]]:
    """Return an operator's formal types, and the type variables that may not be float16."""
    schema = defs.get_schema(op, opset, "")
    barred = {c.type_param_str for c in schema.type_constraints if "tensor(float16)" not in c.allowed_type_strs}
    return _strings(schema.inputs), _strings(schema.outputs), frozenset(barred)


def _strings(formals: Iterable[defs.OpSchema.FormalParameter]) -> list[str]:
    return [formal.type_str for formal in formals]
