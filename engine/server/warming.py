"""
Make a model ready before it is served: every batch size that will occur is run once, and the pace is measured.

The first run of a program opens its session, of a batch size makes its buffers, on TensorRT its engine. All of that
belongs before the swap, and a model that gives NaN does not get that far.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BundleError, LayerError, MethodError, MissingRuleError
from ..explainer import Explainer
from ..methods import resolve
from ..providers import BUCKETS

__all__ = ["inputs_like", "sizes", "warm"]

GREY = 128
TIMES = 3  # the pace is the best of so many runs
_CANNOT = (BundleError, LayerError, MethodError, MissingRuleError)  # a method that this model does not have

log = logging.getLogger("camrt.server")


def sizes(explainer: Explainer, batch: int) -> tuple[int, ...]:
    """
    List the batch sizes that a model is run at.

    Parameters
    ----------
    explainer : Explainer
        The model.
    batch : int
        Images that the scheduler puts into one run at most.

    Returns
    -------
    tuple of int
        One, a full run, and on a device the sizes between that engines are made for.
    """
    full = max(1, min(batch, explainer.batch))
    between = () if explainer.running["providers"][0] == "CPUExecutionProvider" else BUCKETS
    return tuple(sorted({1, full, *(size for size in between if size < full)}))


def inputs_like(explainer: Explainer, count: int) -> npt.NDArray[Any]:
    """
    Make inputs for warming up: one grey picture, and noise.

    Parameters
    ----------
    explainer : Explainer
        The model.
    count : int
        How many.

    Returns
    -------
    ndarray
        uint8 pictures (N, H, W, 3); for a model that takes no pictures, prepared inputs.
    """
    rng = np.random.default_rng(0)
    preprocess = explainer.preprocess
    is_bands, is_whole = preprocess.color == "bands", preprocess.dtype == "uint8"
    shape = (count, *preprocess.shape) if is_bands else (count, *preprocess.size, 3)
    if is_bands and not is_whole:
        inputs = rng.normal(size=shape).astype(preprocess.dtype)
        inputs[0] = 0
        return inputs
    pixels = rng.integers(0, 256, shape, np.uint8)
    pixels[0] = GREY
    return pixels


def warm(explainer: Explainer, methods: Sequence[str], batch: int) -> float:
    """
    Run a model as it will be run, and measure its pace.

    Parameters
    ----------
    explainer : Explainer
        The model, freshly opened.
    methods : sequence of str
        Method ids; one that this model cannot give is passed over.
    batch : int
        Images that the scheduler puts into one run at most.

    Returns
    -------
    float
        Forwards a second, in full runs.

    Raises
    ------
    MethodError
        If there is no such method.
    NumericError
        If the model gives NaN or infinity.
    ProviderError
        If it does not run.

    Notes
    -----
    Cost: each method once a size of `sizes`, once more where a run beside another has a session of its own, and a few
    forwards.
    """
    known = [resolve(name).id for name in methods]
    for size in sizes(explainer, batch):
        images = inputs_like(explainer, size)
        _run(explainer, images, known)
        if explainer.sessions.shares_cores:
            with explainer.sessions.under_way():
                _run(explainer, images, known)
    return _rate(explainer, images)


def _run(explainer: Explainer, images: npt.NDArray[Any], known: Sequence[str]) -> None:
    """Run the model and every method that it can give."""
    explainer.logits(images)
    for method in known:
        try:
            explainer.explain(images, method=method)
        except _CANNOT as error:
            log.info("%s is not warmed up: %s", method, error)


def _rate(explainer: Explainer, images: npt.NDArray[Any]) -> float:
    """Return forwards a second, the best of several runs."""
    taken = []
    for _ in range(TIMES):
        start = time.perf_counter()
        explainer.logits(images)
        taken.append(time.perf_counter() - start)
    return len(images) / max(min(taken), 1e-6)
