"""
Record what torch-cam's LeGrad makes of a small seeded vision transformer of torchvision.

    python bench/make_peers.py FOLDER
    FOLDER/bin/python tests/engine/methods/golden/make_legrad_maps.py

Writes ``legrad.npz`` beside this file: the network as an ``.onnx`` file (bytes), images, classes, torch-cam's raw maps of
the last two blocks and of all, and the versions that made them. The libraries are run as installed.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[3] / "bench"))
import torchvision_cpu  # noqa: F401

# isort: split
from torchcam.methods import LeGrad
from torchvision.models.vision_transformer import VisionTransformer

SIZE, TARGET = 16, [1, 4]
PACKAGES = ("torch", "torchvision", "torchcam", "onnx")


def network() -> VisionTransformer:
    """Return a transformer of three blocks whose every weight is random."""
    torch.manual_seed(0)
    net = VisionTransformer(
        image_size=SIZE, patch_size=4, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=6
    )
    for weight in net.parameters():
        nn.init.normal_(weight, 0.1, 0.4)
    return net.eval()


def maps(net: VisionTransformer, x: Tensor, blocks: list[nn.Module]) -> Tensor:
    """Return LeGrad's raw maps (N, h, w) of some blocks."""
    with LeGrad(net, blocks) as extractor:
        scores = net(x)
        (found,) = extractor(TARGET, scores, normalized=False)
    return found


def main() -> None:
    """Write the file."""
    net, x = network(), torch.randn(len(TARGET), 3, SIZE, SIZE)
    blocks, file = list(net.encoder.layers), io.BytesIO()
    torch.onnx.export(
        net, (x,), file, dynamo=False, opset_version=17, input_names=["x"], output_names=["logits"],
        dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    np.savez_compressed(
        HERE / "legrad.npz",
        model=np.frombuffer(file.getvalue(), np.uint8),
        x=x.numpy(),
        target=np.array(TARGET),
        last_two=maps(net, x, blocks[-2:]).detach().numpy(),
        every=maps(net, x, blocks).detach().numpy(),
        first=maps(net, x, blocks[:1]).detach().numpy(),
        versions=np.array(json.dumps(versions)),
    )


if __name__ == "__main__":
    main()
