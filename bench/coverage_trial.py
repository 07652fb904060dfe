"""
One model of the suite ``coverage``: made, opened by camrt, run, and held against autograd.

In: a case and a folder. Out: a record, whatever happens. Two processes do the work, one that knows the model's source
(torch, or the file and an interpreter of it) and one that runs camrt; both have limits on time and memory, and here
their answers meet. What the source said and wrote stays in the folder; a later trial there asks camrt alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from . import pictures
from .coverage_cases import Case
from .coverage_figures import BEST, COSINE, FLOORS, HALF_PARITY, LAYER, PARITY, SLOPE, cosines, errors
from .wire import Worker, WorkerError

__all__ = ["Trial", "attempt", "verdict"]

MAKE_S, OPEN_S, RUN_S, AUTOGRAD_S = 2400.0, 900.0, 1200.0, 3600.0


@dataclass(frozen=True)
class Trial:
    """
    One model to try, and where.

    Attributes
    ----------
    case : Case
        The model.
    folder : Path
        Its own folder.
    interpreter : str
        The Python that knows its source.
    file : Path or None
        The file, for a model that is one.
    quiet : bool
        Keep the processes' standard error from sight.
    """

    case: Case
    folder: Path
    interpreter: str
    file: Path | None = None
    quiet: bool = True


class _Source:
    """The process that knows the model's source, started when it is first asked."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._worker: Worker | None = None

    def ask(self, do: str, arguments: Mapping[str, object], seconds: float) -> Any:
        """Ask for one thing."""
        if self._worker is None:
            trial, case = self._trial, self._trial.case
            module = "coverage_torch" if case.exporter else "coverage_onnx"
            self._worker = Worker("the source", trial.interpreter, module, quiet=trial.quiet)
            what: dict[str, object] = {"origin": case.origin, "name": case.name, "folder": str(trial.folder)}
            what |= {"size": case.size} if case.exporter else {"file": str(trial.file), "images": case.images}
            self._worker.ask("take", what, MAKE_S)
        return self._worker.ask(do, arguments, seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.__exit__(kind, error, trace)


def attempt(trial: Trial) -> dict[str, Any]:
    """
    Try a model.

    Parameters
    ----------
    trial : Trial
        The model, and where.

    Returns
    -------
    dict
        Its record: ``status`` is ``"right"``, or what is missed, or the step that failed with a ``reason``.
    """
    case, folder = trial.case, trial.folder
    record: dict[str, Any] = {"origin": case.origin, "name": case.name, "exporter": case.exporter, "size": case.size}
    record["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
    start = time.perf_counter()
    stage = "not made"
    try:
        with _Source(trial) as source:
            made = _make(source, trial)
            record |= {name: value for name, value in made.items() if name not in ("onnx", "as_given")}
            stage = "refused"
            with Worker("camrt", sys.executable, "coverage_camrt", quiet=trial.quiet) as ours:
                if "as_given" in made:  # weights were drawn: the file itself is to open as well
                    ours.ask("open", {"onnx": made["as_given"]}, OPEN_S)
                record |= ours.ask("open", {"onnx": made["onnx"]}, OPEN_S)
                stage = "failed"
                asked = {"folder": str(folder), "targets": _targets(case, record["classes"])}
                ours.ask("run", asked, RUN_S)
                stage = "not judged"
                record |= _judge(source, ours, record["layer"], folder)
        record["status"] = verdict(record)
    except (WorkerError, ValueError, OSError) as error:
        record |= {"status": stage, "reason": " ".join(str(error).split())[:400]}
    return record | {"seconds": round(time.perf_counter() - start, 1)}


def _targets(case: Case, classes: int) -> list[int]:
    """
    Return what is explained: the predicted class of half the images, whatever class of the others.

    Light graphs are asked for predicted classes alone: the scores of some end in a ReLU, and drawn weights leave the others
    at zero.
    """
    half = case.images if case.origin == "light" else case.images // 2
    return [-1] * half + [i % classes for i in range(1, case.images - half + 1)]


def _make(source: _Source, trial: Trial) -> dict[str, Any]:
    """Let the source make the model and its scores, unless they are there."""
    kept = trial.folder / "made.json"
    if not kept.exists():
        case = trial.case
        asked: dict[str, object] = {}
        if case.exporter:
            np.save(trial.folder / "images.npy", pictures.batch((case.images, 3, case.size, case.size)))
            asked = {"exporter": case.exporter, "opset": case.opset}
        kept.write_text(json.dumps(source.ask("make", asked, MAKE_S)), "utf-8")
    made: dict[str, Any] = json.loads(kept.read_text("utf-8"))
    return made


def _judge(source: _Source, ours: Worker, layer: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Compare what camrt gave with the source's scores and with its autograd, or with differences where it has none."""
    found, answer, scores = np.load(folder / "found.npz"), folder / "answer.npz", np.load(folder / "scores.npy")
    off = np.abs(found["logits"].astype(np.float64) - scores.reshape(found["logits"].shape))
    figures: dict[str, Any] = {"forward": float(off.max() / np.abs(scores).max())}
    if not _is_answer(answer, layer, found["explained"]) and not source.ask("gradients", {"layer": layer}, AUTOGRAD_S):
        return figures | {"oracle": "differences", "slope": ours.ask("slope", {"folder": str(folder)}, RUN_S)}
    truth = np.load(answer)
    for place in [name for name in ("layer", "image") if name in found]:  # whole numbers have no gradient at the image
        got, exact, rough = found[place], truth[f"exact_{place}"], truth[f"rough_{place}"]
        error, floor = errors(got, exact), errors(rough, exact)
        figures |= {
            f"{place}_error": float(error.max()),
            f"{place}_best": float(error.min()),
            f"{place}_floor": float(floor.max()),
            f"{place}_floor_best": float(floor.min()),
            f"{place}_cosine": float(cosines(got, exact).min()),
            f"{place}_floor_cosine": float(cosines(rough, exact).min()),
        }
    return figures


def _is_answer(file: Path, layer: Mapping[str, Any], explained: Any) -> bool:
    """Tell whether a file holds what autograd says of this layer and these classes."""
    if not file.exists():
        return False
    kept = np.load(file)
    return str(kept["of"]) == layer["name"] and np.array_equal(kept["explained"], explained)


def verdict(record: Mapping[str, Any]) -> str:
    """
    Hold a record's figures against the limits.

    Parameters
    ----------
    record : mapping
        With the figures of `attempt`.

    Returns
    -------
    str
        ``"right"``, or what is missed.
    """
    parity = HALF_PARITY if record.get("input", {}).get("dtype") == "float16" else PARITY
    met = {"forward": record["forward"] <= parity}
    if "slope" in record:
        met["slope"] = record["slope"] <= SLOPE
    else:
        kinked = (
            record["layer_best"] <= LAYER and record["layer_cosine"] >= COSINE
        )  # a maximum or a ReLU lies behind it
        met["layer"] = record["layer_error"] <= LAYER or kinked
    if "image_best" in record:
        met["image"] = record["image_best"] <= max(BEST, FLOORS * record["image_floor_best"])
        met["cosine"] = record["image_cosine"] >= COSINE
    missed = [name for name, is_met in met.items() if not is_met]
    return "right" if not missed else f"missed: {', '.join(missed)}"
