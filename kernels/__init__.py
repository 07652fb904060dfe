"""
Array mathematics: a NumPy twin for every CUDA kernel.

The array given decides where the work happens: NumPy arrays stay on the host, CuPy arrays on their device, and the
result lies where the input lay. There is no global switch. Half precision is computed and returned in float32,
float32 and float64 keep their type.

====================  ==========================================================================================
array.py              what counts as an array here, and the checks that every kernel shares
device.py             the GPU in three verbs (contiguous, empty, launch); compiles and caches the ``.cu`` files
weighting.py, .cu     `weighted_sum`: channels times weights, summed
resizing.py, .cu      `resize`: bilinear interpolation
scaling.py, .cu       `min_max`: each map to [0, 1], constant maps flagged
component.py, .cu     `leading_component`: the first principal component through a Gram matrix
masking.py, .cu       `fill_masks`: maps made masks and multiplied into a buffer of images
scores.py, .cu        `class_scores`: each row's probability or logit of one class; `softmax_parts`: what all classes share
editing.py, .cu       `wipe_channels`, `keep_cells`: activations edited for the tail of a network
blur.py, .cu          `gaussian_blur`: whole images, mirrored at the border
adjoint.py, .cu       `resize_adjoint`, `min_max_gradient`: the way back from a mask to the map it was made of
====================  ==========================================================================================

Each ``.py`` file reads from top to bottom: the public function checks and dispatches, ``_on_numpy`` is the
specification, ``_on_gpu`` launches the kernels of the ``.cu`` file of the same name.
"""

from __future__ import annotations

from .adjoint import min_max_gradient, resize_adjoint
from .array import Array, is_cupy
from .blur import gaussian_blur
from .component import leading_component
from .editing import keep_cells, wipe_channels
from .masking import fill_masks
from .resizing import resize
from .scaling import min_max
from .scores import class_scores, softmax_parts
from .weighting import weighted_sum

__all__ = [
    "Array",
    "class_scores",
    "fill_masks",
    "gaussian_blur",
    "is_cupy",
    "keep_cells",
    "leading_component",
    "min_max",
    "min_max_gradient",
    "resize",
    "resize_adjoint",
    "softmax_parts",
    "weighted_sum",
    "wipe_channels",
]
