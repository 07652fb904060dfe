"""One version from its files to a model that answers, and why it may not get there."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.demo import HELD_OUT, MODEL, draw
from camrt.errors import BundleError, InputError, NumericError
from camrt.export.bundle import WEIGHTS
from camrt.export.write import export
from camrt.server import loading, preparing
from camrt.server.loading import open_version, why
from camrt.server.prepared import sweep
from camrt.server.repository import Entry, find
from camrt.server.served import Served
from camrt.server.settings import Settings
from tests import tiny
from tests.engine.server.models import seal, write_bundle

STOP = threading.Event()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Return a repository of a bundle and a raw model."""
    write_bundle(tmp_path / "repo" / "bundle" / "1", 1)
    (tmp_path / "repo" / "raw" / "1").mkdir(parents=True)
    (tmp_path / "repo" / "raw" / "1" / "model.onnx").write_bytes(tiny.mlp(seed=1))
    return tmp_path / "repo"


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Let nothing be freed but what nobody holds."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def opened(repo: Path, name: str, **settings: Any) -> Served:
    """Open the only version of a model."""
    return open_version(find(repo, name), Settings(repository=repo, **settings), STOP)


def prepare_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let raw models be prepared without a process."""
    monkeypatch.setattr(
        preparing, "_run", lambda folder, out, *_: export((folder / "model.onnx").read_bytes(), out / "bundle")
    )


def test_a_bundle_is_opened_and_warmed_up_and_answers_as_the_engine_does(repo: Path) -> None:
    served = opened(repo, "bundle", warm=("gradcam", "scorecam"), batch=2)
    x = tiny.images()
    np.testing.assert_array_equal(served.explainer.logits(x), camrt.load(repo / "bundle" / "1").logits(x))
    assert (served.name, served.version) == ("bundle", "1")
    assert served.rate > 0 and served.load_seconds > 0


def test_what_the_settings_say_reaches_the_model_and_its_warming_up(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    real = loading.load

    def noted(source: Any, **given: Any) -> Any:
        seen.update(given)
        return real(source, **given)

    monkeypatch.setattr(loading, "load", noted)
    monkeypatch.setattr(loading, "warm", lambda explainer, methods, batch: seen.update(warm=(methods, batch)) or 12.5)
    served = opened(repo, "bundle", threads=1, memory="10MB", warm=("fem",), batch=3)
    assert seen == {
        "providers": "cpu", "precision": "float32", "threads": 1, "threads_beside": None, "memory": "10MB",
        "warm": (("fem",), 3),
    }  # fmt: skip
    assert served.rate == 12.5


def test_the_embedded_model_needs_no_repository() -> None:
    served = open_version(Entry("camrt-demo", 1, MODEL), Settings(), STOP)
    picture = draw(HELD_OUT, (3,)).image
    np.testing.assert_array_equal(served.explainer.logits(picture), camrt.load(MODEL).logits(picture))


def test_a_raw_model_is_served_only_where_it_may_be_prepared(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_here(monkeypatch)
    with pytest.raises(InputError, match="set prepare"):
        opened(repo, "raw")
    x, want = tiny.images(), camrt.load(tiny.mlp(seed=1)).logits(tiny.images())
    np.testing.assert_allclose(opened(repo, "raw", prepare=True).explainer.logits(x), want, atol=1e-5)
    cache = repo.parent / "cache"
    np.testing.assert_allclose(opened(repo, "raw", prepare=True, cache=cache).explainer.logits(x), want, atol=1e-5)
    assert len(list(cache.iterdir())) == 1


def test_a_prepared_bundle_is_held_until_its_model_ends(
    repo: Path, monkeypatch: pytest.MonkeyPatch, uncollected: None
) -> None:
    prepare_here(monkeypatch)
    settings = Settings(repository=repo, prepare=True)
    served = open_version(find(repo, "raw"), settings, STOP)
    (bundle,) = (repo / "raw").glob(".prepared-*")
    (repo / "raw" / "1" / "model.onnx").write_bytes(tiny.mlp(seed=2))
    sweep(settings)  # as another server does that has loaded the new one
    heat = served.explainer.explain(tiny.images(), method="hirescam").heatmaps  # whose program was not opened yet
    want = camrt.load(tiny.mlp(seed=1)).explain(tiny.images(), method="hirescam").heatmaps
    np.testing.assert_allclose(heat, want, atol=1e-5)
    ended = weakref.ref(served.explainer)
    del served
    assert ended() is None
    sweep(settings)
    assert not bundle.exists()


def test_one_that_fails_holds_nothing(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_here(monkeypatch)

    def broken(*_: object) -> float:
        raise NumericError("the model gives NaN")

    monkeypatch.setattr(loading, "warm", broken)
    opens = Path("/proc/self/fd")
    before = len(os.listdir(opens)) if opens.is_dir() else 0
    with pytest.raises(NumericError):
        opened(repo, "raw", prepare=True)
    assert not before or len(os.listdir(opens)) == before
    (repo / "raw" / "1" / "model.onnx").write_bytes(b"another")
    sweep(Settings(repository=repo, prepare=True))
    assert not list((repo / "raw").glob(".pre*"))


def test_forged_and_broken_bundles_are_not_opened(repo: Path) -> None:
    folder = repo / "bundle" / "1"
    (folder / WEIGHTS).write_bytes(np.full((folder / WEIGHTS).stat().st_size // 4, np.nan, "f4").tobytes())
    with pytest.raises(BundleError, match="altered"):
        opened(repo, "bundle")
    seal(folder)
    with pytest.raises(NumericError, match="NaN"):
        opened(repo, "bundle")


def test_loading_gives_way_and_a_model_s_end_is_followed_by_a_trim(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gave: list[bool] = []
    trimmed: list[object] = []
    monkeypatch.setattr(loading, "give_way", lambda: gave.append(True))
    monkeypatch.setattr(loading, "trim_after", trimmed.append)
    assert trimmed == [opened(repo, "bundle").explainer] and gave == [True]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BundleError("cut\nshort"), "cut short"),
        (InputError("x" * 1000), "x" * 300),
        (MemoryError("of the machine"), "there is not enough memory for it"),
        (OSError(13, "Permission denied", "/secret/place"), "its files cannot be read: Permission denied"),
        (TimeoutError(), "its files cannot be read: TimeoutError"),
        (TypeError("/secret/place"), "it is not a model that can be served (TypeError)"),
    ],
)
def test_reasons_are_short_and_tell_no_paths(error: Exception, reason: str) -> None:
    assert why(error) == reason


def test_paths_in_a_reason_are_left_out() -> None:
    assert "/secret" not in why(BundleError("cannot read /secret/place/model.onnx"))
