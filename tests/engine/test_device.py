"""The CUDA path, on a stand-in: nothing comes to the host but the result, everything is on one stream."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.device import WARM_UPS, Device, on_host
from camrt.errors import MissingExtraError, NumericError, ProviderError
from camrt.providers import BUCKETS
from camrt.results import fetched
from tests import tiny
from tests.engine import cuda_stand_in

Array = np.ndarray[Any, Any]
GRAPHS = [("cuda", {"enable_cuda_graph": 1})]


def on_the_host(data: bytes, **asked: Any) -> Any:
    """Explain with the CPU provider."""
    return camrt.load(data, preprocess="half").explain(**asked)


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam", "xgradcam", "gradcampp"])
@pytest.mark.parametrize("pipeline", ["camrt", "torchcam"])
def test_nothing_comes_to_the_host_before_the_heatmap(
    method: str, pipeline: str, world: cuda_stand_in.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = camrt.load(tiny.gap(), preprocess="half", providers="cuda")
    pictures = np.random.default_rng(0).integers(0, 256, (3, *tiny.SIZE, 3), np.uint8)
    before: list[tuple[int, ...]] = []

    def finished(plan: Any, maps: Any, labels: Any) -> Any:
        before.extend(world.fetched)
        return fetched(plan, maps, labels)

    monkeypatch.setattr("camrt.explainer.fetched", finished)
    result = explainer.explain(pictures, method=method, pipeline=pipeline)
    assert before == []
    assert world.host_runs == []
    assert world.uploaded == [(3, 3, *tiny.SIZE), (3,)]  # the pictures, once, and the classes asked for
    assert sorted(set(world.fetched)) == sorted(
        {(3, tiny.CLASSES), (3,), (3, 1), (3, 1, *tiny.SIZE), result.raw.shape}
    )  # logits, classes, flags, heatmaps, raw maps
    assert {session.provider_options[0]["user_compute_stream"] for session in world.sessions} == {
        str(cuda_stand_in.STREAM)
    }
    assert all(run.entries["disable_synchronize_execution_providers"] == "1" for run in world.device_runs)
    monkeypatch.undo()
    want = on_the_host(tiny.gap(), images=pictures, method=method, pipeline=pipeline)
    np.testing.assert_allclose(result.heatmaps, want.heatmaps, atol=2e-5)
    np.testing.assert_allclose(result.values, want.values, rtol=1e-6)
    assert result.labels == want.labels
    np.testing.assert_array_equal(result.targets, want.targets)


def test_other_targets_bring_logits_to_the_host_and_nothing_else(world: cuda_stand_in.World) -> None:
    explainer = camrt.load(tiny.mlp(), preprocess="half", providers="cuda")
    picture = np.random.default_rng(0).integers(0, 256, (*tiny.SIZE, 3), np.uint8)
    asked: Any = {"images": picture, "target": [0, camrt.targets.Probability(3)], "method": "layercam"}
    result = explainer.explain(**asked)
    final = {(1, 2, *tiny.SIZE), result.raw.shape, (1, 2), (1,)}
    assert [shape for shape in world.fetched if shape not in final] == [(1, tiny.CLASSES)]
    want = on_the_host(tiny.mlp(), **asked)
    np.testing.assert_allclose(result.heatmaps, want.heatmaps, atol=2e-5)


def test_a_session_without_the_cpu_among_its_providers_lets_no_node_run_there(world: cuda_stand_in.World) -> None:
    x = tiny.images(1)
    for providers, strict in (("cuda", "1"), ("cuda,cpu", "0")):
        camrt.load(tiny.gap(), preprocess="half", providers=providers).logits(x)
        assert world.sessions[-1].strict == strict


def test_numpy_arrays_go_in_and_out_through_the_host(world: cuda_stand_in.World) -> None:
    explainer = camrt.load(tiny.gap(), preprocess="half", providers="cuda")
    got = explainer._sessions.run("forward", (), {"x": tiny.images(2)})["logits"]
    assert isinstance(got, np.ndarray)
    assert (len(world.host_runs), world.device_runs) == (1, [])


def test_logits_that_are_not_finite_are_found_when_they_are_fetched(world: cuda_stand_in.World) -> None:
    explainer = camrt.load(broken(), preprocess="half", providers="cuda")
    with pytest.raises(NumericError, match="image 0"):
        explainer.explain(np.zeros((*tiny.SIZE, 3), np.uint8))


def broken() -> bytes:
    """Return a model whose logits overflow."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(tiny.gap())
    for tensor in model.graph.initializer:
        if tensor.name in ("bias", "head"):
            large = np.full(tuple(tensor.dims), 3e38, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(large, tensor.name))
    return bytes(model.SerializeToString())


def test_a_device_that_is_lost_is_one_clear_error_and_keeps_no_buffers(world: cuda_stand_in.World) -> None:
    for providers in ("cuda", GRAPHS):
        explainer = camrt.load(tiny.gap(), preprocess="half", providers=providers)  # type: ignore[arg-type]
        picture = np.zeros((*tiny.SIZE, 3), np.uint8)
        explainer.explain(picture)
        world.fails = True
        with pytest.raises(ProviderError, match="CUDA failure 700") as caught:
            explainer.explain(picture)
        assert "\n" not in str(caught.value)
        (session,) = explainer._sessions._open.values()
        assert session._port is not None
        assert session._port._held == {}
        world.fails = False
        explainer.explain(picture)


def test_many_threads_give_the_serial_results(world: cuda_stand_in.World) -> None:
    explainer = camrt.load(tiny.gap(), preprocess="half", providers="cuda")
    pictures = np.random.default_rng(1).integers(0, 256, (8, *tiny.SIZE, 3), np.uint8)
    serial = [explainer.explain(p, target=1).heatmaps for p in pictures]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda p: explainer.explain(p, target=1).heatmaps, pictures))
    for a, b in zip(found, serial, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", [1, 3, 4, 9, 40])
def test_graphs_are_recorded_after_warming_up_one_a_batch_size(n: int, world: cuda_stand_in.World) -> None:
    """The stand-in fails where a graph is replayed on other addresses or in another thread."""
    explainer = camrt.load(tiny.gap(), preprocess="half", providers=GRAPHS)
    sessions, x = explainer._sessions, tiny.images(n)
    for turn in range(WARM_UPS + 3):
        with sessions.place() as placed:
            fed = np.roll(x, turn, axis=0)
            got = on_host(sessions.run("forward", (), {"x": placed(fed)})["logits"])
        reference = world.sessions[-1]._real.run(None, {"x": fed})[0]
        assert got.shape == (n, tiny.CLASSES)
        np.testing.assert_allclose(got, reference, atol=1e-6)
    size = next((b for b in BUCKETS if b >= n), None)
    ids = [run.entries["gpu_graph_id"] for run in world.device_runs]
    assert ids == ["-1"] * len(ids) if size is None else ids == ["-1"] * WARM_UPS + [str(size)] * 3


def test_results_of_a_graph_outlive_its_next_replay(world: cuda_stand_in.World) -> None:
    sessions = camrt.load(tiny.gap(), preprocess="half", providers=GRAPHS)._sessions
    with sessions.place() as placed:
        xs = [tiny.images(2) * scale for scale in (1, 2, 3, 4, 5)]
        kept = [sessions.run("forward", (), {"x": placed(x.astype(np.float32))})["logits"] for x in xs]
        for x, logits in zip(xs, kept, strict=True):
            reference = world.sessions[-1]._real.run(None, {"x": x.astype(np.float32)})[0]
            np.testing.assert_allclose(on_host(logits), reference, rtol=1e-5)


def test_graphs_are_replayed_in_one_thread_whoever_asks(world: cuda_stand_in.World) -> None:
    explainer = camrt.load(tiny.gap(), preprocess="half", providers=GRAPHS)
    picture = np.zeros((*tiny.SIZE, 3), np.uint8)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: explainer.explain(picture), range(18)))
    assert len({run.thread for run in world.device_runs}) == 1
    assert threading.current_thread().name not in {run.thread for run in world.device_runs}


def test_without_cupy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingExtraError, match=r"camrt\[gpu\]"):
        Device()


def test_a_device_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise RuntimeError("cudaErrorInsufficientDriver:\n CUDA driver version is insufficient")

    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(Device=absent, Stream=absent)))
    with pytest.raises(ProviderError, match="CUDA device 2 cannot be used: cudaErrorInsufficientDriver") as caught:
        Device(2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["scorecam", "ablationcam", "reciprocam", "opticam", "rise", "sscam"])
def test_methods_of_masked_forwards_keep_images_on_the_device(method: str, world: cuda_stand_in.World) -> None:
    """Scores come to the host, and the maps that masks are told apart by; no image and no masked image ever does."""
    explainer = camrt.load(tiny.mlp(), preprocess="half", providers="cuda")
    picture = np.random.default_rng(0).integers(0, 256, (*tiny.SIZE, 3), np.uint8)
    options = {"n": 20} if method == "rise" else {"n": 2} if method == "sscam" else None
    result = explainer.explain(picture, method=method, options=options)
    images = [shape for shape in world.fetched if shape[-3:] == (3, *tiny.SIZE)]
    assert (len(images) > 0) == (method in ("rise", "sscam"))  # their draws are seeded by what the picture holds
    assert world.host_runs == []
    assert [shape for shape in world.uploaded if shape[-3:] == (3, *tiny.SIZE)] == [(1, 3, *tiny.SIZE)]
    want = on_the_host(tiny.mlp(), images=picture, method=method, options=options)
    np.testing.assert_allclose(result.heatmaps, want.heatmaps, atol=2e-4)


def test_a_model_with_redrawn_weights_runs_on_the_same_stream(world: cuda_stand_in.World) -> None:
    x, classes = tiny.images(2), np.array([3, 1])
    explainer = camrt.load(tiny.gap(), preprocess="half", providers="cuda")
    with explainer.place() as placed:
        other = explainer.randomised(["/head/Gemm"], 1)
        drawn = other.draw(placed(x), classes)
        assert other.sessions.device is explainer.sessions.device
        assert world.host_runs == []
        heat = on_host(drawn.heat)
    known = camrt.load(tiny.gap(), preprocess="half").randomised(["/head/Gemm"], 1).draw(x, classes)
    np.testing.assert_allclose(heat, known.heat, atol=1e-5)
