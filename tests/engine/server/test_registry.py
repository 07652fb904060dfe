"""What is served, while it is loaded, replaced, broken and let go."""

from __future__ import annotations

import gc
import logging
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.demo import CLASSES, HELD_OUT, MODEL, draw
from camrt.errors import CancelledError, InputError, MethodError
from camrt.export.bundle import WEIGHTS
from camrt.export.write import export
from camrt.server import loading as module
from camrt.server import preparing
from camrt.server.faults import NotFoundError, UnreadyError, UnsupportedError
from camrt.server.registry import Registry
from camrt.server.settings import Settings
from tests import tiny
from tests.engine.server.models import seal, write_bundle

LONG = 120  # seconds that a thread is waited for at most


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return three bundles, called by their seeds, that are copied, never changed."""
    folder = tmp_path_factory.mktemp("made")
    for seed in (1, 2, 3):
        write_bundle(folder / str(seed), seed)
    return folder


@pytest.fixture
def repo(made: Path, tmp_path: Path) -> Path:
    """Return a repository with one model of version 1."""
    put(made, tmp_path / "repo", "m", 1)
    return tmp_path / "repo"


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Let nothing be freed but what nobody holds."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def put(made: Path, repo: Path, name: str, version: int, seed: int | None = None) -> Path:
    """Copy a bundle into a repository; of the seed that its version says unless told otherwise."""
    shutil.copytree(made / str(seed or version), repo / name / str(version))
    return repo / name / str(version)


def damage(folder: Path) -> None:
    """Make a bundle one that gives NaN, its hashes right."""
    size = (folder / WEIGHTS).stat().st_size
    (folder / WEIGHTS).write_bytes(np.full(size // 4, np.nan, "f4").tobytes())
    seal(folder)


def opened(repo: Path | None, **settings: Any) -> Registry:
    """Return a registry that has loaded what its settings say."""
    registry = Registry(Settings(repository=repo, **settings))
    registry.open()
    return registry


def explicit(repo: Path, *load: str) -> Registry:
    """Return a registry that loads on request."""
    return opened(repo, control="explicit", load=load)


def logits(registry: Registry, name: str = "m", version: str | None = None) -> np.ndarray[Any, Any]:
    """Return what a model says of the same three images."""
    with registry.lease(name, version) as lease:
        return lease.served.explainer.logits(tiny.images())


def said(registry: Registry) -> dict[tuple[str, str], tuple[str, str]]:
    """Return state and reason of everything in the index."""
    return {(row["name"], row["version"]): (row["state"], row["reason"]) for row in registry.index()}


@pytest.fixture(scope="module")
def expected(made: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return what the bundles say of those images, by version."""
    return {str(seed): camrt.load(made / str(seed)).logits(tiny.images()) for seed in (1, 2, 3)}


# what is served ---------------------------------------------------------------------------------------------------


def test_the_embedded_model_is_served_where_there_is_no_repository() -> None:
    registry = Registry(Settings())
    assert not registry.ready
    with pytest.raises(UnreadyError, match="being loaded"):
        registry.lease("camrt-demo")
    registry.open()
    assert registry.ready and registry.is_ready("camrt-demo") and registry.is_ready("camrt-demo", "1")
    assert registry.index() == [{"name": "camrt-demo", "version": "1", "state": "READY", "reason": ""}]
    picture = draw(HELD_OUT, (3,)).image
    with registry.lease("camrt-demo", "1") as lease:
        served = lease.served
        assert served.rate > 0 and served.load_seconds > 0 and len(served.explainer.labels) == len(CLASSES)
        np.testing.assert_array_equal(served.explainer.logits(picture), camrt.load(MODEL).logits(picture))
    with pytest.raises(UnsupportedError, match="control=explicit"):
        registry.load("camrt-demo")


def test_every_model_is_served_in_its_highest_version(
    made: Path, repo: Path, expected: dict[str, np.ndarray[Any, Any]]
) -> None:
    put(made, repo, "m", 2)
    put(made, repo, "other", 10, seed=3)
    put(made, repo, "other", 9, seed=1)
    registry = opened(repo)
    assert registry.ready and registry.names() == ["m", "other"] and registry.versions("other") == ["10"]
    np.testing.assert_array_equal(logits(registry), expected["2"])
    np.testing.assert_array_equal(logits(registry, "other"), expected["3"])
    with pytest.raises(NotFoundError, match="version 9 of model 'other' is not served; it has 10"):
        registry.lease("other", "9")
    assert said(registry)["other", "9"] == ("UNAVAILABLE", "not loaded")
    for change in (registry.load, registry.unload):
        with pytest.raises(UnsupportedError):
            change("m")


def test_one_that_fails_does_not_keep_the_others_and_readiness_is_strict(made: Path, repo: Path) -> None:
    damage(put(made, repo, "bad", 1))
    put(made, repo, "worse", 1)
    (repo / "worse" / "1" / "forward-0.onnx").write_bytes(b"nonsense")
    (repo / "README").touch()
    (repo / "hollow").mkdir()
    registry = opened(repo)
    assert registry.names() == ["m"] and not registry.ready
    assert registry.is_ready("m") and not registry.is_ready("bad") and not registry.is_ready("hollow")
    states = said(registry)
    assert states["m", "1"] == ("READY", "")
    assert states["bad", "1"][0] == "UNAVAILABLE" and "NaN" in states["bad", "1"][1]
    assert "'forward-0.onnx'" in states["worse", "1"][1] and "altered" in states["worse", "1"][1]
    assert states["hollow", ""] == ("UNAVAILABLE", "no version is in it")
    assert "not a folder" in states["README", ""][1]
    assert not any(str(repo) in reason for _, reason in states.values())
    with pytest.raises(UnreadyError, match="could not be loaded"):
        registry.lease("bad")
    with pytest.raises(NotFoundError, match="no model 'README'"):
        registry.lease("README")


def test_a_stray_file_keeps_nobody_from_being_ready(repo: Path) -> None:
    (repo / "README").touch()
    assert opened(repo).ready


def test_an_empty_repository_is_ready_only_where_models_come_on_request(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    assert not opened(tmp_path / "repo").ready
    assert explicit(tmp_path / "repo").ready


def test_settings_that_cannot_be_meant_are_told_at_once(repo: Path, tmp_path: Path) -> None:
    for settings, error in (
        ({"repository": tmp_path / "absent"}, InputError),
        ({"repository": repo, "warm": ("gradcamm",)}, MethodError),
        ({"repository": repo, "control": "explicit", "load": ("m:v1",)}, InputError),
        ({"repository": repo, "control": "explicit", "load": ("../m",)}, InputError),
    ):
        with pytest.raises(error):
            Registry(Settings(**settings)).open()  # type: ignore[arg-type]


def test_raw_models_are_served_only_where_they_may_be_prepared(repo: Path) -> None:
    (repo / "raw" / "1").mkdir(parents=True)
    (repo / "raw" / "1" / "model.onnx").write_bytes(tiny.gap())
    assert "set prepare" in said(opened(repo))["raw", "1"][1]
    registry = opened(repo, prepare=True)
    assert registry.ready
    np.testing.assert_allclose(logits(registry, "raw"), camrt.load(tiny.gap()).logits(tiny.images()), atol=1e-5)


def test_prepared_bundles_go_when_no_server_needs_them_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uncollected: None
) -> None:
    """Two servers of one repository: one still answers with the old model when the other sweeps."""
    monkeypatch.setattr(
        preparing, "_run", lambda folder, out, *_: export((folder / "model.onnx").read_bytes(), out / "bundle")
    )
    model = tmp_path / "repo" / "raw" / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(tiny.mlp(seed=1))

    def lying() -> set[str]:
        return {path.name for path in model.parents[1].iterdir() if path.name.startswith(".")}

    settings = {"control": "explicit", "load": ("raw",), "prepare": True}
    one = opened(tmp_path / "repo", **settings)
    old = lying()
    model.write_bytes(tiny.mlp(seed=2))
    (model.parents[1] / ".preparing-interrupted").mkdir()
    other = opened(tmp_path / "repo", **settings)
    new = lying() - old
    assert len(old) == len(new) == 1 and lying() == old | new
    np.testing.assert_allclose(logits(one, "raw"), camrt.load(tiny.mlp(seed=1)).logits(tiny.images()), atol=1e-5)
    np.testing.assert_allclose(logits(other, "raw"), camrt.load(tiny.mlp(seed=2)).logits(tiny.images()), atol=1e-5)
    one.load("raw")  # now the old bundle is nobody's
    assert lying() == new
    one.close()
    other.close()
    model.write_bytes(tiny.mlp(seed=3))
    opened(tmp_path / "repo", **settings)
    assert len(lying()) == 1 and not lying() & (old | new)


def test_names_and_versions_that_are_none_are_not_found(repo: Path) -> None:
    registry = opened(repo)
    for name, version in (("..", None), ("m", "0"), ("m", "v1"), ("x" * 100, None), ("M", None), ("m", "1/../1")):
        with pytest.raises(NotFoundError):
            registry.lease(name, version)
        with pytest.raises(NotFoundError):
            registry.is_ready(name, version)


# loading and unloading --------------------------------------------------------------------------------------------


def test_loading_without_a_version_serves_the_highest_in_place_of_the_one_before(
    made: Path, repo: Path, expected: dict[str, np.ndarray[Any, Any]]
) -> None:
    registry = explicit(repo)
    assert registry.ready and registry.names() == []
    registry.load("m")
    np.testing.assert_array_equal(logits(registry), expected["1"])
    put(made, repo, "m", 2)
    np.testing.assert_array_equal(logits(registry), expected["1"])  # nothing is polled
    registry.load("m")
    assert registry.versions("m") == ["2"]
    np.testing.assert_array_equal(logits(registry), expected["2"])
    shutil.rmtree(repo / "m" / "2")
    registry.load("m")  # and back
    assert registry.versions("m") == ["1"]
    np.testing.assert_array_equal(logits(registry), expected["1"])


def test_versions_that_are_named_stand_beside_each_other(
    made: Path, repo: Path, expected: dict[str, np.ndarray[Any, Any]]
) -> None:
    put(made, repo, "m", 2)
    put(made, repo, "m", 3)
    registry = explicit(repo, "m:1", "m:2")
    assert registry.ready and registry.versions("m") == ["1", "2"]
    np.testing.assert_array_equal(logits(registry), expected["2"])
    np.testing.assert_array_equal(logits(registry, version="1"), expected["1"])
    registry.load("m")
    assert registry.versions("m") == ["1", "2", "3"]
    np.testing.assert_array_equal(logits(registry), expected["3"])
    registry.unload("m")
    assert registry.names() == [] and registry.ready  # what is unloaded on purpose is not missed
    for version in (None, "1"):
        with pytest.raises(NotFoundError):
            registry.lease("m", version)
    with pytest.raises(NotFoundError, match="not loaded"):
        registry.unload("m")


def test_a_broken_version_leaves_the_old_one_answering(
    made: Path, repo: Path, expected: dict[str, np.ndarray[Any, Any]]
) -> None:
    registry = explicit(repo, "m")
    damage(put(made, repo, "m", 2))
    with pytest.raises(InputError, match="model 'm' version 2 could not be loaded: the model gives NaN"):
        registry.load("m")
    assert registry.ready and registry.versions("m") == ["1"]
    np.testing.assert_array_equal(logits(registry), expected["1"])
    assert said(registry)["m", "2"][0] == "UNAVAILABLE" and "NaN" in said(registry)["m", "2"][1]
    shutil.rmtree(repo / "m")
    with pytest.raises(NotFoundError, match="holds no model"):
        registry.load("m")
    np.testing.assert_array_equal(logits(registry), expected["1"])


def test_loading_a_version_again_that_was_broken_leaves_the_one_in_memory(
    repo: Path, expected: dict[str, np.ndarray[Any, Any]]
) -> None:
    registry = explicit(repo, "m")
    shutil.move(repo / "m" / "1", repo / "aside")
    shutil.copytree(repo / "aside", repo / "m" / "1")  # new files; those that are open stay
    damage(repo / "m" / "1")
    with pytest.raises(InputError, match="NaN"):
        registry.load("m")
    state, reason = said(registry)["m", "1"]
    assert state == "READY" and "NaN" in reason
    np.testing.assert_array_equal(logits(registry), expected["1"])


def test_what_is_not_there_cannot_be_loaded(repo: Path) -> None:
    registry = explicit(repo)
    for name, version in (("x", None), ("m", "2"), ("../m", None), ("m", "../1"), ("camrt-demo", None)):
        with pytest.raises(NotFoundError):
            registry.load(name, version)
    assert not registry._turns  # a stranger's names leave nothing behind


def test_a_bug_while_loading_is_told_without_its_text(
    repo: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry = explicit(repo)

    def broken(*_: Any, **__: Any) -> None:
        raise TypeError("/secret/place holds 'xyz'")

    monkeypatch.setattr(module, "load", broken)
    with caplog.at_level(logging.ERROR), pytest.raises(InputError) as caught:
        registry.load("m")
    assert "secret" not in str(caught.value) and "TypeError" in str(caught.value)
    assert "secret" not in str(registry.index()) and "secret" in caplog.text


# while models are loaded ------------------------------------------------------------------------------------------


class Gate:
    """Stands in for warming up: says that it was reached, and waits until it may go on."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, *_: Any) -> float:
        """Wait."""
        self.reached.set()
        assert self.go.wait(LONG)
        return 1.0


def in_thread(call: Callable[..., Any], *arguments: Any) -> threading.Thread:
    """Start a call that is expected to end."""
    thread = threading.Thread(target=call, args=arguments, daemon=True)
    thread.start()
    return thread


def test_a_model_that_loads_is_unready_and_the_old_one_answers_meanwhile(
    made: Path, repo: Path, expected: dict[str, np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, gate = Registry(Settings(repository=repo, control="explicit", load=("m",))), Gate()
    monkeypatch.setattr(module, "warm", gate)
    thread = in_thread(registry.open)
    assert gate.reached.wait(LONG)
    assert not registry.ready and not registry.is_ready("m")
    with pytest.raises(UnreadyError, match="model 'm' is being loaded"):
        registry.lease("m")
    with pytest.raises(NotFoundError):
        registry.lease("n")
    assert said(registry)["m", "1"] == ("LOADING", "")
    gate.go.set()
    thread.join(LONG)
    assert registry.ready

    put(made, repo, "m", 2)
    gate = Gate()
    monkeypatch.setattr(module, "warm", gate)
    thread = in_thread(registry.load, "m")
    assert gate.reached.wait(LONG)
    assert said(registry) == {("m", "1"): ("READY", ""), ("m", "2"): ("LOADING", "")}
    np.testing.assert_array_equal(logits(registry), expected["1"])
    gate.go.set()
    thread.join(LONG)
    np.testing.assert_array_equal(logits(registry), expected["2"])


def test_changes_of_one_model_wait_for_each_other_and_not_for_others(
    made: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(made, repo, "n", 1)
    registry = explicit(repo)
    inside: dict[str, int] = {}
    most: dict[str, int] = {}
    lock, both = threading.Lock(), threading.Barrier(2)
    met = threading.Event()

    def watch(explainer: Any, *_: Any) -> float:
        name = explainer.source.folder.parts[-2]
        with lock:
            inside[name] = inside.get(name, 0) + 1
            most[name] = max(most.get(name, 0), inside[name])
        if not met.is_set():
            both.wait(LONG)  # the other model's load is here too
            met.set()
        with lock:
            inside[name] -= 1
        return 1.0

    monkeypatch.setattr(module, "warm", watch)
    threads = [in_thread(registry.load, name) for name in ("m", "n") for _ in range(4)]
    for thread in threads:
        thread.join(LONG)
    assert met.is_set() and most == {"m": 1, "n": 1}


def test_unloading_waits_for_a_load_and_comes_after_it(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, gate = explicit(repo), Gate()
    monkeypatch.setattr(module, "warm", gate)
    loading = in_thread(registry.load, "m")
    assert gate.reached.wait(LONG)
    unloading = in_thread(registry.unload, "m")
    gate.go.set()
    loading.join(LONG)
    unloading.join(LONG)
    assert registry.names() == []


def test_a_closed_registry_takes_nothing_up(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, gate = explicit(repo), Gate()
    monkeypatch.setattr(module, "warm", gate)
    thread = in_thread(registry.load, "m")
    assert gate.reached.wait(LONG)
    registry.close()
    gate.go.set()
    thread.join(LONG)
    assert not registry.ready and registry.names() == []
    with pytest.raises(UnreadyError, match="stopping"):
        registry.lease("m")


def test_a_storm_of_swaps_loses_no_request(
    made: Path, repo: Path, expected: dict[str, np.ndarray[Any, Any]], uncollected: None
) -> None:
    registry = explicit(repo, "m")
    over = threading.Event()
    problems: list[BaseException] = []
    seen: list[str] = []
    ever: list[weakref.ref[Any]] = []

    def ask() -> None:
        try:
            while not over.is_set():
                with registry.lease("m") as lease:
                    served = lease.served
                    answer = served.explainer.explain(tiny.images())
                    np.testing.assert_array_equal(answer.logits, expected[served.version])
                    seen.append(served.version)
        except BaseException as error:  # noqa: BLE001  told below
            problems.append(error)

    threads = [in_thread(ask) for _ in range(4)]
    for turn in range(12):
        with registry.lease("m") as lease:
            ever.append(weakref.ref(lease.served.explainer.sessions))
        if turn % 2 == 0:
            put(made, repo, "m", 2)
        else:
            (repo / "m" / "2").rename(repo / f".gone{turn}")
        registry.load("m")
        before = len(seen)
        while len(seen) < before + 4 and not problems:  # somebody asked in between
            threads[0].join(0.01)
    over.set()
    for thread in threads:
        thread.join(LONG)
    assert not problems
    assert set(seen) == {"1", "2"}
    assert [reference() for reference in ever] == [None] * 12  # every version before the last is gone


# leases -----------------------------------------------------------------------------------------------------------


def test_the_old_version_is_freed_when_its_last_lease_ends(made: Path, repo: Path, uncollected: None) -> None:
    registry = explicit(repo, "m")
    one, two = registry.lease("m"), registry.lease("m")
    explainer = weakref.ref(one.served.explainer)
    session = weakref.ref(next(iter(one.served.explainer.sessions._open.values())))
    put(made, repo, "m", 2)
    registry.load("m")
    assert one.served.version == "1" and registry.lease("m").served.version == "2"
    one.release()
    one.release()
    assert explainer() is not None and two.served.explainer.logits(tiny.images()).shape == (3, tiny.CLASSES)
    two.release()
    assert explainer() is None and session() is None
    with pytest.raises(RuntimeError, match="released"):
        _ = two.served


def test_unloading_leaves_requests_under_way_what_they_hold(repo: Path, uncollected: None) -> None:
    registry = explicit(repo, "m")
    with registry.lease("m") as lease:
        explainer = weakref.ref(lease.served.explainer)
        registry.unload("m")
        assert lease.served.explainer.logits(tiny.images()).shape == (3, tiny.CLASSES)
    assert explainer() is None


def _cut_off(explainer: camrt.Explainer) -> None:
    """Cancel a request in the middle of a run, so that it ends with an error out of ONNX Runtime."""
    off, sessions = camrt.Cancellation(), explainer.sessions
    run = sessions.run_unchecked

    def cut(kind: str, *given: Any) -> Any:
        if kind == "forward":  # of masked images
            off.cancel()
        return run(kind, *given)

    sessions.run_unchecked = cut  # type: ignore[method-assign]
    try:
        explainer.explain(draw(HELD_OUT, (1,)).image, method="scorecam", cancel=off)
        raise AssertionError("it was not cut off")
    except CancelledError:
        pass
    finally:
        del sessions.run_unchecked


@pytest.mark.parametrize(
    "ask",
    [
        *(
            lambda explainer, method=method: explainer.explain(draw(HELD_OUT, (1,)).image, method=method, target=[1, 2])
            for method in (
                "gradcam",
                "layercam",
                "scorecam",
                "ablationcam",
                "reciprocam",
                "guidedgradcam",
                "integratedgradcam",
            )
        ),
        lambda explainer: explainer.explain(draw(HELD_OUT, (1,)).image, tta=True),
        _cut_off,
    ],
)
def test_no_request_keeps_a_model_in_a_cycle(ask: Callable[[camrt.Explainer], Any], uncollected: None) -> None:
    registry = opened(None)
    lease = registry.lease("camrt-demo")
    explainer, sessions = weakref.ref(lease.served.explainer), weakref.ref(lease.served.explainer.sessions)
    ask(lease.served.explainer)
    registry.close()
    assert explainer() is not None
    lease.release()
    assert explainer() is None and sessions() is None
