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
====================  ==========================================================================================

Each ``.py`` file reads from top to bottom: the public function checks and dispatches, ``_on_numpy`` is the
specification, ``_on_gpu`` launches the kernels of the ``.cu`` file of the same name.
"""

from __future__ import annotations

from .array import Array, is_cupy
from .component import leading_component
from .resizing import resize
from .scaling import min_max
from .weighting import weighted_sum

__all__ = ["Array", "is_cupy", "leading_component", "min_max", "resize", "weighted_sum"]
