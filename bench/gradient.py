"""
The suite ``gradient``: one explanation by a gradient method, against the bare forward and against the peers.

In: settings. Out: rows, and the comparisons of heatmaps that go before them. All three run the same weights, which the
peers' torch seeded and exported, on the same input with as many threads; each keeps to its own process, and they take
turns. camrt is timed from the prepared batch to the finished `Explanation`, the peers from the batch to heatmaps of the
image's size.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import pictures
from .agreement import compare
from .contest import contest, ratios, spread
from .report import Agreement, Goal, Row
from .stopwatch import burst_length
from .wire import Worker, WorkerError

__all__ = ["FAMILY", "FLOOR", "MODELS", "PEERS", "SIDE", "Settings", "run", "run_given", "turn_of", "write_images"]

FAMILY = ("gradcam", "gradcampp", "hirescam", "layercam", "xgradcam", "eigencam")
MODELS = ("resnet50", "mobilenet_v2")
PEERS = {"pytorch-grad-cam": Goal(3.0, most=False), "torchcam": Goal(1.5, most=False)}
FLOOR = Goal(1.10, most=True)
SIDE = 224

ARBITRARY_SIGN = ("eigencam",)  # a principal component has no sign of its own; libraries choose differently
_Board = dict[tuple[int, str], dict[str, list[float]]]  # seconds by contender, for each batch and method

COSINE, DIFFERENCE = (
    0.999,
    0.02,
)  # float32 rounding in fifty layers, scaled up by min-max; other definitions miss by far


@dataclass(frozen=True)
class Settings:
    """
    What to measure.

    Attributes
    ----------
    folder : Path
        Where models and inputs go.
    models, methods : sequence of str
        torchvision architectures, and method ids.
    batches : sequence of int
        Images a call.
    rounds : int
        Turns each contender takes in a sitting.
    sittings : int
        How often every process is started anew: where its memory comes to lie can decide a fifth of its speed.
    threads : int or None
        Threads within a call, for all; None leaves it to ONNX Runtime, and torch then gets as many.
    cores : int
        What ONNX Runtime takes on its own.
    verbose : bool
        Let the workers write to standard error.
    versions : dict
        Filled with the peers' versions.
    """

    folder: Path
    models: Sequence[str]
    methods: Sequence[str]
    batches: Sequence[int]
    rounds: int
    threads: int | None
    cores: int
    verbose: bool
    sittings: int = 1
    versions: dict[str, str] = field(default_factory=dict)


def run(settings: Settings, peers: str) -> tuple[list[Row], list[Agreement]]:
    """
    Measure torchvision's architectures against the floor and the peers.

    Parameters
    ----------
    settings : Settings
        What to measure.
    peers : str
        The interpreter of the peers' environment.

    Returns
    -------
    rows : list of Row
        The figures.
    agreed : list of Agreement
        How nearly the heatmaps are the same.

    Raises
    ------
    WorkerError
        If a library fails, or the heatmaps disagree; nothing is timed then.
    """
    rows: list[Row] = []
    agreed: list[Agreement] = []
    images = write_images(settings.folder, (max(settings.batches), 3, SIDE, SIDE))
    for model in settings.models:
        onnx = settings.folder / f"{model}.onnx"
        quiet = not settings.verbose
        board: _Board = {}
        for sitting in range(settings.sittings):
            with (
                Worker("the peers' worker", peers, "work_peers", quiet=quiet) as others,
                Worker("the bare forward", sys.executable, "work_forward", quiet=quiet) as floor,
                Worker("camrt", sys.executable, "work_camrt", quiet=quiet) as ours,
            ):
                _say(f"{model}: building and exporting")
                threads = settings.threads or settings.cores
                ready = others.ask("load", {"model": model, "images": images, "onnx": str(onnx), "threads": threads})
                settings.versions.update(ready["versions"])
                for worker in (floor, ours):
                    worker.ask("load", {"onnx": str(onnx), "images": images, "threads": settings.threads})
                offered = others.ask("cases")
                if sitting == 0:
                    agreed += _agreements(settings, model, ours, others, offered)
                for batch in settings.batches:
                    for method in settings.methods:
                        libraries = [name for name in PEERS if method in offered[name]]
                        _turns(settings, board, model, batch, method, floor, ours, others, libraries)
        rows += _rows(model, board)
    return rows, agreed


def run_given(settings: Settings, onnx: Path) -> list[Row]:
    """
    Measure any model against the floor alone.

    Parameters
    ----------
    settings : Settings
        What to measure; its models are left aside.
    onnx : Path
        A classifier.

    Returns
    -------
    list of Row
        The figures.

    Raises
    ------
    WorkerError
        If a library fails.
    ValueError
        If the model does not take one float picture of a known size.
    """
    known = pictures.input_shape(onnx)
    shape: Any = known["shape"]
    fixed = known["batch"]
    batches = [n for n in settings.batches if fixed in (None, n)]
    images = write_images(settings.folder, (max(settings.batches), *shape))
    board: _Board = {}
    for _ in range(settings.sittings):
        with (
            Worker("the bare forward", sys.executable, "work_forward", quiet=not settings.verbose) as floor,
            Worker("camrt", sys.executable, "work_camrt", quiet=not settings.verbose) as ours,
        ):
            for worker in (floor, ours):
                worker.ask("load", {"onnx": str(onnx.resolve()), "images": images, "threads": settings.threads})
            for batch in batches:
                for method in settings.methods:
                    _turns(settings, board, onnx.stem, batch, method, floor, ours, None, [])
    return _rows(onnx.stem, board)


def write_images(folder: Path, shape: Sequence[int]) -> str:
    """
    Write the input that all workers read.

    Parameters
    ----------
    folder : Path
        Where to.
    shape : sequence of int
        (N, ...) of the batch.

    Returns
    -------
    str
        The file.
    """
    file = folder / "images.npy"
    np.save(file, pictures.batch(shape))
    return str(file)


def _agreements(settings: Settings, model: str, ours: Worker, others: Worker, offered: Any) -> list[Agreement]:
    """Compare heatmaps, each peer with camrt's variant and pipeline of its name; stop where they differ."""
    found = []
    batch = max(settings.batches)
    mine, theirs = (settings.folder / f"{side}.npy" for side in ("ours", "theirs"))
    for method in (m for m in settings.methods if m not in ARBITRARY_SIGN):
        for library in (name for name in PEERS if method in offered[name]):
            variant = library if library in ours.ask("variants", {"method": method}) else None
            common = {"method": method, "batch": batch}
            ours.ask("maps", {**common, "variant": variant, "pipeline": library, "file": str(mine)})
            others.ask("maps", {**common, "library": library, "file": str(theirs)})
            cosine, difference, flat = compare(np.load(mine), np.load(theirs))
            found.append(Agreement(model, method, library, cosine, difference, flat, batch))
            _say(f"{model} {method}: like {library} but for {difference:.1e} (cosine {cosine:.6f})")
            if cosine < COSINE or difference > DIFFERENCE or flat == batch:
                raise WorkerError(
                    f"{method} on {model} is not what {library} draws (cosine {cosine:.4f}, largest difference "
                    f"{difference:.1e}, {flat} of {batch} maps empty): nothing is timed"
                )
    return found


def _turns(
    settings: Settings,
    board: _Board,
    model: str,
    batch: int,
    method: str,
    floor: Worker,
    ours: Worker,
    others: Worker | None,
    libraries: Sequence[str],
) -> None:
    """Let forward, camrt and peers take turns at one method, and add the seconds to the board."""
    asks: dict[str, Callable[[int], Any]] = {
        "forward": lambda calls: floor.ask("time", {"batch": batch, "calls": calls}),
        "camrt": lambda calls: ours.ask("time", {"method": method, "batch": batch, "calls": calls}),
    }
    if others is not None:
        for name in libraries:
            request = {"library": name, "method": method, "batch": batch}
            asks[name] = partial(_ask_time, others, request)
    turns = {name: turn_of(ask) for name, ask in asks.items()}
    _say(f"{model}, batch {batch}, {method}: {', '.join(turns)}, {settings.rounds} rounds")
    for name, seconds in contest(turns, settings.rounds).items():
        board.setdefault((batch, method), {}).setdefault(name, []).extend(seconds)


def _rows(model: str, board: _Board) -> list[Row]:
    """Sum up what every turn took."""
    rows: list[Row] = []
    for (batch, method), times in board.items():
        row = partial(Row, "gradient", model, batch)
        rows.append(row(f"{method} / forward", "x", spread(ratios(times["camrt"], times["forward"])), FLOOR))
        for name in (name for name in PEERS if name in times):
            gained = spread(ratios(times[name], times["camrt"]))
            rows.append(row(f"{name} / camrt, {method}", "x", gained, PEERS[name]))
        for name, seconds in times.items():
            rows.append(row(f"  {name}, {method}", "ms", spread([1e3 * s for s in seconds])))
    return rows


def _ask_time(worker: Worker, request: dict[str, object], calls: int) -> Any:
    """Ask a peer for the times of some calls."""
    return worker.ask("time", {**request, "calls": calls})


def turn_of(ask: Callable[[int], Any]) -> Callable[[], float]:
    """
    Make a contender of a worker's timed calls.

    Parameters
    ----------
    ask : callable
        ``ask(calls)`` gives the seconds of each call. It is asked for a first and a second call at once, which say how
        many make a turn.

    Returns
    -------
    callable
        Returns the median call of a turn, in seconds.
    """
    ask(1)
    calls = burst_length(ask(1)[0])
    return lambda: float(statistics.median(ask(calls)))


def _say(text: str) -> None:
    """Tell on standard error what goes on."""
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()
