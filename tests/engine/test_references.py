"""Published numbers, held against what they must satisfy and against single cells of the sources."""

from __future__ import annotations

import pytest

from camrt.metrics import adcc_of_means
from camrt.references import REFERENCES, ReferenceRow

PARTS = ("average_drop", "coherency", "complexity")


def row(table: str, net: str, method: str, data: str | None = None) -> ReferenceRow:
    """Return the only row of that network and method."""
    (found,) = [r for r in REFERENCES[table].rows if (r.net, r.method) == (net, method) and data in (None, r.data)]
    return found


def test_poppis_table_has_five_methods_of_six_networks_with_all_columns() -> None:
    table = REFERENCES["poppi"]
    assert len(table.rows) == 30
    pairs = {(r.net, r.method) for r in table.rows}
    assert len({net for net, _ in pairs}) == 6 and len({method for _, method in pairs}) == 5 and len(pairs) == 30
    assert all(set(r.values) == set(table.columns) and len(r.values) == 7 for r in table.rows)


@pytest.mark.parametrize(
    ("table", "tolerance"), [("poppi", 0.0005), ("reciprocam", 0.0005), ("jafar", 0.001)], ids=lambda v: str(v)
)
def test_every_printed_adcc_is_the_harmonic_mean_of_the_printed_means(table: str, tolerance: float) -> None:
    # in fractions: 0.05 of the printed percentage; JAFAR prints one decimal
    for r in REFERENCES[table].rows:
        assert adcc_of_means(*(r.values[name] for name in PARTS)) == pytest.approx(r.values["adcc"], abs=tolerance), r


@pytest.mark.parametrize(
    ("table", "net", "method", "column", "printed"),
    [
        ("poppi", "VGG-16", "gradcam", "average_drop", 0.6642),
        ("poppi", "VGG-16", "reciprocam", "insertion", 0.4688),
        ("poppi", "ResNet-50", "scorecam", "adcc", 0.7814),
        ("poppi", "ResNeXt-101", "smoothgradcampp", "deletion", 0.1767),
        ("poppi", "ResNet-18", "gradcampp", "complexity", 0.4463),
        ("poppi", "ResNet-101", "gradcam", "average_increase", 0.2935),
        ("reciprocam", "ResNet-50", "reciprocam", "average_increase", 0.7429),
        ("scorecam", "VGG-16", "scorecam", "average_drop-score-cam", 0.315),
        ("scorecam", "VGG-16", "mask", "average_increase-score-cam", 0.0529),
        ("scorecam", "VGG-16", "gradcampp", "insertion-score-cam", 0.346),
        ("scorecam", "VGG-16", "gradcam", "deletion-score-cam", 0.089),
        ("scorecam", "VGG-16", "smoothgrad", "energy_pointing_game", 0.424),
        ("gradcampp-loc", "VGG-16", "gradcampp", "loc_i@0.25", 0.38),
        ("castream", "ConvNeXt-B", "scorecam", "average_drop", 0.4355),
        ("castream", "ResNet-50", "gradcam", "average_gain", 0.1756),
        ("castream", "ResNet-50", "gradcampp", "insertion-ca-stream", 0.7232),
        ("jafar", "ViT", "gradcam", "average_gain", 0.034),
    ],
)
def test_cells_are_those_of_the_sources(table: str, net: str, method: str, column: str, printed: float) -> None:
    assert row(table, net, method).values[column] == pytest.approx(printed, abs=1e-12)


def test_scorecam_is_the_best_of_every_column_of_its_paper() -> None:
    lower = {"average_drop-score-cam", "deletion-score-cam"}
    for column in REFERENCES["scorecam"].columns:
        values = {r.method: r.values[column] for r in REFERENCES["scorecam"].rows if column in r.values}
        assert (min if column in lower else max)(values, key=values.__getitem__) == "scorecam"
    assert "insertion-score-cam" not in row("scorecam", "VGG-16", "rise").values


def test_shares_won_add_up_but_where_the_paper_is_misprinted() -> None:
    rows = REFERENCES["gradcampp"].rows
    assert len(rows) == 13
    for a, b in zip(rows[:12:2], rows[1:12:2], strict=True):
        assert (a.net, a.data, a.method, b.method) == (b.net, b.data, "gradcampp", "gradcam")
        whole = a.values["win"] + b.values["win"]
        if (a.net, a.data) == ("VGG-16", "VOC 2007"):
            assert whole == pytest.approx(1.0091) and "misprinted" in a.note and a.note == b.note
        else:
            assert whole == pytest.approx(1) and not a.note
    assert rows[12].method == "gradcampp-no-relu" and rows[12].values["win"] == pytest.approx(0.2609)


def test_every_value_is_a_fraction_and_every_table_says_where_it_was_read() -> None:
    for id, table in REFERENCES.items():
        assert table.id == id and table.title and table.source and table.caveat and table.rows
        assert all(0 <= value <= 1 for r in table.rows for value in r.values.values())
        assert all(r.data and r.values and set(r.values) <= set(table.columns) for r in table.rows)


def test_rows_of_another_evaluator_say_so() -> None:
    assert "32-pixel blocks" in row("poppi", "ResNet-50", "reciprocam").note
    assert not row("poppi", "ResNet-50", "gradcam").note


@pytest.mark.parametrize(
    ("net", "model", "same"),
    [
        ("ResNet-50", "resnet50", True),
        ("ResNet-50", "models/torchvision_resnet50_v1.onnx", True),
        ("ResNet-50", "ResNet-50-v2.onnx", True),
        ("ResNet-50", "resnet_50", True),
        ("ResNet-50", "wide_resnet50_2.onnx", False),
        ("ResNet-50", "resnet501", False),
        ("ResNet-50", "resnext50_32x4d", False),
        ("ResNet-50", "seresnet50", False),
        ("ResNeXt-50", "resnext50_32x4d", True),
        ("ResNeXt-101", "resnext50_32x4d", False),
        ("VGG-16", "vgg16_bn.onnx", True),
        ("VGG-16", "mobilenetv2.onnx", False),
    ],
)
def test_a_row_is_of_models_that_are_called_like_its_network(net: str, model: str, same: bool) -> None:
    assert ReferenceRow(net, "gradcam", {}, "").is_of(model) is same
