"""Comparing methods, and ways of running a model: one grid a picture, one report, figures that say what was seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import camrt
from camrt.agreement import agreement
from camrt.comparison import FIGURES, compare_methods, compare_ways, grid_of
from camrt.errors import MethodError
from camrt.image import prepare
from tests import tiny


@pytest.fixture
def explainer() -> camrt.Explainer:
    """Open a tiny model with labels."""
    return camrt.load(tiny.gap(), preprocess="half", labels=["ant", "bee", "cow", "doe", "elk"])


def test_pictures_of_one_name_get_files_of_their_own(explainer: camrt.Explainer, tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "photo.png")
        Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(paths[-1])
    steps: list[int] = []
    made = compare_methods(
        explainer, [str(p) for p in paths], ["gradcam", "lafam"], tmp_path / "out", advance=steps.append
    )
    assert [p.name for p in made.paths] == ["photo_grid.png", "photo_2_grid.png", "report.html"]
    assert sum(steps) == 4
    assert {(row["image"], row["method"]) for row in made.figures["results"]} == {
        (name, method) for name in ("photo", "photo_2") for method in ("gradcam", "lafam")
    }


def test_the_grid_has_a_row_a_target_and_a_column_a_method(explainer: camrt.Explainer) -> None:
    x = np.zeros((12, 10, 3), np.uint8)
    one, two = (
        grid_of([explainer.explain(x, method=m, target=targets) for m in ("gradcam", "eigencam")])
        for targets in ([0], [0, 1])
    )
    three = grid_of([explainer.explain(x, method=m, target=[0]) for m in ("gradcam", "eigencam", "lafam")])
    assert two.height - one.height == 224 + 10  # a cell and its gap
    assert three.width - one.width == 224 + 10


def test_a_misspelt_method_stops_before_anything_is_written(explainer: camrt.Explainer, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="layercam"):
        compare_methods(explainer, [np.zeros((8, 8, 3), np.uint8)], ["gradcam", "layercan"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def pictures(n: int) -> list[np.ndarray]:
    """Draw noise."""
    return list(np.random.default_rng(4).integers(0, 256, (n, *tiny.SIZE, 3), np.uint8))


def test_a_budget_is_for_methods_of_masked_forwards(explainer: camrt.Explainer, tmp_path: Path) -> None:
    """The others run as ever; what is cut short is the map that `explain` gives under the same budget, and says so."""
    (picture,), budget = pictures(1), camrt.Budget(forwards=2)
    made = compare_methods(explainer, [picture], ["gradcam", "scorecam"], tmp_path / "out", target=1, budget=budget)
    for row, spent in zip(made.figures["results"], (None, budget), strict=True):
        alone = explainer.explain(picture, method=row["method"], target=1, budget=spent)
        assert row["complete"] == (spent is None)
        assert row["mean"] == float(alone.heatmaps[0, 0].mean())
    assert "2 masked forwards, not all" in (tmp_path / "out" / "report.html").read_text("utf-8")
    ways = [("a", explainer), ("b", explainer)]
    twice = compare_ways(ways, [picture], ["scorecam"], tmp_path / "ways", target=1, budget=budget, steps=0)
    assert twice.figures["results"][0]["cosine"] == pytest.approx(1)
    with pytest.raises(MethodError, match="none to leave out"):
        compare_methods(explainer, [picture], ["gradcam", "lafam"], tmp_path / "none", budget=budget)
    assert not (tmp_path / "none").exists()


def test_a_model_agrees_with_itself_entirely(explainer: camrt.Explainer, tmp_path: Path) -> None:
    made = compare_ways(
        [("a", explainer), ("b", explainer)], pictures(2), ["gradcam", "eigencam"], tmp_path, target=[1, 3], steps=5
    )
    assert [p.name for p in made.paths] == ["image_000_agreement.png", "image_000_2_agreement.png", "report.html"]
    assert [(row["method"], row["maps"], row["same_class"]) for row in made.figures["summary"]] == [
        ("gradcam", 4, 4), ("eigencam", 4, 4),
    ]  # fmt: skip
    for row in made.figures["summary"]:
        for kind in ("mean", "worst"):
            np.testing.assert_allclose([row[kind][name] for name in FIGURES], [1, 1, 1, 1, 0, 0, 0], atol=1e-9)


def test_two_models_differ_as_their_maps_do(explainer: camrt.Explainer, tmp_path: Path) -> None:
    """The second explains the class that the first predicts, and the figures are those of the two heatmaps."""
    other = camrt.load(tiny.gap(seed=1), preprocess="half")
    (picture,) = pictures(1)
    made = compare_ways([("a", explainer), ("b", other)], [picture], ["gradcam"], tmp_path, steps=0)
    (row,) = made.figures["results"]
    one = explainer.explain(picture)
    two = other.explain(picture, target=int(one.targets[0, 0]))
    assert row["target"] == one.targets[0, 0]
    assert row["probabilities"] == [one.probabilities[0, 0], two.probabilities[0, 0]]
    assert row["same_class"] == (one.logits.argmax() == two.logits.argmax())
    assert {name: row[name] for name in FIGURES[:5]} == agreement(one.heatmaps[0, 0], two.heatmaps[0, 0]).to_dict()
    assert row["cosine"] < 0.99
    assert "insertion" not in row


def test_both_maps_are_judged_by_the_first_model(explainer: camrt.Explainer, tmp_path: Path) -> None:
    """One step only: the curves hold the clean input and what replaces all of it, whatever the map."""
    (picture,) = pictures(1)
    other = camrt.load(tiny.gap(seed=1), preprocess="half")
    made = compare_ways([("a", explainer), ("b", other)], [picture], ["gradcam"], tmp_path, target=2, steps=1)
    (row,) = made.figures["results"]
    x = prepare(picture, explainer.preprocess).x
    ends = [explainer.explain(batch, target=2).probabilities[0, 0] for batch in (x, np.zeros_like(x))]
    np.testing.assert_allclose(row["deletion_areas"], [np.mean(ends)] * 2, rtol=1e-6)
    assert row["deletion"] == row["insertion"] == 0


def test_worst_is_the_far_end_of_every_figure(explainer: camrt.Explainer, tmp_path: Path) -> None:
    other = camrt.load(tiny.gap(seed=1), preprocess="half")
    made = compare_ways([("a", explainer), ("b", other)], pictures(3), ["gradcam"], tmp_path, steps=4)
    rows, (summary,) = made.figures["results"], made.figures["summary"]
    assert summary["worst"]["rank"] == min(row["rank"] for row in rows)
    assert summary["worst"]["largest"] == max(row["largest"] for row in rows)
    assert abs(summary["worst"]["insertion"]) == max(abs(row["insertion"]) for row in rows)
    np.testing.assert_allclose(summary["mean"]["top20"], np.mean([row["top20"] for row in rows]))


def test_the_agreement_sheet_has_a_row_a_method_and_target(explainer: camrt.Explainer, tmp_path: Path) -> None:
    ways = [("a", explainer), ("b", explainer)]
    heights = []
    for targets in ([0], [0, 1]):
        made = compare_ways(
            ways, pictures(1), ["gradcam", "lafam"], tmp_path / str(len(targets)), target=targets, steps=0
        )
        with Image.open(made.paths[0]) as sheet:
            heights.append(sheet.height)
    assert heights[1] - heights[0] == 2 * (224 + 26 + 10)  # two cells with captions and gaps


def test_anything_but_two_ways_is_refused(explainer: camrt.Explainer, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="two ways"):
        compare_ways([("a", explainer)], pictures(1), ["gradcam"], tmp_path / "out")
    with pytest.raises(MethodError, match="steps"):
        compare_ways([("a", explainer)] * 2, pictures(1), ["gradcam"], tmp_path / "out", steps=-1)
    assert not (tmp_path / "out").exists()
