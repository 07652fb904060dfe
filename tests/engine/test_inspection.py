"""Inspection: the default is always among the layers shown, and operators without a rule are named."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

import camrt
from camrt.export.write import export
from camrt.inspection import inspect_model
from tests import tiny


def test_the_default_layer_is_shown_and_every_layer_on_request() -> None:
    explainer = camrt.load(tiny.gap())
    short, full = inspect_model(explainer), inspect_model(explainer, every_layer=True)
    assert [layer["name"] for layer in short["layers"] if layer["default"]] == ["a2"]
    assert {layer["name"] for layer in short["layers"]} <= {layer["name"] for layer in full["layers"]}
    assert {"c1", "a1", "c2", "a2"} == {layer["name"] for layer in full["layers"]}
    assert short["layers_in_all"] == 4


def test_an_operator_without_a_rule_is_named() -> None:
    model = onnx.load_from_string(tiny.gap())
    model.graph.node[3].CopyFrom(helper.make_node("Hardmax", ["c2"], ["a2"], "odd"))
    operators = inspect_model(camrt.load(model.SerializeToString()))["operators"]
    assert operators["Conv"] == {"count": 2, "rule": True}
    assert operators["Hardmax"] == {"count": 1, "rule": False}


def test_a_bundle_tells_the_same_except_operators(tmp_path: Path) -> None:
    export(tiny.gap(), tmp_path / "b")
    told, want = inspect_model(camrt.load(tmp_path / "b")), inspect_model(camrt.load(tiny.gap()))
    assert "operators" not in told
    assert told["layers"] == want["layers"]
    assert told["verification"]["parity"]["max_rel"] < 1e-5
