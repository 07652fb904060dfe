"""What foreign clients ask for, and what the engine itself answers."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

import camrt

NEAR = 1e-6  # of a heatmap in [0, 1]: the same provider runs the same program


@dataclass(frozen=True)
class Case:
    """Two pictures, and the engine in this process."""

    model: str
    pictures: np.ndarray[Any, np.dtype[np.uint8]]  # (N, H, W, 3)
    x: np.ndarray[Any, np.dtype[np.float32]]  # the same, prepared
    explain: Callable[..., camrt.Explanation]

    def encoded(self) -> np.ndarray[Any, np.dtype[np.object_]]:
        """Return the pictures as PNG files."""
        files = []
        for picture in self.pictures:
            with io.BytesIO() as file:
                Image.fromarray(picture).save(file, "PNG")
                files.append(file.getvalue())
        return np.array(files, object)

    def assert_same(self, heatmaps: Any, **question: Any) -> None:
        """Compare heatmaps with those the engine gives to a question."""
        wanted = self.explain(self.x, **question).heatmaps
        assert heatmaps.dtype == np.float32
        assert heatmaps.shape == wanted.shape
        assert wanted.max() > 0.9  # a map that could be missed
        np.testing.assert_allclose(heatmaps, wanted, rtol=0, atol=NEAR)
