"""
The table of methods that have a form inside the graph.

One row a method: its function, the variant it is, what it needs, and what becomes of its raw map. The NumPy form in
`camrt.methods` is the specification; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import onnx_ir as ir

__all__ = ["MAPS", "Drawn", "InGraph", "in_graph"]

Drawn = ir.Value | tuple[ir.Value, dict[str, ir.Value]]  # a raw map, or one with its flags (N,) by name


@dataclass(frozen=True)
class InGraph:
    """
    A method's form inside the graph.

    Attributes
    ----------
    function : callable
        ``function(e, *evidence)``, evidence in the order of `needs`.
    variant : str
        The method's default variant, which this is.
    needs : tuple of str
        Any of ``acts``, ``grads`` (what comes back to the layer), ``full`` (a list: image times gradient, and bias times
        gradient of every tensor with a grid), ``attention`` (the map (N, h, w) of each of the last blocks, stacked on axis
        1) and ``size``, the (H, W) of the image.
    gives : {"map", "heatmap"}
        A raw map, or a finished heatmap (N, H, W).
    at_image : bool
        Whether the raw map has the image's size, whatever the layer.
    relu : bool
        Whether negative parts of the raw map are cut off.
    assumes_positive : bool
        Whether its program also tells which images have negative activations.
    target : {"logit", "contrast", "against_all"}
        What is carried back from the logits: the class, or one of `camrt.export.maps.seeds`.
    way : {"gradient", "relevance", "lift"}
        Which rules carry it: the gradient's, or those of `camrt.export.propagation`.
    fuse : {"mean", "product", "layercam"}
        How maps of several layers are joined.
    linear_head : bool
        Whether only global average pooling and one linear layer may follow.
    direct : bool
        Whether the engine runs it as a program of its own; else only explained models hold it.
    """

    function: Callable[..., Drawn]
    variant: str
    needs: tuple[str, ...] = ("acts", "grads")
    gives: Literal["map", "heatmap"] = "map"
    at_image: bool = False
    relu: bool = True
    assumes_positive: bool = False
    target: Literal["logit", "contrast", "against_all"] = "logit"
    way: Literal["gradient", "relevance", "lift"] = "gradient"
    fuse: Literal["mean", "product", "layercam"] = "mean"
    linear_head: bool = False
    direct: bool = False


MAPS: dict[str, InGraph] = {}


def in_graph(method: str, variant: str, **row: Any) -> Callable[[Callable[..., Drawn]], Callable[..., Drawn]]:
    """
    Register the decorated function as a method's map.

    Parameters
    ----------
    method : str
        The method's id.
    variant : str
        Its default variant.
    **row : object
        Other fields of `InGraph`.

    Returns
    -------
    callable
        The decorator, which returns the function unchanged.
    """

    def register(function: Callable[..., Drawn]) -> Callable[..., Drawn]:
        MAPS[method] = InGraph(function, variant, **row)
        return function

    return register
