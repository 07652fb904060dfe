"""The explained model gives the engine's heatmap in runtimes that know nothing of camrt, and is whole or absent."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx.reference import ReferenceEvaluator

import camrt
from camrt.errors import LayerError, MethodError, ModelError, OutputError
from camrt.export import explained_model
from camrt.export.explained import REFUSED, _check_standard
from camrt.export.load import load
from camrt.export.maps import MAPS
from camrt.methods import METHODS
from tests import tiny
from tests.export.onnx_text import tokens

Array = np.ndarray[Any, Any]
MODELS = {"softmax": tiny.gap(softmax=True), "mlp": tiny.mlp(), "tokens": tokens(heads=2)}
ON_TOKENS = ("gradcam", "gradcampp", "xgradcam", "finercam", "eigencam", "fullgrad", "legrad")
ON_IMAGES = sorted(method for method, row in MAPS.items() if "attention" not in row.needs)
CASES = [
    *(("softmax", method) for method in ON_IMAGES),
    *(("mlp", method) for method in ON_IMAGES if not MAPS[method].linear_head),
    *(("tokens", method) for method in ON_TOKENS),
]


@cache
def engine(model: bytes) -> camrt.Explainer:
    """Open a model once."""
    return camrt.load(model, preprocess="half")


def pictures(model: bytes, n: int) -> Array:
    """Return a seeded batch that fits a model."""
    shape = engine(model).manifest.input["shape"][1:]
    return np.random.default_rng(3).normal(size=(n, *shape)).astype(np.float32)


def by_the_engine(
    model: bytes, x: Array, target: Array, method: str, layer: list[str] | None = None
) -> tuple[Array, Array, Array]:
    """Return logits, classes and heatmaps; a second column keeps the engine from using the graph's own map."""
    explainer = engine(model)
    classes = np.where(target < 0, explainer.logits(x).argmax(1), target)
    result = explainer.explain(x, method=method, target=np.stack([classes, classes], axis=1), layer=layer)
    return result.logits, classes, result.heatmaps[:, 0]


def check(path: Path, model: bytes, method: str, layer: list[str] | None = None, atol: float = 1e-5) -> None:
    """Run a file in ONNX Runtime and in onnx's reference evaluator, against the engine."""
    session, reference = ort.InferenceSession(path), ReferenceEvaluator(str(path))
    for target in (np.array([-1]), np.array([2, -1, 0, 4, -1])):
        x = pictures(model, len(target))
        logits, _, heatmaps = by_the_engine(model, x, target, method, layer)
        for run in (session.run, reference.run):
            with np.errstate(over="ignore"):  # a gate's slope of 1e30, cut at 1
                found = run(None, {"x": x, "target": target})
            np.testing.assert_allclose(found[0], logits, atol=1e-5 * np.abs(logits).max())
            np.testing.assert_allclose(found[1], heatmaps, atol=atol)


@pytest.mark.parametrize(("model", "method"), CASES)
def test_any_runtime_gives_the_heatmap_of_the_engine(model: str, method: str, tmp_path: Path) -> None:
    path = explained_model(MODELS[model], tmp_path / "explained.onnx", method=method)
    cancels = (model, method) == ("tokens", "gradcampp")  # 2 + g sum(A) down to 0.05 where A is signed
    check(path, MODELS[model], method, atol=1e-4 if cancels else 1e-5)


@pytest.mark.parametrize("method", ["gradcam", "layercam", "refinecam", "eigencam", "liftcam", "fullgrad"])
def test_several_layers_are_fused_in_the_methods_own_way(method: str, tmp_path: Path) -> None:
    layers = ["a2", "a1", "c2"]
    path = explained_model(tiny.mlp(), tmp_path / "explained.onnx", method=method, layer=layers)
    check(path, tiny.mlp(), method, layers)
    written = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(written["camrt.layers"]) == ["a1", "c2", "a2"]


def test_the_file_is_one_valid_model_of_standard_operators_that_says_what_it_is(tmp_path: Path) -> None:
    path = explained_model(tiny.gap(softmax=True), tmp_path / "explained.onnx", method="Grad-CAM++")
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.domain for entry in model.opset_import] == [""]
    assert model.opset_import[0].version >= 18
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    h, w = tiny.SIZE
    assert shapes == {"x": ["N", 3, h, w], "target": ["N"], "logits": ["N", 5], "heatmap": ["N", h, w]}
    written = {p.key: p.value for p in model.metadata_props}
    assert written["camrt.method"] == "gradcampp"
    assert written["camrt.variant"] == "paper"
    assert json.loads(written["camrt.layers"]) == ["a2"]
    assert written["camrt.source_sha256"] == load(tiny.gap(softmax=True)).sha256
    assert written["camrt.output"] == "scores"
    assert "camrt.version" in written
    assert [p.name for p in tmp_path.iterdir()] == ["explained.onnx"]


def test_the_grid_of_tokens_can_be_said(tmp_path: Path) -> None:
    path = explained_model(tokens(), tmp_path / "e.onnx", grid=(2, 8), prefix=1)
    x = np.random.default_rng(4).normal(size=(2, 3, 8, 8)).astype(np.float32)
    target = np.array([1, 3])
    got = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["heatmap"], {"x": x, "target": target})[0]
    want = camrt.load(tokens(), grid=(2, 8)).explain(x, target=target[:, None]).heatmaps[:, 0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    square = camrt.load(tokens()).explain(x, target=target[:, None]).heatmaps[:, 0]
    assert np.abs(want - square).max() > 0.1


def test_a_map_without_contrast_is_all_zero(tmp_path: Path) -> None:
    path = explained_model(tiny.gap(), tmp_path / "explained.onnx")
    model = engine(tiny.gap())
    x = tiny.images(40)
    flat = model.explain(x, target=[1, 2]).degenerate[:, 0]
    heat = ort.InferenceSession(path).run(["heatmap"], {"x": x, "target": np.full(40, 1)})[0]
    assert (heat[flat] == 0).all()
    assert (heat[~flat].max((1, 2)) == 1).all()
    assert np.isfinite(heat).all()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_stays_fixed(batch: int, tmp_path: Path) -> None:
    path = explained_model(tiny.gap(batch), tmp_path / "explained.onnx")
    x = tiny.images(batch)
    found = ort.InferenceSession(path).run(["heatmap"], {"x": x, "target": np.full(batch, -1)})[0]
    _, _, want = by_the_engine(tiny.gap(), x, np.full(batch, -1), "gradcam")
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_a_model_of_an_old_format_becomes_one_of_todays(tmp_path: Path) -> None:
    model = onnx.load_from_string(tiny.gap())
    model.ir_version = 3
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in model.graph.initializer
    )
    onnx.checker.check_model(model)
    path = explained_model(model.SerializeToString(), tmp_path / "explained.onnx")
    check(path, tiny.gap(), "gradcam")
    assert onnx.load(path).ir_version >= 8


def test_every_method_is_made_or_refused_with_its_reason(tmp_path: Path) -> None:
    for method in METHODS:
        if method in MAPS:
            continue
        with pytest.raises(MethodError, match=REFUSED.get(method, "no form inside a graph")):
            explained_model(tiny.gap(), tmp_path / "explained.onnx", method=method)
    assert set(REFUSED) <= set(METHODS)
    assert not set(REFUSED) & set(MAPS)
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_made_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "explained.onnx"
    with pytest.raises(MethodError, match="its default variant 'paper'; got 'captum'"):
        explained_model(tiny.gap(), path, variant="captum")
    with pytest.raises(LayerError, match="use gradcam"):
        explained_model(tiny.mlp(), path, method="cam")
    with pytest.raises(LayerError, match="a2"):
        explained_model(tiny.gap(), path, layer="a22")
    with pytest.raises(LayerError, match="empty list"):
        explained_model(tiny.gap(), path, layer=[])
    assert not any(tmp_path.iterdir())
    explained_model(tiny.gap(), path, variant="paper")


def test_an_operator_of_one_runtime_is_refused() -> None:
    model = load(tiny.gap()).model
    model.opset_imports["com.microsoft"] = 1
    _check_standard(model)
    assert dict(model.opset_imports) == {"": 18}  # a domain that nothing uses is forgotten
    next(node for node in model.graph if node.op_type == "Relu").domain = "com.microsoft"
    with pytest.raises(ModelError, match=r"standard ONNX operators only; this model has com\.microsoft:Relu"):
        _check_standard(model)


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "explained.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="already there: give another path or overwrite=True"):
        explained_model(tiny.gap(), path)
    assert path.read_bytes() == b"mine"
    explained_model(tiny.gap(), path, overwrite=True)
    onnx.checker.check_model(path)
    with pytest.raises(OutputError, match="already there"):
        explained_model(tiny.gap(), tmp_path, overwrite=True)


def test_a_disk_that_is_full_leaves_nothing_and_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = explained_model(tiny.gap(), tmp_path / "explained.onnx")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        explained_model(tiny.gap(), path, method="lafam", overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["explained.onnx"]
    monkeypatch.undo()
    with pytest.raises(OutputError, match="cannot be written"):
        explained_model(tiny.gap(), tmp_path / "nowhere" / "explained.onnx")


def test_what_does_not_fit_one_message_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def _full(_: object) -> None:
        raise EncodeError("Failed to serialize proto")

    monkeypatch.setattr(onnx.checker, "check_model", lambda proto: _full(proto) if "heatmap" in str(proto) else None)
    with pytest.raises(ModelError, match=r"larger than the 2 GiB one .onnx file may hold: export a bundle"):
        explained_model(tiny.gap(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
