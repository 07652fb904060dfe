"""
The stages of a network: the layers that a method of several resolutions takes where it is told none.

In: a model's candidate layers. Out: names, the shallowest first.
"""

from __future__ import annotations

from collections.abc import Sequence

from camrt.export.manifest import Layer

__all__ = ["stages_of"]


def stages_of(layers: Sequence[Layer]) -> tuple[str, ...]:
    """
    Return the last layer before each spatial down-sampling, and the default layer.

    Parameters
    ----------
    layers : sequence of Layer
        Every candidate, in graph order, one of them the default. The image is none of them.

    Returns
    -------
    tuple of str
        Names, the shallowest and largest first, the default layer last; that alone where all layers have its size.

    References
    ----------
    Englebert et al. 2022, Poly-CAM, arXiv:2204.13359, section 3.
    """
    default = next(i for i, layer in enumerate(layers) if layer.default)
    found = [layers[default]]
    for layer in reversed(layers[:default]):
        if layer.grid[0] * layer.grid[1] > found[-1].grid[0] * found[-1].grid[1]:
            found.append(layer)
    return tuple(layer.name for layer in reversed(found))
