"""Class and log scores against values worked by hand, PyTorch's softmax, exact arithmetic, and the CUDA kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import InputError, ShapeError
from camrt.kernels import class_scores, log_scores, softmax_parts


def test_probabilities_worked_by_hand() -> None:
    """Powers 1, 2, 5 of logits 0, ln 2, ln 5: the probabilities are 1/8, 2/8, 5/8, whatever is added to all logits."""
    logits = np.log([[1.0, 2.0, 5.0]]) + np.array([[0.0], [1000.0], [-1000.0]])
    for chosen, want in ((0, 1 / 8), (1, 2 / 8), (2, 5 / 8)):
        assert_allclose(class_scores(logits, np.full(3, chosen)), np.full(3, want), rtol=1e-12)
        assert_array_equal(class_scores(logits, np.full(3, chosen), "logit"), logits[:, chosen])


def test_one_logit_alone_is_a_sigmoid(cupy: Any) -> None:
    """1 / (1 + exp(-x)) at -ln 3, 0, ln 3, and where exp(-x) or exp(x) is beyond its range."""
    logits, classes = np.array([[-np.log(3)], [0.0], [np.log(3)], [-715.0], [800.0]]), np.zeros(5, np.int64)
    want = [0.25, 0.5, 0.75, np.exp(-715.0), 1]
    assert_allclose(class_scores(logits, classes), want, rtol=1e-9)
    assert_allclose(cupy.asnumpy(class_scores(cupy.asarray(logits), cupy.asarray(classes))), want, rtol=1e-9)
    assert_array_equal(class_scores(logits, classes, "logit"), logits[:, 0])


@pytest.mark.parametrize("n_classes", [1, 2, 10, 1000])
@pytest.mark.parametrize(("dtype", "rtol"), [("f2", 1e-5), ("f4", 1e-5), ("f8", 1e-12)])
def test_probabilities_equal_pytorchs_in_float64(
    n_classes: int, dtype: str, rtol: float, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    logits = (rng.normal(size=(9, n_classes)) * 8).astype(dtype)
    classes = rng.integers(0, n_classes, 9)
    exact = torch.from_numpy(logits.astype("f8"))
    want = torch.sigmoid(exact) if n_classes == 1 else torch.softmax(exact, 1)
    scores = class_scores(logits, classes)
    assert scores.dtype == ("f8" if dtype == "f8" else "f4")
    assert_allclose(scores, want.numpy()[np.arange(9), classes], rtol=rtol)


@pytest.mark.parametrize("kind", ["probability", "logit"])
@pytest.mark.parametrize(("dtype", "rtol"), [("f2", 1e-6), ("f4", 1e-6), ("f8", 1e-12)])
@pytest.mark.parametrize("n_classes", [1, 2, 127, 128, 129, 1000])
def test_the_cuda_kernel_equals_numpy(
    n_classes: int, dtype: str, rtol: float, kind: Any, cupy: Any, rng: np.random.Generator
) -> None:
    logits = (rng.normal(size=(5, n_classes)) * 8).astype(dtype)
    classes = rng.integers(0, n_classes, 5)
    classes[0] = n_classes - 1
    scores = class_scores(cupy.asarray(logits), cupy.asarray(classes), kind)
    assert isinstance(scores, cupy.ndarray)
    want = class_scores(logits, classes, kind)
    assert scores.dtype == want.dtype
    assert_allclose(cupy.asnumpy(scores), want, rtol=rtol)


def special(n_classes: int) -> np.ndarray:
    """Return rows with a NaN, an infinity of either sign, only infinities, and none of these."""
    logits = np.zeros((6, n_classes), np.float32)
    logits[0, -1], logits[1, -1], logits[2, -1] = np.nan, np.inf, -np.inf
    logits[3], logits[4] = -np.inf, np.nan
    return logits


@pytest.mark.parametrize("n_classes", [2, 130])
def test_nan_and_infinity_stay_visible_in_their_row_and_in_no_other(n_classes: int, cupy: Any) -> None:
    """A class of logit -infinity takes no part; anything else that is not finite makes the whole row NaN."""
    logits, classes = special(n_classes), np.zeros(6, np.int64)
    want = np.array([np.nan, np.nan, 1 / (n_classes - 1), np.nan, np.nan, 1 / n_classes], np.float32)
    assert_allclose(class_scores(logits, classes), want, rtol=1e-6)
    assert_allclose(cupy.asnumpy(class_scores(cupy.asarray(logits), cupy.asarray(classes))), want, rtol=1e-6)
    assert_array_equal(cupy.asnumpy(class_scores(cupy.asarray(logits), cupy.asarray(classes), "logit")), logits[:, 0])


def test_a_class_that_does_not_exist_is_refused_on_the_host_and_nan_on_the_device(cupy: Any) -> None:
    logits, classes = np.zeros((3, 4), np.float32), np.array([-1, 4, 3])
    for kind in ("probability", "logit"):
        with pytest.raises(InputError, match="classes must be between 0 and 3, got -1 to 4"):
            class_scores(logits, classes, kind)
        scores = cupy.asnumpy(class_scores(cupy.asarray(logits), cupy.asarray(classes), kind))
        assert_array_equal(np.isnan(scores), [True, True, False])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), st.sampled_from(["f2", "f4", "f8"]), st.integers(0, 2**32 - 1))
def test_a_row_does_not_depend_on_its_neighbours_bit_for_bit(m: int, n_classes: int, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, classes = rng.normal(size=(m, n_classes)).astype(dtype), rng.integers(0, n_classes, m)
    scores = class_scores(logits, classes)
    row = int(rng.integers(0, m))
    assert class_scores(logits[row : row + 1], classes[row : row + 1])[0] == scores[row]
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("n_classes", [1, 2, 1000])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_classes_share_gives_the_same_probabilities_to_the_bit(n_classes: int, dtype: str) -> None:
    logits = (np.random.default_rng(n_classes).normal(size=(37, n_classes)) * 30).astype(dtype)
    parts = softmax_parts(logits)
    for index in {0, n_classes // 2, n_classes - 1}:
        classes = np.full(37, index)
        assert_array_equal(class_scores(logits, classes, parts=parts), class_scores(logits, classes))
    finer = class_scores(logits, classes, parts=softmax_parts(logits.astype("f8")))
    assert finer.dtype == np.float64
    assert_array_equal(finer, class_scores(logits.astype("f8"), classes))


def test_no_rows_and_any_layout(cupy: Any, rng: np.random.Generator) -> None:
    logits, classes = rng.normal(size=(6, 5)), rng.integers(0, 6, 5)
    assert_array_equal(class_scores(logits.T, classes), class_scores(logits.T.copy(), classes))
    turned = class_scores(cupy.asarray(logits).T, cupy.asarray(classes))
    assert_allclose(cupy.asnumpy(turned), class_scores(logits.T, classes), rtol=1e-12)
    none = np.zeros((0, 5)), np.zeros(0, np.int64)
    assert class_scores(*none).shape == class_scores(*map(cupy.asarray, none)).shape == (0,)


def test_what_does_not_fit_is_refused(fake_cupy: Any) -> None:
    logits, classes = np.zeros((3, 4)), np.zeros(3, np.int64)
    with pytest.raises(InputError, match="kind must be 'probability' or 'logit', got 'softmax'"):
        class_scores(logits, classes, "softmax")
    with pytest.raises(ShapeError, match=r"classes must be int64 \(3,\)"):
        class_scores(logits, classes[:2])
    with pytest.raises(ShapeError, match=r"logits must have the shape \(M, C\)"):
        class_scores(logits[None], classes)
    with pytest.raises(ShapeError, match="must lie on one side"):
        class_scores(logits, fake_cupy.asarray(classes))


def test_logarithms_worked_by_hand(cupy: Any) -> None:
    """Powers 1, 2, 5: the logarithms of p and 1 - p, whatever is added to all logits; 5 alone is the prediction."""
    logits = np.log([[1.0, 2.0, 5.0]] * 3) + np.array([[0.0], [700.0], [-700.0]])
    for module in (np, cupy):
        for chosen, p in enumerate((1 / 8, 2 / 8, 5 / 8)):
            found = log_scores(module.asarray(logits), module.asarray(np.full(3, chosen)))
            assert [array.dtype.name for array in found] == ["float64", "float64", "bool"]
            assert_allclose(np.asarray(found[0]), [np.log(p)] * 3, rtol=1e-12)
            assert_allclose(np.asarray(found[1]), [np.log(1 - p)] * 3, rtol=1e-12)
            assert_array_equal(np.asarray(found[2]), [chosen == 2] * 3)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("n_classes", [1, 2, 127, 130, 1000])
def test_logarithms_equal_pytorchs_and_the_cuda_kernel_numpy(
    n_classes: int, dtype: str, cupy: Any, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    logits = (rng.normal(size=(9, n_classes)) * 8).astype(dtype)
    classes = rng.integers(0, n_classes, 9)
    classes[:4] = logits.argmax(1)[:4]
    exact = torch.from_numpy(logits.astype("f8"))
    exact = torch.cat([torch.zeros_like(exact), exact], 1) if n_classes == 1 else exact
    columns = classes + (n_classes == 1)
    log_p = torch.log_softmax(exact, 1).numpy()[np.arange(9), columns]
    others = exact.clone()
    others[np.arange(9), columns] = -np.inf
    log_rest = (torch.logsumexp(others, 1) - torch.logsumexp(exact, 1)).numpy()
    for module in (np, cupy):
        found = [np.asarray(array) for array in log_scores(module.asarray(logits), module.asarray(classes))]
        assert_allclose(found[0], log_p, rtol=1e-11, atol=1e-14)
        assert_allclose(found[1], log_rest, rtol=1e-11, atol=1e-14)
        assert_array_equal(found[2], exact.numpy().argmax(1) == columns)


def test_neither_logarithm_is_lost_where_the_probability_is_nearly_one_or_nothing(cupy: Any) -> None:
    """Against k equal others at distance d, log-odds are d - log k; the smaller logarithm then is -exp(-|odds|)."""
    distances = np.array([40.0, 300.0, 800.0, -40.0, -300.0, -800.0])
    logits = np.zeros((6, 5))
    logits[:, 2] = distances
    odds = distances - np.log(4)
    far = -np.exp(-np.abs(odds))
    for module in (np, cupy):
        found = log_scores(module.asarray(logits), module.asarray(np.full(6, 2)))
        log_p, log_rest, hit = (np.asarray(array) for array in found)
        assert_allclose(log_p, np.where(odds > 0, far, odds), rtol=1e-12)
        assert_allclose(log_rest, np.where(odds > 0, -odds, far), rtol=1e-12)
        assert_array_equal(hit, odds > 0)


def test_the_first_of_equal_maxima_is_the_hit(cupy: Any) -> None:
    logits = np.zeros((4, 300), np.float32)
    logits[:, [7, 140, 299]] = 3
    classes = np.array([7, 140, 299, 0])
    for module in (np, cupy):
        hit = log_scores(module.asarray(logits), module.asarray(classes))[2]
        assert np.asarray(hit).tolist() == [True, False, False, False]
        alone = log_scores(module.asarray(np.array([[0.0], [0.1], [-0.1]])), module.asarray(np.zeros(3, np.int64)))[2]
        assert np.asarray(alone).tolist() == [False, True, False]


@pytest.mark.parametrize("n_classes", [2, 130])
def test_nan_and_infinity_stay_visible_in_the_logarithms_of_their_row(n_classes: int, cupy: Any) -> None:
    logits = np.concatenate([special(n_classes), special(n_classes)[:3, ::-1]])
    logits[8, 1:] = -np.inf, *logits[8, 2:]
    nan, even, inf = np.nan, -np.log(n_classes), np.inf
    want_p = [nan, nan, -np.log(n_classes - 1) if n_classes > 2 else 0, nan, nan, even, nan, nan, -inf]
    rest = np.log((n_classes - 2) / (n_classes - 1)) if n_classes > 2 else -inf
    want_rest = [nan, nan, rest, nan, nan, np.log1p(-1 / n_classes), nan, nan, 0]
    if n_classes == 2:
        want_p[8] = want_rest[8] = nan  # both classes are out
    for module in (np, cupy):
        found = log_scores(module.asarray(logits), module.asarray(np.zeros(9, np.int64)))
        log_p, log_rest, hit = (np.asarray(array) for array in found)
        assert_allclose(log_p, want_p, rtol=1e-12)
        assert_allclose(log_rest, want_rest, rtol=1e-12)
        assert_array_equal(hit, [False, False, True, False, False, True, False, False, False])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["f2", "f4", "f8"]), st.integers(0, 2**32 - 1))
def test_both_probabilities_sum_to_one_and_a_row_does_not_depend_on_its_neighbours(
    m: int, n_classes: int, dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, classes = (rng.normal(size=(m, n_classes)) * 5).astype(dtype), rng.integers(0, n_classes, m)
    log_p, log_rest, hit = log_scores(logits, classes)
    assert_allclose(np.exp(log_p) + np.exp(log_rest), np.ones(m), rtol=1e-14)
    assert_allclose(np.exp(log_p), class_scores(logits.astype("f8"), classes), rtol=1e-12)
    row = int(rng.integers(0, m))
    alone = log_scores(logits[row : row + 1], classes[row : row + 1])
    assert [array[0] for array in alone] == [log_p[row], log_rest[row], hit[row]]


def test_log_scores_of_no_rows_any_layout_and_what_does_not_fit(cupy: Any, rng: np.random.Generator) -> None:
    logits, classes = rng.normal(size=(6, 5)), rng.integers(0, 6, 5)
    want = log_scores(np.ascontiguousarray(logits.T), classes)
    for module in (np, cupy):
        turned = log_scores(module.asarray(logits).T, module.asarray(classes))
        for found, wanted in zip(turned, want, strict=True):
            assert isinstance(found, module.ndarray)
            assert_allclose(np.asarray(found), wanted, rtol=1e-12)
        none = log_scores(module.asarray(np.zeros((0, 5))), module.asarray(np.zeros(0, np.int64)))
        assert [array.shape for array in none] == [(0,)] * 3
    outside = log_scores(cupy.asarray(logits), cupy.asarray(np.array([-1, 5, 0, 0, 0, 0])))
    assert np.isnan(cupy.asnumpy(outside[0])).tolist() == [True, True] + [False] * 4
    assert not cupy.asnumpy(outside[2])[:2].any()
    with pytest.raises(InputError, match="classes must be between 0 and 4, got -1 to 5"):
        log_scores(logits, np.array([-1, 5, 0, 0, 0, 0]))
    with pytest.raises(ShapeError, match=r"classes must be int64 \(6,\)"):
        log_scores(logits, classes[:2])
    with pytest.raises(ShapeError, match="must lie on one side"):
        log_scores(logits, cupy.asarray(np.zeros(6, np.int64)))
    with pytest.raises(ShapeError, match=r"logits \(M, C\) has an empty axis"):
        log_scores(np.zeros((3, 0)), np.zeros(3, np.int64))
