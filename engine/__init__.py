"""
camrt explains image classifiers: any ONNX classifier goes in, class activation maps come out.

::

    load ---> Explainer.explain(images, method=, target=, layer=) ---> Explanation

Gradients are nodes of the model's own graph; everything runs on ONNX Runtime. Public names are imported on first use,
so that ``import camrt`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors, methods, metrics
    from .anytime import Budget
    from .evaluation import Evaluation, evaluate
    from .explainer import Explainer
    from .explanation import Explanation
    from .limits import Cancellation
    from .opening import load
    from .preprocess import Preprocess

__all__ = [
    "Budget",
    "Cancellation",
    "Evaluation",
    "Explainer",
    "Explanation",
    "Preprocess",
    "__version__",
    "errors",
    "evaluate",
    "load",
    "methods",
    "metrics",
]

_HOMES = {
    "Budget": ".anytime",
    "Cancellation": ".limits",
    "Evaluation": ".evaluation",
    "Explainer": ".explainer",
    "Explanation": ".explanation",
    "Preprocess": ".preprocess",
    "evaluate": ".evaluation",
    "load": ".opening",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in ("errors", "methods", "metrics"):
        return import_module(f".{name}", __name__)
    if name == "__version__":
        return import_module("importlib.metadata").version("camrt")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
