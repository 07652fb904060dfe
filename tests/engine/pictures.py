"""A folder of small pictures with labels and boxes, and a list of them."""

from __future__ import annotations

import numpy as np
from PIL import Image

FIELDS = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "size": (12, 10), "resize": "squash"}


def write(folder, n=10, *, broken=()):
    """Write n pictures and ``list.csv``; some of them no pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    lines = ["file,label,boxes"]
    for i in range(n):
        path = folder / f"p{i:02d}.png"
        if i in broken:
            path.write_bytes(b"no picture")
        else:
            Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(path)
        lines.append(f"{path.name},{i % 5},2 2 {8 + i} {10 + i}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder / "list.csv"
