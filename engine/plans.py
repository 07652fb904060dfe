"""
What a map is to be: everything about a request but its pictures, checked.

In: a method, a layer and settings, as a caller names them. Out: a frozen `Plan`, or one error that says what to give
instead. `Plans` knows the model and remembers what it has checked, so that nothing of it is paid twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from camrt.export.manifest import Layer, Source

from .errors import InputError, LayerError, MethodError
from .estimate import cost_of
from .fuse import HEAT_FUSIONS, RAW_FUSIONS
from .methods import Method, resolve, validate
from .pipeline import PIPELINES
from .stages import stages_of

__all__ = ["MASK_SPACES", "Plan", "Plans"]

MASK_SPACES = ("normalised", "raw")
REMEMBERED = 512  # plans of one model
_BY_FORWARDS = {"masked_of", "logits_at", "image_gradient_of", "ablated_of", "cells_of"}  # what `camrt.forwards` gives


@dataclass(frozen=True)
class Plan:
    """
    One request, checked.

    Attributes
    ----------
    method : Method
        The method.
    variant : str
        Its variant.
    options : mapping
        All its options.
    layers : tuple of Layer
        Where maps are made, each once, the shallowest first.
    pipeline : str
        The order of ReLU, scaling and resize.
    fuse : str
        How maps of several layers are joined.
    eigen_smooth : bool
        Whether the leading component replaces the sum over channels.
    size : tuple of int
        ``(H, W)`` of the heatmaps.
    in_graph : bool
        Whether a program of the model's makes the map, as long as the target is a plain class.
    mask_space : str
        What hidden pixels show; the variant's own where it is defined by one.
    """

    method: Method
    variant: str
    options: Mapping[str, object]
    layers: tuple[Layer, ...]
    pipeline: str
    fuse: str
    eigen_smooth: bool
    size: tuple[int, int]
    in_graph: bool
    mask_space: str

    @property
    def by_forwards(self) -> bool:
        """Whether the method asks for forwards of other inputs than the image."""
        return bool(_BY_FORWARDS & set(self.method.needs))

    @property
    def expected(self) -> int:
        """How many runs of other inputs, or tails, one image takes."""
        costs = [
            cost_of(self.method, self.options, channels=layer.channels, cells=layer.grid[0] * layer.grid[1])
            for layer in self.layers
        ]
        return sum(cost.forwards - 1 + cost.tails for cost in costs)  # the first forward is that of the image itself

    @property
    def needs_gradients(self) -> bool:
        """Whether the method reads gradients at all; the linear head's weights are read from them too."""
        return bool({"grads", "head"} & set(self.method.needs))

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names."""
        return tuple(layer.name for layer in self.layers)


class Plans:
    """
    The plans of one model.

    Parameters
    ----------
    source : Source
        The model.
    size : tuple of int
        ``(H, W)`` of its inputs.
    layer : Layer, optional
        The default layer, in place of the manifest's.

    Attributes
    ----------
    layers : tuple of Layer
        Every tensor that can be explained, the default marked, in graph order.
    """

    def __init__(self, source: Source, size: tuple[int, int], layer: Layer | None = None) -> None:
        self._source, self._size = source, size
        self.layers = source.manifest.layers
        if layer is not None:
            self.layers = tuple(replace(item, default=item.name == layer.name) for item in self.layers)
        self._known: dict[tuple[Any, ...], Plan] = {}

    def of(
        self,
        method: str,
        variant: str | None = None,
        options: Mapping[str, object] | None = None,
        layer: str | Sequence[str] | None = None,
        pipeline: str = "camrt",
        fuse: str | None = None,
        eigen_smooth: bool = False,
        mask_space: str = "normalised",
    ) -> Plan:
        """
        Check everything that does not depend on the pictures; the same request is checked once.

        Parameters
        ----------
        method : str
            A method id or alias.
        variant, options, layer, pipeline, fuse, eigen_smooth, mask_space : optional
            As in `camrt.Explainer.explain`.

        Returns
        -------
        Plan
            The same one for the same request.

        Raises
        ------
        MethodError, LayerError, InputError
            If something does not fit; each says what to give instead.
        """
        told = tuple((name, type(value), value) for name, value in (options or {}).items())
        key = (method, variant, layer, pipeline, fuse, eigen_smooth, mask_space, told)
        try:
            known = self._known.get(key)
        except TypeError:  # something has no hash, a list of layers for one
            return self._checked(method, variant, options, layer, pipeline, fuse, eigen_smooth, mask_space)
        if known is None:
            known = self._checked(method, variant, options, layer, pipeline, fuse, eigen_smooth, mask_space)
            if len(self._known) >= REMEMBERED:  # options may be any numbers
                self._known.clear()
            self._known[key] = known
        return known

    def _checked(
        self,
        name: str,
        variant: str | None,
        options: Mapping[str, object] | None,
        layer: str | Sequence[str] | None,
        pipeline: str,
        fuse: str | None,
        eigen_smooth: bool,
        mask_space: str,
    ) -> Plan:
        """Make a plan of a request, or say what is wrong with it."""
        method = resolve(name)
        chosen, full = validate(method, variant, options)
        if pipeline not in PIPELINES:
            raise MethodError(f"pipeline must be one of {', '.join(PIPELINES)}; got {pipeline!r}")
        if mask_space not in MASK_SPACES:
            raise InputError(f"mask_space must be one of {', '.join(MASK_SPACES)}; got {mask_space!r}")
        joined = fuse or method.fuse_of(chosen)
        if joined not in HEAT_FUSIONS and joined not in RAW_FUSIONS:
            raise MethodError(f"fuse must be one of {', '.join(HEAT_FUSIONS)}; got {fuse!r}")
        names = stages_of(self.layers) if method.stages and layer is None else self.resolve(layer)
        layers = tuple(next(item for item in self.layers if item.name == n) for n in names)
        if "head" in method.needs:
            self._check_head(method, layers)
        plain = (chosen, full) == validate(method) and not eigen_smooth and len(names) == 1
        in_graph = plain and self._source.offers(f"map_{method.id}", names)
        space = method.mask_space.get(chosen, mask_space)
        return Plan(method, chosen, full, layers, pipeline, joined, eigen_smooth, self._size, in_graph, space)

    def _check_head(self, method: Method, layers: Sequence[Layer]) -> None:
        """Refuse a layer that has more than pooling and one linear layer behind it."""
        linear = self._source.manifest.linear_layers
        for layer in layers:
            if layer.name not in linear:
                raise LayerError(
                    f"{method.id} needs global average pooling and one linear layer between the layer and the logits; "
                    f"{layer.name!r} has more: use gradcam, which generalises it"
                    + (f", or layer {linear[0]!r}" if linear else "")
                )

    def resolve(self, layer: str | Sequence[str] | None) -> tuple[str, ...]:
        """
        Return layer names, each once, the shallowest first.

        Parameters
        ----------
        layer : str or sequence of str, optional
            Tensors, nodes or module paths; the default layer where None.

        Returns
        -------
        tuple of str
            Tensor names.

        Raises
        ------
        LayerError
            If there is no such layer, or an empty list came.
        """
        if layer is None:
            return (next(item for item in self.layers if item.default).name,)
        given = [layer] if isinstance(layer, str) else list(layer)
        if not given:
            raise LayerError("at least one layer was wanted; an empty list came")
        chosen = {self._source.resolve(name).name for name in given}
        return tuple(item.name for item in self.layers if item.name in chosen)
