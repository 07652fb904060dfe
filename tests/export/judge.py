"""
Judge a whole network's programs against autograd: run them on ONNX Runtime and measure how far they are off.

Float32 gradients through many ReLUs and max pools have a noise floor: a number that rounds to the other side of a kink
switches a path, in torch as in ONNX Runtime. So errors are bimodal, and what can be asked of the gradient at the image
is that the best picture is right to float32's precision and every picture points the right way. A picture that does not
must at least have the exact gradient of one that differs from it by float32's rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from bench import coverage_figures
from bench.coverage_figures import cosines, errors
from camrt.export.live import Live
from camrt.export.manifest import Layer, Program
from tests.export.onnx_in_torch import gradients

__all__ = ["Figures", "canonical", "errors", "judge", "run_program"]

Array = np.ndarray[Any, Any]


def run_program(program: Program, **feeds: Array) -> dict[str, Array]:
    """Run a program once on the CPU provider, one thread; feeds by input name, a dot written as two underscores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    model = program.model if isinstance(program.model, bytes) else str(program.model)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    fed = {name.replace("__", "."): value for name, value in feeds.items()}
    return dict(zip(program.outputs, session.run(list(program.outputs), fed), strict=True))


def canonical(layer: Layer, tensor: Array) -> Array:
    """Return a layer's tensor as the model has it as (N, K, h, w)."""
    return coverage_figures.canonical(tensor, layer.layout, layer.prefix, layer.grid)


@dataclass(frozen=True)
class Figures:
    """
    How far a network's gradients are off float64 autograd, image by image.

    Attributes
    ----------
    layer : ndarray
        Relative error at the default layer.
    image : ndarray
        Relative error at the input.
    floor : ndarray
        The same for float32 autograd.
    cosine : ndarray
        Cosine between camrt's and float64 autograd's gradient at the input.
    logits : float
        Relative error of the logits.
    """

    layer: Array
    image: Array
    floor: Array
    cosine: Array
    logits: float


def judge(live: Live, given: onnx.ModelProto, x: Array, target: Sequence[int], scores: str) -> Figures:
    """
    Compare the gradient and the input gradient program with autograd through the model as given.

    Parameters
    ----------
    live : Live
        The programs under test.
    given : ModelProto
        The same model as its exporter wrote it.
    x : ndarray
        At least 12 images.
    target : sequence of int
        One class an image, -1 for the predicted one.
    scores : str
        The tensor of `given` that holds the logits.
    """
    assert len(x) >= 12
    layer = live.manifest.default_layer
    size = live.manifest.batch or len(x)
    parts = [_judge(live, given, x[i : i + size], target[i : i + size], scores, layer) for i in range(0, len(x), size)]
    by_layer, image, floor, cosine = (np.concatenate([p[i] for p in parts]) for i in range(4))
    return Figures(by_layer, image, floor, cosine, max(p[4] for p in parts))


def _judge(live: Live, given: onnx.ModelProto, x: Array, target: Sequence[int], scores: str, layer: Layer) -> Any:
    """Judge one batch."""
    found = run_program(live.program("gradient", [layer.name]), x=x, target=np.array(target, np.int64))
    chosen = found["explained"]
    exact = gradients(given, x, chosen, [layer.name], scores, torch.float64)
    rough = gradients(given, x, chosen, [], scores, torch.float32)
    predicted = np.where(np.array(target) < 0, exact.logits.argmax(1), target)
    assert np.array_equal(chosen, predicted)
    seed = np.eye(exact.logits.shape[1], dtype=np.float32)[chosen]
    image = run_program(live.program("input_gradient"), x=x, seed=seed)["input_gradient"]
    cosine = cosines(image, exact.image)
    return (
        errors(found["gradients.0"], canonical(layer, exact.layers[layer.name])),
        errors(image, exact.image),
        errors(rough.image, exact.image),
        cosine,
        float(np.abs(found["logits"] - exact.logits).max() / np.abs(exact.logits).max()),
    )
