"""
The worker that runs torch-cam and pytorch-grad-cam, in their own interpreter: ``python -m bench.work_peers``.

In: requests of `bench.wire`. Out: the model as ONNX, seconds, heatmaps. A call goes the whole way a user goes: forward,
class, map, resize to the image.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from .torchvision_cpu import torchvision  # before the libraries below, which import torchvision themselves

# isort: split
from pytorch_grad_cam import AblationCAM, EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, ScoreCAM, XGradCAM
from torchcam import methods as torchcam

from .stopwatch import time_calls
from .wire import serve

LAYERS = {
    "resnet18": "layer4",
    "resnet50": "layer4",
    "mobilenet_v2": "features",
    "vgg16": "features",
}  # the last spatial tensor of each
PYTORCH_GRAD_CAM: dict[str, Any] = {
    "gradcam": GradCAM,
    "gradcampp": GradCAMPlusPlus,
    "hirescam": HiResCAM,
    "layercam": LayerCAM,
    "xgradcam": XGradCAM,
    "eigencam": EigenCAM,
}
MASKED: dict[str, dict[str, Any]] = {
    "pytorch-grad-cam": {"scorecam": ScoreCAM, "ablationcam": AblationCAM},
    "torchcam": {"scorecam": torchcam.ScoreCAM},
}  # slow ones, timed by one call
LOOP_STEP = 0.1  # Opti-CAM's learning rate
TORCHCAM: dict[str, Any] = {
    "gradcam": torchcam.GradCAM,
    "gradcampp": torchcam.GradCAMpp,
    "layercam": torchcam.LayerCAM,
    "xgradcam": torchcam.XGradCAM,
}


class Peers:
    """One model, and the extractor that is hooked into it at the moment; never two at once."""

    def __init__(self) -> None:
        self._model: Any = None
        self._layer: Any = None
        self._images: Any = None
        self._chosen: tuple[str, str, int] | None = None
        self._call: Callable[[], Any] = lambda: None
        self._release: Callable[[], None] = lambda: None

    def load(self, model: str, images: str, onnx: str, threads: int, contrast: float = 1.0) -> dict[str, Any]:
        """Build a torchvision architecture with seeded weights, its logits so many times as large; write it as ONNX."""
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self._images = torch.from_numpy(np.load(images))
        self._model = getattr(torchvision.models, model)(weights=None)
        _settle(self._model, self._images)
        with torch.no_grad():
            *_, head = (module for module in self._model.modules() if isinstance(module, torch.nn.Linear))
            for parameter in head.parameters():
                parameter.mul_(contrast)
        self._layer = self._model.get_submodule(LAYERS[model])
        torch.onnx.export(
            self._model,
            (self._images[:1],),
            onnx,
            opset_version=17,
            dynamo=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}},
        )
        names = ("torch", "torchvision", "torchcam", "grad-cam")
        return {"threads": torch.get_num_threads(), "versions": {name: version(name) for name in names}}

    @property
    def model(self) -> Any:
        """The model."""
        return self._model

    @property
    def images(self) -> Any:
        """Every picture, (N, C, H, W)."""
        return self._images

    def gradcam(self, x: Any, classes: Any) -> Any:
        """Return Grad-CAM's maps in [0, 1], (N, 1, H, W), as plain PyTorch: one forward and one backward to the layer."""
        acts: list[Any] = []
        hook = self._layer.register_forward_hook(lambda _module, _inputs, output: acts.append(output.requires_grad_()))
        try:
            with torch.enable_grad():
                logits = self._model(x)
                (g,) = torch.autograd.grad(logits.gather(1, torch.as_tensor(classes)[:, None]).sum(), acts)
        finally:
            hook.remove()
        return _enlarged((g.mean((2, 3), keepdim=True) * acts[0].detach()).sum(1, keepdim=True).relu(), x)

    def cases(self) -> dict[str, list[str]]:
        """Say which methods each library has."""
        return {"pytorch-grad-cam": list(PYTORCH_GRAD_CAM), "torchcam": list(TORCHCAM)}

    def time(self, library: str, method: str, batch: int, calls: int) -> list[float]:
        """Time a library's method."""
        self._choose(library, method, batch)
        return time_calls(self._call, calls)

    def maps(self, library: str, method: str, batch: int, file: str) -> None:
        """Write a library's heatmaps, (N, H, W) in [0, 1]."""
        self._choose(library, method, batch)
        np.save(file, np.asarray(self._call(), np.float32))

    def time_once(self, library: str, method: str, batch: int) -> list[float]:
        """Time one call of a method that takes many forwards; each at the library's own batch size."""
        self._choose(library, method, batch)
        return time_calls(self._call, 1)

    def time_loop(self, method: str, iterations: int) -> list[float]:
        """Time the straightforward loop in PyTorch on the first image, as a paper's reader would write it."""
        self._release()
        self._chosen, self._release = None, lambda: None
        loop = _score_cam_loop if method == "scorecam" else _opti_cam_loop
        self._model.requires_grad_(False)
        acts: list[Any] = []
        hook = self._layer.register_forward_hook(lambda _module, _inputs, output: acts.append(output.detach()))
        try:
            with torch.no_grad():
                index = int(self._model(self._images[:1])[0].argmax())
        finally:
            hook.remove()
        seconds = time_calls(lambda: loop(self._model, self._images[:1], acts[0], index, iterations), 1)
        self._model.requires_grad_(True)
        return seconds

    def time_input(self, batch: int, calls: int) -> list[float]:
        """Time eager PyTorch's gradient of class 0 at the image."""
        return time_calls(lambda: self._input_gradient(batch), calls)

    def input_gradient(self, batch: int, file: str) -> None:
        """Write the gradient of class 0 at the image, (N, C, H, W)."""
        np.save(file, self._input_gradient(batch).numpy())

    def _input_gradient(self, batch: int) -> Any:
        """Return one forward and one backward pass; weights ask for no gradient, which spares theirs."""
        self._release()
        self._chosen, self._release = None, lambda: None
        x = self._images[:batch].clone().requires_grad_()
        self._model.requires_grad_(False)
        (g,) = torch.autograd.grad(self._model(x)[:, 0].sum(), x)
        self._model.requires_grad_(True)
        return g

    def _choose(self, library: str, method: str, batch: int) -> None:
        """Hook one extractor into the model, in place of the one before."""
        if self._chosen == (library, method, batch):
            return
        self._release()
        make = self._pytorch_grad_cam if library == "pytorch-grad-cam" else self._torchcam
        self._call, self._release = make(method, self._images[:batch])
        self._chosen = (library, method, batch)

    def _pytorch_grad_cam(self, method: str, x: Any) -> tuple[Callable[[], Any], Callable[[], None]]:
        table = PYTORCH_GRAD_CAM | MASKED["pytorch-grad-cam"]
        extractor = table[method](self._model, [self._layer])
        return lambda: extractor(x, None), extractor.activations_and_grads.release

    def _torchcam(self, method: str, x: Any) -> tuple[Callable[[], Any], Callable[[], None]]:
        extractor = (TORCHCAM | MASKED["torchcam"])[method](self._model, self._layer)

        def call() -> Any:
            scores = self._model(x)
            (maps,) = extractor(scores.argmax(1).tolist(), scores)
            size = tuple(x.shape[2:])
            return torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]

        def release() -> None:
            extractor.remove_hooks()
            extractor.reset_hooks()

        return call, release


def _enlarged(maps: Any, x: Any) -> Any:
    """Resize maps (N, 1, h, w) to the image and scale each to [0, 1]."""
    up = torch.nn.functional.interpolate(maps, tuple(x.shape[2:]), mode="bilinear", align_corners=False)
    low, high = up.amin((2, 3), keepdim=True), up.amax((2, 3), keepdim=True)
    return (up - low) / torch.where(high > low, high - low, 1)


def _score_cam_loop(model: Any, x: Any, acts: Any, index: int, iterations: int) -> Any:
    """Score-CAM, one channel after the other."""
    with torch.no_grad():
        scores = [model(x * _enlarged(acts[:, k : k + 1], x)).softmax(1)[0, index] for k in range(acts.shape[1])]
        return (torch.stack(scores)[None, :, None, None] * acts).sum(1).relu()


def _opti_cam_loop(model: Any, x: Any, acts: Any, index: int, iterations: int) -> Any:
    """Opti-CAM: Adam on the channels' weights, the mask multiplied into the image."""
    acts = acts.relu()
    u = torch.full((1, acts.shape[1], 1, 1), 0.5, requires_grad=True)
    optimiser = torch.optim.Adam([u], lr=LOOP_STEP)
    for _ in range(iterations):
        mask = _enlarged((u.softmax(1) * acts).sum(1, keepdim=True), x)
        loss = -model(x * mask)[0, index]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return u.detach()


def _settle(model: Any, images: Any) -> None:
    """Take batch norm's statistics from the images: without them random weights make activations explode or vanish."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over the batches seen: one
    model.train()
    with torch.no_grad():
        model(images)
    model.eval()


def main() -> None:
    """Answer requests."""
    peers = Peers()
    serve(
        {
            "load": peers.load,
            "cases": peers.cases,
            "time": peers.time,
            "time_once": peers.time_once,
            "time_loop": peers.time_loop,
            "maps": peers.maps,
            "time_input": peers.time_input,
            "input_gradient": peers.input_gradient,
        }
    )


if __name__ == "__main__":
    main()
