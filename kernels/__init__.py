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
scores.py, .cu        `class_scores`: each row's probability or logit of one class; `log_scores`, `softmax_parts`
ranking.py, .cu       `pixel_ranks`, `patch_ranks`: each pixel's place in the order of its map
swapping.py, .cu      `fill_swapped`: a stretch of ranks replaced, into a buffer of images
curves.py, .cu        `areas`: the area under each curve
moments.py, .cu       `pearson`, `region_sums`, `map_means`: a few numbers a map
editing.py, .cu       `wipe_channels`, `keep_cells`: activations edited for the tail of a network
blur.py, .cu          `gaussian_blur`, `box_blur`, `rise_blur`: whole images
adjoint.py, .cu       `resize_adjoint`, `min_max_gradient`: the way back from a mask to the map it was made of
imputation.py, .cu    `impute`: missing pixels filled in from their neighbours
====================  ==========================================================================================

Each ``.py`` file reads from top to bottom: the public function checks and dispatches, ``_on_numpy`` is the
specification, ``_on_gpu`` launches the kernels of the ``.cu`` file of the same name.
"""

from __future__ import annotations

from .adjoint import min_max_gradient, resize_adjoint
from .array import Array, is_cupy
from .blur import box_blur, gaussian_blur, rise_blur
from .component import leading_component
from .curves import areas
from .editing import keep_cells, wipe_channels
from .imputation import impute
from .masking import fill_masks
from .moments import map_means, pearson, region_sums
from .ranking import patch_ranks, pixel_ranks
from .resizing import resize
from .scaling import min_max
from .scores import class_scores, log_scores, softmax_parts
from .swapping import fill_swapped
from .weighting import weighted_sum

__all__ = [
    "Array",
    "areas",
    "box_blur",
    "class_scores",
    "fill_masks",
    "fill_swapped",
    "gaussian_blur",
    "impute",
    "is_cupy",
    "keep_cells",
    "leading_component",
    "log_scores",
    "map_means",
    "min_max",
    "min_max_gradient",
    "patch_ranks",
    "pearson",
    "pixel_ranks",
    "region_sums",
    "resize",
    "resize_adjoint",
    "rise_blur",
    "softmax_parts",
    "weighted_sum",
    "wipe_channels",
]
