"""Models are run before they are served."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from camrt import load
from camrt.errors import MethodError, NumericError
from camrt.export.bundle import WEIGHTS
from camrt.server.warming import inputs_like, sizes, warm
from tests import tiny
from tests.engine.server.models import seal, write_bundle


def test_every_program_of_a_method_is_open_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = load(tiny.gap())
    seen = []
    kept = explainer.explain
    monkeypatch.setattr(
        explainer, "explain", lambda x, **asked: seen.append((len(x), asked["method"])) or kept(x, **asked)
    )
    rate = warm(explainer, ("Grad-CAM", "scorecam"), batch=32)
    assert math.isfinite(rate) and rate > 0
    assert seen == [(n, m) for n in (1, explainer.batch) for m in ("gradcam", "scorecam")]


def test_sessions_for_runs_beside_others_are_warmed_up_too() -> None:
    explainer = load(tiny.gap(), threads=2, threads_beside=1)
    sizes_run: dict[str, list[int]] = {"alone": [], "beside": []}
    kept = explainer.sessions._session

    def session(kind: str, layers: tuple[str, ...], *, beside: bool) -> object:
        found = kept(kind, layers, beside=beside)
        place = "beside" if beside else "alone"

        def run(feeds: dict[str, np.ndarray], limits: object) -> object:
            sizes_run[place].append(len(feeds["x"]))
            return found.run(feeds, limits)

        return SimpleNamespace(run=run)

    explainer.sessions._session = session  # type: ignore[assignment]
    warm(explainer, ("gradcam",), batch=32)
    full = explainer.batch
    assert sizes_run["beside"] == [1, 1, full, full]  # logits and map
    assert sizes_run["alone"][:4] == [1, 1, full, full]  # then its pace


def test_sizes_are_one_and_a_full_run() -> None:
    explainer = load(tiny.gap())
    assert sizes(explainer, 32) == (1, explainer.batch)
    assert sizes(explainer, 2) == (1, 2)
    assert sizes(explainer, 1) == (1,)


def test_on_a_device_the_sizes_between_are_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = load(tiny.gap())
    monkeypatch.setattr(type(explainer), "running", {"providers": ["CUDAExecutionProvider"]})
    monkeypatch.setattr(explainer, "batch", 32)
    assert sizes(explainer, 32) == (1, 4, 16, 32)
    assert sizes(explainer, 20) == (1, 4, 16, 20)


def test_the_first_input_is_grey_and_the_others_are_noise() -> None:
    for explainer in (load(tiny.gap()), load(tiny.gap(), preprocess={"layout": "nchw", "color": "bands"})):
        x = inputs_like(explainer, 3)
        assert explainer.logits(x).shape == (3, tiny.CLASSES)
        assert np.ptp(x[0]) == 0 and np.ptp(x[1]) > 0 and not (x[1] == x[2]).all()


def test_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "m" / "1")
    size = (folder / WEIGHTS).stat().st_size
    (folder / WEIGHTS).write_bytes(np.full(size // 4, np.nan, "f4").tobytes())
    seal(folder)
    with pytest.raises(NumericError, match="NaN"):
        warm(load(folder), ("gradcam",), 4)


def test_a_method_that_the_model_lacks_is_passed_over(tmp_path: Path) -> None:
    explainer = load(write_bundle(tmp_path / "m" / "1", kinds=("forward",)))
    assert warm(explainer, ("gradcam", "scorecam"), 4) > 0


def test_a_method_that_does_not_exist_is_a_mistake() -> None:
    with pytest.raises(MethodError, match="gradcamm"):
        warm(load(tiny.gap()), ("gradcamm",), 4)
