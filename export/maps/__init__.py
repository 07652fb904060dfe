"""
Methods inside the graph: a layer's activations and gradients become a map, and the map a heatmap, as ordinary nodes.

A program that ends in the raw map hands (h, w) numbers an image to the caller instead of 2 K (h, w), and its reductions
run in ONNX Runtime; an explained model needs nothing else.

::

    table       one row a method           gradient, activation, component   one small function a method
    seeds       targets but the logit      weighting, finish                 sums over channels; ReLU, resize, min-max
"""

from . import activation, component, gradient  # noqa: F401 -- each enters its methods into MAPS
from .finish import fused
from .seeds import against_all, contrast
from .table import MAPS, Drawn, InGraph
from .weighting import is_signed

__all__ = ["MAPS", "Drawn", "InGraph", "against_all", "contrast", "fused", "is_signed"]
