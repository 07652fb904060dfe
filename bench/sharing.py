"""
The suites ``threads`` and ``memory``: one explainer under many threads, and over many calls.

In: a model. Out: rows. Whether results are right has its tests; here are the figures, and a verdict that stops the run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from . import pictures
from .contest import spread
from .gradient import FAMILY
from .report import Goal, Row
from .wire import Worker, WorkerError

__all__ = ["memory", "threads"]

PICTURES = 8
THREADS, CALLS = 32, 50
WARM, MANY = 200, 1000  # after 200 calls every session, arena and cache has met every batch size and method


def _open(worker: Worker, folder: Path, onnx: Path, within: int | None) -> None:
    """Load the model in the worker, with pictures of its size."""
    shape = pictures.input_shape(onnx)["shape"]
    assert isinstance(shape, list)
    file = folder / "shared.npy"
    np.save(file, pictures.batch((PICTURES, *shape)))
    worker.ask("load", {"onnx": str(onnx.resolve()), "images": str(file), "threads": within})


def threads(folder: Path, onnx: Path, *, within: int | None, quick: bool, verbose: bool) -> list[Row]:
    """
    Let 32 threads call one explainer 50 times each.

    Parameters
    ----------
    folder : Path
        Where inputs go.
    onnx : Path
        A classifier.
    within : int or None
        Threads within a call.
    quick : bool
        A tenth of the calls.
    verbose : bool
        Let the worker write to standard error.

    Returns
    -------
    list of Row
        How many results differ from the serial ones, and calls a second from one thread and from all.

    Raises
    ------
    WorkerError
        If the worker fails.
    """
    calls = CALLS // 10 if quick else CALLS
    with Worker("camrt", sys.executable, "work_camrt", quiet=not verbose) as worker:
        _open(worker, folder, onnx, within)
        found = worker.ask("race", {"methods": list(FAMILY), "threads": THREADS, "calls": calls})
    what = f"{THREADS} threads x {calls} calls"
    return [
        Row(
            "threads",
            onnx.stem,
            1,
            f"{what}: results unlike the serial ones",
            "",
            spread([found["different"]]),
            Goal(0, True),
        ),
        Row("threads", onnx.stem, 1, what, "calls/s", spread([found["shared"]])),
        Row("threads", onnx.stem, 1, "one thread", "calls/s", spread([found["serial"]])),
    ]


def memory(folder: Path, onnx: Path, *, within: int | None, quick: bool, verbose: bool) -> list[Row]:
    """
    Call one explainer 1,000 times, methods and batch sizes in turn, and watch resident memory.

    Parameters
    ----------
    folder, onnx, within, quick, verbose
        As in `threads`.

    Returns
    -------
    list of Row
        Memory after the warm-up, and its growth from there.

    Raises
    ------
    WorkerError
        If the worker fails, or the system does not tell resident memory.
    """
    if not Path("/proc/self/statm").exists():
        raise WorkerError("the suite memory reads /proc, which this system does not have; leave it out")
    calls = MANY // 10 if quick else MANY
    with Worker("camrt", sys.executable, "work_camrt", quiet=not verbose) as worker:
        _open(worker, folder, onnx, within)
        resident = worker.ask("grow", {"methods": list(FAMILY), "warm": WARM, "calls": calls})
    grown = [later - resident[0] for later in resident[1:]]
    return [
        Row("memory", onnx.stem, None, f"growth over {calls} calls", "MB", spread(grown[-1:]), Goal(20.0, most=True)),
        Row("memory", onnx.stem, None, "growth, on the way", "MB", spread(grown)),
        Row("memory", onnx.stem, None, f"resident after {WARM} calls", "MB", spread(resident[:1])),
    ]
