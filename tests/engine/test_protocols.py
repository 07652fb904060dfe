"""Protocols against the tables they draw from, and against the paper's settings."""

from __future__ import annotations

import pytest

from camrt import methods, metrics
from camrt.choices import choose
from camrt.errors import MethodError
from camrt.pipeline import PIPELINES
from camrt.preprocess import Preprocess
from camrt.presets import preset
from camrt.protocols import PROTOCOLS, Protocol, resolve
from camrt.references import REFERENCES

EVERY = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
NOT_HERE = {"mask", "gradient", "smoothgrad", "integratedgradients"}  # methods of tables that camrt does not have


def metric_names(protocol: Protocol) -> set[str]:
    """Return the names that the protocol's metrics have in result files."""
    words = (*protocol.metrics, *protocol.boxed)
    return {choice.name for choice in choose(words, metrics.resolve, metrics.validate)}


@EVERY
def test_everything_named_exists(protocol: Protocol) -> None:
    assert choose(protocol.methods, methods.resolve, methods.validate) and metric_names(protocol)
    assert protocol.pipeline in PIPELINES
    changed = Preprocess.from_dict({**preset("imagenet").to_dict(), **protocol.preprocess})
    assert changed.size == (224, 224)


@EVERY
def test_every_column_of_its_tables_is_measured_and_every_method_run(protocol: Protocol) -> None:
    names = metric_names(protocol)
    run = {choice.row.id for choice in choose(protocol.methods, methods.resolve, methods.validate)}
    for table in protocol.references:
        assert set(table.columns) <= names
        assert {row.method for row in table.rows} - NOT_HERE <= run


def test_the_four_protocols_have_the_settings_of_their_papers() -> None:
    facts = {
        p.id: (p.mask_space, p.layer, p.pipeline, p.preprocess.get("resize"), p.preprocess.get("crop_ratio"))
        for p in PROTOCOLS.values()
    }
    assert facts == {
        "adcc": ("normalised", "torchcam-auto", "torchcam", "crop", 1.0),
        "scorecam": ("normalised", None, "camrt", "squash", None),
        "opticam": ("raw", None, "camrt", None, None),
        "rise": ("normalised", None, "camrt", "squash", None),
    }
    assert all(p.classes == "predicted" and p.unknowns and p.subset for p in PROTOCOLS.values())


def test_metrics_of_boxes_come_only_where_there_are_boxes() -> None:
    scorecam = PROTOCOLS["scorecam"]
    assert "energy_pointing_game" not in scorecam.settings()["metrics"]
    assert scorecam.settings(boxes=True)["metrics"] == [*scorecam.metrics, "energy_pointing_game"]


@EVERY
def test_a_run_with_the_protocols_settings_differs_in_nothing(protocol: Protocol) -> None:
    used = protocol.settings()
    used["preprocess"] = {"name": "imagenet", "resize": "pad", **protocol.preprocess, "size": [224, 224]}
    assert protocol.differences(used) == []


def test_differences_are_named_with_both_values() -> None:
    used = {
        "mask_space": "raw",
        "layer": None,
        "pipeline": "torchcam",
        "preprocess": {"resize": "crop", "crop_ratio": 0.875, "size": (299, 299)},
    }
    assert PROTOCOLS["adcc"].differences(used) == [
        "layer is the default; the protocol has torchcam-auto",
        "mask_space is raw; the protocol has normalised",
        "preprocess.crop_ratio is 0.875; the protocol has 1.0",
        "preprocess.size is 299 x 299; the protocol has 224 x 224",
    ]


def test_rows_of_the_same_network_are_chosen_and_all_where_none_fits() -> None:
    ((table, same),) = PROTOCOLS["adcc"].rows_for("resnet18.onnx")
    assert table is REFERENCES["poppi"] and [row.net for row in same] == ["ResNet-18"] * 5
    ((_, every),) = PROTOCOLS["adcc"].rows_for("mobilenetv2.onnx")
    assert every == table.rows
    assert PROTOCOLS["rise"].rows_for("resnet50") == []


@pytest.mark.parametrize(("name", "id"), [("adcc", "adcc"), ("Score-CAM", "scorecam"), ("OPTI CAM", "opticam")])
def test_names_are_forgiving(name: str, id: str) -> None:
    assert resolve(name) is PROTOCOLS[id]


@pytest.mark.parametrize("name", ["adc", "", None])
def test_an_unknown_name_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(MethodError, match="adcc, scorecam, opticam, rise"):
        resolve(name)
