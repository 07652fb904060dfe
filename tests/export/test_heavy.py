"""Weights beside their graph: the same numbers as weights inside, held once, and what cannot be so is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from numpy.testing import assert_array_equal

import camrt
from camrt.errors import ModelError
from camrt.export import export, open_model
from camrt.export import heavy as module
from camrt.export import load as loading
from camrt.export.half import Half
from camrt.export.heavy import is_heavy, joined, own_weights, split
from camrt.export.load import load
from camrt.export.verify import run
from tests import tiny as nets
from tests.export.onnx_text import CONV, HEAD, tiny

X = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
TARGET = np.array([4, -1, 0])
FEEDS = {"x": X, "target": TARGET, "seed": np.eye(5, dtype=np.float32)[TARGET]}
KINDS = [
    ("forward", ()),
    ("gradient", ("a",)),
    ("map_gradcam", ("a",)),
    ("seeded_gradient", ("a",)),
    ("input_gradient", ()),
]


@pytest.fixture
def light_is_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any model be heavy, and any weight large; what only says a shape is smaller."""
    monkeypatch.setattr(module, "HEAVY", 1)
    monkeypatch.setattr(module, "LARGE", 72)


@pytest.mark.parametrize(("kind", "layers"), KINDS)
def test_a_program_computes_the_same_with_its_weights_beside_it(
    kind: str, layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_model(tiny()).program(kind, layers)
    assert not whole.weights
    monkeypatch.setattr(module, "HEAVY", 1)
    monkeypatch.setattr(module, "LARGE", 72)
    apart = open_model(tiny()).program(kind, layers)
    assert {"w1", "w2"} <= set(apart.weights)
    assert len(apart.model) < len(whole.model)  # type: ignore[arg-type]
    feeds = {name: FEEDS[name] for name in whole.inputs}
    for want, got in zip(run(whole, feeds), run(apart, feeds), strict=True):
        assert_array_equal(got, want)
    want_proto, got_proto = onnx.load_from_string(whole.model), joined(apart)  # type: ignore[arg-type]
    for proto in (want_proto, got_proto):
        onnx.checker.check_model(proto)
    kept = [
        {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in p.graph.initializer} for p in (want_proto, got_proto)
    ]
    assert kept[0] == kept[1]


@pytest.mark.usefixtures("light_is_heavy")
def test_programs_share_the_models_weights_and_leave_it_whole() -> None:
    live = open_model(tiny())
    one, two = live.program("forward"), live.program("gradient", ["a"])
    for name in ("w1", "w2"):
        assert np.shares_memory(one.weights[name], two.weights[name])
    again = live.program("forward")
    for want, got in zip(run(one, {"x": X}), run(again, {"x": X}), strict=True):
        assert_array_equal(got, want)


@pytest.mark.usefixtures("light_is_heavy")
@pytest.mark.parametrize("method", ["gradcam", "scorecam", "opticam", "ablationcam"])
def test_an_explainer_does_not_notice(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = nets.images(2)
    apart = camrt.load(nets.mlp()).explain(x, method=method, target=1)
    monkeypatch.undo()
    whole = camrt.load(nets.mlp()).explain(x, method=method, target=1)
    assert_array_equal(apart.heatmaps, whole.heatmaps)


@pytest.mark.usefixtures("light_is_heavy")
def test_a_bundle_is_the_same_and_a_half_program_holds_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (narrowed,) = run(Half(open_model(tiny())).program("forward"), {"x": X})
    export(tiny(), tmp_path / "apart")
    monkeypatch.undo()
    export(tiny(), tmp_path / "whole")
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "apart").iterdir())
    for name in files:
        assert (tmp_path / "apart" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert_array_equal(narrowed, run(Half(open_model(tiny())).program("forward"), {"x": X})[0])


def test_types_that_onnx_runtime_has_no_array_of_stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 72)
    model = ir.from_proto(onnx.load_from_string(tiny(f"{CONV} {HEAD}")))
    brain = ir.Tensor(np.ones(50, ir.DataType.BFLOAT16.numpy()), name="brain")
    model.graph.initializers["brain"] = ir.Value(name="brain", const_value=brain)
    own_weights(model)
    graph, weights = split(model)
    assert set(weights) == {"w1", "w2"}
    inside = [t.name for t in onnx.load_from_string(graph).graph.initializer if not t.external_data]
    assert inside == ["b1", "b2", "brain"]


def test_a_model_is_heavy_by_the_sum_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ir.from_proto(onnx.load_from_string(tiny()))
    total = 4 * (4 * 3 * 3 * 3 + 4 + 4 * 5 + 5)
    monkeypatch.setattr(module, "HEAVY", total)
    assert is_heavy(model)
    monkeypatch.setattr(module, "HEAVY", total + 1)
    assert not is_heavy(model)


def test_what_is_beyond_one_message_is_compared_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parity check runs the file itself; where the model had to be changed first, nothing can."""

    def _full(proto: onnx.ModelProto) -> bytes:
        raise EncodeError("Failed to serialize proto")

    monkeypatch.setattr(loading, "_written", _full)
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny())
    assert load(path).given() == str(path)
    assert export(path, tmp_path / "bundle").manifest.verification["parity"]["max_rel"] < 1e-6
    for source, options in ((path, {"output": "a2"}), (tiny(), {})):
        path.write_bytes(tiny(f"{CONV} {HEAD} a2 = Identity(y)"))
        with pytest.raises(
            ModelError, match=r"beyond the 2 GiB of one message, and for its .* export it anew at opset 18"
        ):
            load(source, **options).given()  # type: ignore[arg-type]


def test_onnx_s_own_passes_are_refused_where_the_model_does_not_fit_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def _full(*_: object) -> None:
        raise EncodeError("Failed to serialize proto")

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", _full)
    with pytest.raises(ModelError, match="for its opset, functions or fused operators it would have to be one"):
        load(tiny(opset=13))
