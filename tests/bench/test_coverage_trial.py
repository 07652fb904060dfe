"""One trial of a tiny model within this process; what it says of a wrong gradient and of a model that is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from bench import coverage_trial
from bench.coverage_camrt import Judged
from bench.coverage_cases import Case
from bench.coverage_onnx import Graphs
from bench.coverage_trial import Trial, attempt, verdict
from bench.wire import WorkerError
from tests import tiny

RIGHT = {"forward": 1e-6, "layer_error": 1e-6, "layer_best": 1e-6, "layer_cosine": 1.0}
RIGHT |= {"image_best": 1e-6, "image_floor_best": 1e-7, "image_cosine": 1.0}


class Here:
    """Stands for a worker process: answers within this one."""

    spoil = ""

    def __init__(self, name: str, interpreter: str, module: str, *, quiet: bool = True) -> None:
        self._worker: Any = Judged() if module == "coverage_camrt" else Graphs()

    def ask(self, do: str, arguments: dict[str, Any] | None = None, seconds: float | None = None) -> Any:
        try:
            result = getattr(self._worker, do)(**(arguments or {}))
        except Exception as error:
            raise WorkerError(str(error)) from error
        if do == "run" and self.spoil:
            file = Path((arguments or {})["folder"]) / "found.npz"
            arrays = dict(np.load(file))
            arrays[self.spoil] = arrays[self.spoil] * 1.001
            np.savez(file, **arrays)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.setattr(coverage_trial, "Worker", Here)
    monkeypatch.setattr(Here, "spoil", "")
    (tmp_path / "tiny.onnx").write_bytes(tiny.mlp(batch=1))
    return Trial(Case("files", "tiny"), tmp_path, sys.executable, tmp_path / "tiny.onnx")


def test_a_right_model_is_right_and_says_what_is_explained(trial: Trial) -> None:
    record = attempt(trial)
    assert record["status"] == "right", record
    assert (record["layer"]["name"], record["opset"], record["classes"]) == ("a2", 17, tiny.CLASSES)
    assert 0 < record["image_error"] < 1e-4  # measured against another implementation, so never exactly the same


@pytest.mark.parametrize(("spoil", "told"), [("logits", "forward"), ("layer", "layer"), ("image", "image")])
def test_an_answer_off_by_a_thousandth_is_missed(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, spoil: str, told: str
) -> None:
    monkeypatch.setattr(Here, "spoil", spoil)
    assert attempt(trial)["status"] == f"missed: {told}"


def test_what_the_source_said_is_not_asked_again(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    first = attempt(trial)
    monkeypatch.setattr(Graphs, "take", None)
    assert attempt(trial) == first | {"seconds": pytest.approx(0, abs=1e3)}


def test_a_model_that_is_refused_has_its_reason(trial: Trial) -> None:
    first = attempt(trial)
    Path(str(trial.file)).write_bytes(b"no model")
    record = attempt(trial)
    assert (first["status"], record["status"]) == ("right", "refused")
    assert "not an ONNX model" in record["reason"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "right"),
        ({"forward": 2e-4}, "missed: forward"),
        ({"layer_error": 2e-4, "layer_best": 2e-4}, "missed: layer"),
        ({"layer_error": 2e-1, "layer_best": 1e-6, "layer_cosine": 0.99}, "missed: layer"),
        ({"layer_error": 2e-1, "layer_best": 1e-6, "layer_cosine": 0.9995}, "right"),
        ({"image_best": 2e-5}, "missed: image"),
        ({"image_best": 2e-5, "image_floor_best": 1e-5}, "right"),
        ({"image_cosine": 0.99}, "missed: cosine"),
        ({"forward": float("nan"), "image_cosine": float("nan")}, "missed: forward, cosine"),
    ],
)
def test_every_figure_has_its_limit(change: dict[str, float], told: str) -> None:
    assert verdict(RIGHT | change) == told
