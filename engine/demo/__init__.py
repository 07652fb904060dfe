"""The embedded model and its pictures."""

from __future__ import annotations

from pathlib import Path

from .pictures import CLASSES, HELD_OUT, SIZE, Scene, draw

__all__ = ["CLASSES", "HELD_OUT", "MODEL", "SIZE", "Scene", "draw"]

MODEL = Path(__file__).with_name("model.onnx")  # written by ``python -m camrt.demo.train``
