"""
Named architectures with random weights, as torch's two exporters write them.

In: a name, an exporter and an opset. Out: the ``.onnx`` bytes. Weights and running statistics are drawn so that signals
neither vanish nor explode on the way through: running statistics are those of a noise batch, then disturbed.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

if importlib.util.find_spec("torchvision") is None:
    pytest.skip("the named architectures come from torchvision, which is not installed", allow_module_level=True)

from bench.torchvision_cpu import torchvision

__all__ = ["BUILDERS", "SIDE", "build", "exported"]

SIDE = 64  # pixels
CLASSES = 10
models = torchvision.models


def _vgg() -> nn.Module:
    """Return VGG-11 with a head of its own: at this input size its grid is not 7x7, and its linear layers are huge."""
    model = models.vgg11(num_classes=CLASSES)
    model.avgpool = nn.Identity()
    model.classifier = nn.Sequential(nn.Linear(512 * 2 * 2, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, CLASSES))
    return model


def _convnext() -> nn.Module:
    """Return ConvNeXt-Tiny at a quarter of its width."""
    widths = [24, 48, 96, 192]
    stages = zip(widths, [*widths[1:], None], (3, 3, 9, 3), strict=True)
    return models.ConvNeXt([models.convnext.CNBlockConfig(*stage) for stage in stages], num_classes=CLASSES)


def _densenet() -> nn.Module:
    """Return a DenseNet of four blocks, shorter and narrower than the smallest of the paper."""
    return models.DenseNet(growth_rate=16, block_config=(3, 4, 6, 4), num_init_features=32, num_classes=CLASSES)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: models.resnet18(num_classes=CLASSES),
    "vgg11": _vgg,
    "densenet": _densenet,
    "googlenet": lambda: models.googlenet(num_classes=CLASSES, aux_logits=False, init_weights=False),
    "squeezenet1_1": lambda: models.squeezenet1_1(num_classes=CLASSES),
    "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=CLASSES),
    "mobilenet_v3_small": lambda: models.mobilenet_v3_small(num_classes=CLASSES),
    "efficientnet_b0": lambda: models.efficientnet_b0(num_classes=CLASSES),
    "convnext_tiny": _convnext,
    "vit": lambda: models.VisionTransformer(
        image_size=SIDE, patch_size=16, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=CLASSES
    ),
}


def build(name: str) -> nn.Module:
    """Return an architecture with seeded weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BUILDERS[name]()
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        with torch.no_grad():
            for norm in norms:
                norm.momentum = 1.0  # the statistics of the one batch below
                norm.weight.uniform_(0.7, 1.3)
            for title, parameter in model.named_parameters():
                if title.endswith("bias"):
                    parameter.uniform_(0.05, 0.5)  # positive, so that few ReLUs die
                elif title.endswith("layer_scale") or not parameter.any():
                    parameter.normal_(0, 0.3)  # zero when new, or nearly: nothing of it would be tested
            if isinstance(model, models.SqueezeNet):
                model.classifier[1].bias += 5  # a ReLU follows: a class whose score is 0 would have no gradient
            model.eval()  # no dropout
            for norm in norms:
                norm.train()
            model(torch.randn(16, 3, SIDE, SIDE))
            for norm in norms:
                norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
                norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.9, 1.2)
    return model.eval()


def exported(model: nn.Module, exporter: str, opset: int, size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    """Return `model` as ``"torchscript"`` or ``"dynamo"`` exports it, the batch free."""
    x = torch.zeros(2, 3, *size)
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["scores"], "opset_version": opset}
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        file = Path(folder) / "model.onnx"
        try:
            if exporter == "torchscript":
                axes = {"image": {0: "batch"}, "scores": {0: "batch"}}
                torch.onnx.export(model, (x,), file, dynamo=False, dynamic_axes=axes, **names)
            else:
                shapes = ({0: torch.export.Dim("batch")},)
                torch.onnx.export(
                    model, (x,), file, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False, **names
                )
        finally:
            logging.disable(logging.NOTSET)
        return file.read_bytes()
