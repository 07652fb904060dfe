"""
The worker that runs the floor, the model's bare forward on ONNX Runtime, and explained models in the same way:
``python -m bench.work_forward``.

In: requests of `bench.wire`. Out: seconds. Nothing of camrt is loaded here, and the session has ONNX Runtime's default
options, but for the number of threads if one is asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from .stopwatch import time_calls
from .wire import serve


class Forward:
    """One session and its input."""

    def __init__(self) -> None:
        self._session: Any = None
        self._images: Any = None

    def load(self, onnx: str, images: str, threads: int | None) -> None:
        """Open the model."""
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._images = np.load(images)

    def time(self, batch: int, calls: int) -> list[float]:
        """Time the forward."""
        feeds = self._feeds(batch)
        return time_calls(lambda: self._session.run(None, feeds), calls)

    def time_rows(self, rows: int, batch: int, calls: int = 1) -> list[float]:
        """Time as many runs of a full batch as so many rows take; every input is filled with the same noise."""
        feeds = {entry.name: _noise(entry, batch) for entry in self._session.get_inputs()}
        runs = -(-rows // batch)
        self._session.run(None, feeds)
        return time_calls(lambda: [self._session.run(None, feeds) for _ in range(runs)], calls)

    def give(self, batch: int, output: str, file: str) -> None:
        """Write one output."""
        np.save(file, self._session.run([output], self._feeds(batch))[0])

    def _feeds(self, batch: int) -> dict[str, Any]:
        """Return the pictures, and the predicted class where the model asks for one."""
        image, *target = (entry.name for entry in self._session.get_inputs())
        pictures = np.ascontiguousarray(self._images[:batch])
        return {image: pictures} | dict.fromkeys(target, np.full(batch, -1))


def _noise(entry: Any, batch: int) -> Any:
    """Return positive noise for an input of a free batch."""
    shape = (batch, *(int(side) for side in entry.shape[1:]))
    return np.abs(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


def main() -> None:
    """Answer requests."""
    forward = Forward()
    serve({"load": forward.load, "time": forward.time, "time_rows": forward.time_rows, "give": forward.give})


if __name__ == "__main__":
    main()
