"""
How far a method that promises to add up is from the number it explains.

In: for each image what the method accounts for and what the model says (`camrt.metrics.accounting`). Out: the
difference, relative to the larger of the two. Sundararajan et al. 2017 call the promise completeness
(arXiv:1703.01365); FullGrad, HiResCAM, XGrad-CAM and LIFT-CAM each make one of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import MethodError, NumericError, ShapeError
from ..explainer import Explainer
from .accounting import accounted
from .case import Array, Case
from .confidence import Floats
from .table import Field, Metric, register, validate

__all__ = ["completeness"]


def completeness(
    explainer: Explainer,
    x: Array,
    classes: Any = None,
    *,
    method: str = "fullgrad",
    method_variant: str | None = None,
    layer: str | None = None,
    variant: str = "relative",
) -> Floats:
    """
    Return how much of the logit a method leaves unaccounted for.

    ``|output - sum| / max(|output|, |sum|)``, 0 where both are 0; in [0, 2], lower is better.

    Parameters
    ----------
    explainer : camrt.Explainer
        The model.
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    classes : array of int, shape (N,), optional
        The classes to explain; the predictions where None.
    method : {"fullgrad", "hirescam", "xgradcam", "liftcam"}
        The method; no other promises to add up.
    method_variant : str, optional
        Of the method; only those that promise to add up.
    layer : str, optional
        The layer; the default one where None.
    variant : {"relative", "quantus"}
        "quantus" is 1 where output and sum are the same float64, else 0; higher is better.

    Returns
    -------
    ndarray of float64, shape (N,)
        The residual of each image.

    Raises
    ------
    MethodError, LayerError, TargetError, BundleError
        As `camrt.metrics.accounting.accounted`.

    Notes
    -----
    Cost: that of the method once more, see `camrt.metrics.accounting.accounted`. Float32 leaves some 1e-7 of a logit of
    ordinary size in networks of ReLU, and FullGrad's authors ask for 1e-4; where the logit is nearly 0 the relative
    residual is large whatever the method does. Networks that bend leave more, also those with ReLU6, whose ceiling is
    no bias. Quantus compares the sum of any map with f(x) - f(black), and asks that they be equal, which sums of float32
    never are; no table prints it.

    References
    ----------
    Srinivas and Fleuret 2019, FullGrad, arXiv:1905.00780, equation 2; Sundararajan et al. 2017, arXiv:1703.01365.
    """
    chosen, _ = validate(COMPLETENESS, variant)
    if classes is None:
        classes = explainer.logits(x).argmax(1)
    parts = accounted(explainer, x, classes, method, variant=method_variant, layer=layer)
    return _residual(parts["output"], parts["sum"], chosen)


def completeness_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return the residual of each image.

    Parameters
    ----------
    case : Case
        With what the method accounts for.
    variant : str
        As in `completeness`.

    Returns
    -------
    dict of str to ndarray
        ``completeness`` (N,).

    Raises
    ------
    MethodError
        If the case does not say what the method accounts for.
    """
    if not {"output", "sum"} <= case.accounted.keys():
        raise MethodError(
            "completeness needs what a method accounts for, which maps do not show: give an explainer and a method to "
            "camrt.metrics.completeness, or take camrt.evaluate"
        )
    return {"completeness": _residual(case.accounted["output"], case.accounted["sum"], variant)}


def _residual(output: Array, total: Array, variant: str) -> Floats:
    """Compare what is explained with what is accounted for, (N,)."""
    if output.shape != total.shape:
        raise ShapeError(f"output and sum must be one number an image each; got {output.shape} and {total.shape}")
    if not (np.isfinite(output).all() and np.isfinite(total).all()):
        raise NumericError("what the method accounts for must be finite; some is NaN or infinite")
    if variant == "quantus":
        exact: Floats = (output == total).astype(np.float64)
        return exact
    larger = np.maximum(abs(output), abs(total))
    residual: Floats = np.divide(abs(output - total), larger, out=np.zeros(len(larger)), where=larger > 0)
    return residual


COMPLETENESS = register(
    Metric(
        id="completeness",
        title="Completeness",
        paper="arXiv:1905.00780",
        settings="relative: FullGrad's check, tolerance 1e-4. quantus: exact equality. No table prints it",
        fields=(Field("completeness", "lower", 0, 2, "share of the logit that the method leaves unaccounted for"),),
        variants=("relative", "quantus"),
        by_variant={
            "quantus": (
                Field(
                    "completeness", "higher", 0, 1, "share of images whose logit is accounted for exactly", percent=True
                ),
            )
        },
        values=completeness_values,
        needs=("map", "raw"),
    )
)
