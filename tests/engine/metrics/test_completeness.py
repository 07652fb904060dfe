"""Completeness: the residual by hand, and of methods that promise to add up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import MethodError, NumericError, ShapeError
from camrt.metrics import METRICS
from camrt.metrics.accounting import COMPLETE
from camrt.metrics.case import Case
from camrt.metrics.completeness import completeness, completeness_values
from tests import tiny


def case(output: Any, total: Any) -> Case:
    """Lay out images whose logit and sum are these."""
    accounts = {"output": np.array(output, np.float64), "sum": np.array(total, np.float64)}
    ids = np.zeros(len(output), np.uint64)
    maps = np.zeros((len(output), 2, 2))
    return Case(maps, ids > 0, ids.astype(np.int64), ids, maps[:, None], accounted=accounts)


def test_by_hand() -> None:
    """4 of 5, 5 of 4, nothing of nothing, the same, the opposite."""
    made = case([5, 4, 0, -3, 2, 0], [4, 5, 0, -3, -2, 1])
    found = completeness_values(made, variant="relative")["completeness"]
    np.testing.assert_allclose(found, [0.2, 0.2, 0, 0, 2, 1], atol=1e-15)
    exact = completeness_values(made, variant="quantus")["completeness"]
    np.testing.assert_array_equal(exact, [0, 0, 1, 1, 0, 0])


def test_exact_equality_is_better_where_it_is_higher() -> None:
    row = METRICS["completeness"]
    assert [row.fields_of(variant)[0].better for variant in row.variants] == ["lower", "higher"]


@pytest.mark.parametrize("method", COMPLETE)
def test_the_four_methods_keep_their_promise(method: str) -> None:
    """1e-4 of the logit, as the authors of FullGrad ask, where the logit is of ordinary size."""
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(4)
    residual = completeness(explainer, x, method=method)  # the predictions, whose logits are the largest
    assert (residual < 1e-4).all()
    classes = explainer.logits(x).argmax(1)
    np.testing.assert_array_equal(residual, completeness(explainer, x, classes, method=method))


def test_the_layer_is_the_one_named() -> None:
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(2)
    early, late, default = (completeness(explainer, x, method="xgradcam", layer=layer) for layer in ("a1", "a2", None))
    np.testing.assert_array_equal(late, default)
    assert (early != late).any()  # the roundings are others


def test_a_network_that_bends_leaves_a_rest() -> None:
    from tests.export import onnx_text

    curved = onnx_text.tiny(f"{onnx_text.CONV} k = Tanh(a) {onnx_text.HEAD.replace('(a)', '(k)')}")
    explainer = camrt.load(curved, preprocess="half")
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype("f4")
    assert completeness(explainer, x, method="fullgrad").max() > 1e-2
    assert completeness(explainer, x, method="hirescam", layer="k").max() < 1e-4


def test_maps_alone_are_refused() -> None:
    empty = Case(np.zeros((1, 2, 2)), *([np.zeros(1, bool)] * 2), np.zeros(1, np.uint64), np.zeros((1, 1, 2, 2)))  # type: ignore[arg-type]
    with pytest.raises(MethodError, match="needs what a method accounts for"):
        completeness_values(empty, variant="relative")


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(NumericError, match="must be finite"):
        completeness_values(case([np.nan], [1]), variant="relative")
    with pytest.raises(ShapeError, match="one number an image"):
        completeness_values(case([1, 2], [1]), variant="relative")
    with pytest.raises(MethodError, match="no variant"):
        completeness(camrt.load(tiny.gap(), preprocess="half"), tiny.images(1), variant="absolute")
