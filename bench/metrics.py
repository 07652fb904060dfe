"""
The suite ``metrics``: judging heatmaps, against as many bare forwards, the libraries that have the metric, and plain loops.

In: settings, as in `bench.gradient`. Out: rows, and how nearly the values are the same, which is checked before anything is
timed. Everybody judges the same maps of the same pictures: camrt's Grad-CAM, its pixels spaced evenly where only their order
counts, because libraries treat equal ones differently; and adds the same noise. A floor is what a metric cannot do without: so many bare
forwards in batches of plain ONNX Runtime, and for those that explain again so many explanations. Only ADCC's set begins
with the picture and makes its maps itself, on both sides.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from .contest import contest, ratios, spread
from .gradient import SIDE, Settings, write_images
from .masked import CHUNK
from .report import Agreement, Goal, Row
from .stopwatch import burst_length
from .wire import Worker, WorkerError

__all__ = ["CASES", "Case", "Judge", "apart", "evenly", "run"]

MODELS = ("resnet18", "mobilenet_v2")
IMAGES = 4
NEAR = 1e-3  # of the largest number; other definitions miss by far
FLOOR, SAME = Goal(1.10, most=True), Goal(1.0, most=True)
SAMPLES = 10
NOISE = {"uniform": 0.02, "gaussian": 0.2}  # of camrt's max-sensitivity and infidelity

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Judge:
    """
    Who else has a metric.

    Attributes
    ----------
    name : str
        As in tables.
    key : str
        As `bench.work_judges` calls it.
    goal : Goal
        Its time over camrt's.
    """

    name: str
    key: str
    goal: Goal = field(default_factory=lambda: Goal(1.0, most=False))


@dataclass(frozen=True)
class Case:
    """
    What is judged, by whom.

    Attributes
    ----------
    name : str
        As in tables.
    words : tuple of str
        camrt's metrics.
    judges : tuple of Judge
        The others.
    compared : tuple of str
        camrt's metrics where values are compared, if others: without noise, or at the points that both have.
    images : int
        How many pictures at a time.
    maps : {"evenly", "drawn", None}
        Which maps are given; with none, each side makes its own.
    skipped : int
        Points at the beginning of camrt's curve that the others lack.
    """

    name: str
    words: tuple[str, ...]
    judges: tuple[Judge, ...]
    compared: tuple[str, ...] = ()
    images: int = 1
    maps: str | None = "evenly"
    skipped: int = 0


CASES = (
    Case(
        "insertion + deletion, 20 steps",
        ("insertion:torchcam", "deletion:torchcam"),
        (Judge("torch-cam", "torchcam", Goal(3.0, most=False)),),
    ),
    Case(
        "insertion + deletion, 224 steps",
        ("insertion", "deletion"),
        (Judge("RISE's loop", "rise"),),
    ),
    Case(
        "ROAD combined",
        ("road:pytorch-grad-cam",),
        (Judge("pytorch-grad-cam", "road", Goal(20.0, most=False)),),
        compared=("road:pytorch-grad-cam,noise=0",),
    ),
    Case(
        "AD, AI, AG, coherency, complexity, ADCC",
        ("average_drop", "average_increase", "average_gain", "coherency", "complexity", "adcc"),
        (Judge("a loop over pictures", "adcc"),),
        images=IMAGES,
        maps=None,
    ),
    Case(
        "pixel flipping, 48 steps",
        ("pixel_flipping:quantus,steps=48",),
        (Judge("Quantus", "flipping"),),
        compared=("pixel_flipping:quantus,steps=16",),
        skipped=1,
    ),
    Case("infidelity, 10 samples", ("infidelity",), (Judge("captum", "infidelity"),), images=IMAGES, maps="drawn"),
    Case(
        "max-sensitivity, 10 samples",
        ("max_sensitivity",),
        (Judge("Quantus", "sensitivity_quantus"), Judge("captum", "sensitivity_captum")),
        images=IMAGES,
        maps="drawn",
    ),
    Case("sparseness", ("sparseness",), (Judge("Quantus", "sparseness"),), images=IMAGES, maps="drawn"),
)


def run(settings: Settings, peers: str) -> tuple[list[Row], list[Agreement]]:
    """
    Measure metrics on torchvision's architectures.

    Parameters
    ----------
    settings : Settings
        What to measure; models, methods and batches are left aside.
    peers : str
        The interpreter of the peers' environment.

    Returns
    -------
    rows : list of Row
        The figures.
    agreed : list of Agreement
        How nearly the values are the same.

    Raises
    ------
    WorkerError
        If a library fails, or values disagree; nothing is timed then.
    """
    rows: list[Row] = []
    agreed: list[Agreement] = []
    images = write_images(settings.folder, (IMAGES, 3, SIDE, SIDE))
    for model in MODELS:
        onnx = settings.folder / f"{model}.onnx"
        with (
            Worker("the peers' worker", peers, "work_judges", quiet=not settings.verbose) as others,
            Worker("the bare forward", sys.executable, "work_forward", quiet=not settings.verbose) as floor,
            Worker("camrt", sys.executable, "work_metrics", quiet=not settings.verbose) as ours,
        ):
            sys.stderr.write(f"{model}: building and exporting\n")
            threads = settings.threads or settings.cores
            ready = others.ask("load", {"model": model, "images": images, "onnx": str(onnx), "threads": threads})
            settings.versions.update(ready["versions"])
            for worker in (floor, ours):
                worker.ask("load", {"onnx": str(onnx), "images": images, "threads": settings.threads})
            board = _Board(settings, model, floor, ours, others)
            agreed += [near for case in CASES for near in board.agreements(case)]
            rows += [row for case in CASES for row in board.rows(case)]
    return rows, agreed


def evenly(maps: Array, seed: int = 0) -> npt.NDArray[np.float32]:
    """
    Space the pixels of maps evenly, in their order; equal ones fall in a random one.

    Parameters
    ----------
    maps : ndarray, shape (N, H, W)
        Any values.
    seed : int
        Of that order.

    Returns
    -------
    ndarray of float32, shape (N, H, W)
        Each map's values are 0, 1 / (H W - 1) and so on to 1.

    Examples
    --------
    >>> evenly(np.array([[[5.0, 7.0, 6.0]]]))
    array([[[0. , 1. , 0.5]]], dtype=float32)
    """
    flat = maps.reshape(len(maps), -1)
    places = np.empty(flat.shape, np.int64)
    ties = np.random.default_rng(seed).permutation(flat.shape[1])
    for place, one in zip(places, flat, strict=True):
        place[np.lexsort((ties, one))] = np.arange(flat.shape[1])
    return (places / np.float64(flat.shape[1] - 1)).astype(np.float32).reshape(maps.shape)


def apart(ours: Mapping[str, Array], theirs: Mapping[str, Array], skipped: int = 0) -> float:
    """
    Say how far values are apart.

    Parameters
    ----------
    ours, theirs : mapping of str to ndarray
        Values by name; all of theirs are compared.
    skipped : int
        Points at the beginning of our curves that theirs lack.

    Returns
    -------
    float
        The largest difference, each as a share of the largest number of its name; of zeros, the difference itself. NaN
        where there is one.

    Raises
    ------
    KeyError
        If we lack a name.
    ValueError
        If there are not as many of one name.

    Examples
    --------
    >>> apart({"a": np.array([1.0, 4.0]), "b": np.zeros(1)}, {"a": np.array([1.0, 5.0])})
    0.2
    """
    apart_by = [0.0]
    for name, theirs_ in theirs.items():
        mine = ours[name][..., skipped:]
        if mine.shape != theirs_.shape:
            raise ValueError(f"{name}: {mine.shape} values of camrt cannot be compared with {theirs_.shape}")
        scale = float(np.abs(theirs_).max()) or 1.0
        apart_by.append(float(np.abs(mine - theirs_).max()) / scale)
    return float(np.max(apart_by))  # of NaN it is NaN


class _Board:
    """One model's contenders."""

    def __init__(self, settings: Settings, model: str, floor: Worker, ours: Worker, others: Worker) -> None:
        self._settings, self._model = settings, model
        self._floor, self._ours, self._others = floor, ours, others
        self._maps = {name: str(settings.folder / f"{model}-{name}.npy") for name in ("drawn", "evenly")}
        ours.ask("heatmaps", {"file": self._maps["drawn"]})
        np.save(self._maps["evenly"], evenly(np.load(self._maps["drawn"])))
        self._noise = {kind: settings.folder / f"{model}-{kind}.npy" for kind in NOISE}
        for kind, file in self._noise.items():
            asked = {"kind": kind, "scale": NOISE[kind], "samples": SAMPLES, "images": IMAGES, "file": str(file)}
            ours.ask("noise", asked)

    def agreements(self, case: Case) -> list[Agreement]:
        """
        Compare values; stop where they differ.

        Parameters
        ----------
        case : Case
            What is judged.

        Returns
        -------
        list of Agreement
            One for each other judge.

        Raises
        ------
        WorkerError
            If values disagree.
        """
        found = []
        mine, theirs = (self._settings.folder / f"{side}.npz" for side in ("ours", "theirs"))
        self._ours.ask("values", {**self._asked(case, case.compared or case.words), "file": str(mine)})
        self._give(case)
        for judge in case.judges:
            self._others.ask("values", {"judge": judge.key, "file": str(theirs)})
            difference = apart(dict(np.load(mine)), dict(np.load(theirs)), case.skipped)
            sys.stderr.write(f"{self._model} {case.name}: like {judge.name} but for {difference:.1e}\n")
            if not difference <= NEAR:
                raise WorkerError(
                    f"{case.name} on {self._model} is not what {judge.name} says (largest difference {difference:.1e} of "
                    "the largest number): nothing is timed"
                )
            found.append(Agreement(self._model, case.name, judge.name, None, difference, 0, case.images))
        return found

    def rows(self, case: Case) -> list[Row]:
        """
        Count what is run, and let all take turns.

        Parameters
        ----------
        case : Case
            What is judged.

        Returns
        -------
        list of Row
            The figures.
        """
        asked = self._asked(case, case.words)
        counts = self._ours.ask("count", asked)
        self._give(case)
        turns = {"camrt": _turn(self._ours, "time", asked)}
        needed = [f"{n} {what}" for what, (_, n) in counts.items() if n]
        floor = " + ".join(needed)
        if needed:
            turns["floor"] = self._floor_of(counts)
        turns |= {judge.name: _turn(self._others, "time", {"judge": judge.key}) for judge in case.judges}
        sys.stderr.write(f"{self._model}, {case.name}: {', '.join(turns)}, {self._settings.rounds} rounds\n")
        times = contest(turns, self._settings.rounds)
        row = partial(Row, "metrics", self._model, case.images)
        found = [
            row(f"{what} run / needed, {case.name}", "x", spread([ran / n]), SAME)
            for what, (ran, n) in counts.items()
            if n
        ]
        if needed:
            gained = spread(ratios(times["camrt"], times["floor"]))
            found.append(row(f"{case.name} / {floor}", "x", gained, FLOOR))
        for judge in case.judges:
            gained = spread(ratios(times[judge.name], times["camrt"]))
            found.append(row(f"{judge.name} / camrt, {case.name}", "x", gained, judge.goal))
        found += [row(f"  {name}, {case.name}", "ms", spread([1e3 * s for s in t])) for name, t in times.items()]
        return found

    def _floor_of(self, counts: Mapping[str, Sequence[int]]) -> Callable[[], float]:
        """Return a turn of what cannot be done without."""
        forwards, explanations = counts["forwards"][1], counts["explanations"][1]
        parts = []
        if forwards:
            parts.append(_turn(self._floor, "time_rows", {"rows": forwards, "batch": min(forwards, CHUNK)}))
        if explanations:
            parts.append(_turn(self._ours, "time_explanations", {"rows": explanations}))
        return lambda: sum(part() for part in parts)

    def _asked(self, case: Case, words: Sequence[str]) -> dict[str, object]:
        """Say what camrt is to judge."""
        return {"words": list(words), "images": case.images, "maps": case.maps and self._maps[case.maps]}

    def _give(self, case: Case) -> None:
        """Hand the others what they judge."""
        noise = {kind: str(file) for kind, file in self._noise.items()}
        self._others.ask("given", {"images": case.images, "maps": case.maps and self._maps[case.maps], "noise": noise})


def _turn(worker: Worker, what: str, asked: Mapping[str, object]) -> Callable[[], float]:
    """Return a turn: the median of as many calls as a first one says, one where it takes long."""
    calls = burst_length(worker.ask(what, {**asked, "calls": 1})[0])
    return lambda: float(median(worker.ask(what, {**asked, "calls": calls})))
