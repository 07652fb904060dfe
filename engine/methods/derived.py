"""
Methods built on another: which they may be built on, and how that one is run.

Finer-CAM and RefineCAM take any method that turns activations and gradients into a map as their base.
"""

from __future__ import annotations

from ..errors import MethodError
from .arrays import Array, has_negative
from .eigengradcam import eigengradcam
from .elementwisecam import elementwisecam
from .gradcam import gradcam
from .gradcampp import gradcampp
from .hirescam import hirescam
from .layercam import layercam
from .table import METHODS, Option, Result, resolve, validate
from .xgradcam import xgradcam

_FUNCTIONS = (gradcam, gradcampp, xgradcam, layercam, hirescam, elementwisecam, eigengradcam)
BASES = tuple(function.__name__ for function in _FUNCTIONS)  # importing them has filled their rows
LIBRARIES = ("torchcam", "pytorch-grad-cam")  # a derived method of theirs has their own variant of the base


def base_options(default: str) -> dict[str, Option]:
    """
    Return the options that choose a base.

    Parameters
    ----------
    default : str
        The base where none is given.

    Returns
    -------
    dict of str to Option
        ``base``, and ``base_variant`` (none: the library's own where the method's variant is a library's, else the
        base's default).
    """
    variants = sorted({variant for base in BASES for variant in METHODS[base].variants})
    return {
        "base": Option(default, "choice", "the method it is built on", choices=BASES),
        "base_variant": Option(None, "choice", "variant of the base", choices=tuple(variants), optional=True),
    }


def run_base(acts: Array, grads: Array, base: str, base_variant: str | None, variant: str) -> Result:
    """
    Run the base on activations and gradients.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the derived method's target.
    base : str
        One of `BASES`.
    base_variant : str or None
        The base's variant; where None, the library's own if `variant` names a library, else the base's default.
    variant : str
        The derived method's own variant.

    Returns
    -------
    Result
        What the base gives, with its flags and ``signed_activations`` where it assumes ``A >= 0``.

    Raises
    ------
    MethodError
        If there is no such base or variant of it.
    """
    method = resolve(base)
    if method.id not in BASES:
        raise MethodError(f"{base!r} cannot be a base; choose from {', '.join(BASES)}")
    if base_variant is None and variant in LIBRARIES and variant in method.variants:
        base_variant = variant
    chosen, _ = validate(method, base_variant)
    answer = method.function(acts, grads, variant=chosen)
    result = answer if isinstance(answer, Result) else Result(answer)
    flags = dict(result.flags)
    if method.nonnegative:
        flags["signed_activations"] = has_negative(acts)
    return Result(result.array, flags, result.gives or method.gives)
