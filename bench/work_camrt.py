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

import camrt
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

    def maps(self, method: str, batch: int, variant: str | None, pipeline: str, file: str) -> None:
        """Write heatmaps, (N, H, W) in [0, 1]."""
        found = self._explainer.explain(self._images[:batch], method=method, variant=variant, pipeline=pipeline)
        np.save(file, found.heatmaps[:, 0])

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


def main() -> None:
    """Answer requests."""
    worker = Camrt()
    serve(
        {
            "load": worker.load,
            "variants": worker.variants,
            "time": worker.time,
            "maps": worker.maps,
            "race": worker.race,
            "grow": worker.grow,
        }
    )


if __name__ == "__main__":
    main()
