"""
Record what torch-cam's insertion and deletion and pytorch-grad-cam's ROAD say of given maps.

    python bench/make_peers.py FOLDER
    FOLDER/bin/python tests/engine/metrics/golden/make_peer_curves.py

Writes ``peer_curves.npz`` beside this file: a linear classifier, pictures, maps with and without ties, each library's
value of each map, and the versions that made them. The libraries are run as installed; only the noise that
pytorch-grad-cam adds to imputed pixels, which it does not seed, is made zero.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[3] / "bench"))
import torchvision_cpu  # noqa: F401

# isort: split
from pytorch_grad_cam.metrics.road import (
    ROADCombined,
    ROADLeastRelevantFirstAverage,
    ROADMostRelevantFirstAverage,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torchcam.metrics import DeletionInsertionMetric

SIZE, CLASSES, IMAGES = (14, 17), 4, 3
ARCC = [20, 40, 60, 80]
PACKAGES = ("torch", "torchcam", "grad-cam", "numpy", "scipy")


class Given:
    """Stands where torch-cam's metric expects an extractor, and hands out maps that are given."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, *_: Any, **__: Any) -> list[Tensor]:
        """Return the maps."""
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        """Return the only layer's."""
        return cams[0]

    @contextlib.contextmanager
    def _hooks_off(self) -> Iterator[None]:
        yield


def torchcam(model: nn.Module, x: Tensor, maps: Tensor, classes: list[int], **settings: int) -> dict[str, list[float]]:
    """Return torch-cam's two areas of each image."""
    found: dict[str, list[float]] = {"deletion_auc": [], "insertion_auc": []}
    for image, chosen in enumerate(classes):
        one = slice(image, image + 1)
        metric = DeletionInsertionMetric(Given(model, maps[one]), lambda logits: logits.softmax(1), **settings)
        metric.update(x[one], chosen)
        for name, value in metric.summary().items():
            found[name].append(value)
    return found


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Make the noise zero."""
    kept, torch.randn_like = torch.randn_like, torch.zeros_like
    yield
    torch.randn_like = kept


def main() -> None:
    """Run both libraries and write the file."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pixels = SIZE[0] * SIZE[1]
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * pixels, CLASSES)).eval()
    nn.init.normal_(model[1].weight, std=0.06)
    x = torch.randn(IMAGES, 3, *SIZE)
    distinct = rng.permuted(np.tile(np.linspace(0, 1, pixels, dtype=np.float32), (IMAGES, 1)), axis=1)
    distinct = distinct.reshape(IMAGES, *SIZE)
    tied = np.maximum(distinct - 0.5, 0).round(1) * 2
    with torch.no_grad():
        classes = model(x).argmax(1).tolist()
    classes[-1] = (classes[-1] + 1) % CLASSES  # one class that is not the prediction
    out: dict[str, Any] = {"weight": model[1].weight, "bias": model[1].bias, "x": x, "classes": classes}
    for name, maps in (("distinct", distinct), ("tied", tied)):
        out[name] = maps
        for steps in (20, 7):
            for key, value in torchcam(model, x, torch.from_numpy(maps), classes, steps=steps).items():
                out[f"torchcam/{name}/{steps}/{key}"] = value
    targets = [ClassifierOutputSoftmaxTarget(chosen) for chosen in classes]
    with silent():
        for name, metric in {
            "road": ROADCombined(),
            "road.morf": ROADMostRelevantFirstAverage(),
            "road.lerf": ROADLeastRelevantFirstAverage(),
            "arcc": ROADCombined(percentiles=ARCC),
        }.items():
            out[f"pytorch-grad-cam/{name}"] = metric(x, distinct, targets, model)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    arrays = {name: v.detach().numpy() if isinstance(v, Tensor) else np.asarray(v) for name, v in out.items()}
    np.savez_compressed(HERE / "peer_curves.npz", versions=json.dumps(versions), **arrays)


if __name__ == "__main__":
    main()
