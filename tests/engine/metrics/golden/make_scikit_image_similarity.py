"""
Make ``scikit_image_similarity.npz``: structural similarities and HOG features as scikit-image gives them.

Run in an environment with scikit-image (0.26 made the file): ``python make_scikit_image_similarity.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from skimage.feature import hog
from skimage.metrics import structural_similarity

SHAPES = ((80, 97), (49, 64), (11, 30))


def maps(shape: tuple[int, int]) -> np.ndarray:
    """Return three maps in [0, 1]: smooth, another that is partly like it, and noise."""
    y, x = np.meshgrid(np.linspace(0, 1, shape[0]), np.linspace(0, 1, shape[1]), indexing="ij")
    smooth = np.exp(-((y - 0.4) ** 2 + (x - 0.6) ** 2) * 9)
    partly = np.maximum(smooth - 0.5 * np.exp(-((y - 0.2) ** 2 + (x - 0.3) ** 2) * 20), 0)
    noise = np.random.default_rng(5).random(shape)
    return np.stack([smooth, partly, noise])


def main() -> None:
    """Write the file."""
    made = {}
    for shape in SHAPES:
        found, key = maps(shape), "x".join(map(str, shape))
        made[f"ssim {key}"] = np.array(
            [[structural_similarity(a, b, gaussian_weights=True, data_range=1) for b in found] for a in found]
        )
        if min(shape) >= 48:
            made[f"hog {key}"] = np.stack([hog(one, pixels_per_cell=(16, 16), feature_vector=False) for one in found])
    np.savez_compressed(Path(__file__).with_name("scikit_image_similarity.npz"), **made)


if __name__ == "__main__":
    main()
