"""
Names of layers: tensors, nodes and torch-style module paths all find the same thing.

In: a name and the candidates. Out: one of them, or an error that offers the nearest names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from camrt.errors import LayerError

from .manifest import Layer

__all__ = ["module_path", "pick"]

_QUOTED = re.compile(r"'([^']*)'")  # a list of strings, as Python prints it; parsing more would trust the file
_SCOPES = "pkg.torch.onnx.name_scopes"  # node metadata of torch's exporter: ['', 'layer4', 'layer4.1', ..., 'relu_16']


def module_path(node_name: str, metadata: Mapping[str, str]) -> str:
    """
    Return the path of the torch module a node was exported from, or ``""``.

    Parameters
    ----------
    node_name : str
        The older exporter writes ``/layer4/layer4.1/relu/Relu``: each part is a module's own name, or its full path.
    metadata : mapping of str to str
        The newer exporter keeps the scopes in the node's ``metadata_props``.

    Returns
    -------
    str
        For example ``"layer4.1.relu"``.

    Examples
    --------
    >>> module_path("/layer4/layer4.1/relu/Relu", {})
    'layer4.1.relu'
    >>> module_path("/features/features.18/features.18.2/Clip", {})
    'features.18.2'
    """
    if _SCOPES in metadata:
        scopes = _QUOTED.findall(metadata[_SCOPES])
        return scopes[-2] if len(scopes) >= 2 else ""
    if not node_name.startswith("/"):
        return ""
    path = before = ""
    for part in node_name.split("/")[1:-1]:
        path = (
            path.removesuffix(before) + part
            if before and part.startswith(f"{before}.")
            else f"{path}.{part}".lstrip(".")
        )
        before = part
    return path


def pick(name: str, layers: Sequence[Layer]) -> Layer:
    """
    Return the layer a name stands for.

    Parameters
    ----------
    name : str
        A tensor's name; a node's name; or a module path, which stands for the last tensor made inside that module.
    layers : sequence of Layer
        The candidates, in graph order.

    Returns
    -------
    Layer
        The one of that name.

    Raises
    ------
    LayerError
        If there is none; the nearest names are offered.
    """
    for layer in layers:
        if name in (layer.name, layer.node):
            return layer
    inside = [layer for layer in layers if layer.module == name or layer.module.startswith(f"{name}.")]
    if name and inside:
        return inside[-1]
    known = list(dict.fromkeys([k for layer in layers for k in (layer.module, layer.name, layer.node) if k]))
    parents = {m.rsplit(".", i)[0] for m in {layer.module for layer in layers} for i in range(1, m.count(".") + 1)}
    near = difflib.get_close_matches(name, [*known, *sorted(parents)], n=5, cutoff=0.5)
    offered = (
        f"near names: {', '.join(map(repr, near))}" if near else f"some layers: {', '.join(map(repr, known[-5:]))}"
    )
    raise LayerError(f"the model has no layer {name!r} with a spatial grid; {offered}; list them with `camrt inspect`")
