"""
The suite ``masked``: methods of many forwards, against as many bare forwards, the peers, and the straightforward loop.

In: settings, as in `bench.gradient`. Out: rows. A floor is what the method cannot do without: K runs of one image for
Score-CAM, the forward and K runs of the tail for Ablation-CAM, timed in batches on plain ONNX Runtime. One call is one
turn where it takes seconds, otherwise the median of some. Memory is measured in a process of its own, above what the opened model holds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from .contest import contest, ratios, spread
from .gradient import SIDE, Settings, write_images
from .report import Goal, Row
from .wire import Worker

__all__ = ["MODELS", "growth", "memory", "run"]

MODELS = ("resnet18",)
CHUNK, TAIL_CHUNK = 4, 128  # rows a run that suit a CPU best: 4 or 16 of the whole model, many of a tail
ITERATIONS = 100
TARGETS = [0, 1, 2, 3, 4]
HELD = 100  # images that memory is watched over
SHORT = 15  # calls a turn of what takes milliseconds
FORWARDS = 32  # masked forwards of each but the first

SCORE = Goal(1.05, most=True)
ABLATION = Goal(1.2, most=True)
TORCHCAM, PYTORCH_GRAD_CAM = Goal(2.0, most=False), Goal(2.3, most=False)
ABLATION_PEER = Goal(300.0, most=False)
LOOP = Goal(1.5, most=False)
FIVE = Goal(1.05, most=True)
ADDED = Goal(400.0, most=True)

_Turn = Callable[[], float]


def run(settings: Settings, peers: str) -> list[Row]:
    """
    Measure Score-CAM, Ablation-CAM, ReciproCAM and Opti-CAM on torchvision's architectures.

    Parameters
    ----------
    settings : Settings
        What to measure; methods and batches are left aside.
    peers : str
        The interpreter of the peers' environment.

    Returns
    -------
    list of Row
        The figures.

    Raises
    ------
    WorkerError
        If a library fails.
    """
    rows: list[Row] = []
    images = write_images(settings.folder, (4, 3, SIDE, SIDE))
    for model in (*MODELS, "vgg16"):
        onnx, tail = settings.folder / f"{model}.onnx", settings.folder / f"{model}-tail.onnx"
        with (
            Worker("the peers' worker", peers, "work_peers", quiet=not settings.verbose) as others,
            Worker("the bare forward", sys.executable, "work_forward", quiet=not settings.verbose) as floor,
            Worker("the bare tail", sys.executable, "work_forward", quiet=not settings.verbose) as behind,
            Worker("camrt", sys.executable, "work_camrt", quiet=not settings.verbose) as ours,
        ):
            sys.stderr.write(f"{model}: building and exporting\n")
            threads = settings.threads or settings.cores
            ready = others.ask("load", {"model": model, "images": images, "onnx": str(onnx), "threads": threads})
            settings.versions.update(ready["versions"])
            channels = ours.ask("tail", {"onnx": str(onnx), "file": str(tail)})
            for worker, file in ((floor, onnx), (behind, tail), (ours, onnx)):
                worker.ask("load", {"onnx": str(file), "images": images, "threads": settings.threads})
            board = _Board(settings, model, channels, floor, behind, ours, others)
            rows += board.ablation() if model == "vgg16" else board.everything()
    return rows


class _Board:
    """One model's contenders."""

    def __init__(
        self, settings: Settings, model: str, channels: int, floor: Worker, behind: Worker, ours: Worker, others: Worker
    ) -> None:
        self._settings, self._model, self._channels = settings, model, channels
        self._floor, self._behind, self._ours, self._others = floor, behind, ours, others

    def everything(self) -> list[Row]:
        """Measure every method."""
        return [*self._score(), *self.ablation(peer=True), *self._cells(), *self._opti(), *self._targets()]

    def _score(self) -> list[Row]:
        k = self._channels
        times = self._contest(
            "scorecam",
            {
                "K forwards": _asked(self._floor, "time_rows", rows=k, batch=CHUNK),
                "camrt": _asked(self._ours, "time_once", method="scorecam", batch=1),
                "torchcam": _asked(self._others, "time_once", library="torchcam", method="scorecam", batch=1),
                "pytorch-grad-cam": _asked(
                    self._others, "time_once", library="pytorch-grad-cam", method="scorecam", batch=1
                ),
                "loop": _asked(self._others, "time_loop", method="scorecam", iterations=0),
            },
        )
        return [
            self._ratio("scorecam / K bare forwards", times, "camrt", "K forwards", SCORE),
            self._ratio("torchcam / camrt, scorecam", times, "torchcam", "camrt", TORCHCAM),
            self._ratio("pytorch-grad-cam / camrt, scorecam", times, "pytorch-grad-cam", "camrt", PYTORCH_GRAD_CAM),
            self._ratio("one channel after the other / camrt, scorecam", times, "loop", "camrt", None),
            *self._seconds(times),
        ]

    def ablation(self, *, peer: bool = False) -> list[Row]:
        """
        Measure Ablation-CAM.

        Parameters
        ----------
        peer : bool
            Whether pytorch-grad-cam takes part.

        Returns
        -------
        list of Row
            The figures.
        """
        k = self._channels
        forward = _asked(self._floor, "time_rows", rows=1, batch=1, calls=SHORT)
        tail = _asked(self._behind, "time_rows", rows=k, batch=min(k, TAIL_CHUNK))
        turns = {
            "forward + K tails": lambda: forward() + tail(),
            "camrt": _asked(self._ours, "time_once", method="ablationcam", batch=1, calls=SHORT if peer else 1),
        }
        if peer:
            asked = {"library": "pytorch-grad-cam", "method": "ablationcam", "batch": 1}
            turns["pytorch-grad-cam"] = _asked(self._others, "time_once", **asked)
        times = self._contest("ablationcam", turns)
        rows = [self._ratio("ablationcam / (forward + K tails)", times, "camrt", "forward + K tails", ABLATION)]
        if peer:
            name = "pytorch-grad-cam / camrt, ablationcam"
            rows.append(self._ratio(name, times, "pytorch-grad-cam", "camrt", ABLATION_PEER))
        return [*rows, *self._seconds(times)]

    def _cells(self) -> list[Row]:
        forward = _asked(self._floor, "time_rows", rows=1, batch=1, calls=SHORT)
        tail = _asked(self._behind, "time_rows", rows=49, batch=49, calls=SHORT)
        times = self._contest(
            "reciprocam",
            {
                "forward + Z tails": lambda: forward() + tail(),
                "camrt": _asked(self._ours, "time_once", method="reciprocam", batch=1, calls=SHORT),
            },
        )
        rows = [self._ratio("reciprocam / (forward + Z tails)", times, "camrt", "forward + Z tails", ABLATION)]
        return [*rows, *self._seconds(times)]

    def _opti(self) -> list[Row]:
        options = {"iters": ITERATIONS}
        times = self._contest(
            "opticam",
            {
                "camrt": _asked(self._ours, "time_once", method="opticam", batch=1, options=options),
                "loop": _asked(self._others, "time_loop", method="opticam", iterations=ITERATIONS),
            },
        )
        return [
            self._ratio(f"PyTorch loop / camrt, opticam, {ITERATIONS} iterations", times, "loop", "camrt", LOOP),
            *self._seconds(times),
        ]

    def _targets(self) -> list[Row]:
        rows = []
        for method, calls in (("scorecam", 1), ("ablationcam", SHORT), ("reciprocam", SHORT)):
            asked = {"method": method, "batch": 1, "calls": calls}
            times = self._contest(
                f"{method}, five targets",
                {
                    "one target": _asked(self._ours, "time_once", target=[0], **asked),
                    "five targets": _asked(self._ours, "time_once", target=TARGETS, **asked),
                },
            )
            rows.append(self._ratio(f"five targets / one, {method}", times, "five targets", "one target", FIVE))
            rows += self._seconds(times)
        return rows

    def _contest(self, what: str, turns: Mapping[str, _Turn]) -> dict[str, list[float]]:
        """Let contenders take turns."""
        sys.stderr.write(f"{self._model}, {what}: {', '.join(turns)}, {self._settings.rounds} rounds\n")
        return contest(turns, self._settings.rounds)

    def _ratio(self, figure: str, times: Mapping[str, list[float]], above: str, below: str, goal: Goal | None) -> Row:
        return Row("masked", self._model, 1, figure, "x", spread(ratios(times[above], times[below])), goal)

    def _seconds(self, times: Mapping[str, list[float]]) -> list[Row]:
        made = partial(Row, "masked", self._model, 1)
        return [made(f"  {name}", "ms", spread([1e3 * s for s in seconds])) for name, seconds in times.items()]


def growth(settings: Settings, onnx: Path) -> list[Row]:
    """
    Measure how the time of Score-CAM grows with the images and with the channels.

    Parameters
    ----------
    settings : Settings
        What to measure.
    onnx : Path
        A model; `run` leaves its models in the folder.

    Returns
    -------
    list of Row
        Seconds by what was asked, each above the smallest.
    """
    images = write_images(settings.folder, (4, 3, SIDE, SIDE))
    made = partial(Row, "masked", onnx.stem)
    with Worker("camrt", sys.executable, "work_camrt", quiet=not settings.verbose) as ours:
        ours.ask("load", {"onnx": str(onnx), "images": images, "threads": settings.threads})
        most = ours.ask("channels", {})
        counts = [count for count in (32, 64, 128, 256) if count < most]

        def turn(batch: int, count: int) -> _Turn:
            options = {"max_n": count}
            return _asked(ours, "time_once", method="fasterscorecam", batch=batch, options=options)

        turns = {f"1 x {count}": turn(1, count) for count in counts}
        turns |= {f"{n} x {counts[0]}": turn(n, counts[0]) for n in (2, 4)}
        sys.stderr.write(f"{onnx.stem}, growth: {', '.join(turns)}, {settings.rounds} rounds\n")
        times = contest(turns, settings.rounds)
    smallest = f"1 x {counts[0]}"
    return [
        made(
            int(name.split()[0]),
            f"images x channels {name} / {smallest}",
            "x",
            spread(ratios(seconds, times[smallest])),
        )
        for name, seconds in times.items()
        if name != smallest
    ]


def memory(settings: Settings, onnx: Path) -> list[Row]:
    """
    Measure the memory of Score-CAM above the opened model, and whether it grows.

    Parameters
    ----------
    settings : Settings
        What to measure.
    onnx : Path
        A model or a bundle.

    Returns
    -------
    list of Row
        Megabytes.
    """
    images = write_images(settings.folder, (4, 3, SIDE, SIDE))
    made = partial(Row, "masked", onnx.stem, 1)
    asked = {"onnx": str(onnx), "images": images, "method": "scorecam"}
    with Worker("camrt", sys.executable, "work_camrt", quiet=not settings.verbose) as ours:
        sys.stderr.write(f"{onnx.stem}, memory: one whole Score-CAM\n")
        whole = ours.ask("peak", {**asked, "calls": 1, "forwards": None})
    with Worker("camrt", sys.executable, "work_camrt", quiet=not settings.verbose) as ours:
        sys.stderr.write(f"{onnx.stem}, memory: {HELD} images of {FORWARDS} forwards\n")
        held = ours.ask("peak", {**asked, "calls": HELD, "forwards": FORWARDS})
    stated = Goal(whole["stated"], most=True)
    return [
        made("  the opened model", "MB", spread([whole["model"]])),
        made("whole scorecam, added at most", "MB", spread([whole["added"]]), ADDED),
        made("  the same, against what was stated", "MB", spread([whole["added"]]), stated),
        made(f"  held after each tenth of {HELD} images", "MB", spread(held["after"])),
        made(
            f"growth over the last nine tenths of {HELD} images", "MB", spread([held["after"][-1] - held["after"][0]])
        ),
    ]


def _asked(worker: Worker, what: str, **arguments: Any) -> _Turn:
    """Return a turn: one request, for the median seconds of its calls."""
    return lambda: median(worker.ask(what, arguments))
