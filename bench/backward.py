"""
The suite ``backward``: the gradient at the image, against the bare forward and against eager PyTorch; and what building
a model's programs costs.

In: settings, as in `bench.gradient`. Out: rows, and how nearly the gradients are PyTorch's. Processes take turns as in
`bench.gradient`. Programs are built from the file on disk to serialised graphs; the floor beside it is reading the same
file with onnx and checking it.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np

from .agreement import compare
from .contest import contest, ratios, spread
from .gradient import MODELS, SIDE, Settings, turn_of, write_images
from .report import Agreement, Goal, Row
from .wire import Worker, WorkerError

__all__ = ["LIMITS", "run"]

LIMITS = {"resnet50": 2.2, "vgg16": 2.2, "mobilenet_v2": 3.5}  # of the bare forward
EAGER = Goal(1.5, most=False)
BUILDING = Goal(3000.0, most=True)
BATCHES = (1, 8)
BUILDS = 5
COSINE = 0.999  # float32 rounding flips paths at kinks; a wrong gradient is far below


def run(settings: Settings, peers: str) -> tuple[list[Row], list[Agreement]]:
    """
    Measure torchvision's architectures; VGG-16 beside those that are asked for.

    Parameters
    ----------
    settings : Settings
        What to measure; its methods are left aside, and batches are 1 and 8.
    peers : str
        The interpreter of the peers' environment.

    Returns
    -------
    rows : list of Row
        The figures.
    agreed : list of Agreement
        How nearly the gradients are PyTorch's, each scaled by its largest element.

    Raises
    ------
    WorkerError
        If a library fails, or the gradients differ; nothing is timed then.
    """
    rows: list[Row] = []
    agreed: list[Agreement] = []
    images = write_images(settings.folder, (max(BATCHES), 3, SIDE, SIDE))
    for model in (*settings.models, *(name for name in LIMITS if name not in MODELS)):
        onnx = settings.folder / f"{model}.onnx"
        quiet = not settings.verbose
        with (
            Worker("the peers' worker", peers, "work_peers", quiet=quiet) as others,
            Worker("the bare forward", sys.executable, "work_forward", quiet=quiet) as floor,
            Worker("camrt", sys.executable, "work_camrt", quiet=quiet) as ours,
        ):
            sys.stderr.write(f"{model}: building and exporting\n")
            threads = settings.threads or settings.cores
            ready = others.ask("load", {"model": model, "images": images, "onnx": str(onnx), "threads": threads})
            settings.versions.update(ready["versions"])
            for worker in (floor, ours):
                worker.ask("load", {"onnx": str(onnx), "images": images, "threads": settings.threads})
            agreed.append(_agreement(settings, model, ours, others))
            for batch in BATCHES:
                rows += _turns(settings, model, batch, floor, ours, others)
            rows += _building(settings, model, str(onnx), ours)
    return rows, agreed


def _agreement(settings: Settings, model: str, ours: Worker, others: Worker) -> Agreement:
    """Compare gradients with PyTorch's; stop where they differ."""
    mine, theirs = (settings.folder / f"{side}-input.npy" for side in ("ours", "theirs"))
    for worker, file in ((ours, mine), (others, theirs)):
        worker.ask("input_gradient", {"batch": max(BATCHES), "file": str(file)})
    a, b = np.load(mine), np.load(theirs)
    cosine, difference, flat = compare(a / np.abs(b).max(), b / np.abs(b).max())
    if cosine < COSINE or flat:
        raise WorkerError(f"the input gradient of {model} is not PyTorch's (cosine {cosine:.4f}): nothing is timed")
    return Agreement(model, "input gradient", "PyTorch", cosine, difference, flat, len(a))


def _turns(settings: Settings, model: str, batch: int, floor: Worker, ours: Worker, others: Worker) -> list[Row]:
    """Let forward, camrt and eager PyTorch take turns."""

    def ask(worker: Worker, what: str, calls: int) -> Any:
        return worker.ask(what, {"batch": batch, "calls": calls})

    asked = {"forward": (floor, "time"), "camrt": (ours, "time_input"), "eager PyTorch": (others, "time_input")}
    turns = {name: turn_of(partial(ask, worker, what)) for name, (worker, what) in asked.items()}
    sys.stderr.write(f"{model}, batch {batch}, input gradient: {', '.join(turns)}, {settings.rounds} rounds\n")
    times = contest(turns, settings.rounds)
    row = partial(Row, "backward", model, batch)
    within = spread(ratios(times["camrt"], times["forward"]))
    faster = spread(ratios(times["eager PyTorch"], times["camrt"]))
    return [
        row("input gradient / forward", "x", within, Goal(LIMITS[model], most=True)),
        row("eager PyTorch / camrt, input gradient", "x", faster, EAGER),
        *(row(f"  {name}", "ms", spread([1e3 * s for s in seconds])) for name, seconds in times.items()),
    ]


def _building(settings: Settings, model: str, onnx: str, ours: Worker) -> list[Row]:
    """Build all programs of the default layer again and again, and state how large their graphs are."""
    found = [ours.ask("build", {"onnx": onnx}) for _ in range(min(settings.rounds, BUILDS))]
    graphs = ours.ask("graphs", {"onnx": onnx, "folder": str(settings.folder / f"{model}.bundle")})
    row = partial(Row, "backward", model, None)
    rows = [
        row(f"building all {len(graphs)} programs", "ms", spread([f["build"] for f in found]), BUILDING),
        row("  onnx.load and checker", "ms", spread([f["floor"] for f in found])),
    ]
    for kind in ("forward", "input_gradient"):
        nodes, size = graphs[kind]
        rows.append(row(f"  {kind}: nodes", "", spread([nodes])))
        rows.append(row(f"  {kind}: graph beside the weights", "kB", spread([size / 1024])))
    total = sum(size for _, size in graphs.values())
    return [*rows, row("  all graphs beside the weights", "kB", spread([total / 1024]))]
