"""
Take apart what ONNX Runtime's optimiser fused: each operator of its own becomes the ONNX operators it stands for.

An optimised model that was saved (``SessionOptions.optimized_model_filepath``, or ``onnxruntime.transformers``) holds
operators of the domain ``com.microsoft`` and, under the default domain, some that ONNX does not know there. `FUSIONS` has
a function for each that image classifiers get, and for ONNX's own Attention: of the emitter and the node, it returns the
values that take the place of the node's outputs. What it emits is valid at the opset of the file and computes the same up
to rounding; what it does not cover is refused with its node.

::

    apart      the walk through a model: what is found is replaced, or refused
    table      the table, and what its rows say of a node they do not cover
    product, activation, norm, attention    one small function an operator

In: a model as read. Out: the same, without these operators; other domains are left for who knows them.

References
----------
ONNX Runtime, docs/ContribOperators.md: what each operator computes.
"""

from . import activation, attention, norm, product  # noqa: F401 -- each enters its operators into FUSIONS
from .apart import is_fused, standard_names, take_apart
from .table import FUSIONS

__all__ = ["FUSIONS", "is_fused", "standard_names", "take_apart"]
