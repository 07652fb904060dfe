"""
The worker that explains in-process, with as many threads as a server has clients: what HTTP is measured against.

In: requests of `bench.wire`. Out: seconds.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

import camrt

from .wire import serve

__all__ = ["Inside", "main"]


class Inside:
    """An explainer and its inputs."""

    def __init__(self) -> None:
        self._explainer: Any = None
        self._x: Any = None

    def load(self, bundle: str, inputs: str) -> None:
        """
        Open a bundle as the server opens it.

        Parameters
        ----------
        bundle, inputs : str
            A folder, and an .npy file of prepared inputs.
        """
        self._explainer = camrt.load(bundle)
        self._x = np.load(inputs)

    def burst(self, method: str, threads: int, seconds: float) -> dict[str, Any]:
        """
        Explain one input again and again, in each of some threads.

        Parameters
        ----------
        method : str
            A method id.
        threads : int
            How many.
        seconds : float
            How long.

        Returns
        -------
        dict
            ``times``, the seconds of each call of all threads, and ``cpu``, the processor's seconds of all calls.
        """
        cpu = time.process_time()
        times: list[list[float]] = [[] for _ in range(threads)]
        end = time.perf_counter() + seconds

        def run(number: int) -> None:
            x = self._x[number % len(self._x)][None]
            while (start := time.perf_counter()) < end:
                self._explainer.explain(x, method=method)
                times[number].append(time.perf_counter() - start)

        callers = [threading.Thread(target=run, args=[number]) for number in range(threads)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return {"times": [taken for one in times for taken in one], "cpu": time.process_time() - cpu}

    def maps(self, method: str, file: str) -> None:
        """
        Explain every input by itself.

        Parameters
        ----------
        method : str
            A method id.
        file : str
            An .npz file for the heatmaps, by the input's number.
        """
        made = {str(i): self._explainer.explain(x[None], method=method).heatmaps for i, x in enumerate(self._x)}
        np.savez(file, **made)

    def picture(self, method: str, encoded: str, file: str) -> None:
        """
        Explain one encoded picture.

        Parameters
        ----------
        method : str
            A method id.
        encoded, file : str
            The picture, and an .npy file for its heatmap.
        """
        np.save(file, self._explainer.explain(encoded, method=method).heatmaps)


def main() -> None:
    """Answer until the pipe closes."""
    inside = Inside()
    serve({"load": inside.load, "burst": inside.burst, "maps": inside.maps, "picture": inside.picture})


if __name__ == "__main__":
    main()
