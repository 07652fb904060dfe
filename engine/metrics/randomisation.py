"""
Whether a map depends on what the model has learned: redraw its weights, explain again, and compare.

In: the maps of the model and of models with weights drawn anew, more and more of them from the logits down, or one layer at
a time. Out: how alike they are, for each step and on average. A method whose maps stay as they are shows the picture, not
the model. Adebayo et al. 2018, Sanity Checks for Saliency Maps, arXiv:1810.03292.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..choices import Choice, choose
from ..device import on_host
from ..errors import MethodError
from ..explainer import Explainer
from ..image import prepare
from ..methods import resolve as resolve_method
from ..methods import validate as validate_method
from ..methods.table import Option
from .case import Case
from .changes import Change, Randomised
from .plan import plan_of
from .similarity import hog_similarity, spearman, structural
from .table import Field, Metric, register, validate

__all__ = ["randomisation", "randomisation_table", "randomiser", "redrawn"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

STEPS = 5  # by default: the logits' own layer, the first layer, and three between
KEPT = STEPS  # models with redrawn weights that stay open at a time


def randomisation(
    explainer: Explainer,
    images: Any,
    classes: Any = None,
    *,
    method: str = "gradcam",
    variant: str = "cascading",
    steps: int | None = STEPS,
    seed: int = 0,
    layer: str | Sequence[str] | None = None,
    pipeline: str = "camrt",
    mask_space: str = "normalised",
) -> Floats:
    """
    Return how much a method's maps stay the same when the model's weights are drawn anew.

    The mean over steps of Spearman's rank correlation between the map of the model and that of the randomised model, in
    [-1, 1]; lower is better, and 0 is what unrelated maps have.

    Parameters
    ----------
    explainer : camrt.Explainer
        The model, opened from an ``.onnx`` file.
    images : as in `Explainer.explain`
        N pictures, or inputs that are prepared.
    classes : array of int, shape (N,), optional
        The classes to explain, of the model and of all randomised ones; the model's predictions where None.
    method : str, default "gradcam"
        ``id[:variant][,name=value...]``.
    variant : {"cascading", "independent"}
        "cascading" redraws every layer from the logits down to that of the step; "independent" that layer alone.
    steps : int or None, default 5
        How many layers, evenly spaced over all layers of weights: the first step is at the logits, the last at the image.
        A single step is the last; more steps than layers repeat some. None takes every layer.
    seed : int, default 0
        A layer's weights depend on it and on the layer's name.
    layer, pipeline, mask_space : optional
        As in `Explainer.explain`.

    Returns
    -------
    ndarray of float64, shape (N,)
        The similarity. A map that is constant, of either model, counts 0.

    Raises
    ------
    BundleError
        If the explainer is of a bundle, which does not hold the model.
    ModelError
        If the model is quantised, or has no weights.
    MethodError, LayerError, TargetError, ImageError
        If an argument does not fit.

    Notes
    -----
    Cost: ``1 + steps`` explanations an image, a model opened a step, and 50 ms an image and step to compare maps of 224 x 224.
    Weights come from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), norms get scale 1 and shift 0 and keep their statistics
    (`Explainer.randomised`).

    An evaluation also reports ``spearman``, of the maps with their sign, before ReLU and resize; ``ssim``, structural
    similarity with Gaussian weights; and ``hog``, the rank correlation of histograms of oriented gradients. These four are
    those of the authors' notebooks; the paper is remembered to say Pearson for the last. No table of CAM papers prints
    them; the paper shows curves over the layers of Inception v3, as `randomisation_table` gives them. Quantus redraws by
    PyTorch's ``reset_parameters``, statistics of norms included, which are no weights of a classifier that is run.

    Layers at or before the one that is explained change activations, later ones the weights that a map gives to channels:
    so a map of activations alone (Eigen-CAM, LaFAM, FEM) stays as it is while only later layers are drawn.

    References
    ----------
    Adebayo et al. 2018, Sanity Checks for Saliency Maps, arXiv:1810.03292, section 3.
    """
    found = _judged(explainer, images, classes, method, variant, steps, seed, layer, pipeline, mask_space)
    return found["randomisation"]


def randomisation_table(
    explainer: Explainer,
    images: Any,
    classes: Any = None,
    *,
    method: str = "gradcam",
    variant: str = "cascading",
    steps: int | None = None,
    seed: int = 0,
    layer: str | Sequence[str] | None = None,
    pipeline: str = "camrt",
    mask_space: str = "normalised",
) -> dict[str, Array]:
    """
    Return every similarity after every step: what the paper's figures show.

    Parameters
    ----------
    explainer, images, classes, method, variant : optional
        As in `randomisation`.
    steps : int or None, default None
        As in `randomisation`; every layer of weights unless told otherwise.
    seed, layer, pipeline, mask_space : optional
        As in `randomisation`.

    Returns
    -------
    dict of str to ndarray
        ``layer``, the names of the layers redrawn last, (steps,); ``spearman_abs``, ``spearman``, ``ssim`` and ``hog``,
        (N, steps).

    Raises
    ------
    BundleError, ModelError, MethodError, LayerError, TargetError, ImageError
        As in `randomisation`.

    Notes
    -----
    Cost: as `randomisation`. One model is open at a time beside the given one, so memory does not grow with the steps.
    """
    found = _judged(explainer, images, classes, method, variant, steps, seed, layer, pipeline, mask_space)
    names, count = explainer.weight_layers, found["randomisation.curve"].shape[1]
    layers = [redrawn(names, Randomised("independent", step, count, seed))[0] for step in range(1, count + 1)]
    curves = {"spearman_abs": "curve", **{name: f"curve_{name}" for name in ("spearman", "ssim", "hog")}}
    return {"layer": np.array(layers), **{name: found[f"randomisation.{key}"] for name, key in curves.items()}}


def redrawn(layers: Sequence[str], change: Randomised) -> tuple[str, ...]:
    """
    Name the layers whose weights one step draws anew.

    Parameters
    ----------
    layers : sequence of str
        All layers of weights, from the logits to the image; L of them.
    change : Randomised
        The step.

    Returns
    -------
    tuple of str
        Of `layers`, number ``(step - 1) (L - 1) / (steps - 1)``, rounded, from 0; in "cascading" those before it as well. A
        single step is at the last.

    Raises
    ------
    MethodError
        If there is no such step.

    Examples
    --------
    >>> [redrawn("abcde", Randomised("independent", step, 3)) for step in (1, 2, 3)]
    [('a',), ('c',), ('e',)]
    >>> redrawn("abcde", Randomised("cascading", 2, 3))
    ('a', 'b', 'c')
    """
    if not 1 <= change.step <= change.steps:
        raise MethodError(f"a step lies in 1..{change.steps}; got {change.step}")
    far, gaps = len(layers) - 1, change.steps - 1
    place = (2 * (change.step - 1) * far + gaps) // (2 * gaps) if gaps else far
    return tuple(layers[: place + 1]) if change.mode == "cascading" else (layers[place],)


def randomiser(explainer: Explainer, kept: int = KEPT) -> Callable[[Randomised], Explainer]:
    """
    Return what opens randomised models for `camrt.judging.Judge`.

    Parameters
    ----------
    explainer : Explainer
        The model.
    kept : int, default 5
        How many of them stay open, those used last; what is dropped is opened anew when it is asked for again.

    Returns
    -------
    callable
        From a `Randomised` to an explainer.
    """
    return lru_cache(maxsize=kept)(partial(_opened, explainer))


def _opened(explainer: Explainer, change: Randomised) -> Explainer:
    """Open one randomised model; graphs are rings of references, so that the weights of dropped ones would pile up."""
    gc.collect()
    return explainer.randomised(redrawn(explainer.weight_layers, change), change.seed)


def _judged(
    explainer: Explainer,
    images: Any,
    classes: Any,
    method: str,
    variant: str,
    steps: int | None,
    seed: int,
    layer: str | Sequence[str] | None,
    pipeline: str,
    mask_space: str,
) -> Mapping[str, Array]:
    """Explain pictures, redraw and explain again."""
    from ..judging import Judge  # which imports this package

    count = len(explainer.weight_layers) if steps is None else steps
    chosen, options = validate(RANDOMISATION, variant, {"steps": count, "seed": seed})
    plan = plan_of([Choice(RANDOMISATION.id, RANDOMISATION, chosen, options)], explainer.preprocess.size, mask_space)
    methods = choose([method], resolve_method, validate_method)
    held = tuple(layer) if layer is not None and not isinstance(layer, str) else layer
    judge = Judge(explainer, methods, plan, held, pipeline, mask_space, randomised=randomiser(explainer, 0))
    given = None if classes is None else np.asarray(classes)
    return judge.batch(prepare(images, explainer.preprocess).x, given)[methods[0].name]


# what the table calls ---------------------------------------------------------------------------------------------


def randomisation_again(size: tuple[int, int], *, variant: str, steps: int, seed: int) -> tuple[Change, ...]:
    """
    Name the models that explain once more.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant, steps, seed : optional
        As in `randomisation`.

    Returns
    -------
    tuple of Change
        One a step, from the logits down.
    """
    mode: Literal["cascading", "independent"] = "cascading" if variant == "cascading" else "independent"
    return tuple(Randomised(mode, step, steps, seed) for step in range(1, steps + 1))


def randomisation_values(case: Case, *, variant: str, steps: int, seed: int) -> dict[str, Array]:
    """
    Return how alike each map and those of the randomised models are.

    Parameters
    ----------
    case : Case
        Maps with their raw ones, and those of the randomised models.
    variant, steps, seed : optional
        As in `randomisation`.

    Returns
    -------
    dict of str to ndarray
        ``randomisation`` (of heatmaps), ``.spearman`` (of raw maps), ``.ssim`` and ``.hog``, (N,); ``.curve``,
        ``.curve_spearman``, ``.curve_ssim`` and ``.curve_hog``, the same for each step, (N, steps); and ``.constant``, the
        share of steps where one of the two heatmaps is constant, (N,).
    """
    changes = randomisation_again(case.size, variant=variant, steps=steps, seed=seed)
    parts = {name: np.zeros((len(case.heat), steps)) for name in ("abs", "spearman", "ssim", "hog", "constant")}
    raw = _raw(case.raw)
    for j, change in enumerate(changes):
        again = case.again[change]
        other, other_raw = on_host(again.heat), _raw(again.raw)
        for i, heat in enumerate(case.host):
            parts["abs"][i, j] = spearman(heat, other[i])
            parts["spearman"][i, j] = spearman(raw[i], other_raw[i])
            parts["ssim"][i, j] = structural(heat, other[i])
            parts["hog"][i, j] = hog_similarity(heat, other[i])
        parts["constant"][:, j] = case.degenerate | again.degenerate
    name, main = "randomisation", parts.pop("abs")
    constant = parts.pop("constant").mean(1)
    return {
        name: main.mean(1),
        **{f"{name}.{key}": values.mean(1) for key, values in parts.items()},
        f"{name}.curve": main,
        **{f"{name}.curve_{key}": values for key, values in parts.items()},
        f"{name}.constant": constant,
    }


def _raw(raw: Array | None) -> Array:
    """Return raw maps on the host."""
    if raw is None:
        raise MethodError("randomisation compares raw maps too: use camrt.metrics.randomisation, or camrt.evaluate")
    return on_host(raw)


RANDOMISATION = register(
    Metric(
        id="randomisation",
        title="Randomisation",
        paper="arXiv:1810.03292",
        settings="both variants are the paper's; it draws curves over all layers, and no table of CAM papers prints them",
        fields=(
            Field("randomisation", "lower", -1, 1, "rank correlation of maps before and after weights are redrawn"),
            Field("randomisation.spearman", "lower", -1, 1, "the same of raw maps, with their sign"),
            Field("randomisation.ssim", "lower", -1, 1, "structural similarity of the maps"),
            Field("randomisation.hog", "lower", -1, 1, "rank correlation of the maps' edge histograms"),
        ),
        variants=("cascading", "independent"),
        values=randomisation_values,
        again=randomisation_again,
        needs=("map", "again", "model"),
        options={
            "steps": Option(STEPS, "integer", "layers redrawn, evenly spaced from the logits to the image", low=1),
            "seed": Option(0, "integer", "seed of the weights, beside the layer's name", low=0),
        },
        aliases=("randomization", "sanity_check"),
    )
)
