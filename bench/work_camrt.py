"""
The worker that runs camrt: ``python -m bench.work_camrt``.

In: requests of `bench.wire`. Out: seconds, heatmaps, and the figures of many threads and of many calls. Everything goes
through `Explainer.explain`, as a user's call does.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import perf_counter
from typing import Any

import numpy as np
from onnx import load as load_model
from onnx import save as save_model
from onnx.checker import check_model

import camrt
from camrt.export import explained_model, export
from camrt.export.heavy import joined
from camrt.export.live import manifest_of, open_model
from camrt.export.load import load
from camrt.export.programs import KINDS, WITHOUT_LAYER, build
from camrt.methods import METHODS

from .stopwatch import time_calls
from .wire import serve

Job = tuple[int, int, str]  # first image, images, method


class Camrt:
    """One explainer and its prepared input."""

    def __init__(self) -> None:
        self._explainer: Any = None
        self._images: Any = None

    def load(self, onnx: str, images: str, threads: int | None) -> None:
        """Open the model, a file or a bundle."""
        self._explainer = camrt.load(onnx, threads=threads)
        self._images = np.load(images)

    def variants(self, method: str) -> list[str]:
        """Say which variants a method has."""
        return list(METHODS[method].variants)

    def time(self, method: str, batch: int, calls: int) -> list[float]:
        """Time an explanation of the predicted class, from a prepared batch to heatmaps."""
        x = self._images[:batch]
        return time_calls(lambda: self._explainer.explain(x, method=method), calls)

    def time_once(
        self, method: str, batch: int, target: Any = None, options: dict[str, Any] | None = None, calls: int = 1
    ) -> list[float]:
        """Time explanations that take many forwards; a first one on a part of them has opened the sessions."""
        x = self._images[:batch]
        if METHODS[method].runs is not None:
            self._explainer.explain(x[:1], method=method, target=target, budget=camrt.Budget(forwards=1))
        else:
            self._explainer.input_gradient(x[:1], 0)
            self._explainer.activations(x[:1])
        return time_calls(
            lambda: self._explainer.explain(x, method=method, target=target, options=options or {}), calls
        )

    def channels(self) -> int:
        """Return how many channels the default layer has."""
        return next(int(layer.channels) for layer in self._explainer.layers if layer.default)

    def tail(self, onnx: str, file: str) -> int:
        """Write the tail of the default layer; return how many channels go in."""
        live = open_model(onnx)
        layer = live.manifest.default_layer
        save_model(joined(live.program("tail", [layer.name])), file)
        return layer.channels

    def peak(self, onnx: str, images: str, method: str, calls: int, forwards: int | None) -> dict[str, Any]:
        """
        Explain one image after another; report memory in MB.

        ``model`` is what the process holds once every session that the method needs is open and has run one image, above
        what it held before the model was loaded; ``stated`` is what camrt says beforehand that the masked forwards will
        take on top; ``added`` the largest resident memory above the model; ``after`` what is held after each tenth of calls.
        """
        before = _resident_mb()
        explainer = camrt.load(onnx)
        x = np.load(images)
        explainer.explain(x[:1], method=method, budget=camrt.Budget(forwards=1))
        model = _resident_mb()
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # the high-water mark starts anew
        stated = explainer.chunk_memory / 2**20
        budget = None if forwards is None else camrt.Budget(forwards=forwards)
        after = []
        for call in range(calls):
            one = x[call % len(x)][None]
            explainer.explain(one, method=method, budget=budget)
            if (call + 1) % max(1, calls // 10) == 0:
                after.append(_resident_mb() - model)
        return {"model": model - before, "stated": stated, "added": _peak_mb() - model, "after": after}

    def maps(self, method: str, batch: int, variant: str | None, pipeline: str, file: str) -> None:
        """Write heatmaps, (N, H, W) in [0, 1]."""
        found = self._explainer.explain(self._images[:batch], method=method, variant=variant, pipeline=pipeline)
        np.save(file, found.heatmaps[:, 0])

    def explained(self, onnx: str, method: str, file: str) -> None:
        """Write a model that explains itself."""
        explained_model(onnx, file, method=method, overwrite=True)

    def time_input(self, batch: int, calls: int) -> list[float]:
        """Time the gradient of class 0 at the image."""
        x = self._images[:batch]
        return time_calls(lambda: self._explainer.input_gradient(x, 0), calls)

    def input_gradient(self, batch: int, file: str) -> None:
        """Write the gradient of class 0 at the image, (N, C, H, W)."""
        np.save(file, self._explainer.input_gradient(self._images[:batch], 0))

    def build(self, onnx: str) -> dict[str, float]:
        """Build every program of the default layer from the file; beside that, read and check it. Milliseconds."""
        start = perf_counter()
        check_model(load_model(onnx))
        read = perf_counter()
        classifier = load(onnx)
        layer = manifest_of(classifier, name="model").default_layer
        for kind in KINDS:
            build(classifier, kind, () if kind in WITHOUT_LAYER else (layer,))
        return {"floor": 1e3 * (read - start), "build": 1e3 * (perf_counter() - read)}

    def graphs(self, onnx: str, folder: str) -> dict[str, tuple[int, int]]:
        """Export a bundle, and say how many nodes and bytes each graph has beside the weights file."""
        bundle = export(onnx, folder, overwrite=True)
        files = {program.kind: Path(str(program.model)) for program in bundle.programs}
        models = {kind: load_model(file, load_external_data=False) for kind, file in files.items()}
        return {kind: (len(models[kind].graph.node), file.stat().st_size) for kind, file in files.items()}

    def race(self, methods: list[str], threads: int, calls: int) -> dict[str, Any]:
        """Let threads share the explainer, and compare every result with the one made alone, bit for bit."""
        jobs: list[Job] = [(i, 1, method) for method in methods for i in range(len(self._images))]
        alone = {job: self._fingerprint(job) for job in jobs}
        start = perf_counter()
        for job in jobs:  # once more: the sessions are open by now
            self._fingerprint(job)
        serial = len(jobs) / (perf_counter() - start)
        barrier = Barrier(threads + 1)

        def work(thread: int) -> int:
            barrier.wait()
            mine = [jobs[(thread * 7 + call) % len(jobs)] for call in range(calls)]
            return sum(self._fingerprint(job) != alone[job] for job in mine)

        with ThreadPoolExecutor(threads) as pool:
            running = [pool.submit(work, thread) for thread in range(threads)]
            barrier.wait()
            start = perf_counter()
            different = sum(future.result() for future in running)
            seconds = perf_counter() - start
        return {"different": different, "calls": threads * calls, "serial": serial, "shared": threads * calls / seconds}

    def grow(self, methods: list[str], warm: int, calls: int) -> list[float]:
        """Call again and again; resident memory in MB after the warm-up and then ten times on the way."""
        batches = (1, 2, 4, 3)

        def step(i: int) -> None:
            n = batches[i % len(batches)]
            first = i % (len(self._images) - n + 1)
            self._fingerprint((first, n, methods[i % len(methods)]))

        for i in range(warm):
            step(i)
        resident = [_resident_mb()]
        for i in range(calls):
            step(i)
            if (i + 1) % max(1, calls // 10) == 0:
                resident.append(_resident_mb())
        return resident

    def _fingerprint(self, job: Job) -> bytes:
        """Return all arrays of an explanation as bytes."""
        first, n, method = job
        found = self._explainer.explain(self._images[first : first + n], method=method)
        return b"".join(a.tobytes() for a in (found.logits, found.targets, found.raw, found.heatmaps))


def _resident_mb() -> float:
    """Return this process's resident memory; Linux only."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _peak_mb() -> float:
    """Return the high-water mark of this process's resident memory; Linux only."""
    status = Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**10


def main() -> None:
    """Answer requests."""
    worker = Camrt()
    serve(
        {
            "load": worker.load,
            "variants": worker.variants,
            "time": worker.time,
            "time_once": worker.time_once,
            "channels": worker.channels,
            "tail": worker.tail,
            "peak": worker.peak,
            "maps": worker.maps,
            "explained": worker.explained,
            "time_input": worker.time_input,
            "input_gradient": worker.input_gradient,
            "build": worker.build,
            "graphs": worker.graphs,
            "race": worker.race,
            "grow": worker.grow,
        }
    )


if __name__ == "__main__":
    main()
