"""Tiny pictures made in code, as the readers of data sets find them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def content(height: int = 6, width: int = 8, colour: int = 90, form: str = "PNG") -> bytes:
    """Return a flat picture file."""
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(file, form)
    return file.getvalue()


def picture(path: Path, height: int = 6, width: int = 8, colour: int = 90) -> Path:
    """Write a flat picture, PNG whatever its name, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(height, width, colour))
    return path


def palette(path: Path, numbers: np.ndarray) -> Path:
    """Write a palette file of these indices, as Pascal VOC's masks are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8), "L").convert("P")
    image.putdata(numbers.reshape(-1).tolist())
    image.putpalette([value for index in range(256) for value in (255 - index, index, 7)])
    image.save(path)
    return path
