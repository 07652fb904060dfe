"""
The worker that runs camrt for the coverage suite: ``python -m bench.coverage_camrt``.

In: requests of `bench.wire`. Out: the layer camrt chooses, and logits, activations and gradients of its programs, run on
ONNX Runtime's CPU provider with one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from camrt.export.live import Live, open_model
from camrt.export.manifest import Program
from camrt.export.verify import check_gradient

from .coverage_cases import MEMORY
from .wire import serve

Array = np.ndarray[Any, Any]


class Judged:
    """One model, opened by camrt."""

    def __init__(self) -> None:
        self._live: Any = None

    def open(self, onnx: str) -> dict[str, Any]:
        """Open a model; say what it is and what would be explained."""
        self._live = open_model(onnx)
        known = self._live.manifest
        return {
            "nodes": len(self._live.classifier.model.graph),
            "opset": known.model["opset"],
            "producer": known.model["producer"],
            "input": known.input,
            "classes": known.classes,
            "head": known.head,
            "fixed_batch": known.batch,
            "layers": len(known.layers),
            "layer": asdict(known.default_layer),
        }

    def run(self, folder: str, targets: Sequence[int]) -> None:
        """Write what the programs give for the images; -1 for a target is the predicted class."""
        live: Live = self._live
        x, target = np.load(Path(folder) / "images.npy"), np.array(targets, np.int64)
        layer = live.manifest.default_layer.name
        size = live.manifest.batch or 4
        kept: dict[str, Any] = {"logits": _run(live.program("forward"), size, x=x)["logits"]}
        given = _run(live.program("gradient", [layer]), size, x=x, target=target)
        kept |= {"explained": given["explained"], "activations": given["activations.0"], "layer": given["gradients.0"]}
        if np.issubdtype(x.dtype, np.floating):  # whole numbers have no gradient
            seed = np.zeros((len(x), live.manifest.classes), kept["logits"].dtype)
            seed[np.arange(len(x)), given["explained"]] = 1
            kept["image"] = _run(live.program("input_gradient"), size, x=x, seed=seed)["input_gradient"]
        np.savez(Path(folder) / "found.npz", **kept)

    def slope(self, folder: str) -> float:
        """Return how far the layer's gradient is off central differences of the network behind it."""
        live: Live = self._live
        x = np.load(Path(folder) / "images.npy")[: live.manifest.batch or 2]
        return float(check_gradient(live, live.manifest.default_layer.name, x)["rel_error"])


def _run(program: Program, size: int, **feeds: Array) -> dict[str, Array]:
    """Run a program over all rows, some at a time; the last ones are filled up by the first."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = program.open_in(onnxruntime, options, providers=["CPUExecutionProvider"])
    count = len(next(iter(feeds.values())))
    parts: dict[str, list[Array]] = {name: [] for name in program.outputs}
    for i in range(0, count, size):
        rows = np.arange(i, i + size) % count
        results = session.run(list(program.outputs), {name: value[rows] for name, value in feeds.items()})
        for name, value in zip(program.outputs, results, strict=True):
            parts[name].append(value)
    return {name: np.concatenate(values)[:count] for name, values in parts.items()}


def main() -> None:
    """Answer requests."""
    judged = Judged()
    serve({"open": judged.open, "run": judged.run, "slope": judged.slope}, MEMORY)


if __name__ == "__main__":
    main()
