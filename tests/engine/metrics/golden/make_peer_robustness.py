"""
Record what Quantus, captum, pytorch-grad-cam and torch-cam say of given maps, beside the curves of `make_peer_curves`.

    python bench/make_peers.py FOLDER
    FOLDER/bin/python tests/engine/metrics/golden/make_peer_robustness.py

Writes ``peer_robustness.npz`` beside this file: two linear classifiers, pictures, maps, noise, each library's value of each
map, and the versions that made them. The libraries are run as installed, with arguments that they offer: the noise is
given to them, and what explains again is the picture times the class's weights. Only the noise that pytorch-grad-cam
adds to imputed pixels, which it does not seed, is made zero.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[3] / "bench")]
import torchvision_cpu  # noqa: F401

# isort: split
import quantus
from captum.metrics import infidelity, sensitivity_max
from make_peer_curves import Given, silent
from pytorch_grad_cam.metrics.arcc import ARCC, Coherency, Complexity
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torchcam.metrics import ClassificationMetric

SIZE, CLASSES, IMAGES = (14, 17), 4, 4
PIXELS = SIZE[0] * SIZE[1]
SAMPLES = 5
STEP = SIZE[1]  # features that Quantus flips at a time; it must divide the number of pixels
PACKAGES = ("torch", "quantus", "captum", "grad-cam", "torchcam", "numpy", "scipy")

Array = npt.NDArray[Any]


def classifier(channels: int, spread: float) -> nn.Sequential:
    """Return a linear classifier of seeded weights."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * PIXELS, CLASSES)).eval()
    nn.init.normal_(model[1].weight, std=spread)
    return model.requires_grad_(False)


def explained(model: nn.Module, x: Tensor, classes: Any) -> Tensor:
    """Return maps (N, H, W) in [0, 1]: the picture times the class's weights, summed over channels, cut at zero."""
    weight: Any = model.get_submodule("1").weight
    maps = (weight[torch.as_tensor(classes)].reshape(x.shape) * x).sum(1).relu()
    return maps / maps.amax((1, 2), keepdim=True)


def ranked(maps: Array) -> Array:
    """Return maps in [0, 1] of the same order whose values lie evenly; no two are equal."""
    places = maps.reshape(len(maps), -1).argsort(1).argsort(1).astype(np.float32)
    return (places / np.float32(PIXELS - 1)).reshape(maps.shape)


def of_quantus(model: nn.Module, x: Array, classes: list[int], maps: Array) -> dict[str, Any]:
    """Return what Quantus says of one-channel pictures."""
    told = {"disable_warnings": True}
    given = {"model": model, "x_batch": x, "y_batch": np.array(classes), "channel_first": True, "device": "cpu"}

    def asked(metric: Any, **arguments: Any) -> Any:
        return metric(**given, a_batch=maps[:, None].copy(), **arguments)

    flipped = np.array(asked(quantus.PixelFlipping(features_in_step=STEP, perturb_baseline="black", **told)))
    road = quantus.ROAD(noise=0.0, **told)
    return {
        "sparseness": asked(quantus.Sparseness(**told)),
        "entropy": asked(quantus.Complexity(**told)),
        "effective": asked(quantus.EffectiveComplexity(**told)),
        "flipping": flipped,
        "road": list(asked(road, softmax=True).values()),
        "levels": road.percentages,
    }


def of_noise(model: nn.Module, x: Tensor, classes: list[int], maps: Tensor, noise: Tensor) -> dict[str, Any]:
    """Return what captum and Quantus say where noise is added to the pictures, or taken from them."""
    steps = iter(noise.unbind(1))

    def added(arr: Array, indices: Array, **_: Any) -> Array:
        return arr + next(steps).reshape(arr.shape).numpy()

    def explain(model: nn.Module, inputs: Array, targets: Array, **_: Any) -> Array:
        return explained(model, torch.as_tensor(inputs), targets)[:, None].numpy()

    def captums(inputs: tuple[Tensor], target: Tensor) -> tuple[Tensor]:
        return (explained(model, inputs[0], target),)

    target, flat = torch.as_tensor(classes), noise.flatten(0, 1)
    metric = quantus.MaxSensitivity(nr_samples=SAMPLES, perturb_func=added, disable_warnings=True)
    found = {
        "quantus/max_sensitivity": metric(
            model=model, x_batch=x.numpy(), y_batch=np.array(classes), a_batch=maps[:, None].numpy(),
            explain_func=explain, channel_first=True, device="cpu",
        ),
        "captum/max_sensitivity": sensitivity_max(
            captums, x, perturb_func=lambda inputs: (inputs + flat,), n_perturb_samples=SAMPLES, target=target
        ),
    }  # fmt: skip
    evenly = maps[:, None].expand(x.shape) / x.shape[1]
    for name, normalize in (("scaled", True), ("unscaled", False)):
        found[f"captum/infidelity/{name}"] = infidelity(
            lambda inputs: model(inputs).softmax(1), lambda inputs: (flat, inputs - flat), x, evenly, target=target,
            n_perturb_samples=SAMPLES, normalize=normalize,
        )  # fmt: skip
    return found


def of_parts(model: nn.Module, x: Tensor, classes: list[int], maps: Array, others: Array) -> dict[str, Any]:
    """Return ARCC and its parts as pytorch-grad-cam has them, and of other maps the drop and increase."""
    targets = [ClassifierOutputSoftmaxTarget(chosen) for chosen in classes]

    def again(input_tensor: Tensor, targets: Any) -> Array:
        return explained(model, input_tensor, classes).numpy()

    with silent():
        arcc = ARCC(again)(x, maps, targets, model)
    found = {
        "drop": DropInConfidence()(x, others, targets, model),
        "increase": IncreaseInConfidence()(x, others, targets, model),
        "coherency": Coherency()(x, maps, targets, model, again),
        "complexity": Complexity()(maps),
        "arcc": arcc,
    }
    metric = ClassificationMetric(Given(model, torch.from_numpy(others)), lambda logits: logits.softmax(1))
    metric.update(x, classes)
    return {f"pytorch-grad-cam/{name}": value for name, value in found.items()} | {
        f"torchcam/{name}": value for name, value in metric.summary().items()
    }


def main() -> None:
    """Run the libraries and write the file."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    grey, colour = classifier(1, 0.1), classifier(3, 0.06)
    x1, x3 = torch.randn(IMAGES, 1, *SIZE), torch.randn(IMAGES, 3, *SIZE)
    distinct = rng.permuted(np.tile(np.linspace(0, 1, PIXELS, dtype=np.float32), (IMAGES, 1)), axis=1)
    distinct = distinct.reshape(IMAGES, *SIZE)
    sparse = distinct**8
    sparse[:, :3] = 0
    sparse[:2, 0, :2] = 2e-5, 5e-6  # on either side of what counts as used
    sparse[2:, 1, 1] = 1  # a second maximum
    masks = np.zeros((IMAGES, *SIZE), bool)
    tops = [np.unravel_index(one.argmax(), SIZE) for one in distinct]
    masks[0][tops[0]] = masks[2, 1, 1] = masks[3, 5:, 4:] = True
    masks[1] = ~(distinct[1] == 1)
    pointing = quantus.PointingGame(disable_warnings=True)
    out: dict[str, Any] = {
        "x1": x1, "x3": x3, "distinct": distinct, "sparse": sparse, "masks": masks,
        "weight1": grey[1].weight, "bias1": grey[1].bias, "weight3": colour[1].weight, "bias3": colour[1].bias,
    }  # fmt: skip
    classes = {1: grey(x1).argmax(1).tolist(), 3: colour(x3).argmax(1).tolist()}
    for chosen in classes.values():
        chosen[-1] = (chosen[-1] + 1) % CLASSES  # one class that is not the prediction
    out |= {"classes1": classes[1], "classes3": classes[3]}
    for name, maps in (("distinct", distinct), ("sparse", sparse)):
        out |= {f"quantus/{name}/{key}": v for key, v in of_quantus(grey, x1.numpy(), classes[1], maps).items()}
        out[f"quantus/{name}/pointing"] = pointing(
            model=grey, x_batch=x1.numpy(), y_batch=np.array(classes[1]), a_batch=maps[:, None].copy(),
            s_batch=masks[:, None], channel_first=True, device="cpu",
        )  # fmt: skip
    flipping = quantus.PixelFlipping(features_in_step=STEP, perturb_baseline="black", disable_warnings=True)
    out["quantus/colour/flipping"] = flipping(
        model=colour, x_batch=x3.numpy(), y_batch=np.array(classes[3]), a_batch=distinct[:, None].copy(),
        channel_first=True, device="cpu",
    )  # fmt: skip
    noise = torch.randn(IMAGES, SAMPLES, *x3.shape[1:]) * 0.2
    maps3 = explained(colour, x3, classes[3])
    out |= {"noise": noise, "maps": maps3}
    out |= of_noise(colour, x3, classes[3], maps3, noise)
    out["ranked"] = ranked((colour[1].weight[torch.as_tensor(classes[3])].reshape(x3.shape) * x3).sum(1).numpy())
    out |= of_parts(colour, x3, classes[3], out["ranked"], distinct)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    arrays = {name: v.detach().numpy() if isinstance(v, Tensor) else np.asarray(v) for name, v in out.items()}
    np.savez_compressed(HERE / "peer_robustness.npz", versions=json.dumps(versions), **arrays)


if __name__ == "__main__":
    main()
