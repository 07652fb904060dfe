"""Inspection: the default is always among the layers shown, and operators without a rule are named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

import camrt
from camrt import inspection
from camrt.export.write import export
from camrt.inspection import inspect_model
from tests import tiny
from tests.export.integers import HEAD, STEM, quantised
from tests.export.onnx_text import tokens


def without_rule(read: str, made: str, model: onnx.ModelProto) -> onnx.NodeProto:
    """Return a node that no gradient passes: an operator on sequences, over images and channels."""
    lengths = onnx.numpy_helper.from_array(np.ones(tiny.CHANNELS, np.int64), "lengths")
    model.graph.initializer.append(lengths)
    return helper.make_node("ReverseSequence", [read, "lengths"], [made], "odd", batch_axis=1, time_axis=0)


def test_the_default_layer_is_shown_and_every_layer_on_request() -> None:
    explainer = camrt.load(tiny.gap())
    short, full = inspect_model(explainer), inspect_model(explainer, every_layer=True)
    assert [layer["name"] for layer in short["layers"] if layer["default"]] == ["a2"]
    assert {layer["name"] for layer in short["layers"]} <= {layer["name"] for layer in full["layers"]}
    assert {"c1", "a1", "c2", "a2"} == {layer["name"] for layer in full["layers"]}
    assert short["layers_in_all"] == 4


def test_an_operator_without_a_rule_is_named() -> None:
    model = onnx.load_from_string(tiny.gap())
    model.graph.node[3].CopyFrom(without_rule("c2", "a2", model))
    operators = inspect_model(camrt.load(model.SerializeToString()))["operators"]
    assert operators["Conv"] == {"count": 2, "rule": "gradient", "behind": 0}
    assert operators["ReverseSequence"] == {"count": 1, "rule": "none", "behind": 0}  # it makes the default layer


def test_an_operator_in_a_gradients_way_is_told_to_lie_behind_the_default_layer() -> None:
    model = onnx.load_from_string(tiny.gap())
    place = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Flatten")
    model.graph.node[place].CopyFrom(without_rule("flat0", "flat", model))
    model.graph.node.insert(place, helper.make_node("Flatten", ["pooled"], ["flat0"], "flatten"))
    operators = inspect_model(camrt.load(model.SerializeToString()))["operators"]
    assert operators["ReverseSequence"] == {"count": 1, "rule": "none", "behind": 1}
    assert operators["GlobalAveragePool"]["behind"] == 1


def test_an_operator_that_stops_a_gradient_on_purpose_is_no_gap() -> None:
    model = onnx.load_from_string(tiny.gap())
    model.graph.node[3].CopyFrom(helper.make_node("Floor", ["c2"], ["a2"], "step"))
    assert inspect_model(camrt.load(model.SerializeToString()))["operators"]["Floor"]["rule"] == "no flow"


def test_tokens_are_described_and_images_of_channels_are_not() -> None:
    told = inspect_model(camrt.load(tokens(), preprocess="half"))["tokens"]
    default = next(layer for layer in camrt.load(tokens(), preprocess="half").layers if layer.default)
    assert told["grid"] == list(default.grid)
    assert told["prefix"] == 1
    assert (
        told["said"]
        == f"1 prefix token, then {default.grid[0]}x{default.grid[1]} patches of {default.channels} channels"
    )
    assert inspect_model(camrt.load(tiny.gap()))["tokens"] is None


def test_work_is_counted_at_the_default_layer() -> None:
    told = inspect_model(camrt.load(tiny.gap(), layer="a1"))
    assert told["work"]["tail"] == 6 * 6 * 5 * (4 * 9) + 6 * 5
    assert told["methods"]["gradcam"]["multiply_adds"] == told["work"]["forward"] + told["work"]["tail_backward"]


def test_cam_has_a_cost_only_where_its_head_is_linear() -> None:
    listed = [set(inspect_model(camrt.load(model))["methods"]) for model in (tiny.gap(), tiny.mlp())]
    assert listed[0] - listed[1] == {"cam"}
    assert listed[1] < listed[0]


def test_attention_is_counted_or_its_absence_explained() -> None:
    told, none = inspect_model(camrt.load(tokens(3), preprocess="half")), inspect_model(camrt.load(tiny.gap()))
    assert told["attention"] == {"blocks": 3, "said": "legrad reads 3 blocks of attention between 17 tokens"}
    assert none["attention"]["blocks"] == 0
    assert "this model has none" in none["attention"]["said"]
    assert "legrad" in told["methods"]
    assert "legrad" not in none["methods"]


def test_the_keys_are_the_documented_ones() -> None:
    documented = set(re.findall(r"^    ([a-z_]+(?:, [a-z_]+)*)  ", inspection.__doc__ or "", re.MULTILINE))
    names = {name for group in documented for name in group.split(", ")}
    assert names | {"layers_in_all"} == set(inspect_model(camrt.load(tiny.gap())))


def test_a_bundle_tells_the_same_except_operators(tmp_path: Path) -> None:
    export(tiny.gap(), tmp_path / "b")
    told, want = inspect_model(camrt.load(tmp_path / "b")), inspect_model(camrt.load(tiny.gap()))
    assert not {"operators", "attention", "work", "methods"} & set(told)
    assert told["tokens"] == want["tokens"]
    assert told["layers"] == want["layers"]
    assert told["verification"]["parity"]["max_rel"] < 1e-5


def test_a_quantised_models_twin_is_measured_and_a_bundle_remembers_it(tmp_path: Path) -> None:
    model = quantised(f"{STEM} r = Identity(q) {HEAD}", {})
    raw = inspect_model(camrt.load(model))
    assert raw["model"]["quantised"] == {"DequantizeLinear": 1, "QuantizeLinear": 1}
    assert "QuantizeLinear" not in raw["operators"]  # these are the twin's
    assert (raw["twin"]["images"], raw["twin"]["top1"]) == (8, 1)
    bundle = export(model, tmp_path / "b")
    assert inspect_model(camrt.load(tmp_path / "b"))["twin"] == bundle.manifest.verification["twin"] == raw["twin"]
    assert inspect_model(camrt.load(tiny.gap()))["twin"] is None
