"""
What a served model can do, as plain data: layers, and the methods that run on it with their options and their cost.

In: a served model. Out: what ``GET /models/{name}`` answers, and a page or a client builds its form from.
"""

from __future__ import annotations

import math
import threading
import weakref
from typing import TYPE_CHECKING, Any

from ..errors import CamrtError
from ..explainer import Explainer
from ..methods import METHODS, Method, Option, validate
from ..propagation import programs_of
from .asking import ceiling_of
from .asks import Wish
from .pricing import work_of

if TYPE_CHECKING:
    from .served import Served
    from .settings import Settings

__all__ = ["describe"]

FIRST = "gradcam"  # what is run where nobody says which
_FROM_IMAGE = ("guided_gradient", "bias_terms", "bias_gradients")  # programs that belong to no layer

_lock = threading.Lock()
_known: weakref.WeakKeyDictionary[Explainer, dict[str, Any]] = weakref.WeakKeyDictionary()


def describe(served: Served, settings: Settings) -> dict[str, Any]:
    """
    Describe a model.

    Parameters
    ----------
    served : Served
        The model.
    settings : Settings
        ``ceilings``, which narrow the options' ranges.

    Returns
    -------
    dict
        ``name``, ``version``, ``size`` (H, W), ``classes``, ``labels``, ``layers`` and ``methods``.

    Notes
    -----
    Cost: the first time programs are looked for, and built where the model is not a bundle; then nothing.
    """
    explainer = served.explainer
    with _lock:  # building programs twice at a time would only take longer
        if explainer not in _known:
            _known[explainer] = _described(explainer, settings)
        return {"name": served.name, "version": served.version, **_known[explainer]}


def _described(explainer: Explainer, settings: Settings) -> dict[str, Any]:
    """Describe what belongs to the model itself."""
    methods = [method for _, method in sorted(METHODS.items()) if _runs(explainer, method)]
    first = next((method.id for method in methods if method.id == FIRST), methods[0].id if methods else "")
    return {
        "size": list(explainer.preprocess.size),
        "classes": explainer.manifest.classes,
        "labels": list(explainer.labels),
        "layers": [
            {
                "name": layer.name,
                "module": layer.module,
                "channels": layer.channels,
                "grid": list(layer.grid),
                "default": layer.default,
                "reason": layer.reason,
            }
            for layer in explainer.layers
            if layer.default or explainer.source.offers("features", (layer.name,))
        ],
        "methods": [_method(explainer, method, settings, first) for method in methods],
    }


def _runs(explainer: Explainer, method: Method) -> bool:
    """Tell whether a method runs at the layers it takes by itself."""
    source = explainer.source
    try:
        names = explainer.layers_of(method.id)
        for kind in programs_of(method):
            source.program(kind, () if kind in _FROM_IMAGE else names[-1:])
    except CamrtError:
        return False
    if "grads" not in method.needs:
        return source.offers("features", names)
    return source.offers("gradient" if len(names) == 1 else "seeded_gradient", names)


def _method(explainer: Explainer, method: Method, settings: Settings, first: str) -> dict[str, Any]:
    """Describe a method."""
    variant, options = validate(method)
    known = {**method.options, **method.fusion_options}
    return {
        "id": method.id,
        "title": method.title,
        "family": method.family,
        "paper": method.paper,
        "class_free": method.class_free,
        "variants": list(method.variants),
        "options": {name: _option(option, ceiling_of(method, name, settings)) for name, option in known.items()},
        "work": round(work_of(explainer, Wish(method.id, variant, tuple(sorted(options.items())))), 2),
        "default": method.id == first,
    }


def _option(option: Option, ceiling: float) -> dict[str, Any]:
    """Describe an option; infinite ends are None."""
    high = min(option.high, ceiling) if option.kind in ("integer", "integers") else option.high
    return {
        "default": option.default,
        "by_variant": dict(option.by_variant),
        "kind": option.kind,
        "low": option.low if math.isfinite(option.low) else None,
        "high": high if math.isfinite(high) else None,
        "choices": list(option.choices),
        "optional": option.optional,
        "help": option.help,
    }
