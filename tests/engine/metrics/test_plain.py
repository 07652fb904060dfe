"""Maps from anywhere are judged, and what does not fit is said."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import InputError, NumericError, ShapeError, TargetError
from camrt.metrics import Ground, average_drop, complexity, deletion, judge
from camrt.metrics.plain import checked_heatmaps
from tests.engine.metrics import toy

SETS = ["average_drop", "average_increase", "average_gain", "insertion,steps=5", "deletion,steps=5", "complexity"]


def test_metrics_together_are_metrics_alone() -> None:
    x, heat = toy.pictures(), toy.maps()
    together = judge(SETS, toy.model(), x, heat)
    for one in SETS:
        for name, values in judge([one], toy.model(), x, heat).items():
            np.testing.assert_allclose(values, together[name], atol=1e-12)
    np.testing.assert_allclose(together["deletion-steps5"], deletion(toy.model(), x, heat, steps=5), atol=1e-12)


def test_forwards_are_shared() -> None:
    rows = []

    def run(x):
        rows.append(len(x))
        return toy.logits(x)

    judge(SETS, run, toy.pictures(), toy.maps())
    assert sum(rows) == 3 + 3 * (1 + 4 + 4) + 3 + 1  # clean; masked, insertion, deletion; blurred; grey


def test_what_is_explained_again_is_scored_only_where_a_metric_wants_the_score() -> None:
    rows = []

    def run(x):
        rows.append(len(x))
        return toy.logits(x)

    def explain(x, classes):
        return np.clip(x[:, 0], 0, 1)

    judge(["max_sensitivity", "coherency"], run, toy.pictures(), toy.maps(), explain=explain)
    assert sum(rows) == 3  # clean
    judge(["max_sensitivity", "adcc"], run, toy.pictures(), toy.maps(), explain=explain)
    assert sum(rows) == 3 + 3 + 3  # clean; masked


def test_the_predicted_class_is_the_default() -> None:
    x, heat = toy.pictures(), toy.maps()
    predicted = toy.logits(x).argmax(1)
    np.testing.assert_array_equal(average_drop(toy.model(), x, heat), average_drop(toy.model(), x, heat, predicted))
    other = (predicted + 1) % 4
    assert (average_drop(toy.model(), x, heat) != average_drop(toy.model(), x, heat, other)).any()


def test_a_batch_is_its_images_one_by_one() -> None:
    x, heat = toy.pictures(5), toy.maps(5)
    whole = judge([*SETS, "road", "infidelity"], toy.model(), x, heat)
    for i in range(5):
        alone = judge([*SETS, "road", "infidelity"], toy.model(), x[i : i + 1], heat[i : i + 1])
        for name, values in alone.items():
            np.testing.assert_allclose(values[0], whole[name][i], atol=1e-9)


def test_maps_need_no_model_where_the_metric_does_not() -> None:
    heat = toy.maps()
    ground = Ground(boxes=[np.array([[0.0, 0, 3, 3]])] * 3)
    found = judge(["complexity", "energy_pointing_game"], None, None, heat, ground=ground)
    np.testing.assert_allclose(found["complexity"], heat.mean((1, 2)))
    inside = heat[:, :3, :3].sum((1, 2)) / heat.sum((1, 2))
    np.testing.assert_allclose(found["energy_pointing_game"], inside)


@pytest.mark.parametrize(
    ("maps", "error", "said"),
    [
        (np.full((2, 3, 3), np.nan), NumericError, "finite"),
        (np.full((2, 3, 3), np.inf), NumericError, "finite"),
        (np.full((2, 3, 3), 1.5), NumericError, r"\[0, 1\]"),
        (np.full((2, 3, 3), -0.5), NumericError, r"\[0, 1\]"),
        (np.zeros((2, 1, 3, 3)), ShapeError, "got float64"),
        (np.zeros((0, 3, 3)), ShapeError, "got float64"),
        (np.zeros((2, 3, 3), complex), ShapeError, "complex"),
        (np.array([["a"]]), ShapeError, "numbers"),
    ],
)
def test_maps_that_are_none_are_refused(maps, error, said: str) -> None:
    with pytest.raises(error, match=said):
        complexity(maps)


def test_one_map_is_a_batch_of_one() -> None:
    assert checked_heatmaps([[0, 1], [1, 0]]).shape == (1, 2, 2)


def test_maps_must_fit_the_inputs() -> None:
    x, heat = toy.pictures(), toy.maps()
    with pytest.raises(ShapeError, match="as large as the model's input, \\(6, 5\\); got \\(5, 6\\)"):
        average_drop(toy.model(), x, heat.transpose(0, 2, 1))
    with pytest.raises(ShapeError, match="one heatmap an input was wanted; got 2 for 3"):
        average_drop(toy.model(), x, heat[:2])
    with pytest.raises(ShapeError, match="prepared for the model"):
        average_drop(toy.model(), x[0], heat)
    with pytest.raises(InputError, match="average_drop asks the model"):
        judge(["average_drop"], None, None, heat)
    with pytest.raises(InputError, match=r"must be a camrt\.Explainer or a function"):
        average_drop(3, x, heat)
    with pytest.raises(InputError, match="coherency explains changed pictures; give explain"):
        judge(["coherency"], toy.model(), x, heat)
    with pytest.raises(InputError, match="mask_space must be one of"):
        judge(["average_drop"], toy.model(), x, heat, mask_space="grey")


@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 4], [0, 1, -1], [0.0, 1.0, 2.0], 1])
def test_classes_must_be_the_models(classes) -> None:
    with pytest.raises(TargetError, match="classes must"):
        average_drop(toy.model(), toy.pictures(), toy.maps(), classes)


def test_a_model_of_another_shape_is_said() -> None:
    with pytest.raises(ShapeError, match="must give logits"):
        average_drop(lambda x: np.zeros(len(x)), toy.pictures(), toy.maps())
