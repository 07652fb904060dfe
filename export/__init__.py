"""
Turn a classifier into the programs a class activation map needs.

::

    load       a file becomes a checked, normalised graph       shapes  every shape, the batch symbolic
    layers     which tensors can be explained                   names   how they may be called
    default    which of them is explained                   reach   what of a tensor reaches the logits
    vjp/       the gradient rule table, one file a family       backward  the sweep through it
    programs/  graphs cut and grown for one purpose             verify  run them, compare
    live       programs from memory        write, bundle  programs in a folder        from_torch  nn.Module in
    manifest   what is known of a model    maps/          methods inside the graph, one file a family
    explained  model and explanation in one file

`bundle`, `manifest` and `names` need the standard library alone; everything else needs onnx and onnx-ir (extra ``export``) and is
imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camrt.errors import MissingExtraError

if TYPE_CHECKING:
    from .explained import explained_model
    from .live import open_model
    from .write import export

__all__ = ["explained_model", "export", "open_model"]

_HOMES = {"explained_model": "explained", "export": "write", "open_model": "live"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f".{_HOMES[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("camrt"):
            raise
        raise MissingExtraError(
            f"{error.name} is needed to read a raw .onnx file: pip install 'camrt[export]'"
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
