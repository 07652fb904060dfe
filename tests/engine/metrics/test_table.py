"""The table of metrics is whole, consistent with itself, and refuses what is not in it."""

from __future__ import annotations

import inspect
import re

import pytest

from camrt import metrics
from camrt.choices import Choice
from camrt.errors import MethodError
from camrt.metrics import METRICS, register, resolve, validate
from camrt.metrics.plan import plan_of

ROWS = sorted(METRICS.values(), key=lambda row: row.id)
SPECIFIED = {
    "adcc", "arcc", "average_drop", "average_gain", "average_increase", "coherency", "completeness", "complexity",
    "deletion", "energy_pointing_game", "infidelity", "insertion", "iou", "localisation_error", "max_box_acc_v2",
    "max_sensitivity", "pixel_flipping", "pointing_game", "randomisation", "road", "saliency_metric", "sparseness", "win",
}  # fmt: skip


def test_every_metric_of_the_specification_is_there() -> None:
    assert set(METRICS) == SPECIFIED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_says_what_readers_need(row) -> None:
    assert row.title and row.paper and len(row.settings) > 20
    for variant in row.variants:
        fields = row.fields_of(variant)
        assert all(field.better in ("higher", "lower", "neither") and field.low <= field.high for field in fields)
        assert (fields[0].better == "neither") == (row.id == "sparseness")  # more concentrated is not better
        assert len({field.name for field in fields}) == len(fields)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_metric_has_a_function_of_its_name_with_its_variants(row) -> None:
    function = getattr(metrics, row.id)
    said = inspect.getdoc(function)
    assert said is not None
    parameters = inspect.signature(function).parameters
    if "variant" in parameters:
        assert parameters["variant"].default == row.variants[0]
        if other := re.search(r"variant : str\n    As in `(\w+)`", said):
            said += inspect.getdoc(getattr(metrics, other[1])) or ""
        for variant in row.variants:
            assert re.search(rf"(?<![\w-]){re.escape(variant)}(?![\w-])", said), variant


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_what_a_metric_asks_is_named_and_finite_for_any_size(row) -> None:
    for variant in row.variants:
        chosen, options = validate(row, variant)
        for size in ((12, 10), (64, 64), (224, 224)):
            plan = plan_of([Choice(row.id, row, chosen, options)], size)
            assert plan.by_map + plan.by_image + plan.by_batch <= 50_176  # never more than one a pixel
            assert bool(plan.again) == ("again" in row.needs)


def test_names_are_forgiving_and_unknown_ones_are_offered_others() -> None:
    assert resolve("Average Drop").id == resolve("average-drop").id == "average_drop"
    with pytest.raises(MethodError, match="did you mean insertion"):
        resolve("insertoin")
    with pytest.raises(MethodError, match="by its name"):
        resolve(3)  # type: ignore[arg-type]


def test_variants_and_options_are_checked() -> None:
    variant, options = validate(resolve("insertion"), None, {"steps": "28"})
    assert (variant, options["steps"]) == ("official", 28)
    with pytest.raises(MethodError, match="no variant 'nope'"):
        validate(resolve("insertion"), "nope")
    with pytest.raises(MethodError, match="no option 'step'; did you mean steps"):
        validate(resolve("insertion"), None, {"step": 3})
    with pytest.raises(MethodError, match="'steps' of insertion must be"):
        validate(resolve("insertion"), None, {"steps": 0})


def test_a_name_belongs_to_one_metric() -> None:
    with pytest.raises(ValueError, match="already belongs to"):
        register(resolve("insertion"))
