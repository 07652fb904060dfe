"""
Cut and grow graphs: each program is one graph for one purpose, made from a copy of the classifier.

================  =============================  ==========================================================
program           inputs                         outputs
================  =============================  ==========================================================
forward           x                              logits
features          x                              logits, activations.i (and context.j of a single layer)
gradient          x, target (N,) int64, -1 =     logits, explained (N,) int64, activations.i, gradients.i
                  the predicted class
seeded_gradient   x, seed (N, C)                 logits, activations.i, gradients.i
tail              activations.0, context.j       logits
tail_gradient     activations.0, context.j,      logits, gradients.0
                  seed
input_gradient    x, seed                        logits, input_gradient
map_<method>      x, target                      logits, explained, map (N, h, w), heat (N, H, W), degenerate (N,),
                                                 signed (N,) where the method needs to know, and its flags (N,)
guided_gradient   x, seed                        logits, input_gradient by guided back-propagation
bias_terms        x, seed                        logits, input_gradient, biases.i: gradient times bias at every tensor
                                                 that receives one
bias_gradients    x, seed                        the same, biases.i being the gradient alone
tail_bias_terms   activations.0, context.j,      logits, biases.i: gradient times bias at every tensor behind the
                  seed                           layer that receives one
relevance         activations.0, context.j,      logits, relevance.0; relevance_bias: with biases in the denominators
                  seed
lift              activations.0, context.j,      logits, contributions.0 to the change from activations of zero
                  seed
attention         x, seed                        logits, maps (N, 2, h, w) of the last two blocks' attention on the
                                                 layer's grid; attention_all: of every block
explained_<...>   x, target                      logits, heatmap (N, H, W): for runtimes without camrt
================  =============================  ==========================================================

``activations.i`` and ``gradients.i`` are always ``(N, K, h, w)``, however the model lays them out. ``context.j`` is
what the tail needs beside the layer because it goes around it: a residual stream, or the prefix tokens.

The files, in the order in which a program is made::

    table      one row a kind, and `build`       draft     the copy being worked on, its inputs and outputs
    seeds      what starts at the logits         cut       a layer in place of the image, and what goes around it
    layouts    a layer as (N, K, h, w), and back
    forward, gradients, image, biases, relevance, lift, attention    one small function a kind
    evidence   what a method's map is made of    maps      programs that end in a map

A new kind is a function of a `draft.Draft` in the file of its family, and a row of the table.
"""

from .cut import context_of
from .table import EXPLAINED, KINDS, ON_REQUEST, WITHOUT_LAYER, Kind, build

__all__ = ["EXPLAINED", "KINDS", "ON_REQUEST", "WITHOUT_LAYER", "Kind", "build", "context_of"]
