"""Masked methods on every kind of model, each against a plain loop that runs the given file one masked image at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper

import camrt
from camrt.anytime import Budget
from camrt.errors import MemoryBoundError, NumericError
from camrt.export import export
from camrt.kernels import min_max, resize
from camrt.scalars import softmax
from tests import tiny

Array = Any
TYPES = {"f4": TensorProto.FLOAT, "f2": TensorProto.FLOAT16, "u1": TensorProto.UINT8}
METHODS: dict[str, dict[str, Any]] = {
    "scorecam": {}, "fasterscorecam": {}, "groupcam": {}, "sscam": {"n": 2}, "iscam": {"n": 2}, "ablationcam": {},
    "reciprocam": {}, "polycam": {}, "rise": {"n": 20}, "occlusion": {}, "opticam": {"iters": 3},
}  # fmt: skip


def built(
    before: list[Any],
    after: list[Any],
    *,
    dtype: str = "f4",
    batch: int | str = "N",
    last: bool = False,
    classes: int = 5,
) -> bytes:
    """Return two convolutions and two linear layers between some nodes: ``image`` to ``seen``, ``given`` to ``scores``."""
    rng, weights = np.random.default_rng(3), tiny.weights()
    cells = tiny.CHANNELS * tiny.SIZE[0] * tiny.SIZE[1] // 4
    arrays = {name: weights[name] for name in ("w1", "b1", "w2", "b2")} | {
        "hidden": 0.3 * rng.normal(size=(cells, 16)),
        "hidden_bias": rng.normal(size=16),
        "head": rng.normal(size=(16, classes)),
        "bias": rng.normal(size=classes),
    }
    kind = "f4" if dtype == "u1" else dtype
    floats = {name: np.asarray(array, kind) for name, array in arrays.items()}
    shapes = {"one": [1, -1], "many": [batch if isinstance(batch, int) else 0, cells], "axis": [1]}
    floats |= {"scale": np.array(1 / 64, "f4"), "middle": np.array(2, "f4"), "low": np.array(0.068, "f4")}
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in (floats | shapes).items()]
    stages = tiny._stages()
    if before:
        stages[0].input[0] = "seen"
    joined = [helper.make_node("Flatten", ["a2"], ["flat"])]
    if isinstance(batch, int):  # rows of all images in one: no other batch fits
        joined = [
            helper.make_node("Reshape", ["a2", "one"], ["row"]),
            helper.make_node("Reshape", ["row", "many"], ["flat"]),
        ]
    linear = [
        helper.make_node("Gemm", ["flat", "hidden", "hidden_bias"], ["h"]),
        helper.make_node("Relu", ["h"], ["hr"]),
        helper.make_node("Gemm", ["hr", "head", "bias"], ["given" if after else "scores"]),
    ]
    shape = [batch, *tiny.SIZE, 3] if last else [batch, 3, *tiny.SIZE]
    image = helper.make_tensor_value_info("image", TYPES[dtype], shape)
    scores = helper.make_tensor_value_info("scores", TYPES[kind], [batch, classes])
    graph = helper.make_graph([*before, *stages, *joined, *linear, *after], "built", [image], [scores], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def pixels() -> bytes:
    """Return a model that takes pixels from 0 to 255."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "middle"], ["seen"]),
    ]
    return built(nodes, [], dtype="u1")


def brittle() -> bytes:
    """Return a model whose scores are NaN where the mean of the image is below a limit."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "low"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["root"]),
        helper.make_node("Sub", ["root", "root"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "axis"], ["column"]),
        helper.make_node("Add", ["given", "column"], ["scores"]),
    ]
    return built([], nodes)


MODELS: dict[str, Callable[[], bytes]] = {
    "free batch": lambda: built([], []),
    "one image a run": lambda: built([], [], batch=1),
    "sixteen images a run": lambda: built([], [], batch=16),
    "channels last": lambda: built(
        [helper.make_node("Transpose", ["image"], ["seen"], perm=[0, 3, 1, 2])], [], last=True
    ),
    "pixels": pixels,
    "half": lambda: built([], [], dtype="f2"),
    "yes or no": lambda: built([], [helper.make_node("Sigmoid", ["given"], ["scores"])], classes=1),
}


class Case:
    """A model, its explainer, prepared images, and the given file in a session of its own."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.data, self.name = MODELS[name](), name
        self.settings: dict[str, Any] = {} if name in ("channels last", "pixels") else {"preprocess": "half"}
        self.explainer = camrt.load(self.data, **self.settings, **settings)
        x = tiny.images(5)
        kinds = {"pixels": np.clip(50 * x + 128, 0, 255).astype("u1"), "half": x.astype("f2")}
        kinds["channels last"] = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        self.x: Array = kinds.get(name, x)
        self.session = onnxruntime.InferenceSession(self.data, providers=["CPUExecutionProvider"])

    def probability(self, image: Array, target: int) -> float:
        """Run the given file on one image, as often as its batch wants."""
        batch = self.session.get_inputs()[0].shape[0]
        rows = np.repeat(image[None], batch if isinstance(batch, int) else 1, axis=0)
        (scores,) = self.session.run(None, {"image": rows})
        return float(scores[0, 0] if scores.shape[1] == 1 else softmax(scores[:1].astype("f8"))[0, target])

    def scorecam(self, target: int, hidden: Array) -> Array:
        """Return Score-CAM's map, mask by mask."""
        (acts,) = self.explainer.activations(self.x).values()
        weights = np.zeros(acts.shape[:2])
        last = self.name == "channels last"
        for i, k in np.ndindex(*weights.shape):
            maps, flat = min_max(resize(acts[i, k][None].astype("f4"), tiny.SIZE))
            mask = maps[0].astype("f8")[..., None] if last else maps[0].astype("f8")
            seen = self.x[i] * mask + (hidden if last else hidden[:, None, None]) * (1 - mask)
            seen = seen.round().clip(0, 255) if self.x.dtype == np.uint8 else seen
            weights[i, k] = 0 if flat[0] else self.probability(seen.astype(self.x.dtype), target)
        return np.einsum("nk,nkhw->nhw", weights, acts.astype("f8"))


@pytest.mark.parametrize("space", ["normalised", "raw"])
@pytest.mark.parametrize("name", MODELS)
def test_masked_images_are_those_of_a_plain_loop_over_the_given_file(name: str, space: str) -> None:
    case = Case(name)
    target = 0 if name == "yes or no" else 2
    found = case.explainer.explain(case.x, method="scorecam", target=target, mask_space=space)
    black = np.array(case.explainer.preprocess.black).astype(case.x.dtype).astype("f8")
    want = case.scorecam(target, black if space == "raw" else 0 * black)
    rounding = {"half": 2e-3, "pixels": 1e-4}.get(name, 1e-5)
    assert_allclose(found.raw[:, 0], want, atol=rounding * np.abs(want).max())
    assert found.provenance["mask_space"] == space


@pytest.mark.parametrize("name", MODELS)
def test_neither_memory_nor_threads_nor_a_bundle_changes_a_result(name: str, tmp_path: Path) -> None:
    case = Case(name)
    row = case.explainer.chunk_memory // case.explainer.chunk
    batch = case.explainer.manifest.batch or 1
    others = [Case(name, memory=batch * row).explainer, Case(name, threads=1).explainer]
    export(case.data, tmp_path / "bundle")
    others.append(camrt.load(tmp_path / "bundle", **case.settings))
    assert others[0].chunk == batch
    for method, options in METHODS.items():
        if method == "opticam" and name == "pixels":
            continue  # takes floats alone, and says so
        asked: dict[str, Any] = {
            "method": method,
            "options": options,
            "target": 0 if name == "yes or no" else [None, 2],
            "layer": "a2",
        }
        want = case.explainer.explain(case.x, **asked)
        size = np.abs(want.raw).max()
        for other in others:
            assert_allclose(other.explain(case.x, **asked).raw, want.raw, atol=2e-6 * size, err_msg=method)
        alone = case.explainer.explain(case.x[3][None], **asked)
        assert_allclose(alone.raw[0], want.raw[3], atol=2e-6 * size, err_msg=method)


def test_a_fixed_batch_is_run_whole_or_refused() -> None:
    free, fixed = Case("free batch").explainer, Case("sixteen images a run").explainer
    row = free.chunk_memory // free.chunk
    assert fixed.manifest.batch == fixed.chunk == 16
    assert fixed.chunk_memory == 16 * row
    tight = Case("sixteen images a run", memory=16 * row - 1)
    with pytest.raises(MemoryBoundError):
        tight.explainer.explain(tight.x, method="scorecam")


def test_scores_that_are_nan_for_some_masks_alone_are_counted() -> None:
    explainer, x = camrt.load(brittle(), preprocess="half"), tiny.images(3) + np.float32(0.5)
    session = onnxruntime.InferenceSession(brittle(), providers=["CPUExecutionProvider"])
    (acts,) = explainer.activations(x).values()
    masks, flat = min_max(resize(acts.reshape(-1, *acts.shape[2:]), tiny.SIZE))
    seen = np.repeat(x, acts.shape[1], axis=0) * masks[:, None]
    lost = np.isnan(session.run(None, {"image": seen})[0]).any(1) & ~flat
    assert 0 < lost.sum() < (~flat).sum()
    image, channel = divmod(int(np.flatnonzero(lost)[0]), acts.shape[1])
    said = rf"{lost.sum()} of {(~flat).sum()} masked forwards .* mask \(channel\) {channel} of image {image}"
    with pytest.raises(NumericError, match=said):
        explainer.explain(x, method="scorecam")
    explainer.explain(x, method="ablationcam")  # edits behind the image are not concerned


@pytest.mark.parametrize("name", ["gap", "mlp"])
@pytest.mark.parametrize("method", METHODS)
def test_progress_only_rises_and_ends_with_the_images(method: str, name: str) -> None:
    explainer, x = camrt.load(getattr(tiny, name)(), preprocess="half"), tiny.images(6)
    changes: list[dict[str, Any]] = [{}, {"tta": True}, {"layer": ["a1", "a2"]}, {"target": [0, 1]}]
    for change in changes:
        seen: list[float] = []

        def hear(done: float, images: int, seen: list[float] = seen) -> None:
            assert images == 6
            seen.append(done)

        explainer.explain(x, method=method, options=METHODS[method], progress=hear, **change)
        assert seen == sorted(seen)
        assert seen[-1] == 6
        free = name == "gap" and method in ("ablationcam", "reciprocam")  # a linear head: nothing is run
        assert free or any(0 < done < 4 for done in seen)  # within the first batch, too


@pytest.mark.parametrize("layer", ["a2", ["a1", "a2"]], ids=["one layer", "two layers"])
@pytest.mark.parametrize("method", [method for method in METHODS if method != "opticam"])
def test_a_budget_of_forwards_is_never_passed(method: str, layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options = METHODS[method]
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(2)
    rows: dict[str, int] = {}
    run = explainer._sessions.run_unchecked

    def counting(kind: str, layers: Any, feeds: dict[str, Any], limits: Any) -> Any:
        rows[kind] = rows.get(kind, 0) + len(feeds["x" if "x" in feeds else "activations.0"])
        return run(kind, layers, feeds, limits)

    monkeypatch.setattr(explainer._sessions, "run_unchecked", counting)
    asked: dict[str, Any] = {"method": method, "options": options, "layer": layer}
    exact = explainer.explain(x, **asked)
    for allowed in (1, 3, 7, 10_000):
        rows.clear()
        found = explainer.explain(x, **asked, budget=Budget(forwards=allowed))
        extra = (
            2 * (1 if isinstance(layer, str) else 2) if method in ("ablationcam",) else 0
        )  # the tail of each image as it is
        assert rows.get("forward", 0) + rows.get("tail", 0) <= 2 * allowed + extra
        assert (found.flags["forwards"] <= allowed).all()
        if not found.flags["complete"].all():
            assert allowed < 10_000
            continue
        assert_allclose(found.raw, exact.raw, atol=2e-6 * np.abs(exact.raw).max())
    both = explainer.explain(x, **asked, target=[1, 3], budget=Budget(forwards=3))
    for place, target in enumerate((1, 3)):  # what a target gets does not depend on the others
        alone = explainer.explain(x, **asked, target=target, budget=Budget(forwards=3))
        assert_allclose(both.raw[:, place], alone.raw[:, 0], atol=2e-6 * max(np.abs(alone.raw).max(), 1e-6))
        assert_array_equal(both.flags["forwards"][:, place], alone.flags["forwards"][:, 0])


def test_the_time_of_a_budget_is_for_all_targets_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, x, rows = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(1), [0]
    run = explainer._sessions.run_unchecked

    def counting(kind: str, layers: Any, feeds: dict[str, Any], limits: Any) -> Any:
        rows[0] += len(feeds["x"]) if kind == "forward" else 0
        return run(kind, layers, feeds, limits)

    monkeypatch.setattr(explainer._sessions, "run_unchecked", counting)
    found = explainer.explain(
        x, method="rise", options={"n": 1600}, target=[0, 1, 2], budget=Budget(seconds=1e-6), layer="a2"
    )
    assert rows[0] == 100  # the sixteenth that is run in any case, once
    assert_array_equal(found.flags["forwards"], [[100, 100, 100]])
    assert not found.flags["complete"].any()
