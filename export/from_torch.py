"""
A torch module becomes an ``.onnx`` file: the only place that imports torch.

In: an ``nn.Module`` and an example input. Out: a file with a free batch dimension, checked against the module.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from camrt.errors import MissingExtraError, ModelError, OutputError

from .load import MIN_OPSET
from .verify import PARITY, run

__all__ = ["from_torch"]


def from_torch(module: Any, example: Any, path: str | Path | None = None, *, opset: int = MIN_OPSET) -> bytes:
    """
    Export a torch classifier to ONNX in evaluation mode.

    Parameters
    ----------
    module : torch.nn.Module
        The classifier; its training flags, submodule by submodule, are as before afterwards.
    example : torch.Tensor or ndarray
        One input, shape (N, C, H, W); its values do not matter.
    path : str or Path, optional
        Where to write the file; it must not exist yet.
    opset : int, default 18
        The operator set exported for.

    Returns
    -------
    bytes
        The model, self-contained, input ``x`` and output ``logits``.

    Raises
    ------
    MissingExtraError
        If torch or onnxscript is not installed.
    ModelError
        If torch cannot export the module, or the file computes something else.
    OutputError
        If `path` exists or cannot be written.

    Notes
    -----
    Cost: a few seconds, most of it torch's tracing. Models beyond 2 GiB cannot be held in one message.
    """
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it and says so less clearly
        import torch
    except ImportError as error:
        raise MissingExtraError(
            f"{error.name} is needed to export a torch module: pip install 'camrt[torch]'"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"a torch.nn.Module was wanted, {type(module).__name__} was given")
    if path is not None and Path(path).exists():
        raise OutputError(f"{str(path)!r} is already there: give another path")
    x = torch.as_tensor(example).detach()
    if x.ndim != 4:
        raise ModelError(f"an example of shape (N, C, H, W) was wanted, {tuple(x.shape)} was given")
    x = torch.cat([x[:1], x[:1]])  # a batch of one would be taken for a fixed dimension
    if x.is_floating_point():  # an example of zeros would pass the check below whatever the file computes
        x = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype).to(x.device)
    flags = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations are not the caller's
            want = _call(module, x)
            data = _export(torch, module, x, opset)
    finally:
        for child, training in flags:
            child.training = training
    if not isinstance(want, torch.Tensor):
        raise ModelError(f"a module that returns one tensor of scores was wanted, it returns {type(want).__name__}")
    _check(data, x.cpu().numpy(), want.cpu().numpy())
    if path is not None:
        _write(Path(path), data)
    return data


def _call(module: Any, x: Any) -> Any:
    """Run the module on the example."""
    try:
        return module(x)
    except Exception as error:
        detail = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{type(module).__name__} does not run on an example of shape {tuple(x.shape)}: {detail}"
        ) from error


def _export(torch: Any, module: Any, x: Any, opset: int) -> bytes:
    """Run torch's exporter into a temporary folder and read the file back, weights inside."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                module, (x,), file, opset_version=opset, dynamo=True, input_names=["x"], output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, verbose=False,
            )  # fmt: skip
        except Exception as error:
            detail = " ".join(str(error).split())[:200]
            raise ModelError(f"torch could not export {type(module).__name__}: {detail}") from error
        return file.read_bytes()


def _check(data: bytes, x: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> None:
    """Compare the exported file with the module itself."""
    (got,) = run(data, {"x": x})
    worst, scale = float(np.abs(got - want).max()), float(np.abs(want).max())
    if not worst <= PARITY * max(scale, 1e-12):
        raise ModelError(f"the exported file differs from the module by {worst:.3g} (largest output {scale:.3g})")


def _write(path: Path, data: bytes) -> None:
    """Write whole or not at all."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)
