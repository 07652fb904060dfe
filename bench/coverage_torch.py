"""
The worker that makes torch models for the coverage suite, in the peers' interpreter: ``python -m bench.coverage_torch``.

In: requests of `bench.wire`. Out: an architecture with seeded weights as ONNX, its float32 scores, and what autograd
says in float64 and in float32. The tensor of a layer is found in the torch module by its values: among everything the
module's forward computes, the first tensor that holds the activations ONNX Runtime computed. So the oracle knows
nothing of the exported graph.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from .coverage_cases import MEMORY
from .coverage_figures import canonical, full_shape
from .torchvision_cpu import torchvision
from .wire import serve

CHUNK = 4  # images at a time
MATCH = 1e-2  # of the largest activation: far below what two tensors of a network differ by, far above float32
TINY = 1e-3  # weights no larger, such as a layer scale of 1e-6, would leave their branch untested


class Modules:
    """One architecture, and the folder that holds the images it is tried on."""

    def __init__(self) -> None:
        self._model: Any = None
        self._images: Any = None
        self._folder = Path()
        self._library = ""

    def names(self) -> list[str]:
        """List torchvision's classification architectures."""
        return list(torchvision.models.list_models(module=torchvision.models))

    def take(self, origin: str, name: str, size: int, folder: str) -> None:
        """Build an architecture with seeded weights, and settle it on the images."""
        torch.manual_seed(0)
        self._folder = Path(folder)
        self._images = torch.from_numpy(np.load(self._folder / "images.npy"))
        self._library = "timm" if origin == "timm" else "torchvision"
        model = _timm(name, size) if origin == "timm" else _torchvision(name, size)
        self._model = _settle(model.eval().requires_grad_(False), self._images)

    def make(self, exporter: str, opset: int | None) -> dict[str, Any]:
        """Export the architecture, and write its float32 scores of the images."""
        with torch.no_grad():
            scores = torch.cat([self._model(x) for x in self._images.split(CHUNK)])
        np.save(self._folder / "scores.npy", scores.numpy())
        onnx = self._folder / "model.onnx"
        start = time.perf_counter()
        exporter, batch = _export(self._model, self._images, exporter, opset, onnx)
        return {
            "onnx": str(onnx),
            "oracle": "torch float64",
            "parameters": sum(p.numel() for p in self._model.parameters()),
            "exporter": exporter,
            "batch": batch,
            "export_s": round(time.perf_counter() - start, 1),
            "versions": {name: version(name) for name in ("torch", self._library, "onnxscript")},
        }

    def gradients(self, layer: dict[str, Any]) -> bool:
        """Write what autograd says of the classes explained, at the layer and at the images."""
        found = dict(np.load(self._folder / "found.npz"))
        parts: dict[str, list[Any]] = {}
        for title, dtype in (("rough", torch.float32), ("exact", torch.float64)):
            self._model.to(dtype)
            for i in range(0, len(self._images), CHUNK):
                rows = slice(i, i + CHUNK)
                chosen, wanted = found["explained"][rows], found["activations"][rows]
                here, image = _autograd(self._model, self._images[rows].to(dtype), chosen, wanted, layer)
                parts.setdefault(f"{title}_layer", []).append(here)
                parts.setdefault(f"{title}_image", []).append(image)
        arrays: dict[str, Any] = {key: np.concatenate(value) for key, value in parts.items()}
        np.savez(self._folder / "answer.npz", of=layer["name"], explained=found["explained"], **arrays)
        return True


def _torchvision(name: str, size: int) -> nn.Module:
    """Return one of torchvision's architectures with random weights."""
    given: dict[str, Any] = {"weights": None}
    if name.startswith("vit"):
        given["image_size"] = size
    if name in ("googlenet", "inception_v3"):
        given.update(init_weights=False, aux_logits=False)  # in evaluation the auxiliary heads are not part of it
    model: nn.Module = getattr(torchvision.models, name)(**given)
    return model


def _timm(name: str, size: int) -> nn.Module:
    """Return one of timm's architectures with random weights, made for pictures of a size where it asks for one."""
    import timm  # type: ignore[import-not-found]

    made_for = timm.get_pretrained_cfg(name)
    is_fixed = made_for is not None and made_for.fixed_input_size and made_for.input_size[1] != size
    model: nn.Module = timm.create_model(name, pretrained=False, **({"img_size": size} if is_fixed else {}))
    return model


def _settle(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """
    Draw what makes signals neither vanish nor explode, and leaves no branch of the network at zero.

    Running statistics are those of the images; biases are positive, so that few ReLUs die; weights that are zero when
    new, or nearly, are drawn.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # a tensor that is overwritten could not be found again
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0  # the statistics of the one batch below
            if norm.weight is not None and norm.weight.any():
                norm.weight.uniform_(0.7, 1.3)
            elif norm.weight is not None:  # it ends a branch beside the identity: full weight in every block would
                norm.weight.uniform_(0.2, 0.4)  # magnify rounding from one to the next
        for title, parameter in model.named_parameters():
            if title.endswith("bias"):
                parameter.uniform_(0.05, 0.5)
            elif parameter.numel() and parameter.abs().max() <= TINY:
                parameter.normal_(0, 0.3)
        if isinstance(model, torchvision.models.SqueezeNet):
            model.classifier[1].bias += 5  # a ReLU follows: a class whose score is 0 would have no gradient
        if norms:
            for norm in norms:
                norm.train()
            model(images)
    return model.eval()


def _export(model: nn.Module, images: torch.Tensor, exporter: str, opset: int | None, onnx: Path) -> tuple[str, str]:
    """
    Write the module as ONNX, its batch free; return which exporter did it, and whether the batch is free.

    Where torch's newer exporter cannot leave the batch free it is fixed, and where it fails at all the older one is asked.
    """
    logging.disable(logging.WARNING)
    attempts = ("torchscript",) if exporter == "torchscript" else ("dynamo", "dynamo, batch 1", "torchscript")
    errors: list[Exception] = []
    for attempt in attempts:
        try:
            return _exported(model, images, attempt, opset, onnx)
        except Exception as error:  # noqa: BLE001 - whatever exporters raise; the first attempt's is told
            errors.append(error)
    raise errors[0]


def _exported(model: nn.Module, images: torch.Tensor, attempt: str, opset: int | None, onnx: Path) -> tuple[str, str]:
    """Export once."""
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["scores"]}
    if opset is not None:
        names["opset_version"] = opset
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        if attempt == "torchscript":
            axes = {"image": {0: "batch"}, "scores": {0: "batch"}}
            torch.onnx.export(model, (images[:2],), onnx, dynamo=False, dynamic_axes=axes, **names)
            return attempt, "free"
        if attempt == "dynamo":
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(model, (images[:2],), onnx, dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
            return attempt, "free"
        torch.onnx.export(model, (images[:1],), onnx, dynamo=True, verbose=False, **names)
        return "dynamo", "1"


class _Record(TorchFunctionMode):
    """Keep every tensor of some number of elements that torch's functions return."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.kept: list[torch.Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for item in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(item, torch.Tensor) and item.requires_grad and item.numel() == self.count:
                self.kept.append(item)
        return result


def _autograd(model: nn.Module, images: torch.Tensor, chosen: Any, wanted: Any, layer: dict[str, Any]) -> Any:
    """Return the gradients of the chosen scores at the layer (N, K, h, w) and at the images."""
    x = images.clone().requires_grad_(True)
    shape = full_shape(layer["shape"], layer["layout"], len(x))
    where = layer["layout"], layer["prefix"], layer["grid"]
    with _Record(math.prod(shape)) as record:
        scores = model(x)
    best, least = None, (math.inf, True)
    for tensor in record.kept:
        if tuple(tensor.shape) == shape or layer["layout"] != "nchw":  # tokens and grid are one another's views
            off = float(np.abs(canonical(tensor.detach().reshape(shape).numpy(), *where) - wanted).max())
            is_made_alike = type(tensor.grad_fn).__name__.startswith(layer["op"])
            rank = (off, not is_made_alike)
            if rank < least or (rank == least and is_made_alike):
                best, least = tensor, rank  # of equal ones the last by the same operator, or the first
    error = least[0]
    scale = float(np.abs(wanted).max())
    if best is None or error > MATCH * scale:
        near = "none has its size" if best is None else f"the nearest is off by {error / scale:.1e}"
        raise LookupError(f"no tensor of the module holds the activations of {layer['name']} ({near})")
    rows = torch.arange(len(x))
    at_layer, at_image = torch.autograd.grad(scores[rows, torch.from_numpy(chosen)].sum(), [best, x])
    return canonical(at_layer.reshape(shape).numpy(), *where), at_image.numpy()


def main() -> None:
    """Answer requests."""
    modules = Modules()
    serve({"names": modules.names, "take": modules.take, "make": modules.make, "gradients": modules.gradients}, MEMORY)


if __name__ == "__main__":
    main()
