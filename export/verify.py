"""
Run what was written: parity with the given model, and gradients against finite differences.

In: a classifier and a source of its programs. Out: figures for the manifest, or an error when they do not hold.
Everything runs on plain ONNX Runtime on the CPU in float32, so the tolerances are float32's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from camrt.errors import MissingExtraError, ModelError, NumericError

from .load import Classifier
from .manifest import Program, Source

__all__ = ["check_gradient", "check_parity", "verify"]

PARITY = 1e-4  # largest |difference| / largest |output|: float32 sums of a few thousand terms in another order
SLOPE = 5e-2  # relative; a float32 central difference across kinks of ReLU networks is no better than a few per cent
_STEPS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)  # from few kinks crossed to little rounding; the best is reported
_SEED = 0

Array = np.ndarray[Any, Any]


def run(model: bytes | str, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
    """
    Run one graph once on the CPU.

    Parameters
    ----------
    model : bytes or str
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


def _open(model: bytes | str) -> Any:
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
    session = _open(classifier.given)
    declared = next(value.shape[0] for value in session.get_inputs() if value.name == name)
    size = declared if isinstance(declared, int) and declared > 0 else len(x)
    rows = np.arange(-(-len(x) // size) * size) % len(x)  # the last batch is filled up
    parts = [_run(session, {name: x[rows[i : i + size]]}, [classifier.output])[0] for i in range(0, len(rows), size)]
    return np.concatenate(parts)[: len(x)] if len(parts) > 1 or len(rows) != len(x) else parts[0]


def _model(program: Program) -> bytes | str:
    return program.model if isinstance(program.model, bytes) else str(program.model)


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
    (got,) = run(_model(source.program("forward")), {"x": x})
    got = _apply_head(got.astype(np.float64), classifier.head)
    want = want.astype(np.float64).reshape(got.shape)
    with np.errstate(invalid="ignore"):  # infinities are caught below
        worst = float(np.abs(got - want).max())
    scale = float(np.abs(want).max())
    figures = {"max_abs": worst, "max_rel": worst / scale if scale else worst, "batch": len(x)}
    tolerance = PARITY if str(x.dtype) != "float16" else 2e-2
    if not np.isfinite(worst) or worst > tolerance * max(scale, 1e-12):
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
    named = dict(zip(features.outputs, run(_model(features), {"x": x}), strict=True))
    acts = named["activations.0"].astype(np.float64)
    context = {name: named[name] for name in tail.inputs if name.startswith("context.")}
    feeds = {"x": x, "target": np.full(len(x), -1, np.int64)}
    results = dict(zip(gradient.outputs, run(_model(gradient), feeds), strict=True))
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
            (logits,) = run(_model(tail), {"activations.0": moved, **context})
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
        ``parity`` and, by layer, ``gradient``.

    Raises
    ------
    ModelError
        If a figure does not hold.

    Notes
    -----
    Cost: two forwards, and about ten tail forwards a layer.
    """
    manifest = source.manifest
    x = sample(manifest.input, manifest.batch or 2)
    figures: dict[str, Any] = {"parity": check_parity(classifier, source, x)}
    if gradients:
        figures["gradient"] = {name: check_gradient(source, name, x) for name in layers}
    return figures
