"""
What methods that promise to add up account for: the number they explain, and the sum that should be it.

In: an explainer, prepared inputs, classes, and one of four methods. Out: for each image the model's ``output`` and the
method's ``sum``; the metric `completeness` compares them. s is the class's logit, g its gradient at a tensor, b a bias.

=========  ==============================================================  ===========================================
method     sum                                                             output
=========  ==============================================================  ===========================================
fullgrad   sum of x g at the image, and of b g at every tensor with bias   s
hirescam   sum of the raw map, and of b g at every tensor behind the       s
           layer
xgradcam   the same                                                        s
liftcam    sum of the contributions of all activations                     s at the activations less s at zeros
=========  ==============================================================  ===========================================

The first three add up where the model (behind the layer, for the second and third) is made of linear operators, ReLU
and maxima; what they leave elsewhere is what the metric is for. A ReLU6 that saturates adds a constant that is no bias,
so that FullGrad of a MobileNet does not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..device import on_host
from ..errors import LayerError, MethodError, TargetError
from ..explainer import Explainer
from ..methods import Method, resolve, validate

__all__ = ["COMPLETE", "accounted", "require_complete"]

Array = npt.NDArray[Any]
Sums = tuple[Array, Array]
BATCH = 2  # images a run: every tensor with a bias leaves the model, some 55 MB an image for ResNet-50


def accounted(
    explainer: Explainer,
    x: Array,
    classes: Any,
    method: str,
    *,
    variant: str | None = None,
    layer: str | Sequence[str] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """
    Add up what a method accounts for.

    Parameters
    ----------
    explainer : Explainer
        The model.
    x : ndarray, shape (N, ...)
        Inputs, prepared.
    classes : array of int, shape (N,)
        The class whose logit is explained, of each image.
    method : str
        fullgrad, hirescam, xgradcam or liftcam.
    variant : str, optional
        Of the method; only those that promise to add up.
    layer : str or sequence of one str, optional
        The layer, for methods that have one; the default one where None.

    Returns
    -------
    dict of str to ndarray of float64
        ``output`` and ``sum``, (N,), in logits.

    Raises
    ------
    MethodError
        If the method or the variant does not promise to add up, the model does not take floats, or it holds images
        along another axis than the first.
    LayerError
        If the layer does not exist, or there are several; for hirescam and xgradcam, if something reaches the logits
        around it, because no biases account for that.
    TargetError
        If the classes are not the model's, one an image.
    BundleError
        If a bundle does not hold the program that is needed; the message names it.

    Notes
    -----
    Cost: fullgrad two forwards and a backward pass to the image; hirescam and xgradcam two forwards, one gradient and
    one run of the tail and back; liftcam one forward, three runs of the tail and one gradient through it.

    References
    ----------
    Srinivas and Fleuret 2019, FullGrad, arXiv:1905.00780, equation 2; Draelos and Carin 2020, HiResCAM,
    arXiv:2011.08891; Fu et al. 2020, Axiom-based Grad-CAM, arXiv:2008.02312; Jung and Oh 2021, LIFT-CAM,
    arXiv:2102.05228.
    """
    row, chosen = require_complete(method, variant)
    name = _one_layer(explainer, layer)
    x, classes = on_host(x), np.asarray(classes)
    if classes.shape != (len(x),) or not ((classes >= 0) & (classes < explainer.manifest.classes)).all():
        raise TargetError(
            f"one class of 0..{explainer.manifest.classes - 1} was wanted for each of {len(x)} images; got {classes}"
        )
    if x.dtype.kind != "f":
        raise MethodError(f"completeness multiplies by gradients and needs a model that takes floats; got {x.dtype}")
    parts = []
    for start in range(0, len(x), BATCH):
        rows = slice(start, start + BATCH)
        parts.append(COMPLETE[row.id](_Asked(explainer, name, x[rows], classes[rows], row.id, chosen)))
    output, total = (np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True))
    return {"output": output, "sum": total}


def require_complete(method: str, variant: str | None = None) -> tuple[Method, str]:
    """
    Refuse a method that does not promise to add up.

    Parameters
    ----------
    method : str
        A method id or alias.
    variant : str, optional
        Of the method.

    Returns
    -------
    method : Method
        Its row.
    variant : str
        The variant's exact name.

    Raises
    ------
    MethodError
        If the method or the variant does not promise it.
    """
    row = resolve(method)
    if row.id not in COMPLETE:
        raise MethodError(
            f"{row.id} does not promise to add up to the logit; completeness is for {', '.join(COMPLETE)}"
        )
    chosen, _ = validate(row, variant)
    if chosen in _OTHERWISE.get(row.id, ()):
        raise MethodError(
            f"variant {chosen} of {row.id} does not promise to add up; completeness is for {row.variants[0]}"
        )
    return row, chosen


def _one_layer(explainer: Explainer, layer: str | Sequence[str] | None) -> str:
    """Return a layer's own name."""
    if layer is None:
        return next(item.name for item in explainer.layers if item.default)
    given = [layer] if isinstance(layer, str) else list(layer)
    if len(given) != 1:
        raise LayerError(f"a map of several layers does not add up; completeness is for one, got {len(given)}")
    return explainer.source.resolve(given[0]).name


@dataclass(frozen=True)
class _Asked:
    """A few images, and who is asked about them."""

    explainer: Explainer
    layer: str
    x: Array
    classes: Array
    method: str
    variant: str

    def run(self, kind: str, feeds: Mapping[str, Array], *, of_layer: bool = True) -> dict[str, Array]:
        """Run a program of the layer, or one that has none."""
        return self.explainer.sessions.run(kind, (self.layer,) if of_layer else (), dict(feeds))

    def behind(self) -> dict[str, Array]:
        """Return what programs that start at the layer are fed."""
        named = self.run("features", {"x": self.x})
        return {name: array for name, array in named.items() if name.startswith(("activations.", "context."))}

    def seed(self, dtype: np.dtype[Any]) -> Array:
        """Return the cotangent of each image's logit."""
        one_hot = np.zeros((len(self.x), self.explainer.manifest.classes), dtype)
        one_hot[np.arange(len(self.x)), self.classes] = 1
        return one_hot

    def logit(self, logits: Array) -> Array:
        """Return each image's own."""
        return logits[np.arange(len(logits)), self.classes].astype(np.float64)


def _full_gradient(asked: _Asked) -> Sums:
    """Add the image times its gradient, and every bias times its own."""
    dtype = asked.run("forward", {"x": asked.x}, of_layer=False)["logits"].dtype  # not always that of the image
    named = asked.run("bias_terms", {"x": asked.x, "seed": asked.seed(dtype)}, of_layer=False)
    at_image = _total(asked.x.astype(np.float64) * named["input_gradient"])
    return asked.logit(named["logits"]), at_image + _biases(named, len(asked.x))


def _raw_map(asked: _Asked) -> Sums:
    """Add the raw map and every bias behind the layer times its gradient."""
    feeds = asked.behind()
    if len(feeds) > 1:
        raise LayerError(
            f"not all of the model passes through layer {asked.layer!r}, so that {asked.method} and the biases "
            "behind it do not add up to the logit: take a layer that nothing goes around, such as the last one"
        )
    made = asked.explainer.explain(
        asked.x, method=asked.method, variant=asked.variant, layer=asked.layer, target=asked.classes[:, None]
    )
    named = asked.run("tail_bias_terms", {**feeds, "seed": asked.seed(feeds["activations.0"].dtype)})
    return asked.logit(made.logits), _total(made.raw) + _biases(named, len(asked.x))


def _contributions(asked: _Asked) -> Sums:
    """Add the contributions to the change from activations of zero."""
    feeds = asked.behind()
    acts = feeds["activations.0"]
    named = asked.run("lift", {**feeds, "seed": asked.seed(acts.dtype)})
    at_zero = asked.run("tail", {**feeds, "activations.0": np.zeros_like(acts)})["logits"]
    return asked.logit(named["logits"]) - asked.logit(at_zero), _total(named["contributions.0"])


def _biases(named: Mapping[str, Array], images: int) -> Any:
    """Return the sum of all bias terms, (N,)."""
    terms = [term for name, term in named.items() if name.startswith("biases.")]
    for term in terms:
        if len(term) != images:
            raise MethodError(
                f"completeness needs tensors whose first axis is that of the images; one with a bias is {term.shape} "
                f"for {images} images, as in transformers"
            )
    return sum(_total(term) for term in terms)


def _total(terms: Array) -> Array:
    """Return each image's sum, in float64."""
    totals: Array = terms.reshape(len(terms), -1).sum(1, dtype=np.float64)
    return totals


COMPLETE: Mapping[str, Callable[[_Asked], Sums]] = {
    "fullgrad": _full_gradient,
    "hirescam": _raw_map,
    "xgradcam": _raw_map,
    "liftcam": _contributions,
}
_OTHERWISE = {"fullgrad": ("simple",), "liftcam": ("lrp", "lime")}  # variants that account for something else
