"""
The suite ``explained``: the explained model against the bare forward, both on plain ONNX Runtime.

In: settings, as in `bench.gradient`. Out: rows, and how nearly the file's heatmaps are those of the engine. camrt writes
the file and is not loaded where it is timed.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import pictures
from .agreement import compare
from .contest import contest, ratios, spread
from .gradient import FLOOR, SIDE, Settings, turn_of, write_images
from .report import Agreement, Row
from .wire import Worker, WorkerError

__all__ = ["NEAR", "exported", "run", "run_given"]

NEAR = 1e-5  # of a heatmap in [0, 1]


def run(settings: Settings, peers: str) -> tuple[list[Row], list[Agreement]]:
    """
    Measure the explained models of torchvision's architectures.

    Parameters
    ----------
    settings : Settings
        What to measure.
    peers : str
        The interpreter of an environment that exports them.

    Returns
    -------
    rows : list of Row
        The figures.
    agreed : list of Agreement
        How nearly the heatmaps are the engine's.

    Raises
    ------
    WorkerError
        If a library fails, or the heatmaps differ; nothing is timed then.
    """
    rows: list[Row] = []
    agreed: list[Agreement] = []
    images = write_images(settings.folder, (max(settings.batches), 3, SIDE, SIDE))
    for model in settings.models:
        onnx = exported(settings, peers, model, images)
        found = _measure(settings, model, onnx, images, settings.batches)
        rows, agreed = rows + found[0], agreed + found[1]
    return rows, agreed


def exported(settings: Settings, peers: str, model: str, images: str) -> Path:
    """
    Have the peers' torch seed and export an architecture.

    Parameters
    ----------
    settings : Settings
        Where to.
    peers : str
        The interpreter of an environment that exports it.
    model : str
        A torchvision architecture.
    images : str
        As `write_images` returns it; what batch norms are settled on.

    Returns
    -------
    Path
        The model.

    Raises
    ------
    WorkerError
        If torch fails.
    """
    onnx = settings.folder / f"{model}.onnx"
    with Worker("the peers' worker", peers, "work_peers", quiet=not settings.verbose) as others:
        threads = settings.threads or settings.cores
        others.ask("load", {"model": model, "images": images, "onnx": str(onnx), "threads": threads})
    return onnx


def run_given(settings: Settings, onnx: Path) -> tuple[list[Row], list[Agreement]]:
    """
    Measure the explained models of any classifier.

    Parameters
    ----------
    settings : Settings
        What to measure; its models are left aside.
    onnx : Path
        A classifier.

    Returns
    -------
    rows, agreed
        As `run` gives them.

    Raises
    ------
    WorkerError
        As in `run`.
    """
    known = pictures.input_shape(onnx)
    shape: Any = known["shape"]
    batches = [n for n in settings.batches if known["batch"] in (None, n)]
    images = write_images(settings.folder, (max(settings.batches), *shape))
    return _measure(settings, onnx.stem, onnx.resolve(), images, batches)


def _measure(
    settings: Settings, model: str, onnx: Path, images: str, batches: Any
) -> tuple[list[Row], list[Agreement]]:
    """Let the bare model and the explained one take turns."""
    rows: list[Row] = []
    agreed: list[Agreement] = []
    quiet = not settings.verbose
    for method in settings.methods:
        file = settings.folder / f"{model}-{method}.onnx"
        with (
            Worker("the bare forward", sys.executable, "work_forward", quiet=quiet) as floor,
            Worker("the explained model", sys.executable, "work_forward", quiet=quiet) as ours,
        ):
            common = {"images": images, "threads": settings.threads}
            with Worker("camrt", sys.executable, "work_camrt", quiet=quiet) as camrt:
                camrt.ask("load", {"onnx": str(onnx), **common})
                camrt.ask("explained", {"onnx": str(onnx), "method": method, "file": str(file)})
                ours.ask("load", {"onnx": str(file), **common})
                agreed.append(_agreement(settings, model, method, camrt, ours, max(batches)))
            floor.ask("load", {"onnx": str(onnx), **common})
            for batch in batches:
                turns = {
                    name: turn_of(lambda calls, w=worker, n=batch: w.ask("time", {"batch": n, "calls": calls}))  # type: ignore[misc]
                    for name, worker in (("forward", floor), ("explained model", ours))
                }
                times = contest(turns, settings.rounds)
                row = partial(Row, "explained", model, batch)
                gained = spread(ratios(times["explained model"], times["forward"]))
                rows.append(row(f"{method}, explained model / forward", "x", gained, FLOOR))
                rows += [row(f"  {n}, {method}", "ms", spread([1e3 * s for s in t])) for n, t in times.items()]
    return rows, agreed


def _agreement(settings: Settings, model: str, method: str, camrt: Worker, ours: Worker, batch: int) -> Agreement:
    """Compare the file's heatmaps with the engine's; stop where they differ."""
    mine, theirs = (settings.folder / f"{side}.npy" for side in ("file", "engine"))
    asked = {"method": method, "batch": batch, "variant": None, "pipeline": "camrt", "file": str(theirs)}
    camrt.ask("maps", asked)
    ours.ask("give", {"batch": batch, "output": "heatmap", "file": str(mine)})
    cosine, difference, flat = compare(np.load(mine), np.load(theirs))
    if difference > NEAR or flat == batch:
        raise WorkerError(
            f"the explained model of {method} on {model} is not the engine's (largest difference {difference:.1e}, {flat} "
            f"of {batch} maps empty): nothing is timed"
        )
    return Agreement(model, method, "engine", cosine, difference, flat, batch)
