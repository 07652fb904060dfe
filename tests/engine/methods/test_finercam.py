"""Finer-CAM: the closed-form cotangent against finite differences, and what it gives the base."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError, TargetError
from camrt.methods.derived import BASES
from camrt.methods.finercam import finer_seed
from tests.engine.methods.heads import CLASSES, evidence, make_acts, make_head, one_hot, raw


def official(logits, c, references, alpha):
    """Evaluate the contrastive target as published, without the eps."""
    p = np.exp(logits - logits.max())
    p = p / p.sum()
    return (p[references] * (logits[c] - alpha * logits[references])).sum() / p[references].sum()


def nearest(logits, c, ranks):
    others = sorted((d for d in range(len(logits)) if d != c), key=lambda d: (abs(logits[d] - logits[c]), d))
    return [others[rank - 1] for rank in ranks]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("ranks", [(1, 2, 3), (2,), (1, 6)])
def test_the_official_seed_agrees_with_finite_differences(rng, alpha, ranks):
    logits, target = rng.normal(size=(5, CLASSES)) * 2, np.array([0, 1, 2, 3, 6])
    seed = finer_seed(logits, target, alpha=alpha, ranks=ranks)
    for n in range(5):
        references = nearest(logits[n], target[n], ranks)
        for d in range(CLASSES):
            step = np.zeros(CLASSES)
            step[d] = 1e-5
            up, down = (official(logits[n] + s * step, target[n], references, alpha) for s in (1, -1))
            assert seed[n, d] == pytest.approx((up - down) / 2e-5, abs=1e-8)


def test_torchcam_takes_the_plain_mean_of_its_references(rng):
    logits, target = rng.normal(size=(3, CLASSES)), np.array([5, 0, 2])
    seed = finer_seed(logits, target, variant="torchcam", alpha=0.6)
    for n in range(3):
        expected = np.zeros(CLASSES)
        expected[target[n]] = 1
        expected[nearest(logits[n], target[n], (1, 2, 3))] = -0.2
        np.testing.assert_allclose(seed[n], expected, atol=1e-12)


def test_ties_go_by_class_index_and_never_to_the_target():
    logits = np.array([[1.0, 1.0, 1.0, 1.0, 1.0]])
    seed = finer_seed(logits, np.array([2]), variant="torchcam", alpha=1.0, ranks=(1, 2))
    np.testing.assert_allclose(seed, [[-0.5, -0.5, 1, 0, 0]])


def test_with_few_classes_all_the_others_are_references():
    seed = finer_seed(np.array([[3.0, 1.0, 2.0]]), np.array([0]), variant="torchcam", alpha=1.0)
    np.testing.assert_allclose(seed, [[1, -0.5, -0.5]])
    with pytest.raises(MethodError, match="with 1 classes none has rank"):
        finer_seed(np.ones((1, 1)), np.array([0]))


def test_a_target_that_is_no_class_is_refused():
    with pytest.raises(TargetError, match="needs a class index"):
        finer_seed(np.ones((1, 4)), np.array([-1]))


@pytest.mark.parametrize("base", BASES)
def test_without_contrast_it_is_the_base(rng, base):
    given = evidence(make_head("two-layer", rng), make_acts(rng))
    np.testing.assert_allclose(raw("finercam", given, base=base, alpha=0), raw(base, given), atol=1e-12)


@pytest.mark.parametrize("base", BASES)
def test_the_base_gets_the_gradient_of_the_contrast(rng, base):
    head, acts = make_head("two-layer", rng), make_acts(rng)
    given = evidence(head, acts)
    contrast = {**given, "grads": head.grads(acts, finer_seed(given["logits"], given["target"]))}
    np.testing.assert_allclose(raw("finercam", given, base=base), raw(base, contrast), atol=1e-12)
    assert abs(raw("finercam", given, base=base) - raw(base, given)).max() > 1e-3


def test_adding_a_constant_to_the_logits_changes_nothing(rng):
    logits, target = rng.normal(size=(4, CLASSES)), np.arange(4)
    np.testing.assert_allclose(finer_seed(logits, target), finer_seed(logits + 300, target), atol=1e-10)


def test_large_logits_do_not_overflow():
    logits = np.array([[1e4, 9e3, -1e4, 0.0]], np.float32)
    assert np.isfinite(finer_seed(logits, np.array([0]))).all()


def test_the_seed_of_the_base_is_one_hot(rng):
    logits, target = rng.normal(size=(4, CLASSES)), np.arange(4)
    np.testing.assert_array_equal(finer_seed(logits, target, alpha=0), one_hot(target))
