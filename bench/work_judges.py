"""
The worker that lets other libraries judge heatmaps, in the peers' interpreter: ``python -m bench.work_judges``.

In: requests of `bench.wire`. Out: seconds, and values under camrt's names. torch-cam, pytorch-grad-cam, Quantus and captum
are called as their users call them; two loops, RISE's and ADCC's, are written here as their papers describe them: one picture
and one step after the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any
from unittest import mock

import numpy as np
import torch

from .stopwatch import time_calls
from .wire import serve
from .work_peers import Peers

# isort: split
import quantus
from captum.metrics import infidelity, sensitivity_max
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.ndimage import gaussian_filter
from torchcam.metrics import DeletionInsertionMetric

CONTRAST = 8.0  # random weights hardly prefer a class: logits are made so many times as large
RISE_STEPS, RISE_WINDOW, RISE_SIGMA = 224, 11, 5.0
SAMPLES = 10  # noise of max-sensitivity and infidelity
FLIPPED = 3136  # features that Quantus flips at a time: it must divide the pixels

Values = dict[str, Any]


class Judges:
    """One model, pictures and maps, and all who judge them."""

    def __init__(self) -> None:
        self._peers = Peers()
        self._x: Any = None
        self._maps: Any = None
        self._noise: dict[str, Any] = {}
        self._classes: list[int] = []

    def load(self, model: str, images: str, onnx: str, threads: int) -> dict[str, Any]:
        """Build a torchvision architecture with seeded weights, and write it as ONNX."""
        ready = self._peers.load(model, images, onnx, threads, CONTRAST)
        self._peers.model.requires_grad_(False)
        ready["versions"] |= {name: version(name) for name in ("quantus", "captum")}
        return ready

    def given(self, images: int, maps: str | None, noise: dict[str, str]) -> None:
        """Read what is judged: pictures, maps, and noise by kind."""
        self._x = self._peers.images[:images]
        self._maps = None if maps is None else torch.from_numpy(np.load(maps)[:images])
        self._noise = {kind: torch.from_numpy(np.load(file)) for kind, file in noise.items()}
        with torch.no_grad():
            self._classes = self._peers.model(self._x).argmax(1).tolist()

    def values(self, judge: str, file: str) -> None:
        """Write what one of them says, without noise of its own."""
        with _silent():
            np.savez(file, **JUDGES[judge](self))

    def time(self, judge: str, calls: int) -> list[float]:
        """Time judgements."""
        return time_calls(lambda: JUDGES[judge](self), calls)

    def torchcam(self) -> Values:
        """Insertion and deletion by torch-cam."""
        metric = DeletionInsertionMetric(_Given(self._peers.model, self._maps), lambda logits: logits.softmax(1))
        metric.update(self._x, self._classes)
        return {name.removesuffix("_auc"): [value] for name, value in metric.summary().items()}

    def rise(self) -> Values:
        """Insertion and deletion by RISE's loop."""
        point = np.zeros((RISE_WINDOW, RISE_WINDOW), np.float32)
        point[RISE_WINDOW // 2, RISE_WINDOW // 2] = 1
        window = torch.from_numpy(gaussian_filter(point, RISE_SIGMA))
        kernel = torch.zeros(3, 3, *window.shape)
        kernel[range(3), range(3)] = window
        blurred = torch.nn.functional.conv2d(self._x, kernel, padding=RISE_WINDOW // 2)
        return {
            "insertion": [self._walk(blurred.clone(), self._x)],
            "deletion": [self._walk(self._x.clone(), torch.zeros_like(self._x))],
        }

    def _walk(self, picture: Any, goal: Any) -> float:
        """Turn a picture into another, the most important pixels first, one forward a step; return the area."""
        order = np.argsort(-self._maps.numpy().ravel())
        scores = []
        for places in (np.array([], int), *np.split(order, RISE_STEPS)):
            picture.view(3, -1)[:, places] = goal.view(3, -1)[:, places]
            with torch.no_grad():
                scores.append(self._peers.model(picture).softmax(1)[0, self._classes[0]].item())
        return float(np.trapezoid(scores) / RISE_STEPS)

    def road(self) -> Values:
        """ROAD by pytorch-grad-cam."""
        targets = [ClassifierOutputSoftmaxTarget(label) for label in self._classes]
        return {"road": ROADCombined()(self._x, self._maps.numpy(), targets, self._peers.model)}

    def adcc(self) -> Values:
        """ADCC and its parts, and gain and increase, by a loop over pictures."""
        rows = [self._adcc(image) for image in range(len(self._x))]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _adcc(self, image: int) -> dict[str, float]:
        """Judge one picture."""
        x, label = self._x[image : image + 1], self._classes[image]
        with torch.no_grad():
            before = self._peers.model(x).softmax(1)[0, label].item()
        heat = self._peers.gradcam(x, [label])
        shown = x * heat
        with torch.no_grad():
            after = self._peers.model(shown).softmax(1)[0, label].item()
        again = self._peers.gradcam(shown, [label])
        coherency = float(np.corrcoef(heat.numpy().ravel(), again.numpy().ravel())[0, 1] + 1) / 2
        complexity, drop = heat.mean().item(), max(0.0, before - after) / before
        return {
            "average_drop": drop,
            "average_increase": float(after > before),
            "average_gain": max(0.0, after - before) / (1 - before),
            "coherency": coherency,
            "complexity": complexity,
            "adcc": 3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop)),
        }

    def sparseness(self) -> Values:
        """Sparseness by Quantus."""
        return {"sparseness": self._quantus(quantus.Sparseness(disable_warnings=True))}

    def flipping(self) -> Values:
        """Pixel flipping by Quantus; of its curve, the points where whole pixels are flipped."""
        metric = quantus.PixelFlipping(features_in_step=FLIPPED, perturb_baseline="black", disable_warnings=True)
        return {"pixel_flipping.curve": np.array(self._quantus(metric))[:, 2::3]}

    def sensitivity_quantus(self) -> Values:
        """Max-sensitivity by Quantus."""
        steps = iter(self._noise["uniform"].unbind(1))

        def added(arr: Any, indices: Any, **_: Any) -> Any:
            return arr + next(steps).numpy().reshape(arr.shape)

        def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
            return self._peers.gradcam(torch.as_tensor(inputs), targets).numpy()

        metric = quantus.MaxSensitivity(nr_samples=SAMPLES, perturb_func=added, disable_warnings=True)
        return {"max_sensitivity": self._quantus(metric, explain_func=explain)}

    def sensitivity_captum(self) -> Values:
        """Max-sensitivity by captum."""
        noise = self._noise["uniform"].flatten(0, 1)
        found = sensitivity_max(
            lambda inputs, target: (self._peers.gradcam(inputs[0], target),),
            self._x,
            perturb_func=lambda inputs: (inputs + noise,),
            n_perturb_samples=SAMPLES,
            target=torch.tensor(self._classes),
        )
        return {"max_sensitivity": found}

    def infidelity(self) -> Values:
        """Infidelity by captum, with the factor that fits best."""
        noise = self._noise["gaussian"].flatten(0, 1)
        evenly = self._maps[:, None].expand(self._x.shape) / self._x.shape[1]
        found = infidelity(
            lambda inputs: self._peers.model(inputs).softmax(1),
            lambda inputs: (noise, inputs - noise),
            self._x,
            evenly,
            target=torch.tensor(self._classes),
            n_perturb_samples=SAMPLES,
            normalize=True,
        )
        return {"infidelity": found}

    def _quantus(self, metric: Any, **arguments: Any) -> Any:
        """Call a metric of Quantus."""
        return metric(
            model=self._peers.model,
            x_batch=self._x.numpy(),
            y_batch=np.array(self._classes),
            a_batch=self._maps[:, None].numpy().copy(),
            channel_first=True,
            device="cpu",
            **arguments,
        )


class _Given:
    """Stands where torch-cam's metric expects an extractor, and hands out maps that are given."""

    def __init__(self, model: Any, maps: Any) -> None:
        self.model, self._maps = model, maps

    def __call__(self, *_: Any, **__: Any) -> list[Any]:
        return [self._maps]

    def fuse_cams(self, cams: list[Any]) -> Any:
        """Return the only layer's."""
        return cams[0]

    @contextlib.contextmanager
    def _hooks_off(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Make the noise that a library draws zero."""
    with mock.patch.object(torch, "randn_like", torch.zeros_like):
        yield


JUDGES: Mapping[str, Callable[[Judges], Values]] = {
    "torchcam": Judges.torchcam,
    "rise": Judges.rise,
    "road": Judges.road,
    "adcc": Judges.adcc,
    "sparseness": Judges.sparseness,
    "flipping": Judges.flipping,
    "sensitivity_quantus": Judges.sensitivity_quantus,
    "sensitivity_captum": Judges.sensitivity_captum,
    "infidelity": Judges.infidelity,
}


def main() -> None:
    """Answer requests."""
    judges = Judges()
    serve({"load": judges.load, "given": judges.given, "values": judges.values, "time": judges.time})


if __name__ == "__main__":
    main()
