"""Stages: the layers taken of architectures written down by their sizes."""

from __future__ import annotations

import pytest

from camrt.export.manifest import Layer
from camrt.stages import stages_of


def layers(sizes: str, default: str) -> list[Layer]:
    """Return layers ``name:side`` in graph order."""
    made = []
    for item in sizes.split():
        name, side = item.split(":")
        grid = (int(side), int(side))
        made.append(Layer(name, name, "Relu", "", ("N", 8, *grid), "nchw", 8, grid, default=name == default))
    return made


@pytest.mark.parametrize(
    ("sizes", "default", "want"),
    [
        # VGG: features 3, 8, 15 of the paper's list, up to the last activation before the last pool
        ("c1:224 r3:224 p4:112 r8:112 p9:56 r15:56 p16:28", "r15", "r3 r8 r15"),
        # ResNet: the stem, then the end of each stage
        (
            "stem:112 pool:56 layer1:56 layer2:28 layer3:14 inner:7 layer4:7",
            "layer4",
            "stem layer1 layer2 layer3 layer4",
        ),
        # a bottleneck narrows the channels before it strides: the tensor it strides from is the last
        ("layer1:56 narrow:56 strided:28 layer2:28", "layer2", "narrow layer2"),
        # tokens: one size, one layer
        ("patches:14 block1:14 block2:14", "block1", "block1"),
        # a pooled side branch is smaller than what follows it
        ("a:28 branch:3 b:14", "b", "a b"),
        ("a:28", "a", "a"),
    ],
)
def test_stages(sizes: str, default: str, want: str) -> None:
    assert stages_of(layers(sizes, default)) == tuple(want.split())
