"""
What is known of a model: its layers, its programs, and where programs come from.

Plain data that export writes and the engine reads; nothing here knows ONNX or a file format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from camrt.errors import BundleError

__all__ = ["Layer", "Manifest", "Program", "Source"]


@dataclass(frozen=True)
class Layer:
    """
    A tensor of the model that a class activation map can be made of.

    Attributes
    ----------
    name : str
        The tensor's name: what results report.
    node : str
        The node that makes it.
    op : str
        That node's operator.
    module : str
        Its torch-style module path, or ``""``.
    shape : tuple of int or str
        The tensor's own shape, the batch as ``"N"``.
    layout : {"nchw", "nhwc", "tokens", "tokens_first"}
        How channels and grid lie in the tensor, (N, T, K) or (T, N, K) for tokens; programs always give ``(N, K, h, w)``.
    channels : int
        K.
    grid : tuple of int
        ``(h, w)``.
    prefix : int
        Tokens before the grid (class token, registers); 0 where `layout` is not one of tokens.
    default : bool
        Whether maps are made here unless told otherwise.
    reason : str
        Why it is, or is not, a good choice.
    piecewise : bool
        Whether the model is piecewise linear from here to the logits.
    """

    name: str
    node: str
    op: str
    module: str
    shape: tuple[int | str, ...]
    layout: str
    channels: int
    grid: tuple[int, int]
    prefix: int = 0
    default: bool = False
    reason: str = ""
    piecewise: bool = False


@dataclass(frozen=True)
class Program:
    """
    One graph cut or grown from the model for one purpose.

    Attributes
    ----------
    kind : str
        ``forward``, ``features``, ``gradient``, ``seeded_gradient``, ``tail``, ``tail_gradient``, ``input_gradient``,
        ``map_<method>``, or one of those that are built on request: see `camrt.export.programs`.
    layers : tuple of str
        The layers it gives or takes, in the order of ``activations.0``, ``activations.1`` ...
    inputs, outputs : tuple of str
        Names, in order.
    model : bytes or Path
        The serialised graph, self-contained but for `weights`; or its file, with weights beside it.
    weights : mapping of str to ndarray
        Large weights that the graph names and does not hold, in memory; none where it is a file or of ordinary size.
    """

    kind: str
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    model: bytes | Path = field(repr=False)
    weights: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def open_in(self, runtime: Any, options: Any, **arguments: Any) -> Any:
        """
        Open the graph.

        Parameters
        ----------
        runtime : module
            ``onnxruntime``.
        options : onnxruntime.SessionOptions
            They are told of `weights`, which must live as long as the session.
        **arguments : object
            Of ``InferenceSession``.

        Returns
        -------
        onnxruntime.InferenceSession
            Ready to run.
        """
        if self.weights:
            values = [runtime.OrtValue.ortvalue_from_numpy(array) for array in self.weights.values()]
            options.add_external_initializers(list(self.weights), values)
        graph = self.model if isinstance(self.model, bytes) else str(self.model)
        return runtime.InferenceSession(graph, options, **arguments)


@dataclass(frozen=True)
class Manifest:
    """
    What a bundle says of its model.

    Attributes
    ----------
    model : dict
        ``name``, ``sha256``, ``producer``, ``opset`` of the given file.
    input : dict
        ``name``, ``shape`` (batch as ``"N"``) and ``dtype`` of the image input.
    output : str
        The given model's output that was followed.
    head : str
        What the given model applied to the logits.
    classes : int
        C.
    batch : int or None
        The only batch size the model runs at; None when it is free.
    labels : tuple of str
        Class names, or empty.
    preprocess : dict or None
        Fields of `camrt.image.Preprocess`; None where nothing was decided.
    layers : tuple of Layer
        Every candidate, in graph order.
    linear_layers : tuple of str
        Layers from which global average pooling and one linear layer lead to the logits, where CAM is defined.
    row_bytes : int
        The most that tensors of a forward pass hold at one time for one image, in graph order.
    verification : dict
        Figures of `camrt.export.verify`, empty when nothing was run.
    """

    model: dict[str, Any]
    input: dict[str, Any]
    output: str
    head: str
    classes: int
    batch: int | None
    labels: tuple[str, ...]
    preprocess: dict[str, Any] | None
    layers: tuple[Layer, ...]
    linear_layers: tuple[str, ...]
    row_bytes: int
    verification: dict[str, Any]

    @property
    def default_layer(self) -> Layer:
        """Return the layer maps are made at unless told otherwise."""
        return next(layer for layer in self.layers if layer.default)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """
        Build a manifest from plain data.

        Parameters
        ----------
        data : mapping
            As `to_dict` gives it.

        Returns
        -------
        Manifest
            The same manifest.

        Raises
        ------
        BundleError
            If a field is missing or misspelt.
        """
        try:
            fields = {name: data[name] for name in cls.__dataclass_fields__}
            fields |= {name: tuple(fields[name]) for name in ("labels", "linear_layers")}
            fields["layers"] = tuple(
                Layer(**{**item, "shape": tuple(item["shape"]), "grid": tuple(item["grid"])}) for item in data["layers"]
            )
        except (KeyError, TypeError) as error:
            raise BundleError(f"the manifest lacks or misspells {error}: export the bundle again") from error
        if [layer.default for layer in fields["layers"]].count(True) != 1:
            raise BundleError("the manifest does not name one default layer: export the bundle again")
        return cls(**fields)


class Source(Protocol):
    """Where an explainer's programs come from: a bundle on disk, or a model in memory."""

    @property
    def manifest(self) -> Manifest:
        """What the model is."""

    def program(self, kind: str, layers: Sequence[str] = ()) -> Program:
        """
        Return one program.

        Parameters
        ----------
        kind : str
            As in `Program`.
        layers : sequence of str
            Layer names, in order.

        Returns
        -------
        Program
            The graph and its description.
        """

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
            The candidate of that name, or a LayerError that offers near ones.
        """

    def weight_layers(self) -> tuple[str, ...]:
        """
        Name the layers whose weights can be drawn anew.

        Returns
        -------
        tuple of str
            From the logits to the image.
        """

    def randomised(self, layers: Sequence[str], seed: int = 0) -> Source:
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
        Source
            Its layers and programs have the names that they have here.
        """
