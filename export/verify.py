"""
Run what was written: parity with the given model, and gradients against finite differences.

In: a classifier and a source of its programs. Out: figures for the manifest, or an error when they do not hold.
Everything runs on plain ONNX Runtime on the CPU in float32, so the tolerances are float32's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from camrt.errors import MissingExtraError, ModelError, NumericError

from .live import Live
from .load import Classifier
from .manifest import Program, Source

__all__ = ["check_agreement", "check_gradient", "check_parity", "verify"]

PARITY = 1e-4  # largest |difference| / largest |output|: float32 sums of a few thousand terms in another order
HALF_PARITY = 2e-2  # the same of a float16 model, whose operators round to 11 bits, against its float32 twin
SLOPE = 5e-2  # relative; a float32 central difference across kinks of ReLU networks is no better than a few per cent
_STEPS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)  # from few kinks crossed to little rounding; the best is reported
_SEED = 0

_AGREEMENT = 8  # inputs on which a quantised model and its float twin are compared

Array = np.ndarray[Any, Any]


def run(model: Program | bytes | str, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
    """
    Run one graph once on the CPU.

    Parameters
    ----------
    model : Program, bytes or str
        The graph, or its file.
    feeds : mapping of str to ndarray
        Its inputs.
    outputs : sequence of str, optional
        Which outputs; all of them when None.

    Returns
    -------
    list of ndarray
        In the order of `outputs`.

    Raises
    ------
    MissingExtraError
        If ONNX Runtime is not installed.
    ModelError
        If it does not run the graph.
    """
    return _run(_open(model), feeds, outputs)


def _open(model: Program | bytes | str) -> Any:
    """Return a session on the CPU."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingExtraError(
            "verification runs the model and needs ONNX Runtime: pip install 'camrt[cpu]'"
        ) from error
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        if isinstance(model, Program):
            return model.open_in(ort, options, providers=["CPUExecutionProvider"])
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load this model: {_detail(error)}") from error


def _run(session: Any, feeds: Mapping[str, Array], outputs: Sequence[str] | None) -> list[Array]:
    """Run a session once."""
    try:
        return list(session.run(outputs, dict(feeds)))
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot run this model: {_detail(error)}") from error


def _detail(error: Exception) -> str:
    """Return ONNX Runtime's message as one line of bearable length."""
    return " ".join(str(error).split())[:240]


def _run_given(classifier: Classifier, name: str, x: Array) -> Array:
    """Run the model as given at the batch its file declares, as often as it takes."""
    session = _open(classifier.given())
    declared = next(value.shape[0] for value in session.get_inputs() if value.name == name)
    size = declared if isinstance(declared, int) and declared > 0 else len(x)
    rows = np.arange(-(-len(x) // size) * size) % len(x)  # the last batch is filled up
    parts = [_run(session, {name: x[rows[i : i + size]]}, [classifier.output])[0] for i in range(0, len(rows), size)]
    parts = [part if part.ndim > 1 else part[None] for part in parts]  # scores of one image without its axis
    return np.concatenate(parts)[: len(x)] if len(parts) > 1 or len(rows) != len(x) else parts[0]


def sample(manifest_input: Mapping[str, Any], batch: int) -> Array:
    """
    Return a seeded batch of plausible inputs.

    Parameters
    ----------
    manifest_input : mapping
        The manifest's ``input``: ``shape`` and ``dtype``.
    batch : int
        How many.

    Returns
    -------
    ndarray
        Smooth noise of unit size, or grey levels for integer inputs.
    """
    rng = np.random.default_rng(_SEED)
    shape = [batch, *manifest_input["shape"][1:]]
    if str(manifest_input["dtype"]).startswith(("uint", "int")):
        return rng.integers(0, 256, shape).astype(manifest_input["dtype"])
    noise: Array = rng.normal(size=shape)
    for axis in range(1, 4):
        if shape[axis] > 4:
            noise = noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)
    return np.asarray(noise / noise.std()).astype(manifest_input["dtype"])


def check_parity(classifier: Classifier, source: Source, x: Array) -> dict[str, Any]:
    """
    Compare the forward program with the model as given.

    Parameters
    ----------
    classifier : Classifier
        Holds the given model.
    source : Source
        Where the forward program comes from.
    x : ndarray
        Inputs at a batch the model runs at.

    Returns
    -------
    dict
        ``max_abs`` and ``max_rel`` (relative to the largest output).

    Raises
    ------
    ModelError
        If they differ by more than float32 explains.
    NumericError
        If the given model's own scores are not finite.
    """
    want = _run_given(classifier, source.manifest.input["name"], x)
    if not np.isfinite(want).all():
        raise NumericError("the model as given makes NaN or infinity of a plausible input: repair the model")
    (got,) = run(source.program("forward"), {"x": x})
    got = _apply_head(got.astype(np.float64), classifier.head)
    quantised = classifier.quantised
    code = None if quantised is None else quantised.codes.get(classifier.output)
    want = (want.astype(np.float64) if code is None or want.dtype.kind == "f" else code.decode(want)).reshape(got.shape)
    with np.errstate(invalid="ignore"):  # infinities are caught below
        worst = float(np.abs(got - want).max())
    scale = float(np.abs(want).max())
    figures = {"max_abs": worst, "max_rel": worst / scale if scale else worst, "batch": len(x)}
    tolerance = HALF_PARITY if classifier.precision == "float16" else PARITY
    step = 0.0 if quantised is None else quantised.step
    if not np.isfinite(worst) or worst > tolerance * max(scale, 1e-12) + step:
        raise ModelError(
            f"the forward program differs from the model as given by {worst:.3g} (largest output {scale:.3g}); "
            "this is a defect of camrt, please report the model"
        )
    return figures


def _apply_head(logits: Array, head: str) -> Array:
    """Apply what the given model applies to its logits."""
    if head == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits)))
    if head == "none":
        return logits
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(np.exp(log_p)) if head == "softmax" else log_p


def check_agreement(classifier: Classifier, source: Source, layer: str | None = None) -> dict[str, Any]:
    """
    Compare a quantised model's logits with those of its float twin.

    The twin starts at a layer, as Ablation-CAM's runs do, from activations that are the given model's own.

    Parameters
    ----------
    classifier : Classifier
        A quantised one.
    source : Source
        Where the features and tail programs come from.
    layer : str, optional
        Where the twin starts; the default layer unless told otherwise.

    Returns
    -------
    dict
        ``layer``; ``images``, seeded noise; ``max_abs`` and ``mean_abs``, differences of logits; ``max_rel`` and
        ``mean_rel``, the same as shares of their spread (the largest less the smallest, on average); ``top1``, the share
        of images on which both predict the same class. ``whole`` holds the same for the first layer of the model, from
        where the twin computes nearly everything anew: sums in another order round differently, and that adds up.

    Notes
    -----
    Cost: two forwards and two tails of each of 8 inputs.
    """
    manifest = source.manifest
    x = sample(manifest.input, _AGREEMENT)
    name = manifest.default_layer.name if layer is None else layer
    first = manifest.layers[0].name
    return {**_agreement(source, name, x), "whole": _agreement(source, first, x)}


def _agreement(source: Source, name: str, x: Array) -> dict[str, Any]:
    """Compare the logits of a run with those of its tail from one layer."""
    programs = [source.program(kind, (name,)) for kind in ("features", "tail")]
    features, tail = (_open(program) for program in programs)
    outputs, size = programs[0].outputs, source.manifest.batch or len(x)
    rows = np.arange(-(-len(x) // size) * size) % len(x)  # the last batch is filled up
    given, twin = [], []
    for start in range(0, len(rows), size):
        named = dict(zip(outputs, _run(features, {"x": x[rows[start : start + size]]}, outputs), strict=True))
        given.append(named.pop("logits"))
        twin += _run(tail, named, ["logits"])
    want, got = (np.concatenate(parts)[: len(x)].astype(np.float64) for parts in (given, twin))
    spread = float(np.ptp(want, axis=1).mean())
    worst, mean = float(np.abs(got - want).max()), float(np.abs(got - want).mean())
    return {
        "layer": name,
        "images": len(x),
        "max_abs": worst,
        "mean_abs": mean,
        "max_rel": worst / spread if spread else worst,
        "mean_rel": mean / spread if spread else mean,
        "top1": float((got.argmax(1) == want.argmax(1)).mean()),
    }


def check_gradient(source: Source, layer: str, x: Array) -> dict[str, Any]:
    """
    Compare a layer's gradient with central differences of its tail.

    The direction is the gradient itself where the layer is active: along it the derivative is far from zero, and cells
    at a ReLU's zero, where max-pooling windows tie and no derivative exists, stay where they are.

    Parameters
    ----------
    source : Source
        Where the gradient and tail programs come from.
    layer : str
        The layer's name.
    x : ndarray
        Inputs.

    Returns
    -------
    dict
        ``rel_error`` of the best step, and that ``step``.

    Raises
    ------
    ModelError
        If no step agrees within a few per cent.
    """
    features, gradient, tail = (source.program(kind, (layer,)) for kind in ("features", "gradient", "tail"))
    named = dict(zip(features.outputs, run(features, {"x": x}), strict=True))
    acts = named["activations.0"].astype(np.float64)
    context = {name: named[name] for name in tail.inputs if name.startswith("context.")}
    feeds = {"x": x, "target": np.full(len(x), -1, np.int64)}
    results = dict(zip(gradient.outputs, run(gradient, feeds), strict=True))
    g, target = results["gradients.0"].astype(np.float64), results["explained"]
    direction = np.where(acts != 0, g, 0)
    norm = np.sqrt((direction**2).sum(axis=(1, 2, 3), keepdims=True))
    if not norm.all():
        return {"rel_error": 0.0, "step": 0.0, "note": "the gradient is zero on the sample"}
    direction = direction / norm
    size = np.sqrt((acts**2).sum(axis=(1, 2, 3), keepdims=True))
    logit = np.abs(results["logits"].max(axis=1)).reshape(-1, 1, 1, 1)
    size = np.maximum(size, logit / norm)  # tiny activations must still move the logit by more than it rounds
    best = (np.inf, 0.0)
    for step in _STEPS:
        scores = []
        for sign in (1, -1):
            moved = (acts + sign * step * size * direction).astype(named["activations.0"].dtype)
            (logits,) = run(tail, {"activations.0": moved, **context})
            scores.append(logits.astype(np.float64)[np.arange(len(x)), target])
        slope = (scores[0] - scores[1]) / (2 * step * size.reshape(-1))
        error = float(np.abs(slope / norm.reshape(-1) - 1).max())
        best = min(best, (error, step))
    if not best[0] <= SLOPE:
        raise ModelError(
            f"the gradient at layer {layer!r} differs from finite differences by {best[0]:.2%}; "
            "this is a defect of camrt, please report the model"
        )
    return {"rel_error": best[0], "step": best[1]}


def verify(classifier: Classifier, source: Source, layers: Sequence[str], *, gradients: bool = True) -> dict[str, Any]:
    """
    Check a model's programs and return the figures that go into the manifest.

    Parameters
    ----------
    classifier : Classifier
        Holds the given model.
    source : Source
        Where the programs come from.
    layers : sequence of str
        Layers whose gradients are checked.
    gradients : bool, default True
        Whether gradients are checked at all.

    Returns
    -------
    dict
        ``parity``; by layer, ``gradient``; of a quantised model, ``twin``, as `check_agreement` gives it.

    Raises
    ------
    ModelError
        If a figure does not hold.

    Notes
    -----
    Cost: two forwards, and about ten tail forwards a layer; eight of each more for a quantised model.
    """
    manifest = source.manifest
    x = sample(manifest.input, manifest.batch or 2)
    figures: dict[str, Any] = {"parity": check_parity(classifier, source, x)}
    if classifier.quantised is not None:
        figures["twin"] = check_agreement(classifier, source, next(iter(layers), None))
    if gradients:
        slopes = _without_rounding(classifier, source)
        figures["gradient"] = {name: check_gradient(slopes, name, x) for name in layers}
    return figures


def _without_rounding(classifier: Classifier, source: Source) -> Source:
    """Return programs that differ only in that a twin does not round: in steps there are no finite differences."""
    if classifier.quantised is None:
        return source
    return Live(replace(classifier, quantised=replace(classifier.quantised, rounded={})), source.manifest)
