"""
Record what torch-cam and pytorch-grad-cam make of two small seeded networks.

    python bench/make_peers.py FOLDER
    FOLDER/bin/python tests/engine/methods/golden/make_peer_maps.py

Writes ``peers.npz`` beside this file: activations, gradients and logits of the networks, the weights of their heads,
the maps of both libraries, and the versions that made them. The libraries are run as installed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[3] / "bench"))
import torchvision_cpu  # noqa: F401

# isort: split
import pytorch_grad_cam as pgc
from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, ClassifierOutputTarget
from torchcam import methods as tc

SIZE, CLASSES, TARGET = (16, 24), 6, [2, 5]
SIGMA = 0.5  # of SS-CAM's noise
PACKAGES = ("torch", "torchvision", "torchcam", "grad-cam", "numpy", "scikit-learn", "opencv-python-headless")


class Net(nn.Module):
    """Two strided convolutions with ReLU, then a linear head on the mean, or two layers on all cells."""

    def __init__(self, gap: bool) -> None:
        super().__init__()
        self.mid = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(5, 8, 3, stride=2, padding=1), nn.ReLU())
        flat = nn.Flatten()
        if gap:
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), flat, nn.Linear(8, CLASSES))
        else:
            self.head = nn.Sequential(flat, nn.Linear(192, 12), nn.ReLU(), nn.Linear(12, CLASSES))
        for weight in self.parameters():
            scale = 1.5 / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.1
            nn.init.normal_(weight, std=scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, C)."""
        logits: Tensor = self.head(self.last(self.mid(x)))
        return logits


def evidence(net: Net, x: Tensor) -> dict[str, Tensor]:
    """Return activations, gradients of TARGET, logits, and the network's parameters."""
    mid = net.mid(x)
    last = net.last(mid)
    logits = net.head(last)
    picked = logits[torch.arange(len(x)), TARGET].sum()
    grads = torch.autograd.grad(picked, [mid, last])
    found = {"acts_mid": mid, "acts_last": last, "grads_mid": grads[0], "grads_last": grads[1], "logits": logits}
    for depth, layer in enumerate((net.mid[0], net.last[0])):
        found[f"conv_weight_{depth}"], found[f"conv_bias_{depth}"] = layer.weight, layer.bias
    linear = [layer for layer in net.head if isinstance(layer, nn.Linear)]
    for depth, layer in enumerate(linear):
        found[f"weight_{depth}"], found[f"bias_{depth}"] = layer.weight, layer.bias
    return found


def full_gradient(net: Net, x: Tensor) -> dict[str, Tensor]:
    """Return the image, its gradient, and the gradient times the bias behind each convolution, all for TARGET."""
    image = x.clone().requires_grad_()
    first = net.mid[0](image)
    second = net.last[0](net.mid[1](first))
    picked = net.head(net.last[1](second))[torch.arange(len(x)), TARGET].sum()
    image_grads, *biased = torch.autograd.grad(picked, [image, first, second])
    found = {"x": x, "grads_x": image_grads}
    for depth, (gradient, layer) in enumerate(zip(biased, (net.mid[0], net.last[0]), strict=True)):
        found[f"term_{depth}"] = gradient * layer.bias[:, None, None]
    return found


def pytorch_grad_cam_maps(net: Net, x: Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the heatmaps (N, H, W) of pytorch-grad-cam; TARGET, but the prediction for Finer-CAM."""
    targets = [ClassifierOutputTarget(index) for index in TARGET]
    single = {
        "gradcam": pgc.GradCAM,
        "gradcampp": pgc.GradCAMPlusPlus,
        "xgradcam": pgc.XGradCAM,
        "layercam": pgc.LayerCAM,
        "hirescam": pgc.HiResCAM,
        "elementwisecam": pgc.GradCAMElementWise,
        "eigencam": pgc.EigenCAM,
        "eigengradcam": pgc.EigenGradCAM,
        "eigengradcam_seg": pgc.SegEigenCAM,
        "kpcacam": pgc.KPCA_CAM,
        "fem": pgc.FEM,
        "scorecam": pgc.ScoreCAM,
        "ablationcam": pgc.AblationCAM,
    }
    for name, kind in single.items():
        yield name, kind(net, [net.last])(x, targets)
    yield "kpcacam_rbf", pgc.KPCA_CAM(net, [net.last], kernel="rbf", gamma=0.5)(x, targets)
    yield "ablationcam_signed", pgc.AblationCAM(net, [net.last[0]])(x, targets)
    yield "ablationcam_ratio", pgc.AblationCAM(net, [net.last[0]], ratio_channels_to_ablate=0.25)(x, targets)
    yield "gradcam_smooth", pgc.GradCAM(net, [net.last])(x, targets, eigen_smooth=True)
    yield "gradcam_mean", pgc.GradCAM(net, [net.mid, net.last])(x, targets)
    yield "refinecam", pgc.RefineCAM(net, [net.mid, net.last])(x, targets)
    rest = [ClassifierOutputReST(index) for index in TARGET]
    image_by_image = [pgc.ShapleyCAM(net, [net.last])(x[[n]], rest[n : n + 1]) for n in range(len(x))]
    yield "shapleycam", np.concatenate(image_by_image)
    yield "fullgrad", pgc.FullGrad(net, [])(x.clone(), targets)
    yield "finercam", pgc.FinerCAM(net, [net.last])(x)
    yield "finercam_hirescam", pgc.FinerCAM(net, [net.last], base_method=pgc.HiResCAM)(x, alpha=0.5)


def torchcam_maps(net: Net, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the maps (N, h, w) of torch-cam at its own resolution, all for TARGET."""

    def call(make: Callable[[], tc.GradCAM]) -> list[Tensor]:
        with make() as extractor:
            maps: list[Tensor] = extractor(TARGET, net(x))
        return maps

    single = {"gradcam": tc.GradCAM, "gradcampp": tc.GradCAMpp, "xgradcam": tc.XGradCAM, "layercam": tc.LayerCAM}
    for name, kind in single.items():
        yield name, call(lambda kind=kind: kind(net, "last"))[0]
    yield "layercam_fused", tc.LayerCAM.fuse_cams(call(lambda: tc.LayerCAM(net, ["mid", "last"])))
    yield "gradcam_max", tc.GradCAM.fuse_cams(call(lambda: tc.GradCAM(net, ["mid", "last"])))
    yield "refinecam", call(lambda: tc.RefineCAM(net, ["mid", "last"]))[0]
    yield "finercam", call(lambda: tc.FinerCAM(net, "last"))[0]
    yield "finercam_gradcampp", call(lambda: tc.FinerCAM(net, "last", base_method=tc.GradCAMpp))[0]


class OneNoiseAnImage:
    """Stands in for torch-cam's generator: each sample's noise is the same for all masks of an image."""

    def __init__(self, noise: Tensor) -> None:
        self._samples = iter(noise)

    def sample(self, size: torch.Size) -> Tensor:
        """Return the next sample, one value a pixel (N, 1, H, W) repeated over the channels."""
        return next(self._samples)[:, None].expand(size)


def torchcam_masked(net: Net, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield torch-cam's maps by masked forwards, and the noise (samples, N, H, W) of SS-CAM."""
    noise = torch.from_numpy(np.random.default_rng(11).normal(size=(4, len(x), *SIZE)).astype(np.float32))
    yield "noise", noise
    for name, kind, settings in (
        ("scorecam", tc.ScoreCAM, {}),
        ("sscam", tc.SSCAM, {"num_samples": len(noise), "std": SIGMA}),
        ("iscam", tc.ISCAM, {"num_samples": 5}),
    ):
        with kind(net, "last", **settings) as extractor:
            extractor._distrib = OneNoiseAnImage(SIGMA * noise)
            yield name, extractor(TARGET, net(x))[0]


def torchcam_smooth(net: Net, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield torch-cam's Smooth Grad-CAM++ and the activations and gradients of its noisy inputs."""
    acts: list[Tensor] = []
    grads: list[Tensor] = []

    def watch(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        acts.append(output.detach().clone())
        output.register_hook(lambda gradient: grads.append(gradient.clone()))

    with tc.SmoothGradCAMpp(net, "last") as extractor:
        handle = net.last.register_forward_hook(watch)
        scores = net(x)
        yield "smoothgradcampp", extractor(TARGET, scores)[0]
        handle.remove()
    yield "noisy_acts", torch.stack(acts[1:])
    yield "noisy_grads", torch.stack(grads)


def main() -> None:
    """Write peers.npz."""
    warnings.simplefilter("ignore")
    torch.manual_seed(7)
    torch.set_num_threads(1)
    x = torch.rand(2, 3, *SIZE)
    kept: dict[str, Tensor | np.ndarray] = {}
    for kind in ("two_layer", "gap"):
        net = Net(gap=kind == "gap").eval()
        kept |= {f"{kind}/{name}": array for name, array in evidence(net, x).items()}
        kept |= {f"{kind}/torchcam/{name}": array for name, array in torchcam_maps(net, x)}
        with contextlib.redirect_stdout(None):
            made = dict(pytorch_grad_cam_maps(net, x))
        if kind == "gap":
            made = {name: made[name] for name in ("gradcam", "gradcampp", "xgradcam", "ablationcam")}
            with tc.CAM(net, "last", fc_layer="head.2") as extractor:
                net(x)
                kept["gap/torchcam/cam"] = extractor(TARGET)[0]
        else:
            kept |= {f"{kind}/{name}": array for name, array in full_gradient(net, x).items()}
            kept |= {f"{kind}/torchcam/{name}": array for name, array in torchcam_smooth(net, x)}
            kept |= {f"{kind}/torchcam/{name}": array for name, array in torchcam_masked(net, x)}
        kept |= {f"{kind}/pytorch-grad-cam/{name}": array for name, array in made.items()}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    arrays = {name: np.asarray(torch.as_tensor(array).detach(), np.float32) for name, array in kept.items()}
    target = HERE / "peers.npz"
    np.savez_compressed(target, versions=np.array(json.dumps(versions)), target=np.array(TARGET), **arrays)
    sys.stdout.write(f"{target.name}: {target.stat().st_size} bytes, {len(arrays)} arrays\n")


if __name__ == "__main__":
    main()
