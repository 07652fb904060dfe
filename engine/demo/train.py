"""
Train the embedded model: ``python -m camrt.demo.train OUT.onnx``.

Pictures are drawn, a small network learns them, its batch normalisations are folded away, and one self-contained ONNX
file comes out with class names and preprocessing in its metadata. Everything is seeded. The network has what real
classifiers have and gradient rules must cope with: a strided stem, max-pooling, residual additions, layers of four
kinds of coarseness, global average pooling and a linear head. Its last grid is 16 x 16, so that maps are crisp.

Needs torch and onnxscript; nothing at run time imports this file.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import OutputError
from .pictures import CLASSES, HELD_OUT, SIZE, draw

__all__ = ["Pictures", "ShapeNet", "accuracy", "draw_pictures", "export", "fit", "folded", "main", "spread"]

PREPROCESS = {
    "name": "half",
    "size": [SIZE, SIZE],
    "resize": "squash",
    "crop_ratio": 0.875,
    "color": "rgb",
    "layout": "nchw",
    "scale": 1 / 255,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "dtype": "float32",
    "interpolation": "bilinear",
}
logger = logging.getLogger(__name__)

N_TRAIN = 20_000  # a third of them with two objects
N_TEST = 1_000
EPOCHS = 7


# ---- the network ----------------------------------------------------------------------------------------------------


class ConvUnit(nn.Module):
    """A convolution, its batch normalisation, and where wanted the ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, *, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(n_out)
        self.relu: nn.Module = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output."""
        result: Tensor = self.relu(self.norm(self.conv(x)))
        return result


class Residual(nn.Module):
    """Two convolutions beside an identity, added before the ReLU."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.first = ConvUnit(n_channels, n_channels)
        self.second = ConvUnit(n_channels, n_channels, relu=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(x + second(first(x)))."""
        result: Tensor = self.relu(x + self.second(self.first(x)))
        return result


class ShapeNet(nn.Module):
    """The embedded classifier: pictures (N, 3, 128, 128) in [-1, 1] to logits (N, 10)."""

    def __init__(self, n_classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(ConvUnit(3, 16, 5, stride=2))  # 64 x 64
        self.stage2 = nn.Sequential(ConvUnit(16, 32, stride=2), Residual(32))  # 32 x 32
        self.stage3 = nn.Sequential(nn.MaxPool2d(2), ConvUnit(32, 64), Residual(64))  # 16 x 16
        self.stage4 = nn.Sequential(ConvUnit(64, 64), Residual(64))  # 16 x 16
        self.stage5 = ConvUnit(64, 96, 1)  # 16 x 16; no wider view, so that maps stay on the object
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(96, n_classes)

    def features(self, image: Tensor) -> Tensor:
        """Return the last stage's activations, (N, 96, 16, 16)."""
        x = self.stage1(image)
        x = self.stage2(x)
        x = self.stage3(x)
        x = self.stage4(x)
        result: Tensor = self.stage5(x)
        return result

    def classify(self, features: Tensor) -> Tensor:
        """Return the logits of the last stage's activations."""
        logits: Tensor = self.head(self.flatten(self.pool(features)))
        return logits

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits."""
        return self.classify(self.features(image))


# ---- the pictures ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pictures:
    """Drawn pictures in memory: images (N, 3, 128, 128) uint8, targets (N, C) float32, each row's sum 1."""

    images: Tensor
    targets: Tensor


def draw_pictures(first_seed: int, n_pictures: int, *, pair_share: float, processes: int = 1) -> Pictures:
    """
    Draw `n_pictures` with the seeds from `first_seed` on, classes in turn.

    Parameters
    ----------
    first_seed, n_pictures : int
        The range of seeds.
    pair_share : float
        The share of pictures that show two objects; each of the two then has a target of one half.
    processes : int, default 1
        How many processes draw; the result does not depend on it.

    Returns
    -------
    Pictures
        Images and targets in the order of the seeds.
    """
    every = max(1, round(1 / pair_share)) if pair_share else 0
    labels = [_labels(index, every) for index in range(n_pictures)]
    seeds = range(first_seed, first_seed + n_pictures)
    if processes > 1:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            images = _stacked(pool.map(_drawn, seeds, labels, chunksize=100), n_pictures)
    else:
        images = _stacked(map(_drawn, seeds, labels), n_pictures)
    targets = np.zeros((n_pictures, len(CLASSES)), np.float32)
    for row, chosen in zip(targets, labels, strict=True):
        row[list(chosen)] = 1 / len(chosen)
    return Pictures(torch.from_numpy(images), torch.from_numpy(targets))


def _labels(index: int, every: int) -> tuple[int, ...]:
    """Return the classes of picture number `index`; each `every`-th picture has two."""
    label = index % len(CLASSES)
    if not every or (index // len(CLASSES)) % every:
        return (label,)
    away = 1 + (index // (len(CLASSES) * every)) % (len(CLASSES) - 1)
    return (label, (label + away) % len(CLASSES))


def _drawn(seed: int, labels: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a picture with its channels first."""
    return np.ascontiguousarray(draw(seed, labels).image.transpose(2, 0, 1))


def _stacked(drawn: Iterable[NDArray[np.uint8]], n_pictures: int) -> NDArray[np.uint8]:
    """Return the pictures as one array, without holding them twice."""
    images = np.empty((n_pictures, 3, SIZE, SIZE), np.uint8)
    for image, picture in zip(images, drawn, strict=True):
        image[:] = picture
    return images


# ---- training -------------------------------------------------------------------------------------------------------


def _prepared(images: Tensor) -> Tensor:
    """Return uint8 pictures as the network's input."""
    return images.float().div_(127.5).sub_(1.0)


def _batches(pictures: Pictures, size: int, chance: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of shuffled batches, each turned by quarters, mirrored, and with its colours swapped about."""
    for rows in torch.split(torch.randperm(len(pictures.images), generator=chance), size):
        turns, mirror = (int(torch.randint(n, (), generator=chance)) for n in (4, 2))
        images = pictures.images[rows][:, torch.randperm(3, generator=chance)].rot90(turns, (2, 3))
        yield _prepared(images.flip(3) if mirror else images), pictures.targets[rows]


def spread(features: Tensor) -> Tensor:
    """
    Return how widely activations spread over their grid, between 0 and 1, in the mean over images and channels.

    Parameters
    ----------
    features : Tensor, shape (N, K, h, w)
        Activations, none negative.

    Returns
    -------
    Tensor, shape ()
        The ratio of mean and root mean square over positions: 1 for a constant map, ``(h*w)**-0.5`` for a single
        position, whatever the scale.

    References
    ----------
    Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 2004, the two norms of section 3.1.
    """
    return (features.mean((2, 3)) / (features.square().mean((2, 3)) + 1e-4).sqrt()).mean()


def fit(
    net: ShapeNet,
    pictures: Pictures,
    *,
    epochs: int,
    batch: int = 64,
    peak: float = 4e-3,
    focus: float = 0.3,
    seed: int = 0,
) -> list[float]:
    """
    Train in place with AdamW and a one-cycle learning rate.

    Global average pooling rewards a network for answering beyond an object's outline; a small price on the `spread` of
    the last activations keeps them on the object.

    Parameters
    ----------
    net : ShapeNet
        The network; left in evaluation mode.
    pictures : Pictures
        What it learns.
    epochs, batch : int
        How often it sees each picture, and how many at once.
    peak : float
        The highest learning rate.
    focus : float
        The weight of the spread beside the cross-entropy.
    seed : int
        Seeds the order of pictures and their turns.

    Returns
    -------
    list of float
        The mean cross-entropy of each epoch.
    """
    chance = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=peak, weight_decay=0.02)
    steps = epochs * -(-len(pictures.images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps, pct_start=0.2)
    net.train()
    history = []
    for _ in range(epochs):
        losses = []
        for images, targets in _batches(pictures, batch, chance):
            features = net.features(images)
            loss = functional.cross_entropy(net.classify(features), targets)
            optimiser.zero_grad()
            (loss + focus * spread(features)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        history.append(sum(losses) / len(losses))
        logger.info("epoch %d of %d: loss %.4f", len(history), epochs, history[-1])
    net.eval()
    return history


@torch.no_grad()
def accuracy(net: nn.Module, pictures: Pictures) -> float:
    """Return the share of pictures whose objects, one or two, are exactly the top-ranked classes."""
    hits = []
    for images, targets in zip(torch.split(pictures.images, 100), torch.split(pictures.targets, 100), strict=True):
        logits = net(_prepared(images))
        worst = torch.where(targets > 0, logits, torch.inf).amin(1)
        hits.append(worst > torch.where(targets > 0, -torch.inf, logits).amax(1))
    return torch.cat(hits).float().mean().item()


# ---- the file -------------------------------------------------------------------------------------------------------


def folded(net: ShapeNet) -> ShapeNet:
    """
    Return a copy whose batch normalisations are part of the convolutions before them.

    Parameters
    ----------
    net : ShapeNet
        A network in evaluation mode; left as it is.

    Returns
    -------
    ShapeNet
        A network that computes the same.
    """
    net = copy.deepcopy(net).eval()
    for unit in [module for module in net.modules() if isinstance(module, ConvUnit)]:
        if isinstance(unit.norm, nn.BatchNorm2d):
            unit.conv, unit.norm = fuse_conv_bn_eval(unit.conv, unit.norm), nn.Identity()
    return net


def export(net: ShapeNet, path: Path) -> None:
    """
    Write the network as one ONNX file: input "image", output "logits", any batch.

    Tensors and nodes carry the names of the modules they come from ("stage4.1.second.conv"); the last tensor of a
    stage carries the stage's ("stage4"). The metadata holds "labels" and "preprocess", both JSON.

    Parameters
    ----------
    net : ShapeNet
        The trained network; left as it is.
    path : Path
        Where the file goes; an old one is replaced.
    """
    net = folded(net)
    program = torch.onnx.export(
        net,
        (torch.zeros(2, 3, SIZE, SIZE),),
        dynamo=True,
        opset_version=18,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: "batch"}},
        verbose=False,
    )
    if program is None:
        raise AssertionError("the exporter returned nothing")
    model = program.model
    _name_after_modules(model.graph, net)
    model.graph.metadata_props.clear()
    model.metadata_props.update(labels=json.dumps(CLASSES), preprocess=json.dumps(PREPROCESS))
    path.write_bytes(ir.serde.serialize_model(model).SerializeToString())


def _name_after_modules(graph: ir.Graph, net: nn.Module) -> None:
    """Name nodes and tensors after modules, and keep only the module path of what the exporter noted about each."""
    stages: dict[str, ir.Value] = {}
    for node in graph:
        scopes = ast.literal_eval(node.metadata_props["pkg.torch.onnx.name_scopes"])
        path, value = scopes[-2], node.outputs[0]
        is_leaf = not list(net.get_submodule(path).children())
        node.name = path if is_leaf else f"{path}.{node.op_type.lower()}"
        if not value.is_graph_output():
            value.name = node.name
            stages[scopes[1]] = value
        node.metadata_props.clear()
        node.metadata_props["pkg.torch.onnx.name_scopes"] = repr(scopes)
    for name, value in stages.items():
        value.name = name


# ---- the command ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Draw, train, test and export; figures go to the log.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line; that of the process by default.

    Raises
    ------
    OutputError
        If the folder of the file to write does not exist.
    """
    parser = argparse.ArgumentParser(prog="python -m camrt.demo.train", description="Train the embedded model.")
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    parser.add_argument("--cores", type=int, default=2, help="threads that train and processes that draw (default 2)")
    given = parser.parse_args(arguments)
    if not given.out.parent.is_dir():
        raise OutputError(
            f"the model was to be written to {given.out}, but there is no folder {given.out.parent}; make it"
        )
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO)
    torch.set_num_threads(given.cores)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    logger.info("drawing %d pictures", N_TRAIN)
    pictures = draw_pictures(0, N_TRAIN, pair_share=1 / 3, processes=given.cores)
    net = ShapeNet()
    fit(net, pictures, epochs=EPOCHS)
    single = draw_pictures(HELD_OUT, N_TEST, pair_share=0, processes=given.cores)
    double = draw_pictures(HELD_OUT + N_TEST, N_TEST, pair_share=1, processes=given.cores)
    logger.info(
        "accuracy, one object: %.4f; two objects, both on top: %.4f", accuracy(net, single), accuracy(net, double)
    )
    export(net, given.out)
    logger.info("wrote %s", given.out)


if __name__ == "__main__":
    main()
